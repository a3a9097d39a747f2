"""Potentials of transport along random lines: what amortized solvers predict from (Truong & Nguyen
2026).

Both clouds are projected on L lines; on each, the optimal potentials of the cost |s - t|^2 between
the projected measures are those of the staircase that fills the plan from one end to the other. On
the sphere the points are taken to the plane first, by stereographic projection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from otbench.methods.amortized.solver import Remembered
from otbench.methods.entropic import Entropic
from otbench.problem import GEODESIC, Cost, DiscreteProblem


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

POLE = 1 - 1e-6  # greatest third coordinate of a point that is projected stereographically


def coordinates(points: Tensor, cost: Cost) -> Tensor:
    """``(n, d)``: where the points are projected from; of the sphere ``(n, 3)`` the plane, ``2
    (x_1, x_2) / (1 - x_3)``.
    """
    if cost != GEODESIC:
        return points.flatten(1)
    height = points[:, 2:].clamp(max=POLE)
    flat = points[:, :2]
    flat = flat * (
        (1 - height.square()).clamp(min=0).sqrt() / flat.norm(dim=1, keepdim=True).clamp(min=1e-30)
    )
    return 2 * flat / (1 - height)


class Slices:
    """Potentials of the source of a pair along fixed lines.

    Args:
        directions: ``(L, d)`` of norm one.
        cost: says where points are projected from.
        autograd: take POT's derivatives of the one-dimensional cost instead of valid potentials, as
            the authors of the method do.
    """

    def __init__(self, directions: Tensor, cost: Cost, autograd: bool = False) -> None:
        self.directions, self.autograd = directions, autograd

        def projected(points: Tensor) -> tuple[Tensor, Tensor]:
            flat = coordinates(points.double(), cost)
            if flat.shape[1] != directions.shape[1]:
                raise ValueError(
                    f"lines in dimension {directions.shape[1]} cannot project points of dimension "
                    f"{flat.shape[1]}"
                )
            values, order = (directions @ flat.T).sort(1)
            return values, order

        self.source, self.target = Remembered(projected), Remembered(projected)

    @classmethod
    def draw(
        cls, number: int, pair: DiscreteProblem, generator: torch.Generator, autograd: bool = False
    ) -> Slices:
        """Directions uniform on the sphere, for pairs like this one."""
        import torch

        dim = coordinates(pair.x[:1], pair.cost).shape[1]
        directions = torch.randn(
            number, dim, generator=generator, device=generator.device, dtype=torch.float64
        )
        return cls(directions / directions.norm(dim=1, keepdim=True), pair.cost, autograd)

    def features(self, problem: Entropic, everywhere: bool = False) -> Tensor:
        """``(n, L)``: the potential of each point with mass along each line; with ``everywhere``,
        of all points of the source.

        Columns are centred.
        """
        import torch

        f, points = self._potentials(problem, everywhere)
        placed = torch.empty_like(f).scatter_(1, points, f)
        return (placed - placed.mean(1, keepdim=True)).T

    def potential(self, problem: Entropic, omega: Tensor) -> Tensor:
        """``(n,)``: the sum of the potentials with the weights ``omega`` ``(L,)``, up to a
        constant, at the points with mass.
        """
        f, points = self._potentials(problem, everywhere=False)
        return f.new_zeros(f.shape[1]).index_add_(
            0, points.flatten(), (omega[:, None] * f).flatten()
        )

    def _potentials(self, problem: Entropic, everywhere: bool) -> tuple[Tensor, Tensor]:
        """Potentials ``(L, n)`` in the order of the points on each line, and which points these
        are.

        On points that many pairs share the projections are sorted once; those with mass keep their
        order.
        """
        pair = problem.pair
        x, points, a = self._weighted(self.source(pair.x), pair.a.double(), everywhere)
        y, _, b = self._weighted(self.target(pair.y), pair.b.double(), everywhere)
        if self.autograd:
            return _quantile_derivative(x, a, y, b), points
        return line_potential(x, a, y, b), points

    def _weighted(
        self, line: tuple[Tensor, Tensor], weights: Tensor, everywhere: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Sorted places ``(L, n)``, their points, and their masses, of all points or of those with
        mass.
        """
        places, points = line
        weights = weights / weights.sum()
        if everywhere:
            return places, points, weights[points]
        positive = weights > 0
        held = positive[points].flatten().nonzero()[:, 0]
        points = points.flatten()[held]
        places, masses = places.flatten()[held], weights[points]
        number = positive.cumsum(0).sub_(1)[points]
        return tuple(values.view(len(self.directions), -1) for values in (places, number, masses))  # type: ignore[return-value]


