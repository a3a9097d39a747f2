"""Metrics of plans of discrete problems, and the rounding of a plan to its marginals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from otbench.metrics.declare import metric, ratio


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

BLOCK = 2**24  # entries of a dense plan or cost matrix that are held in float64 at a time


@metric(unit="1", better="lower")
def cost_gap(rounded_cost: float, ot_cost: float) -> float:
    """Relative difference |<C, P> / <C, P*> - 1| of the costs, P rounded to the marginals
    (Altschuler et al. 2017).

    An entropic P* is not the cheapest plan: there a plan may be too cheap, and that is as wrong.
    """
    return abs(ratio(rounded_cost, ot_cost) - 1)


@metric(unit="1", better="lower")
def cost_gap_bound(rounded_cost: float, cost_bound: float) -> float:
    """What the cost gap is at most, where the optimal cost is out of reach: <C, P> / L - 1 with P
    rounded to the marginals and L a lower bound of <C, P*> by weak duality.
    """
    return max(0.0, ratio(rounded_cost, cost_bound) - 1) if cost_bound > 0 else math.nan


@metric(unit="1", better="lower")
def entropic_gap(rounded_objective: float, optimal_objective: float, ot_cost: float) -> float:
    """Excess of <C, P> + eps KL(P | a b') over its minimum, relative to <C, P*>, P rounded to the
    marginals: eps KL(P | P*) / <C, P*>.
    """
    return ratio(rounded_objective - optimal_objective, ot_cost)


@metric(unit="%", better="lower")
def barycentric_uvp(
    rounded_map: Tensor, optimal_map: Tensor, a: Tensor, target_variance: float
) -> float:
    """Error of the barycentric map, 100 sum_i a_i ||T(x_i) - T*(x_i)||^2 / Var(target), where
    T(x_i) is the mean of y given x_i under P.

    P is rounded to the marginals.
    """
    moved = a > 0
    squares = (rounded_map - optimal_map)[moved].square().sum(1)
    return ratio(100 * float(a[moved] @ squares), target_variance)


@metric(unit="1", better="lower")
def iters_to_tol(warm_iterations: int) -> float:
    """Iterations of Sinkhorn's algorithm from the predicted potential to a marginal error of 1e-6
    in the l1 norm, at most 5,000.
    """
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
    squares = sum(part.square().sum() for part in _differences(plan, optimal_plan))
    return float((squares / (plan.shape[0] * plan.shape[1])) ** 0.5)


@metric(unit="1", better="lower", worst=1.0)
def plan_tv(plan: Tensor, optimal_plan: Tensor) -> float:
    """Total variation of P and P*, half the sum of |P - P*|: the share of the mass that is matched
    otherwise.
    """
    return sum(float(part.abs().sum()) for part in _differences(plan, optimal_plan)) / 2


def merged(x: Tensor, *values: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Copies of a point as one.

    Args:
        x: points ``(n, *shape)``.
        values: of each point, ``(n, ...)``.

    Returns:
        The places ``(k, *shape)``, the number of the place of each point ``(n,)``, and the sums
        ``(k, ...)`` of the values over the points of a place.
    """
    import torch

    places, place = torch.unique(x, dim=0, return_inverse=True)
    sums = [v.new_zeros(len(places), *v.shape[1:]).index_add_(0, place, v) for v in values]
    return places, place, sums


def rounded_cost(
    plan: Tensor,
    a: Tensor,
    b: Tensor,
    costs: Callable[[Tensor, Tensor], Tensor],
    blocks: Callable[[slice], Tensor],
) -> float:
    """Cost of the plan with marginals a and b nearest to ``plan`` by Altschuler, Weed and Rigollet
    2017, algorithm 2.

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
        for part in row_blocks(*plan.shape):
            matrix = blocks(part)
            if not plan.is_sparse:
                cost += float(rows[part] @ (plan[part] * matrix) @ columns)
            if total > 0:
                cost += float(row_slack[part] @ matrix @ column_slack) / total
    return cost


def barycentric_map(plan: Tensor, a: Tensor, b: Tensor, y: Tensor) -> Tensor:
    """``(n, d)``: the mean of the points ``y`` ``(m, d)`` given each row, under the plan rounded to
    its marginals; zero where a is.
    """
    rows, columns, row_slack, column_slack = rounding(plan, a, b)
    total = row_slack.sum().clamp(min=1e-300)
    sums = rows[:, None] * _product(plan, columns[:, None] * y) + row_slack[:, None] * (
        column_slack @ y / total
    )
    return sums / a.clamp(min=1e-300)[:, None]


def rounded_entropy(plan: Tensor, a: Tensor, b: Tensor) -> float:
    """KL(P | a b') of the plan rounded to its marginals."""
    import torch

    rows, columns, row_slack, column_slack = rounding(plan, a, b)
    total = row_slack.sum().clamp(min=1e-300)
    entropy = 0.0
    for part, dense in dense_blocks(plan):
        rounded = rows[part, None] * dense * columns + row_slack[part, None] * column_slack / total
        entropy += float(
            torch.xlogy(rounded, rounded / (a[part, None] * b).clamp(min=1e-300)).sum()
        )
    return entropy


def rounding(plan: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scalings r, c and slacks u, v of the rounded plan diag(r) P diag(c) + u v^T / |u|, which has
    marginals a and b.
    """
    mass = marginal(plan, 1)
    rows = (a / mass.clamp(min=1e-300)).clamp(max=1)
    moved = _transposed_product(plan, rows)
    columns = (b / moved.clamp(min=1e-300)).clamp(max=1)
    row_slack = (a - rows * _product(plan, columns)).clamp(min=0)
    column_slack = (b - columns * moved).clamp(min=0)
    return rows, columns, row_slack, column_slack


def marginal(plan: Tensor, dim: int) -> Tensor:
    """Sum of a dense or sparse plan over one of its dimensions, in float64."""
    import torch

    if plan.is_sparse:
        return plan.double().sum(dim).to_dense()
    sums = [plan[part].double().sum(dim) for part in row_blocks(*plan.shape)]
    return torch.cat(sums) if dim == 1 else torch.stack(sums).sum(0)


def row_blocks(n: int, m: int) -> Iterator[slice]:
    """The rows of an ``(n, m)`` matrix, as many at a time as make up `BLOCK` entries."""
    rows = max(1, BLOCK // m)
    return (slice(start, start + rows) for start in range(0, n, rows))


def without_negative(plan: Tensor) -> Tensor:
    """The plan with what rounding left below zero taken away; itself where that is nothing."""
    import torch

    held = entries(plan)
    if not held.numel() or held.min() >= 0:
        return plan
    if not plan.is_sparse:
        return plan.clamp(min=0)
    plan = plan.coalesce()
    return torch.sparse_coo_tensor(
        plan.indices(),
        plan.values().clamp(min=0),
        plan.shape,
        is_coalesced=True,
        check_invariants=True,
    )


def entries(plan: Tensor) -> Tensor:
    """The values that a plan holds; of a sparse one, those that it stores."""
    return plan.coalesce().values() if plan.is_sparse else plan


def dense_blocks(plan: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of rows in float64, those of a sparse plan filled with zeros."""
    import torch

    if plan.is_sparse:
        plan = plan.coalesce()
    for part in row_blocks(*plan.shape):
        if not plan.is_sparse:
            yield part, plan[part].double()
            continue
        i, j = plan.indices()  # in the order of the rows
        start, end = torch.searchsorted(i, i.new_tensor([part.start, part.stop])).tolist()
        dense = plan.values().new_zeros(len(range(*part.indices(len(plan)))), plan.shape[1])
        dense[i[start:end] - part.start, j[start:end]] = plan.values()[start:end]
        yield part, dense.double()


def _product(plan: Tensor, vectors: Tensor) -> Tensor:
    """``P v`` in float64, for ``v`` of shape ``(m,)`` or ``(m, k)``."""
    import torch

    if plan.is_sparse:
        return plan.double() @ vectors
    return torch.cat([plan[part].double() @ vectors for part in row_blocks(*plan.shape)])


def _transposed_product(plan: Tensor, vector: Tensor) -> Tensor:
    """``P' v`` in float64, for ``v`` of shape ``(n,)``."""
    if plan.is_sparse:
        return plan.double().T @ vector
    total = vector.new_zeros(plan.shape[1])
    for part in row_blocks(*plan.shape):
        total += plan[part].double().T @ vector[part]
    return total


def _differences(plan: Tensor, other: Tensor) -> Iterator[Tensor]:
    """``P - Q``, in parts, in float64; of two sparse plans the entries that either stores."""
    if plan.is_sparse and other.is_sparse:
        yield entries(plan.double() - other.double())
        return
    for (_, one), (_, two) in zip(dense_blocks(plan), dense_blocks(other), strict=True):
        yield one - two
