"""Metrics of flows: the energy of their paths, and W2 of samples as their papers give it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otbench.metrics.declare import metric, ratio
from otbench.metrics.distances import exact_w2_squared, plugin_w2_squared


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor


@metric(unit="1", better="lower")
def npe(path: Tensor) -> float:
    """Flows: normalised path energy |PE - W2^2| / W2^2, W2 between 2,000 starts and their own ends
    (Tong et al. 2024).

    PE is the mean over points of the integral of the squared velocity, from steps at equal times; a
    straight optimal flow scores 0.
    """
    start, end = (path[k].flatten(1).double().cpu() for k in (0, -1))
    optimal = exact_w2_squared(start, end)
    energy = (len(path) - 1) * float(
        path.double().diff(dim=0).flatten(2).square().sum((0, 2)).mean()
    )
    return ratio(abs(energy - optimal), optimal)


@metric(unit="distance", better="lower")
def w2(flow_mapped: Tensor, flow_target: Tensor) -> float:
    """Flows: W2 between 4,096 mapped points and 4,096 target points, no floor taken off: see
    `w2_floor`, and `target_gap` for maps.
    """
    return plugin_w2_squared(flow_mapped, flow_target) ** 0.5


@metric(unit="distance", better=None)
def w2_floor(flow_fresh: Tensor, flow_target: Tensor) -> float:
    """The floor of `w2`: the same between two independent target samples."""
    return plugin_w2_squared(flow_fresh, flow_target) ** 0.5
