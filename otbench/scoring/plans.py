"""Scores of plans of discrete problems: their arrays, pair by pair, and the means of metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from otbench import metrics
from otbench.errors import InvalidOutputError
from otbench.methods.discrete import SOLVED
from otbench.methods.entropic import Entropic
from otbench.problem import DiscreteProblem
from otbench.scoring.outputs import check_output
from otbench.solver import Transport


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

OF_TRUTH = {"optimal_plan", "ot_cost", "optimal_map"}  # arrays that a truth is needed for
OF_ENTROPIC = {"optimal_objective", "warm_iterations", "cold_iterations"}  # and with an eps
NEGATIVE = 1e-6  # of the largest entry of a plan: what rounding may leave below zero
WARM_TOLERANCE = 1e-6  # marginal error, in the l1 norm, that Sinkhorn's algorithm is counted to
WARM_ITERATIONS = 5000  # most of them


def score_plans(
    pairs: Sequence[DiscreteProblem], plans: Sequence[Tensor], transport: Transport | None = None
) -> dict[str, float]:
    """Metrics of the plans of discrete pairs, averaged over the pairs (those where it is defined).

    ``transport`` is asked for the potentials that Sinkhorn's algorithm is started from, where it
    has them.
    """
    values: dict[str, list[float]] = {}
    for pair, plan in zip(pairs, plans, strict=True):
        # The solver's own function is called while nothing is held to score by.
        arrays = {**_warm_start(pair, transport), **_plan_arrays(pair, plan)}
        for name, value in metrics.score(arrays).items():
            values.setdefault(name, []).append(value)
    return {name: sum(of_pairs) / len(of_pairs) for name, of_pairs in values.items()}


def unscored(pairs: Sequence[DiscreteProblem]) -> dict[str, str]:
    """Why a metric of plans could not be taken, by its name; of nothing where all pairs have a
    truth.
    """
    reason = next((pair.truth.unsolved for pair in pairs if pair.truth.unsolved), "")
    arrays = OF_TRUTH | (OF_ENTROPIC if any(pair.eps > 0 for pair in pairs) else set())
    lacking = (
        name
        for name, metric in metrics.METRICS.items()
        if arrays & set(metric.needs) and not OF_ENTROPIC - arrays & set(metric.needs)
    )
    return dict.fromkeys(lacking, reason) if reason else {}


def checked_plan(pair: DiscreteProblem, plan: Tensor) -> Tensor:
    """A plan that a solver returned, without the rounding below zero.

    Raises:
        InvalidOutputError: it is no tensor ``(n, m)`` of the pair's kind, or has negative entries.
        DivergedError: it has values that are not finite.
    """
    check_output("plan", plan, (len(pair.x), len(pair.y)), like=pair.x)
    return without_rounding(plan.detach())


def without_rounding(plan: Tensor) -> Tensor:
    """A plan without the rounding below zero.

    Raises:
        InvalidOutputError: it has negative entries.
    """
    held = metrics.entries(plan)
    if held.numel() and held.min() < -NEGATIVE * held.max():
        raise InvalidOutputError(
            f"plan has negative entries, down to {float(held.min()):.3g}: a coupling has none"
        )
    return metrics.without_negative(plan)


def _plan_arrays(pair: DiscreteProblem, plan: Tensor) -> dict[str, Any]:
    plan = checked_plan(pair, plan)  # in float64 a block at a time: it may be all there is room for
    x, y, a, b = (values.double() for values in (pair.x, pair.y, pair.a, pair.b))
    arrays: dict[str, Any] = {"plan": plan, "a": a, "b": b}

    def costs(i: Tensor, j: Tensor) -> Tensor:
        return pair.cost.pairwise(x[i], y[j])

    def blocks(rows: slice) -> Tensor:
        return pair.cost.matrix(x[rows], y)

    truth = pair.truth
    if truth.cost_bound is not None:
        arrays["cost_bound"] = truth.cost_bound
        arrays["rounded_cost"] = metrics.rounded_cost(plan, a, b, costs, blocks)
    if truth.plan is None or truth.cost is None:
        return arrays

    optimal = truth.plan.double()
    points = y.flatten(1)
    arrays |= {
        "optimal_plan": optimal,
        "ot_cost": truth.cost,
        "rounded_cost": metrics.rounded_cost(plan, a, b, costs, blocks),
        "rounded_map": _of_places(x, a, metrics.barycentric_map(plan, a, b, points)),
        "optimal_map": _of_places(x, a, metrics.barycentric_map(optimal, a, b, points)),
        "target_variance": float(b @ (points - b @ points).square().sum(1)),
    }
    if pair.eps > 0:
        of_plan, best = (metrics.rounded_entropy(coupling, a, b) for coupling in (plan, optimal))
        arrays["rounded_objective"] = arrays["rounded_cost"] + pair.eps * of_plan
        arrays["optimal_objective"] = truth.cost + pair.eps * best
    return arrays


def _of_places(x: Tensor, a: Tensor, mapped: Tensor) -> Tensor:
    """Mapped points of which copies of a source point share the mean: how optimal plans deal out
    the mass of a place among its points is arbitrary.
    """
    places, place, (sums, mass) = metrics.merged(x, a[:, None] * mapped, a)
    return mapped if len(places) == len(x) else (sums / mass[:, None])[place]


def _warm_start(pair: DiscreteProblem, transport: Transport | None) -> dict[str, Any]:
    """Iterations of Sinkhorn's algorithm from a predicted potential, and from zero."""
    if transport is None or transport.pair_potential is None or not pair.eps > 0:
        return {}
    if len(pair.x) * len(pair.y) > SOLVED:
        return {}
    predicted = transport.pair_potential(pair)
    check_output("pair_potential", predicted, (len(pair.x),), like=pair.x)
    problem = Entropic(pair)
    stop = {"tolerance": WARM_TOLERANCE, "max_iters": WARM_ITERATIONS}
    return {
        "warm_iterations": problem.solve(predicted.double()[problem.rows], **stop).iterations,
        "cold_iterations": problem.solve(**stop).iterations,
    }
