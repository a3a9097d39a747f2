"""What adapters of libraries of discrete transport share: pairs without the points that have no
mass, points about their mean in units of their distance, and plans of few entries.

Libraries take logarithms of weights, compare costs up to absolute tolerances and expand ``||x -
y||^2``: zero weights, small scales and large offsets would cost them their meaning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from otbench.methods.discrete import Coupling, SinkhornSolver
from otbench.problem import SQEUCLIDEAN, AmortizedProblem, DiscreteProblem, MapProblem, Problem


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

DENSE = 2**24  # entries of the largest plan of few entries that is returned as a full matrix
BLOCK = 2**24  # costs that are held at a time while averaging
EQUAL = 1e-5  # relative difference of weights that are taken for equal: float32 rounds more finely


def with_mass(pair: DiscreteProblem) -> tuple[DiscreteProblem, Callable[[Coupling], Coupling]]:
    """The pair without its points of zero weight, and the function that takes a coupling of it to
    one of all points: zero where there is no mass.
    """
    kept = pair.a > 0, pair.b > 0
    if kept[0].all() and kept[1].all():
        return pair, lambda coupling: coupling
    rows, columns = (of_side.nonzero()[:, 0] for of_side in kept)

    def on_all_points(coupling: Coupling) -> Coupling:
        plan, g = coupling.plan, coupling.g
        shape = len(pair.a), len(pair.b)
        if plan.is_sparse:
            (i, j), values = plan.coalesce().indices(), plan.coalesce().values()
            full = few_entries(rows[i], columns[j], values, shape)
        else:
            full = plan.new_zeros(shape)
            full[rows[:, None], columns] = plan
        if g is not None:
            g = g.new_zeros(len(pair.b)).index_copy_(0, columns, g)
        return replace(coupling, plan=full, g=g)

    x, a, y, b = pair.x[rows], pair.a[rows], pair.y[columns], pair.b[columns]
    return replace(pair, x=x, a=a, y=y, b=b), on_all_points


def standardised(pair: DiscreteProblem) -> tuple[Tensor, Tensor, float]:
    """The points ``(n, d)`` and ``(m, d)`` about the mean of the target, divided by the unit, and
    the unit: the root mean squared distance between the measures, one where all points coincide.
    """
    x, y, mean_square = _about_the_mean(pair)
    unit = mean_square**0.5 or 1.0
    return x / unit, y / unit, unit


def _about_the_mean(pair: DiscreteProblem) -> tuple[Tensor, Tensor, float]:
    """The flat points less the mean of the target, and the mean of ``||x - y||^2``."""
    x, y = pair.x.flatten(1), pair.y.flatten(1)
    origin = y[0] + pair.b @ (y - y[0])  # exactly that of points which coincide
    x, y = x - origin, y - origin
    return x, y, float(pair.a @ x.square().sum(1) + pair.b @ y.square().sum(1))


def mean_cost(pair: DiscreteProblem) -> float:
    """``a^T C b`` in cost units, without the whole of the cost matrix."""
    if pair.cost == SQEUCLIDEAN:
        return _about_the_mean(pair)[2]
    rows = max(1, BLOCK // len(pair.b))
    blocks = zip(pair.x.split(rows), pair.a.split(rows), strict=True)
    return sum(float(a @ pair.cost.matrix(x, pair.y) @ pair.b) for x, a in blocks)


def eps_of(solver: SinkhornSolver, pair: DiscreteProblem, mean: float) -> float:
    """The eps of a pair in cost units, where the mean cost is ``mean``.

    Where all costs are zero every eps has the same plan, that of the product of the weights; a
    multiple of the mean cost would be none.
    """
    return solver.in_cost_units(pair, mean) or 1.0


def few_entries(rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """A plan ``(n, m)`` from its entries ``(k,)``; sparse COO above `DENSE` entries in all."""
    import torch

    indices = torch.stack([rows, columns])
    plan = torch.sparse_coo_tensor(indices, values, shape, check_invariants=True).coalesce()
    return plan if shape[0] * shape[1] > DENSE else plan.to_dense()


def no_bijection(problem: Problem) -> str | None:
    """Why there is no bijection between the points with mass; None where there are as many of each,
    all of one weight.
    """
    if isinstance(problem, MapProblem):
        return None
    pairs = [*problem.train, *problem.test] if isinstance(problem, AmortizedProblem) else [problem]
    for pair in pairs:
        a, b = pair.a[pair.a > 0], pair.b[pair.b > 0]
        if len(a) != len(b):
            return f"takes as many points of the source as of the target, not {len(a)} and {len(b)}"
        if max(float((weights * len(a) - 1).abs().max()) for weights in (a, b)) > EQUAL:
            return "takes points of equal weights only"
    return None
