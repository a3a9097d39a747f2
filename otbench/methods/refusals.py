"""Why a method cannot take a problem, by its cost or its clouds: one line each, for
``Solver.supports``.
"""

from __future__ import annotations

from collections.abc import Sequence

from otbench.problem import (
    SQEUCLIDEAN,
    AmortizedProblem,
    Cost,
    DiscreteProblem,
    MapProblem,
    Problem,
)


EQUAL = 1e-5  # relative difference of weights that are equal: single precision rounds to less


def pairs_of(problem: Problem) -> Sequence[DiscreteProblem]:
    """The pairs of clouds that a solver is shown. A map problem has none: its clouds are sampled,
    as many points of each and with equal weights.
    """
    if isinstance(problem, AmortizedProblem):
        return [*problem.train, *problem.test]
    return [] if isinstance(problem, MapProblem) else [problem]


def other_cost(problem: Problem, *costs: Cost) -> str | None:
    """For methods of these costs alone: the problem has another."""
    if problem.cost in costs:
        return None
    names = " and ".join(cost.name for cost in costs)
    several = "s" if len(costs) > 1 else ""
    return f"takes the {names} cost{several} only, not {problem.cost.name}"


def no_vector_space(problem: Problem) -> str | None:
    """For methods that train maps within one space of vectors, of squared Euclidean cost: the
    problem is another.
    """
    if not isinstance(problem, MapProblem):
        return "takes map problems only"
    if problem.cost != SQEUCLIDEAN:
        return f"trains for the sqeuclidean cost in one space, not {problem.cost.name}"
    if len(problem.source.shape) != 1:
        return f"takes vectors, not shape {problem.source.shape}"
    return None


def regularised(problem: Problem) -> str | None:
    """For methods that have no plan of a given eps: the problem asks for one."""
    eps = max((pair.eps for pair in pairs_of(problem)), default=0.0)
    return f"solves problems without an eps only, not eps = {eps:g}" if eps > 0 else None


def weighted(problem: Problem) -> str | None:
    """For methods that know no weights: the points of a cloud have different ones."""
    for pair in pairs_of(problem):
        for weights in (pair.a, pair.b):
            if float((weights * len(weights) - 1).abs().max()) > EQUAL:
                return "takes points of equal weights only"
    return None


def no_bijection(problem: Problem) -> str | None:
    """For methods that match points one to one: of the points with mass there are not as many in
    each cloud, or their weights differ.
    """
    for pair in pairs_of(problem):
        a, b = pair.a[pair.a > 0], pair.b[pair.b > 0]
        if len(a) != len(b):
            return f"takes as many points of the source as of the target, not {len(a)} and {len(b)}"
        if max(float((weights * len(a) - 1).abs().max()) for weights in (a, b)) > EQUAL:
            return "takes points of equal weights only"
    return None
