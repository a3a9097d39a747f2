"""Metrics of maps: errors against the true map and its cost, gradients of potentials, and distances
of the push-forward to the target.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from otbench.metrics.declare import metric, ratio
from otbench.metrics.distances import BLOCK, total_distance


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

MOST = 2  # target floors that are taken for the floor of a push-forward
ENERGY_POINTS = 2048  # of each sample, of whose pairs an energy distance is the sum
OVERSHOT = 1.05  # of the optimal length of a displacement


@metric(unit="%", better="lower", curve=True)
def l2_uvp(pushed: Tensor, optimal: Tensor, target_variance: float) -> float:
    """Unexplained variance of the map, 100 E||T(x) - T*(x)||^2 / Var(target) (Korotin et al. 2021,
    eq. 22).
    """
    return ratio(
        100 * float((pushed - optimal).double().flatten(1).square().sum(1).mean()), target_variance
    )


@metric(unit="1", better="higher", worst=-1.0, curve=True)
def cos(start: Tensor, pushed: Tensor, optimal: Tensor) -> float:
    """Cosine of the displacements T - id and T* - id in L2(source) (Korotin et al. 2021); both
    norms on the same points, so T* scores 1.

    Displacements are from Q(x) where the source is embedded. Undefined (not a number) where either
    vanishes.
    """
    return _cosine(pushed - start, optimal - start)


@metric(unit="1", better="higher", worst=-1.0, curve=True)
def grad_cos(gradient: Tensor, optimal_gradient: Tensor) -> float:
    """Cosine between the gradients of the potential and the true one, mean over source points, for
    ||x - y|| (Korotin et al. 2022).

    It is of the directions of transport alone; what the lengths lack, `grad_l2` sees. A gradient of
    zero counts as zero.
    """
    import torch

    return float(torch.cosine_similarity(gradient.double(), optimal_gradient.double()).mean())


@metric(unit="1", better="lower", worst=2.0)
def grad_l2(gradient: Tensor, optimal_gradient: Tensor) -> float:
    """E||grad u - grad u*||^2 over source points, for costs ||x - y|| (Korotin et al. 2022); a
    gradient of zero scores 1.
    """
    return float((gradient.double() - optimal_gradient.double()).square().sum(1).mean())


@metric(unit="cost", better=None, curve=True)
def w1_estimate(source_values: Tensor, target_side_values: Tensor) -> float:
    """Dual value E f(x) + E g(y) of the potentials, for the cost ||x - y||; g is -f where not
    given.

    Up to sampling it is above W1 only if the potentials are not feasible.
    """
    return float(source_values.double().mean() + target_side_values.double().mean())


@metric(unit="1", better="one", curve=True)
def w1_ratio(source_values: Tensor, target_side_values: Tensor, cost_optimal: Tensor) -> float:
    """`w1_estimate` over W1."""
    return ratio(
        w1_estimate(source_values, target_side_values), float(cost_optimal.double().mean())
    )


@metric(unit="1", better="one", curve=True)
def cost_ratio(cost_mapped: Tensor, cost_optimal: Tensor) -> float:
    """Transport cost over the optimal one, E c(x, T(x)) / E c(x, T*(x)) on the same points, so T*
    scores exactly 1.

    Where the optimal cost is known but no map, that cost is the denominator.
    """
    return ratio(float(cost_mapped.double().mean()), float(cost_optimal.double().mean()))


@metric(unit="distance^2", better="lower", signed=True)
def target_gap(target_discrepancies: Tensor, mapped_floors: Tensor, target_floors: Tensor) -> float:
    """W2^2 of the push-forward to the target less half the floors of both; up to dimension 16 exact
    or d times sliced, the larger.

    The floors are W2^2 between fresh samples of one measure. To take away the target's alone would
    reward a push-forward of less spread; of the push-forward's no more than twice the target's is
    taken, as points flung far away make it as large as one likes. d times the sliced W2^2 is a
    lower bound of W2^2 with hardly any floor; above dimension 16 it stands alone.
    """
    floors = target_floors.mean(0)
    of_mapped = mapped_floors.minimum(MOST * floors)
    return float((target_discrepancies - (of_mapped + floors) / 2).max())


@metric(unit="distance^2", better=None)
def target_noise(target_floors: Tensor) -> float:
    """The floor itself: the same discrepancy between two fresh target samples of the same size,
    mean of eight pairs.
    """
    return float(target_floors.mean(0).max())


@metric(unit="cost", better="lower")
def d_cost(cost_mapped: Tensor, cost_optimal: Tensor, cost_power: int) -> float:
    """|E c(x, T(x)) - OT| of squared costs; for comparison with published tables, the `cost_ratio`
    says more.

    Undefined (not a number) for other costs.
    """
    return (
        abs(float((cost_mapped.double() - cost_optimal.double()).mean()))
        if cost_power == 2
        else math.nan
    )


@metric(unit="distance^2", better=None)
def d_target(plugin_discrepancy: float) -> float:
    """W2^2 between 1,024 mapped points and 1,024 target points, no floor taken off; for comparison
    with published tables, see `d_target_floor`.

    In high dimension it is nearly all floor, and mapped points of too little spread, a single point
    even, score less than a perfect map: so less is not better, and `target_gap` is the metric to go
    by.
    """
    return plugin_discrepancy


@metric(unit="distance^2", better=None)
def d_target_floor(plugin_floor: float) -> float:
    """The floor of `d_target`: the same between independent target samples, what a perfect map
    would score.
    """
    return plugin_floor


@metric(unit="distance", better="lower", signed=True)
def energy_distance(mapped_sample: Tensor, target_sample: Tensor) -> float:
    """Energy distance 2 E|X-Y| - E|X-X'| - E|Y-Y'| of the push-forward to the target (Szekely &
    Rizzo 2013), unbiased: its floor is 0.
    """
    x, y = mapped_sample[:ENERGY_POINTS], target_sample[:ENERGY_POINTS]
    across = total_distance(x, y) / (len(x) * len(y))
    within = [total_distance(z, z) / (len(z) * (len(z) - 1)) for z in (x, y)]
    return 2 * across - sum(within)


@metric(unit="1", better="lower", worst=1.0)
def coordinate_ks(mapped_sample: Tensor, target_sample: Tensor, target_variance: float) -> float:
    """Largest share of the mass that is off in a coordinate by a hundredth of the target's spread;
    keeps its power in high dimension.

    A Kolmogorov-Smirnov distance with a tolerance, without which rounding would count where a
    coordinate has atoms: max_t P(X_i <= t) - P(Y_i <= t + h) or with X and Y exchanged. Its floor
    is about 1.6 sqrt(2 / n).
    """
    import torch

    x, y = (
        sample.flatten(1).T.double().sort(1).values.contiguous()
        for sample in (mapped_sample, target_sample)
    )
    tolerance = 0.01 * (target_variance / len(x)) ** 0.5

    def share(sample: Tensor, at: Tensor) -> Tensor:
        return torch.searchsorted(sample, at, right=True).double() / sample.shape[1]

    early = share(x, x) - share(y, x + tolerance)
    late = share(y, y) - share(x, y + tolerance)
    return max(0.0, float(early.max()), float(late.max()))


@metric(unit="1", better="lower", worst=1.0)
def overshoot(ray_start: Tensor, pushed: Tensor, optimal: Tensor) -> float:
    """Share of the points moved more than 5 % further than the optimal map moves them, wherever
    they end; for the cost ||x - y||.
    """
    length, optimal_length = ((end - ray_start).double().norm(dim=1) for end in (pushed, optimal))
    return float((length > OVERSHOT * optimal_length).double().mean())


@metric(unit="1", better="lower", worst=1.0)
def wrong_atom(pushed: Tensor, optimal: Tensor, atoms: Tensor) -> float:
    """Share of the points sent nearest to another atom of the target than the right one."""
    return float((_nearest(pushed, atoms) != _nearest(optimal, atoms)).double().mean())


def _cosine(moved: Tensor, should: Tensor) -> float:
    moved, should = moved.double(), should.double()
    return ratio(float((moved * should).sum()), float(moved.norm() * should.norm()))


def _nearest(points: Tensor, atoms: Tensor) -> Tensor:
    import torch

    return torch.cat(
        [
            torch.cdist(part.flatten(1), atoms.flatten(1).to(part.dtype)).argmin(1)
            for part in points.split(BLOCK)
        ]
    )
