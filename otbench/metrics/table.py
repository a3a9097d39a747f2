"""The table of metrics: what each number means, and which of them apply to a run."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from otbench.docstrings import summary


Direction = Literal["lower", "higher", "one"] | None


@dataclass(frozen=True)
class Metric:
    """One row of the table.

    Attributes:
        name: the column is ``metric_<name>``.
        function: pure; its parameters name the arrays it needs.
        unit: ``%``, ``1`` (a pure number), ``cost`` (units of the task's cost), ``dB``,
            ``distance`` or ``distance^2``.
        better: the direction, ``lower``, ``higher`` or ``one`` (closest to 1); None where there is
            no better, as of a noise level.
        worst: the score a failed run gets where no trivial row was measured.
        curve: scored at checkpoints too.
        needs: names of the arrays it is a function of.
    """

    name: str
    function: Callable[..., float]
    unit: str
    better: Direction
    worst: float
    curve: bool
    needs: tuple[str, ...]

    @property
    def summary(self) -> str:
        """First paragraph of the function's docstring."""
        return summary(self.function.__doc__)

    def loss(self, value: float) -> float:
        """The value turned so that lower is better."""
        return (
            -value if self.better == "higher" else abs(value - 1) if self.better == "one" else value
        )

    @property
    def reading(self) -> str:
        """How to read the number, in words."""
        words = {
            "lower": "lower is better",
            "higher": "higher is better",
            "one": "closest to 1 is best",
        }
        return words[self.better] if self.better else "neither high nor low is better"


METRICS: dict[str, Metric] = {}


def metric(unit: str, better: Direction, worst: float = math.inf, curve: bool = False):
    """Enter a function in the table under its own name."""

    def enter(function: Callable[..., float]) -> Callable[..., float]:
        needs = tuple(inspect.signature(function).parameters)
        METRICS[function.__name__] = Metric(
            function.__name__, function, unit, better, worst, curve, needs
        )
        return function

    return enter


def score(arrays: Mapping[str, Any], curve_only: bool = False) -> dict[str, float]:
    """Every metric that applies to ``arrays``, by name. A value that is not finite is left out: the
    metric is undefined there.
    """
    scores = {}
    for entry in METRICS.values():
        if (entry.curve or not curve_only) and all(name in arrays for name in entry.needs):
            value = float(entry.function(**{name: arrays[name] for name in entry.needs}))
            if math.isfinite(value):
                scores[entry.name] = value
    return scores


def ratio(numerator: float, denominator: float) -> float:
    """The quotient; not a number where the denominator vanishes."""
    return numerator / denominator if denominator != 0 else math.nan
