"""Metrics: pure functions of named arrays, and one table that says what each number means.

A metric applies to a run exactly when every array it names is known there: where the optimal map is unknown or not unique there is no
``optimal``, and so no ``l2_uvp``. The names are listed in `otbench.scoring`. Reports read `METRICS` and nothing else.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

Direction = Literal["lower", "higher", "one"] | None

EXACT_DIM = 16  # up to this dimension the discrepancy of two samples is an exact W2^2 too, above it a sliced one alone
EXACT_POINTS = 4096  # most points of one linear assignment
DIRECTIONS = 512
DIRECTIONS_SEED = 20_111  # far from the seeds that samples are drawn with, lest directions be points
BLOCK = 4096  # rows of a matrix of distances that are held at a time
OVERSHOT = 1.05  # of the optimal length of a displacement
ON_BRANCH = 0.1  # how far from a branch an image may lie, in half-distances of the branches


@dataclass(frozen=True)
class Metric:
    """One row of the table.

    Attributes:
        name: the column is ``metric_<name>``.
        function: pure; its parameters name the arrays it needs.
        unit: ``%``, ``1`` (a pure number), ``cost`` (units of the task's cost) or ``distance^2``.
        better: the direction, ``lower``, ``higher`` or ``one`` (closest to 1); None where there is no better, as of a noise level.
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
        """First line of the function's docstring."""
        return (self.function.__doc__ or "").strip().splitlines()[0]

    def loss(self, value: float) -> float:
        """The value turned so that lower is better."""
        return -value if self.better == "higher" else abs(value - 1) if self.better == "one" else value

    @property
    def reading(self) -> str:
        """How to read the number, in words."""
        words = {"lower": "lower is better", "higher": "higher is better", "one": "closest to 1 is best"}
        return words[self.better] if self.better else "neither high nor low is better"


METRICS: dict[str, Metric] = {}


def metric(unit: str, better: Direction, worst: float = math.inf, curve: bool = False):
    """Enter a function in the table under its own name."""

    def enter(function: Callable[..., float]) -> Callable[..., float]:
        needs = tuple(inspect.signature(function).parameters)
        METRICS[function.__name__] = Metric(function.__name__, function, unit, better, worst, curve, needs)
        return function

    return enter


def score(arrays: Mapping[str, Any], curve_only: bool = False) -> dict[str, float]:
    """Every metric that applies to ``arrays``, by name. A value that is not finite is left out: the metric is undefined there."""
    scores = {}
    for entry in METRICS.values():
        if (entry.curve or not curve_only) and all(name in arrays for name in entry.needs):
            value = float(entry.function(**{name: arrays[name] for name in entry.needs}))
            if math.isfinite(value):
                scores[entry.name] = value
    return scores


@metric(unit="%", better="lower", curve=True)
def l2_uvp(pushed: Tensor, optimal: Tensor, target_variance: float) -> float:
    """Unexplained variance of the map, 100 E||T(x) - T*(x)||^2 / Var(target) (Korotin et al. 2021, eq. 22)."""
    return ratio(100 * float((pushed - optimal).double().flatten(1).square().sum(1).mean()), target_variance)


@metric(unit="1", better="higher", worst=-1.0, curve=True)
def cos(start: Tensor, pushed: Tensor, optimal: Tensor) -> float:
    """Cosine of the displacements T - id and T* - id in L2(source) (Korotin et al. 2021); both norms on the same points, so T* scores 1.

    Displacements are from Q(x) where the source is embedded. Undefined (not a number) where either vanishes.
    """
    return _cosine(pushed - start, optimal - start)


@metric(unit="1", better="higher", worst=-1.0, curve=True)
def grad_cos(gradient: Tensor, optimal_gradient: Tensor) -> float:
    """Cosine between the gradients of the potential and the true one, mean over source points, for ||x - y|| (Korotin et al. 2022).

    It is of the directions of transport alone; what the lengths lack, `grad_l2` sees. A gradient of zero counts as zero.
    """
    import torch

    return float(torch.cosine_similarity(gradient.double(), optimal_gradient.double()).mean())


@metric(unit="1", better="lower", worst=2.0)
def grad_l2(gradient: Tensor, optimal_gradient: Tensor) -> float:
    """E||grad u - grad u*||^2 over source points, for costs ||x - y|| (Korotin et al. 2022); a gradient of zero scores 1."""
    return float((gradient.double() - optimal_gradient.double()).square().sum(1).mean())


@metric(unit="cost", better=None, curve=True)
def w1_estimate(source_values: Tensor, target_side_values: Tensor) -> float:
    """Dual value E f(x) + E g(y) of the potentials, for the cost ||x - y||; g is -f where not given.

    Up to sampling it is above W1 only if the potentials are not feasible.
    """
    return float(source_values.double().mean() + target_side_values.double().mean())


@metric(unit="1", better="one", curve=True)
def w1_ratio(source_values: Tensor, target_side_values: Tensor, cost_optimal: Tensor) -> float:
    """`w1_estimate` over W1."""
    return ratio(w1_estimate(source_values, target_side_values), float(cost_optimal.double().mean()))


@metric(unit="1", better="one", curve=True)
def cost_ratio(cost_pushed: Tensor, cost_optimal: Tensor) -> float:
    """Transport cost over the optimal one, E c(x, T(x)) / E c(x, T*(x)) on the same points, so T* scores exactly 1.

    Where the optimal cost is known but no map, that cost is the denominator.
    """
    return ratio(float(cost_pushed.double().mean()), float(cost_optimal.double().mean()))


@metric(unit="distance^2", better="lower")
def target_gap(target_discrepancies: Tensor, pushed_floors: Tensor, target_floors: Tensor) -> float:
    """W2^2 of the push-forward to the target less half the floors of both; up to dimension 16 exact or d times sliced, the larger.

    The floors are W2^2 between fresh samples of one measure. To take away the target's alone would reward a push-forward of less spread.
    d times the sliced W2^2 is a lower bound of W2^2 with hardly any floor; above dimension 16 it stands alone.
    """
    return float((target_discrepancies - (pushed_floors + target_floors.mean(0)) / 2).max())


@metric(unit="distance^2", better=None)
def target_noise(target_floors: Tensor) -> float:
    """The floor itself: the same discrepancy between two fresh target samples of the same size, mean of twenty pairs."""
    return float(target_floors.mean(0).max())


@metric(unit="cost", better="lower")
def d_cost(cost_pushed: Tensor, cost_optimal: Tensor, cost_power: int) -> float:
    """|E c(x, T(x)) - OT| of squared costs; for comparison with published tables, the `cost_ratio` says more.

    Undefined (not a number) for other costs.
    """
    return abs(float((cost_pushed.double() - cost_optimal.double()).mean())) if cost_power == 2 else math.nan


@metric(unit="distance^2", better=None)
def d_target(plugin_pushed: Tensor, plugin_target: Tensor) -> float:
    """W2^2 between 1,000 images and 1,000 target points, no floor taken off; for comparison with published tables, see `d_target_floor`.

    In high dimension it is nearly all floor, and images of too little spread, a single point even, score less than a perfect map: so less
    is not better, and `target_gap` is the metric to go by.
    """
    return _plugin_w2_squared(plugin_pushed, plugin_target)


@metric(unit="distance^2", better=None)
def d_target_floor(plugin_target: Tensor, plugin_fresh: Tensor) -> float:
    """The floor of `d_target`: the same between two independent target samples, what a perfect map would score."""
    return _plugin_w2_squared(plugin_fresh, plugin_target)


@metric(unit="distance", better="lower")
def energy_distance(pushed_sample: Tensor, target_sample: Tensor) -> float:
    """Energy distance 2 E|X-Y| - E|X-X'| - E|Y-Y'| of the push-forward to the target (Szekely & Rizzo 2013), unbiased: its floor is 0."""
    n, m = len(pushed_sample), len(target_sample)
    across = total_distance(pushed_sample, target_sample) / (n * m)
    within = [total_distance(z, z) / (len(z) * (len(z) - 1)) for z in (pushed_sample, target_sample)]
    return 2 * across - sum(within)


@metric(unit="1", better="lower", worst=1.0)
def coordinate_ks(pushed_sample: Tensor, target_sample: Tensor, target_variance: float) -> float:
    """Largest share of the mass that is off in a coordinate by a hundredth of the target's spread; keeps its power in high dimension.

    A Kolmogorov-Smirnov distance with a tolerance, without which rounding would count where a coordinate has atoms:
    max_t P(X_i <= t) - P(Y_i <= t + h) or with X and Y exchanged. Its floor is about 1.6 sqrt(2 / n).
    """
    import torch

    x, y = (sample.flatten(1).T.double().sort(1).values.contiguous() for sample in (pushed_sample, target_sample))
    tolerance = 0.01 * (target_variance / len(x)) ** 0.5

    def share(sample: Tensor, at: Tensor) -> Tensor:
        return torch.searchsorted(sample, at, right=True).double() / sample.shape[1]

    early = share(x, x) - share(y, x + tolerance)
    late = share(y, y) - share(x, y + tolerance)
    return max(0.0, float(early.max()), float(late.max()))


@metric(unit="1", better="lower", worst=1.0)
def overshoot(ray_start: Tensor, pushed: Tensor, optimal: Tensor) -> float:
    """Share of the points moved more than 5 % further than the optimal map moves them, wherever they end; for the cost ||x - y||."""
    length, optimal_length = ((end - ray_start).double().norm(dim=1) for end in (pushed, optimal))
    return float((length > OVERSHOT * optimal_length).double().mean())


@metric(unit="1", better="lower", worst=1.0)
def wrong_atom(pushed: Tensor, optimal: Tensor, atoms: Tensor) -> float:
    """Share of the points sent nearest to another atom of the target than the right one."""
    return float((_nearest(pushed, atoms) != _nearest(optimal, atoms)).double().mean())


@metric(unit="1", better="lower", worst=0.5)
def branch_imbalance(branch_position: Tensor) -> float:
    """One-to-many: |share of the mass on the upper branch - 1/2|."""
    return abs(float((branch_position > 0).double().mean()) - 0.5)


@metric(unit="1", better="lower", worst=1.0)
def branch_off(branch_position: Tensor) -> float:
    """One-to-many: share of the mass further from both branches than a tenth of their half-distance, along the line that joins them."""
    return float(((branch_position.abs() - 1).abs() > ON_BRANCH).double().mean())


@metric(unit="%", better="lower")
def branch_sideways(branch_rest: Tensor, target_variance: float) -> float:
    """One-to-many: squared distance from the line that joins the branches, 100 E / Var(target)."""
    return ratio(100 * float(branch_rest.double().mean()), target_variance)


@metric(unit="1", better="higher", worst=0.0)
def branch_entropy(branch_draws: Tensor) -> float:
    """One-to-many: entropy in bits of the branch given x, mean over x; 1 is right (0.99 with 64 draws), a deterministic map has 0."""
    import torch

    upper = (branch_draws > 0).double().mean(1)
    return float(-(torch.xlogy(upper, upper) + torch.xlogy(1 - upper, 1 - upper)).mean() / math.log(2))


@metric(unit="1", better="lower")
def branch_defect(branch_position: Tensor) -> float:
    """Verdict, one-to-many: W2^2 along the line that joins the branches, as a share of the variance there.

    One branch alone scores 2, the middle between them 1, in any dimension: the target defect is diluted by the other coordinates.
    """
    position = branch_position.double().sort().values
    branch = position.new_ones(len(position))
    branch[: len(position) // 2] = -1
    return float((position - branch).square().mean())


@metric(unit="1", better=None)
def branch_visible(branch_position: Tensor) -> float:
    """Verdict, one-to-many: the branch defect that sampling alone may show, from three standard errors of a fair coin."""
    return 6 / len(branch_position) ** 0.5


@metric(unit="1", better="lower")
def target_defect(target_discrepancies: Tensor, pushed_floors: Tensor, target_floors: Tensor, target_scale: float) -> float:
    """Verdict: the target gap as a share of the target's variance, or of the gap of the task's known spurious map where that is less."""
    return ratio(target_gap(target_discrepancies, pushed_floors, target_floors), target_scale)


@metric(unit="1", better=None)
def target_visible(target_floors: Tensor, target_scale: float) -> float:
    """Verdict: the target defect that sampling alone may show, the 99 % quantile of the gap of fresh target samples."""
    gaps = target_floors - (target_floors.roll(1, 0) + target_floors.mean(0)) / 2
    return ratio(float(gaps.quantile(0.99, 0).max()), target_scale)


@metric(unit="1", better="lower")
def cost_defect(cost_pushed: Tensor, cost_optimal: Tensor, cost_scale: float) -> float:
    """Verdict: |E c(x, T(x)) - OT| / max(OT, cost of moving by the target's standard deviation)."""
    return abs(float((cost_pushed.double() - cost_optimal.double()).mean())) / _size(cost_optimal, cost_scale)


@metric(unit="1", better=None)
def cost_visible(cost_pushed: Tensor, cost_optimal: Tensor, cost_error: float, cost_scale: float) -> float:
    """Verdict: the cost defect that sampling alone may show, three standard errors."""
    excess = cost_pushed.double() - cost_optimal.double()
    return 3 * math.hypot(float(excess.std()) / len(excess) ** 0.5, cost_error) / _size(cost_optimal, cost_scale)


@metric(unit="cost", better=None, curve=True)
def saddle_value(inner_values: Tensor, target_values: Tensor) -> float:
    """Saddle: the objective J = E[c(x, T(x)) - g(T(x))] + E[g(y)] of the target potential g and the map."""
    return float(inner_values.double().mean() + target_values.double().mean())


@metric(unit="1", better="lower")
def dual_gap(c_transform: Tensor, target_values: Tensor, saddle_cost: float, cost_scale: float) -> float:
    """Saddle: suboptimality of the potential, (OT - E[g^c(x)] - E[g(y)]) / max(OT, cost scale), clipped at 0.

    The c-transform g^c(x) = min_y c(x, y) - g(y) is the least over T(x) and 4,096 target points, each improved by fifty gradient steps.
    """
    dual = float(c_transform.double().mean() + target_values.double().mean())
    return max(0.0, saddle_cost - dual) / max(saddle_cost, cost_scale)


@metric(unit="1", better="lower")
def inner_gap(inner_values: Tensor, c_transform: Tensor, saddle_cost: float, cost_scale: float) -> float:
    """Saddle: suboptimality of the map against the potential, E[c(x, T(x)) - g(T(x)) - g^c(x)] / max(OT, cost scale)."""
    return max(0.0, float((inner_values.double() - c_transform.double()).mean())) / max(saddle_cost, cost_scale)


@metric(unit="1", better="lower")
def saddle_excess(inner_values: Tensor, target_values: Tensor, saddle_cost: float, cost_scale: float) -> float:
    """Saddle: |J - OT| / max(OT, cost scale)."""
    return abs(saddle_value(inner_values, target_values) - saddle_cost) / max(saddle_cost, cost_scale)


@metric(unit="1", better="lower")
def saddle_drift(inner_values: Tensor, target_values: Tensor, earlier_saddle_value: float, saddle_cost: float, cost_scale: float) -> float:
    """Saddle: |J - J at nine tenths of the training| / max(OT, cost scale), for solvers that offer checkpoints."""
    return abs(saddle_value(inner_values, target_values) - earlier_saddle_value) / max(saddle_cost, cost_scale)


@metric(unit="1", better="lower")
def npe(path: Tensor) -> float:
    """Flows: normalised path energy |PE - W2^2| / W2^2, W2 between 2,000 starts and their own ends (Tong et al. 2024).

    PE is the mean over points of the integral of the squared velocity, from steps at equal times; a straight optimal flow scores 0.
    """
    start, end = (path[k].flatten(1).double().cpu() for k in (0, -1))
    optimal = exact_w2_squared(start, end)
    energy = (len(path) - 1) * float(path.double().diff(dim=0).flatten(2).square().sum((0, 2)).mean())
    return ratio(abs(energy - optimal), optimal)


@metric(unit="distance", better="lower")
def w2(flow_pushed: Tensor, flow_target: Tensor) -> float:
    """Flows: W2 between 4,096 images and 4,096 target points, no floor taken off: see `w2_floor`, and `target_gap` for maps."""
    return _plugin_w2_squared(flow_pushed, flow_target) ** 0.5


@metric(unit="distance", better=None)
def w2_floor(flow_fresh: Tensor, flow_target: Tensor) -> float:
    """The floor of `w2`: the same between two independent target samples."""
    return _plugin_w2_squared(flow_fresh, flow_target) ** 0.5


@metric(unit="1", better="lower")
def cost_gap(rounded_cost: float, ot_cost: float) -> float:
    """Relative difference |<C, P> / <C, P*> - 1| of the costs, P rounded to the marginals (Altschuler et al. 2017).

    An entropic P* is not the cheapest plan: there a plan may be too cheap, and that is as wrong.
    """
    return abs(ratio(rounded_cost, ot_cost) - 1)


@metric(unit="1", better="lower")
def entropic_gap(rounded_objective: float, optimal_objective: float, ot_cost: float) -> float:
    """Excess of <C, P> + eps KL(P | a b') over its minimum, relative to <C, P*>, P rounded to the marginals: eps KL(P | P*) / <C, P*>."""
    return ratio(rounded_objective - optimal_objective, ot_cost)


@metric(unit="%", better="lower")
def barycentric_uvp(rounded_images: Tensor, optimal_images: Tensor, a: Tensor, target_variance: float) -> float:
    """Error of the barycentric map, 100 sum_i a_i ||T(x_i) - T*(x_i)||^2 / Var(target), where T(x_i) is the mean of y given x_i under P.

    P is rounded to the marginals.
    """
    moved = a > 0
    squares = (rounded_images - optimal_images)[moved].square().sum(1)
    return ratio(100 * float(a[moved] @ squares), target_variance)


@metric(unit="1", better="lower")
def iters_to_tol(warm_iterations: int) -> float:
    """Iterations of Sinkhorn's algorithm from the predicted potential to a marginal error of 1e-6 in the l1 norm, at most 5,000."""
    return float(warm_iterations)


@metric(unit="1", better=None)
def iters_from_zero(cold_iterations: int) -> float:
    """The same from a potential of zero."""
    return float(cold_iterations)


@metric(unit="1", better="lower", worst=2.0)
def marginal_l1(plan: Tensor, a: Tensor, b: Tensor) -> float:
    """Total marginal error ||P 1 - a||_1 + ||P^T 1 - b||_1 of the plan as it was returned."""
    return float((marginal(plan, 1) - a).abs().sum() + (marginal(plan, 0) - b).abs().sum())


@metric(unit="1", better="lower")
def plan_rmse(plan: Tensor, optimal_plan: Tensor) -> float:
    """Root mean square entry of P - P*."""
    return float((_difference(plan, optimal_plan).square().sum() / (plan.shape[0] * plan.shape[1])).sqrt())


@metric(unit="1", better="lower", worst=1.0)
def plan_tv(plan: Tensor, optimal_plan: Tensor) -> float:
    """Total variation of P and P*, half the sum of |P - P*|: the share of the mass that is matched otherwise."""
    return float(_difference(plan, optimal_plan).abs().sum()) / 2


def ratio(numerator: float, denominator: float) -> float:
    """The quotient; not a number where the denominator vanishes."""
    return numerator / denominator if denominator != 0 else math.nan


def discrepancies(x: Tensor, y: Tensor) -> Tensor:
    """W2^2 between two samples of equal size: d times sliced and, up to dimension 16, exact; ``(1,)`` or ``(2,)``."""
    x, y = x.flatten(1).double().cpu(), y.flatten(1).double().cpu()
    sliced = sliced_w2_squared(x, y)
    return x.new_tensor([exact_w2_squared(x, y), sliced] if x.shape[1] <= EXACT_DIM else [sliced])


def _plugin_w2_squared(x: Tensor, y: Tensor) -> float:
    return exact_w2_squared(x.flatten(1).double().cpu(), y.flatten(1).double().cpu())


def exact_w2_squared(x: Tensor, y: Tensor) -> float:
    """Exact W2^2 between uniform samples ``(n, d)`` of equal size, as a linear assignment.

    Of more than 4,096 points it is the mean over blocks of so many; points that do not fill a block are left out.
    Three Sinkhorn iterations give potentials that the assignment starts from: it then takes two thirds of the time or less. With equal
    rows, as a constant map has, it takes a thirtieth: what is left of their columns is zero.
    """
    import torch
    from scipy.optimize import linear_sum_assignment

    if x.shape[1] == 1:
        return float((x.sort(0).values - y.sort(0).values).square().mean())
    mode = "donot_use_mm_for_euclid_dist" if x.shape[1] <= EXACT_DIM else "use_mm_for_euclid_dist"  # in float64 it rounds well enough
    costs = []
    for start in range(0, max(1, len(x) - EXACT_POINTS + 1), EXACT_POINTS):
        cost = torch.cdist(x[start : start + EXACT_POINTS], y[start : start + EXACT_POINTS], compute_mode=mode).square()
        if not torch.isfinite(cost).all():
            return math.inf
        reduced = cost - _column_potential(cost)
        reduced -= reduced.min(1, keepdim=True).values
        reduced -= reduced.min(0).values
        rows, columns = linear_sum_assignment(reduced.numpy())
        costs.append(float(cost[rows, columns].mean()))
    return sum(costs) / len(costs)


def _column_potential(cost: Tensor) -> Tensor:
    """``(m,)`` entropic potential after three Sinkhorn iterations in float32, eps a twentieth of the mean cost."""
    import torch

    eps = float(cost.mean()) / 20
    if not eps > 0:
        return cost.new_zeros(cost.shape[1])
    scaled = (cost / -eps).float()
    g = scaled.new_zeros(cost.shape[1])
    for _ in range(3):
        f = -torch.logsumexp(scaled + g, 1, keepdim=True)
        g = -torch.logsumexp(scaled + f, 0)
    return eps * g.to(cost.dtype)


def sliced_w2_squared(x: Tensor, y: Tensor) -> float:
    """Mean W2^2 of the projections on 512 fixed directions (Rabin et al. 2011), times d: a translation then scores as in W2^2."""
    import numpy as np
    import torch

    directions = torch.randn(DIRECTIONS, x.shape[1], generator=torch.Generator().manual_seed(DIRECTIONS_SEED), dtype=x.dtype)
    directions /= directions.norm(dim=1, keepdim=True)
    total = 0.0
    for part in directions.split(64):
        # numpy sorts several times faster than torch, which sorts indices too
        projected, other = (np.sort((part @ z.T).numpy(), axis=1) for z in (x, y))
        total += float(np.square(projected - other).mean(1).sum())
    return x.shape[1] * total / DIRECTIONS


def total_distance(x: Tensor, y: Tensor) -> float:
    """Sum of ||x_i - y_j|| over all i and j, in float64, a block of rows at a time."""
    import torch

    x, y = x.flatten(1).double(), y.flatten(1).double()
    rows = max(1, BLOCK * BLOCK // len(y))
    return sum(float(torch.cdist(part, y).sum()) for part in x.split(rows))


def rounded_cost(plan: Tensor, a: Tensor, b: Tensor, costs: Callable[[Tensor, Tensor], Tensor], blocks: Callable[[slice], Tensor]) -> float:
    """Cost of the plan with marginals a and b nearest to ``plan`` by Altschuler, Weed and Rigollet 2017, algorithm 2.

    The rounded plan diag(r) P diag(c) + u v^T / |u| is never formed.

    Args:
        plan: ``(n, m)``, dense or sparse COO.
        a: ``(n,)``.
        b: ``(m,)``.
        costs: ``costs(i, j)`` are the costs of the pairs of indices.
        blocks: ``blocks(rows)`` are these rows of the cost matrix.
    """
    rows, columns, row_slack, column_slack = rounding(plan, a, b)
    total = float(row_slack.sum())
    cost = 0.0
    if plan.is_sparse:
        plan = plan.coalesce()
        i, j = plan.indices()
        cost = float((plan.values() * rows[i] * columns[j] * costs(i, j)).sum())
    if not plan.is_sparse or total > 0:
        for start in range(0, len(a), BLOCK):
            part = slice(start, start + BLOCK)
            matrix = blocks(part)
            if not plan.is_sparse:
                cost += float(rows[part] @ (plan[part] * matrix) @ columns)
            if total > 0:
                cost += float(row_slack[part] @ matrix @ column_slack) / total
    return cost


def rounded_images(plan: Tensor, a: Tensor, b: Tensor, y: Tensor) -> Tensor:
    """``(n, d)``: the mean of the points ``y`` ``(m, d)`` given each row, under the plan rounded to its marginals; zero where a is."""
    rows, columns, row_slack, column_slack = rounding(plan, a, b)
    total = row_slack.sum().clamp(min=1e-300)
    sums = rows[:, None] * (plan @ (columns[:, None] * y)) + row_slack[:, None] * (column_slack @ y / total)
    return sums / a.clamp(min=1e-300)[:, None]


def rounded_entropy(plan: Tensor, a: Tensor, b: Tensor) -> float:
    """KL(P | a b') of the plan rounded to its marginals."""
    import torch

    rows, columns, row_slack, column_slack = rounding(plan, a, b)
    total, full = row_slack.sum().clamp(min=1e-300), plan.to_dense() if plan.is_sparse else plan
    entropy = 0.0
    for start in range(0, len(a), BLOCK):
        part = slice(start, start + BLOCK)
        rounded = rows[part, None] * full[part] * columns + row_slack[part, None] * column_slack / total
        entropy += float(torch.xlogy(rounded, rounded / (a[part, None] * b).clamp(min=1e-300)).sum())
    return entropy


def rounding(plan: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scalings r, c and slacks u, v of the rounded plan diag(r) P diag(c) + u v^T / |u|, which has marginals a and b."""
    mass = marginal(plan, 1)
    rows = (a / mass.clamp(min=1e-300)).clamp(max=1)
    columns = (b / (plan.T @ rows).clamp(min=1e-300)).clamp(max=1)
    row_slack = (a - rows * (plan @ columns)).clamp(min=0)
    column_slack = (b - columns * (plan.T @ rows)).clamp(min=0)
    return rows, columns, row_slack, column_slack


def marginal(plan: Tensor, dim: int) -> Tensor:
    """Sum of a dense or sparse plan over one of its dimensions."""
    total = plan.sum(dim)
    return total.to_dense() if total.is_sparse else total


def without_negative(plan: Tensor) -> Tensor:
    """The plan with what rounding left below zero taken away."""
    import torch

    if not plan.is_sparse:
        return plan.clamp(min=0)
    plan = plan.coalesce()
    return torch.sparse_coo_tensor(plan.indices(), plan.values().clamp(min=0), plan.shape, is_coalesced=True, check_invariants=True)


def entries(plan: Tensor) -> Tensor:
    """The values that a plan holds; of a sparse one, those that it stores."""
    return plan.coalesce().values() if plan.is_sparse else plan


def _difference(plan: Tensor, other: Tensor) -> Tensor:
    if plan.is_sparse and other.is_sparse:
        return entries(plan - other)
    return (plan.to_dense() if plan.is_sparse else plan) - (other.to_dense() if other.is_sparse else other)


def _cosine(moved: Tensor, should: Tensor) -> float:
    moved, should = moved.double(), should.double()
    return ratio(float((moved * should).sum()), float(moved.norm() * should.norm()))


def _nearest(points: Tensor, atoms: Tensor) -> Tensor:
    import torch

    return torch.cat([torch.cdist(part.flatten(1), atoms.flatten(1).to(part.dtype)).argmin(1) for part in points.split(BLOCK)])


def _size(cost_optimal: Tensor, cost_scale: float) -> float:
    return max(float(cost_optimal.double().mean()), cost_scale)