def _quantile_derivative(x: Tensor, a: Tensor, y: Tensor, b: Tensor) -> Tensor:
    import ot

    columns = (values.T.contiguous() for values in (x, y, a, b))
    derivative, *_ = cast("tuple[Tensor, ...]", ot.lp.solver_1d.emd_1d_dual_backprop(*columns, p=2))
    return derivative.T


def line_potential(x: Tensor, a: Tensor, y: Tensor, b: Tensor) -> Tensor:
    """The optimal potential of the source for the cost |s - t|^2 on a line, for any number of lines
    at once.

    The staircase that fills the plan from one end goes down first: from the point x_i to the next
    it stays at the target point which the mass up to x_i reaches first, always one with mass. So
    the potential is valid with ties, and at points without mass it is the c-transform from the
    target's points with mass; the derivative of the quantile formula is neither.

    Args:
        x: ``(..., n)`` sorted along the last dimension.
        a: ``(..., n)`` masses of these points, non-negative.
        y: ``(..., m)`` sorted.
        b: ``(..., m)`` masses, of the same sum.

    Returns:
        ``(..., n)``, zero at the first point.
    """
    import torch

    supplied = b.cumsum(-1)
    level = (
        a[..., :-1].cumsum(-1).clamp(max=supplied[..., -1:]).maximum(supplied.gather(-1, _first(b)))
    )
    column = torch.searchsorted(supplied.contiguous(), level.contiguous())
    return _summed(x, y.gather(-1, column))


def line_potentials(x: Tensor, a: Tensor, y: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """`line_potential`, and the potential of the target beside it, with arguments as there.

    ``f_i + g_j <= |x_i - y_j|^2`` everywhere, with equality on the staircase, so that <a, f> + <b,
    g> is the optimal cost.
    """
    import torch

    f, reached, supplied = line_potential(x, a, y, b), a.cumsum(-1), b.cumsum(-1)
    supplied, total = supplied[..., :-1], supplied[..., -1:]
    # the row at which the staircase goes right from column j: the first before there is any mass,
    # the last after all of it
    row = torch.searchsorted(reached.contiguous(), supplied.contiguous(), right=True)
    row = (
        row.masked_fill(supplied == 0, 0)
        .masked_fill(supplied >= total, x.shape[-1] - 1)
        .clamp(max=x.shape[-1] - 1)
    )
    g = _summed(y, x.gather(-1, row))
    first = _first(b)
    return f, g + (x[..., :1] - y.gather(-1, first)).square() - g.gather(-1, first)


def _first(masses: Tensor) -> Tensor:
    """``(..., 1)``: the index of the first point with mass."""
    import torch

    return (masses > 0).to(torch.uint8).argmax(-1, keepdim=True)


def _summed(x: Tensor, opposite: Tensor) -> Tensor:
    """The potential whose step from a point to the next is that of the cost to the point
    ``opposite``.
    """
    import torch

    steps = (x[..., 1:] - x[..., :-1]) * (x[..., 1:] + x[..., :-1] - 2 * opposite)
    return torch.nn.functional.pad(steps.cumsum(-1), (1, 0))
