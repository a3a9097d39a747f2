"""What adapters of libraries of discrete transport share: pairs without the points that have no
mass, points about their mean in units of their distance, and plans of few entries.

Libraries take logarithms of weights, compare costs up to absolute tolerances and expand ``||x -
y||^2``: zero weights, small scales and large offsets would cost them their meaning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from otbench.problem import SQEUCLIDEAN, DiscreteProblem
from otbench.solver import Coupling


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

DENSE = 2**24  # entries of the largest plan of few entries that is returned as a full matrix
BLOCK = 2**24  # costs that are held at a time while averaging


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


def centred(pair: DiscreteProblem) -> tuple[Tensor, Tensor, Tensor]:
    """The flat points ``(n, d)`` and ``(m, d)`` about the mean of the target, and that mean
    ``(d,)``.
    """
    x, y = pair.x.flatten(1), pair.y.flatten(1)
    origin = y[0] + pair.b @ (y - y[0])  # exactly that of points which coincide
    return x - origin, y - origin, origin


def standardised(pair: DiscreteProblem) -> tuple[Tensor, Tensor, float]:
    """The points ``(n, d)`` and ``(m, d)`` about the mean of the target, divided by the unit, and
    the unit: the root mean squared distance between the measures, one where all points coincide.
    """
    x, y, _ = centred(pair)
    unit = _mean_square(pair, x, y) ** 0.5 or 1.0
    return x / unit, y / unit, unit


def mean_cost(pair: DiscreteProblem) -> float:
    """``a^T C b`` in cost units, without the whole of the cost matrix."""
    if pair.cost == SQEUCLIDEAN:
        return _mean_square(pair, *centred(pair)[:2])
    rows = max(1, BLOCK // len(pair.b))
    blocks = zip(pair.x.split(rows), pair.a.split(rows), strict=True)
    return sum(float(a @ pair.cost.matrix(x, pair.y) @ pair.b) for x, a in blocks)


def _mean_square(pair: DiscreteProblem, x: Tensor, y: Tensor) -> float:
    """The mean of ``||x - y||^2``, of points about the mean of the target."""
    return float(pair.a @ x.square().sum(1) + pair.b @ y.square().sum(1))


def few_entries(rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """A plan ``(n, m)`` from its entries ``(k,)``; sparse COO above `DENSE` entries in all."""
    import torch

    indices = torch.stack([rows, columns])
    plan = torch.sparse_coo_tensor(indices, values, shape, check_invariants=True).coalesce()
    return plan if shape[0] * shape[1] > DENSE else plan.to_dense()
