"""The table of all metrics, in the order that users see, and which of them apply to a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from otbench.metrics import defects, flows, images, maps, one_to_many, plans
from otbench.metrics.arrays import check_names
from otbench.metrics.declare import Metric


METRICS: Mapping[str, Metric[...]] = {
    entry.name: entry
    for module in (maps, one_to_many, defects, flows, plans, images)
    for entry in vars(module).values()
    if isinstance(entry, Metric) and entry.function.__module__ == module.__name__
}


def score(arrays: Mapping[str, Any], curve_only: bool = False) -> dict[str, float]:
    """Every metric that applies to ``arrays``, by name. A value that is not finite is left out: the
    metric is undefined there.

    Raises:
        ValueError: an array that is not registered in `otbench.metrics.arrays`.
    """
    check_names(arrays, "scoring")
    scores = {}
    for entry in METRICS.values():
        if (entry.curve or not curve_only) and all(name in arrays for name in entry.needs):
            value = float(entry(**{name: arrays[name] for name in entry.needs}))
            if math.isfinite(value):
                scores[entry.name] = value
    return scores
