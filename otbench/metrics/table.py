"""The table of all metrics, in the order that users see, and which of them apply to a run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

from otbench.errors import DivergedError
from otbench.metrics import defects, flows, images, maps, one_to_many, plans
from otbench.metrics.arrays import check_names
from otbench.metrics.declare import Metric


def table(modules: Iterable[ModuleType]) -> dict[str, Metric[...]]:
    """The metrics that the modules define, by name.

    Raises:
        ValueError: two have one name.
    """
    found: dict[str, Metric[...]] = {}
    for module in modules:
        for entry in vars(module).values():
            if isinstance(entry, Metric) and entry.function.__module__ == module.__name__:
                if entry.name in found:
                    raise ValueError(f"two metrics are named {entry.name}")
                found[entry.name] = entry
    return found


METRICS: Mapping[str, Metric[...]] = table((maps, one_to_many, defects, flows, plans, images))


CURVES = tuple(entry for entry in METRICS.values() if entry.curve)
DEFECTS = tuple(entry for name, entry in METRICS.items() if name.endswith("_defect"))


def score(
    arrays: Mapping[str, Any], among: Iterable[Metric[...]] = METRICS.values()
) -> dict[str, float]:
    """Every metric that applies to ``arrays``, by name. One that is not a number is left out: it is
    undefined there.

    Args:
        arrays: by their names in `otbench.metrics.arrays`.
        among: metrics.

    Raises:
        DivergedError: a metric is infinitely bad.
        ValueError: an array that is not registered.
    """
    check_names(arrays, "scoring")
    scores = {}
    for entry in among:
        if all(name in arrays for name in entry.needs):
            value = float(entry(**{name: arrays[name] for name in entry.needs}))
            if math.isinf(value) and entry.better and entry.loss(value) > 0:
                raise DivergedError(f"{entry.name} is infinite")
            if math.isfinite(value):
                scores[entry.name] = value
    return scores
