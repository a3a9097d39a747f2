"""Arrays of potentials: gradients and dual values for the cost ||x - y||, and the residuals of the
saddle of a map and a target potential, with the c-transform.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from otbench.errors import InvalidOutputError
from otbench.methods.c_transform import c_transform
from otbench.problem import EUCLIDEAN, MapProblem
from otbench.scoring.outputs import Outputs, check_output
from otbench.solver import Transport


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor


Calling = Callable[[], AbstractContextManager[None]]


def dual_arrays(
    problem: MapProblem, transport: Transport, x: Tensor, pool: Tensor, calling: Calling
) -> dict[str, Any]:
    """Values and gradient of the solver's potentials for the cost ||x - y||. A potential f alone
    makes the pair of f and -f there.

    Args:
        problem: what was solved.
        transport: what the solver returned.
        x: test points.
        pool: target points.
        calling: entered while a gradient of the solver's is computed.
    """
    import torch

    f, g, true = transport.potential, transport.target_potential, problem.truth.potential
    if f is None or problem.cost != EUCLIDEAN:
        return {}
    with torch.no_grad():
        of_x, of_y = f(x.clone()), -f(pool.clone()) if g is None else g(pool.clone())
    check_output("potential", of_x, (len(x),), like=x)
    check_output("potential" if g is None else "target_potential", of_y, (len(pool),), like=x)
    arrays = {"source_values": of_x, "target_side_values": of_y}
    if true is not None:
        with calling():
            gradient = _gradient(f, x)
        arrays |= {"gradient": gradient, "optimal_gradient": _gradient(true, x)}
        check_output("the gradient of potential", arrays["gradient"], tuple(x.shape), like=x)
    return arrays


@dataclass(frozen=True)
class Saddle:
    """A map and a target potential g, as a pair that is optimal only together.

    Attributes:
        problem: what was solved.
        g: the potential.
        sigma: of the noise that the source is smoothed with.
        x: points of the source that the saddle is of, smoothed.
        y: T(x).
        pool: target points.
    """

    problem: MapProblem
    g: Callable[[Tensor], Tensor]
    sigma: float
    x: Tensor
    y: Tensor
    pool: Tensor

    @classmethod
    def of(cls, outputs: Outputs, x: Tensor, mapped: Tensor, pool: Tensor) -> Saddle:
        """That of a solver with a target potential, on the first test points ``x``."""
        g, sigma = outputs.transport.target_potential, outputs.transport.sigma
        assert g is not None
        if sigma > 0:
            x = outputs.smoothed(x)
            mapped = outputs.push(x)
        return cls(outputs.problem, g, sigma, x, mapped[: len(x)], pool)

    def terms(self) -> dict[str, Any]:
        """The terms of the saddle's objective."""
        import torch

        with torch.no_grad():
            of_mapped, of_target = self.g(self.y), self.g(self.pool)
        check_output("target_potential", of_mapped, (len(self.y),), like=self.x)
        check_output("target_potential", of_target, (len(self.pool),), like=self.x)
        return {
            "inner_values": self.problem.cost.pairwise(self.x, self.y) - of_mapped,
            "target_values": of_target,
        }

    def optimum(self, cost: float, calling: Calling) -> dict[str, Any]:
        """What the objective is measured against; nothing where the optimal cost of the smoothed
        problem is unknown.

        Args:
            cost: optimal cost of the problem itself.
            calling: entered while a gradient of the solver's is computed.
        """
        if self.sigma > 0:
            smoothed = self.problem.truth.smoothed_cost
            if smoothed is None:
                return {}
            cost = smoothed(self.sigma)
        points = self.x, self.y, self.pool
        return {
            "c_transform": c_transform(self.problem.cost, self.g, *points, calling),
            "saddle_cost": cost,
        }


def _gradient(potential: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    import torch

    x = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        values = potential(x)
        if not values.requires_grad:
            raise InvalidOutputError(
                "potential has no gradient: make it differentiable by autograd"
            )
        return torch.autograd.grad(values.sum(), x)[0]
