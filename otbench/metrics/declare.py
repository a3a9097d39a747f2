"""How a metric is declared: `@metric` turns a pure function of named arrays into a `Metric`, which
is called as the function is and knows what its number means.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, Literal, ParamSpec

from otbench.docstrings import summary
from otbench.metrics.arrays import check_names


Direction = Literal["lower", "higher", "one"] | None
P = ParamSpec("P")

READINGS: dict[Direction, str] = {
    "lower": "lower is better",
    "higher": "higher is better",
    "one": "closest to 1 is best",
    None: "neither high nor low is better",
}


@dataclass(frozen=True)
class Metric(Generic[P]):
    """A number that a run is scored by.

    Attributes:
        function: pure; its parameters name the arrays it needs.
        unit: ``%``, ``1`` (a pure number), ``cost`` (units of the task's cost), ``dB``,
            ``distance`` or ``distance^2``.
        better: the direction, ``lower``, ``higher`` or ``one`` (closest to 1); None where there is
            no better, as of a noise level.
        worst: the score a failed run gets where no trivial row was measured.
        curve: scored at checkpoints too.
        signed: an estimate that is as soon below zero as above it where all is right.

    Raises:
        ValueError: a parameter of the function is not a registered array, or there is none; an
            unknown direction.
    """

    function: Callable[P, float]
    unit: str
    better: Direction
    worst: float = math.inf
    curve: bool = False
    signed: bool = False

    def __post_init__(self) -> None:
        """Refuse a metric that could never apply, always would, or could not be read."""
        check_names(self.needs, f"metric {self.name}")
        if not self.needs:
            raise ValueError(f"metric {self.name} takes no array")
        if self.better not in READINGS:
            raise ValueError(f"metric {self.name}: better is lower, higher, one or None")

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> float:
        """The number."""
        return self.function(*args, **kwargs)

    @property
    def name(self) -> str:
        """That of the function; the column of a row is ``metric_<name>``."""
        return self.function.__name__

    @cached_property
    def needs(self) -> tuple[str, ...]:
        """Names of the arrays it is a function of."""
        return tuple(inspect.signature(self.function).parameters)

    @property
    def summary(self) -> str:
        """First paragraph of the function's docstring."""
        return summary(self.function.__doc__)

    @property
    def reading(self) -> str:
        """How to read the number, in words."""
        return READINGS[self.better]

    def loss(self, value: float) -> float:
        """The value turned so that lower is better."""
        return (
            -value if self.better == "higher" else abs(value - 1) if self.better == "one" else value
        )


def metric(
    unit: str,
    better: Direction,
    worst: float = math.inf,
    curve: bool = False,
    signed: bool = False,
) -> Callable[[Callable[P, float]], Metric[P]]:
    """Make a metric of a function; see `Metric`."""
    return lambda function: Metric(function, unit, better, worst, curve, signed)


def ratio(numerator: float, denominator: float) -> float:
    """The quotient; not a number where the denominator vanishes."""
    return numerator / denominator if denominator != 0 else math.nan
