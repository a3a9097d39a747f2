"""What a verdict is passed on: defects of the push-forward and of the cost, and residuals of the
saddle of a map and a potential.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from otbench.metrics.declare import metric, ratio
from otbench.metrics.maps import target_gap


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

LEVEL = 0.99  # of what sampling alone may show
TAILS = (0.005, 0.995)
MOST = 0.5


@metric(unit="1", better="lower")
def map_defect(mapped: Tensor, optimal: Tensor, target_scale: float) -> float:
    """Verdict: the error E||T(x) - T*(x)||^2 of the map, of draws where the solver has a plan, as a
    share of the target's variance, or of the gap of the task's known spurious map where that is
    less.

    Defined where the optimal map is known and unique. Nothing of it is sampling: both maps are
    compared at the same points.
    """
    error = (mapped.double() - optimal.double()).flatten(1).square().sum(1).mean()
    return ratio(float(error), target_scale)


@metric(unit="1", better="lower")
def target_defect(
    target_discrepancies: Tensor, mapped_floors: Tensor, target_floors: Tensor, target_scale: float
) -> float:
    """Verdict: the size of the target gap as a share of the target's variance, or of the gap of the
    task's known spurious map where that is less.

    A gap as far below zero is a defect, too: nothing that is drawn from the target has it.
    """
    gap = target_gap(target_discrepancies, mapped_floors, target_floors)
    return ratio(abs(gap), target_scale)


@metric(unit="1", better=None)
def target_visible(target_floors: Tensor, target_scale: float) -> float:
    """Verdict: the target defect that sampling alone may show in one run of a hundred, from the
    scatter of the distances between fresh target samples.
    """
    # The gap is D - (F + mean of floors) / 2, D and F being two such distances.
    spread = target_floors.std(0) * (5 / 4 + 1 / (4 * len(target_floors))) ** 0.5
    return ratio(_quantile(len(target_floors)) * float(spread.max()), target_scale)


@metric(unit="1", better="lower")
def direction_defect(largest_slice: float) -> float:
    """Verdict: W2^2 of the push-forward to the target along the direction where it is largest, as a
    share of the target's variance there, or of its mean variance in a direction where that is more.

    In high dimension it sees what slices in random directions cannot: a lost coordinate, a lost
    mode, a Gaussian in place of a mixture (measured: docs/power.md). Not of images, which have
    their scattering features.
    """
    return largest_slice


@metric(unit="1", better=None)
def direction_visible(largest_slice_floors: Tensor) -> float:
    """Verdict: the direction defect that sampling alone may show, Student's 99 % quantile of a
    further value beside those of fresh samples; as they are skewed, up to 7 % are above it.
    """
    n = len(largest_slice_floors)
    spread = float(largest_slice_floors.std()) * (1 + 1 / n) ** 0.5
    return float(largest_slice_floors.mean()) + _quantile(n) * spread


@metric(unit="1", better="lower")
def cost_defect(cost_mapped: Tensor, cost_optimal: Tensor, cost_scale: float) -> float:
    """Verdict: |E c(x, T(x)) - OT| / OT."""
    excess = abs(float((cost_mapped.double() - cost_optimal.double()).mean()))
    return excess / _unit(cost_optimal, cost_scale)


@metric(unit="1", better=None)
def cost_visible(
    cost_mapped: Tensor, cost_optimal: Tensor, cost_error: float, cost_scale: float
) -> float:
    """Verdict: the cost defect that sampling alone may show, three standard errors of the costs and
    of OT.

    The costs are a solver's own: the half percent of them at either end are left out, which a few
    points sent far away would be, and at most a half of OT is believed. Where c(x, T*(x)) is known
    point by point an optimal map has no excess at all.
    """
    import torch

    unit, spread = _unit(cost_optimal, cost_scale), 0.0
    if cost_optimal.ndim == 0:
        low, high = torch.quantile(cost_mapped.double(), cost_mapped.new_tensor(TAILS).double())
        spread = float(cost_mapped.double().clamp(low, high).std()) / len(cost_mapped) ** 0.5
    return math.hypot(min(3 * spread / unit, MOST), 3 * cost_error / unit)


@metric(unit="1", better=None)
def best_trivial(trivial_defects: Tensor) -> float:
    """Verdict: what a solver has to beat, the largest defect of the best of the trivial maps: the
    identity, a constant, the linear map. Where the optimal map is known it is the error of the map.
    """
    return float(trivial_defects.min())


@metric(unit="cost", better=None, curve=True)
def saddle_value(inner_values: Tensor, target_values: Tensor) -> float:
    """Saddle: the objective J = E[c(x, T(x)) - g(T(x))] + E[g(y)] of the target potential g and the
    map.
    """
    return float(inner_values.double().mean() + target_values.double().mean())


@metric(unit="1", better="lower")
def dual_gap(
    c_transform: Tensor, target_values: Tensor, saddle_cost: float, cost_scale: float
) -> float:
    """Saddle: suboptimality of the potential, (OT - E[g^c(x)] - E[g(y)]) / max(OT, cost scale),
    clipped at 0.

    The c-transform g^c(x) = min_y c(x, y) - g(y) is the least over T(x) and 4,096 target points
    (1,024 if they are images), each improved by fifty gradient steps.
    """
    dual = float(c_transform.double().mean() + target_values.double().mean())
    return max(0.0, saddle_cost - dual) / max(saddle_cost, cost_scale)


@metric(unit="1", better=None)
def untrained_gap(saddle_cost: float, cost_scale: float) -> float:
    """Saddle: the dual gap that no potential at all leaves, g = 0, OT / max(OT, cost scale)."""
    return ratio(saddle_cost, max(saddle_cost, cost_scale))


@metric(unit="1", better="lower")
def inner_gap(
    inner_values: Tensor, c_transform: Tensor, saddle_cost: float, cost_scale: float
) -> float:
    """Saddle: suboptimality of the map against the potential, E[c(x, T(x)) - g(T(x)) - g^c(x)] /
    max(OT, cost scale).
    """
    return max(0.0, float((inner_values.double() - c_transform.double()).mean())) / max(
        saddle_cost, cost_scale
    )


@metric(unit="1", better="lower")
def saddle_excess(
    inner_values: Tensor, target_values: Tensor, saddle_cost: float, cost_scale: float
) -> float:
    """Saddle: |J - OT| / max(OT, cost scale)."""
    return abs(saddle_value(inner_values, target_values) - saddle_cost) / max(
        saddle_cost, cost_scale
    )


@metric(unit="1", better="lower")
def saddle_drift(
    inner_values: Tensor,
    target_values: Tensor,
    earlier_saddle_value: float,
    saddle_cost: float,
    cost_scale: float,
) -> float:
    """Saddle: |J - J at nine tenths of the training| / max(OT, cost scale), for solvers that offer
    checkpoints.
    """
    return abs(saddle_value(inner_values, target_values) - earlier_saddle_value) / max(
        saddle_cost, cost_scale
    )


def _unit(cost_optimal: Tensor, cost_scale: float) -> float:
    """OT; the cost scale where nothing is to be moved."""
    optimal = float(cost_optimal.double().mean())
    return optimal if optimal > 0 else cost_scale


def _quantile(n: int) -> float:
    """Student's, of a further value beside ``n``."""
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, LEVEL))
