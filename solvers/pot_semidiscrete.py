"""Semi-discrete optimal transport, from a source that is drawn from at every step to a sample of
the target, by averaged stochastic gradients of the semi-dual (Genans et al. 2025), POT's
``ot.semidiscrete.solve_semidiscrete``, in float64.

    max_g    E min_j (c(x, y_j) - g_j) + sum_j b_j g_j,    x ~ source.

A new point goes to the target point that attains the minimum (``semidiscrete_ot_map``); f is that
minimum. Copies of a target point are one atom of their joint mass, so that a discrete target is
found as it is. The step sizes, and the entropic smoothing that falls from 0.1, are POT's, which are
made for costs of size one: it is given costs in units of twice the standard deviation of what in
them depends on both points. POT starts from g = 0, which clouds that are far apart or of different
size are too far from; where the mean costs of the target points make a better start, by the value
of the problem on a sample, g starts from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from otbench import (
    DiscreteProblem,
    FitContext,
    MapProblem,
    Problem,
    Solver,
    Transport,
    Truth,
)
from otbench.methods.extension import c_transform, in_chunks


if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class PotSemidiscrete(Solver):
    """Laguerre cells of a sample of the target, for any cost.

    Attributes:
        n: points sampled from the target.
        steps: of the stochastic gradient.
        batch: points of the source that a step draws.
    """

    name: ClassVar[str] = "pot-semidiscrete"
    needs: ClassVar[tuple[str, ...]] = ("ot",)
    tuning: ClassVar[str] = (
        "defaults of POT; unit of the costs: gaussian in dimensions 2 and 16, shifted by 100 and "
        "scaled by 100, and hyperbola, seed 1000, 4 units tried"
    )
    n: int = 1024
    steps: int = 10_000
    batch: int = 32

    def __post_init__(self) -> None:
        """Check the parameters."""
        self.require(at_least_one=("n", "steps", "batch"))

    def supports(self, problem: Problem) -> str | None:
        """Map problems."""
        return None if isinstance(problem, MapProblem) else "takes map problems only"

    def fit(self, problem: Problem, context: FitContext) -> Transport:
        """Sample the target once, the source at each step."""
        import ot.semidiscrete
        import torch

        library: Any = ot.semidiscrete  # its annotations know of no metric but a name
        assert isinstance(problem, MapProblem)

        def draw(k: int) -> torch.Tensor:
            return problem.source.sample(k, context.generator).double()

        y = problem.target.sample(self.n, context.generator).double()
        atoms, copies = torch.unique(y, dim=0, return_counts=True)
        x, a, b = draw(self.n), y.new_full((self.n,), 1 / self.n), copies.double() / self.n
        pair = DiscreteProblem(x, a, atoms, b, problem.cost, Truth("none"))
        unit, start = _scaled(pair)
        points = atoms.flatten(1)

        def metric(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return problem.cost.matrix(x, y).div_(unit)

        g = library.solve_semidiscrete(
            atoms,
            draw,
            b,
            metric,
            max_iter=self.steps,
            batch_size=self.batch,
            init_potential=start / unit,
        )

        def push(x: torch.Tensor) -> torch.Tensor:
            mapped = library.semidiscrete_ot_map(points, x, g, metric=metric)
            return mapped.reshape(-1, *problem.target.shape)

        return Transport(
            push=in_chunks(push),
            potential=c_transform(pair, g * unit, None),
            info={"n": self.n, "atoms": len(atoms)},
        )


def _scaled(pair: DiscreteProblem) -> tuple[float, torch.Tensor]:
    """The unit of the costs, and the potential ``(m,)`` to start from, in cost units."""
    import torch

    costs = pair.cost.matrix(pair.x, pair.y)
    means = pair.a @ costs

    def value(g: torch.Tensor) -> float:
        return float(pair.a @ (costs - g).amin(1) + pair.b @ g)

    start = max(torch.zeros_like(means), means, key=value)
    costs -= means
    costs -= (costs @ pair.b)[:, None]
    return 2 * float(pair.a @ costs.square_() @ pair.b) ** 0.5 or 1.0, start
