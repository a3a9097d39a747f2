"""Coordinates about the means of source and target, in one unit, for libraries that train networks
of points of size one, and for the squared Euclidean cost.

With ``u = x - m`` and ``v = y - k``, the means taken off, and ``d = m - k``,

    ||x - y||^2 = |u|^2 + 2 <u, d> + |d|^2 + |v|^2 - 2 <v, d> - 2 <u, v>:

the map that is optimal between ``u / s`` and ``v / s`` is so between x and y. Where it is the
gradient of a convex f' with the conjugate f'*, potentials of the cost are

    f(x) = |u|^2 + 2 <u, d> + |d|^2 - 2 s^2 f'(u / s),
    g(y) = |v|^2 - 2 <v, d> - 2 s^2 f'*(v / s).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from otbench.methods.refusals import other_cost
from otbench.problem import SQEUCLIDEAN, MapProblem, Measure, Problem


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor
    Evaluate = Callable[[Tensor], tuple[Tensor, Tensor]]

POINTS = 2**14  # that the means and the unit are taken over,
COORDINATES = 2**22  # or as many as have these coordinates


@dataclass(frozen=True)
class Standard:
    """Coordinates ``(n, d)`` in which both measures have mean 0 and their coordinates the mean
    variance 1.

    Attributes:
        source, target: means, ``(d,)`` in float64.
        unit: s, a length of the problem's own coordinates.
    """

    source: Tensor
    target: Tensor
    unit: float

    @classmethod
    def of(cls, problem: MapProblem, generator: torch.Generator) -> Standard:
        """Those of a sample."""
        n = max(1, min(POINTS, COORDINATES // problem.source.dim))
        x, y = (
            measure.sample(n, generator).double().flatten(1)
            for measure in (problem.source, problem.target)
        )
        variances = x.var(0, correction=0).mean() + y.var(0, correction=0).mean()
        return cls(x.mean(0), y.mean(0), float((variances / 2).sqrt()) or 1.0)

    def batches(
        self, problem: MapProblem, batch: int, generator: torch.Generator
    ) -> tuple[Iterator[Tensor], Iterator[Tensor]]:
        """``(batch, d)`` fresh points of the source and of the target in float32, without end."""

        def drawn(measure: Measure, mean: Tensor) -> Iterator[Tensor]:
            while True:
                yield self.inside(measure.sample(batch, generator), mean)

        return drawn(problem.source, self.source), drawn(problem.target, self.target)

    def inside(self, points: Tensor, mean: Tensor) -> Tensor:
        """``(n, *shape)`` to coordinates in float32."""
        return ((points.double().flatten(1) - mean) / self.unit).float()

    def push(self, mapped: Callable[[Tensor], Tensor], x: Tensor, shape: tuple[int, ...]) -> Tensor:
        """``(n, *shape)``: T(x), ``mapped`` being the map of coordinates."""
        pushed = self.unit * mapped(self.inside(x, self.source)).double() + self.target
        return pushed.reshape(-1, *shape).to(x.dtype)

    def potential(self, evaluate: Evaluate) -> Callable[[Tensor], Tensor]:
        """f, of ``evaluate``, which gives f' and its gradient."""
        return self._potential(evaluate, self.source, self.source - self.target, 1.0)

    def target_potential(self, evaluate: Evaluate) -> Callable[[Tensor], Tensor]:
        """g, of ``evaluate``, which gives f'* and its gradient."""
        return self._potential(evaluate, self.target, self.target - self.source, 0.0)

    def _potential(
        self, evaluate: Evaluate, mean: Tensor, shift: Tensor, constant: float
    ) -> Callable[[Tensor], Tensor]:
        import torch

        class Potential(torch.autograd.Function):
            """Autograd takes the gradient that comes with the values."""

            @staticmethod
            def forward(ctx: Any, points: Tensor) -> Tensor:
                u = points.double().flatten(1) - mean
                inner, slope = (part.double() for part in evaluate(self.inside(points, mean)))
                slope = 2 * (u + shift - self.unit * slope)
                ctx.save_for_backward(slope.reshape(points.shape).to(points.dtype))
                values = u.square().sum(1) + 2 * u @ shift - 2 * self.unit**2 * inner
                return (values + constant * shift @ shift).to(points.dtype)

            @staticmethod
            @torch.autograd.function.once_differentiable
            def backward(ctx: Any, weight: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
                (slope,) = ctx.saved_tensors
                return weight.reshape(-1, *(1,) * (slope.ndim - 1)) * slope

        return Potential.apply


def no_standard(problem: Problem) -> str | None:
    """Why a problem has no such coordinates, for ``Solver.supports``."""
    if not isinstance(problem, MapProblem):
        return "takes map problems only"
    if reason := other_cost(problem, SQEUCLIDEAN):
        return reason
    if problem.source.shape != problem.target.shape:
        return f"takes equal shapes only, not {problem.source.shape} and {problem.target.shape}"
    return None
