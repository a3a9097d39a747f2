"""Metrics of plans of discrete problems, and the rounding of a plan to its marginals."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from otbench.metrics.declare import metric, ratio
from otbench.metrics.distances import BLOCK


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor


@metric(unit="1", better="lower")
def cost_gap(rounded_cost: float, ot_cost: float) -> float:
    """Relative difference |<C, P> / <C, P*> - 1| of the costs, P rounded to the marginals
    (Altschuler et al. 2017).

    An entropic P* is not the cheapest plan: there a plan may be too cheap, and that is as wrong.
    """
    return abs(ratio(rounded_cost, ot_cost) - 1)


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
    return float(
        (_difference(plan, optimal_plan).square().sum() / (plan.shape[0] * plan.shape[1])).sqrt()
    )


@metric(unit="1", better="lower", worst=1.0)
def plan_tv(plan: Tensor, optimal_plan: Tensor) -> float:
    """Total variation of P and P*, half the sum of |P - P*|: the share of the mass that is matched
    otherwise.
    """
    return float(_difference(plan, optimal_plan).abs().sum()) / 2


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
        for start in range(0, len(a), BLOCK):
            part = slice(start, start + BLOCK)
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
    sums = rows[:, None] * (plan @ (columns[:, None] * y)) + row_slack[:, None] * (
        column_slack @ y / total
    )
    return sums / a.clamp(min=1e-300)[:, None]


def rounded_entropy(plan: Tensor, a: Tensor, b: Tensor) -> float:
    """KL(P | a b') of the plan rounded to its marginals."""
    import torch

    rows, columns, row_slack, column_slack = rounding(plan, a, b)
    total, full = row_slack.sum().clamp(min=1e-300), plan.to_dense() if plan.is_sparse else plan
    entropy = 0.0
    for start in range(0, len(a), BLOCK):
        part = slice(start, start + BLOCK)
        rounded = (
            rows[part, None] * full[part] * columns + row_slack[part, None] * column_slack / total
        )
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


def _difference(plan: Tensor, other: Tensor) -> Tensor:
    if plan.is_sparse and other.is_sparse:
        return entries(plan - other)
    return (plan.to_dense() if plan.is_sparse else plan) - (
        other.to_dense() if other.is_sparse else other
    )
