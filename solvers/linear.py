"""The affine map T(x) = A x + b that is optimal between the Gaussians with the moments of the two
measures, by POT.

``A = S1^{-1/2} (S1^{1/2} S2 S1^{1/2})^{1/2} S1^{-1/2}`` and ``b = m2 - A m1`` (Dowson & Landau
1982; Knott & Smith 1984). The moments are those of ``n`` samples, in float64, with a ridge of 1e-10
of the mean variance: without it A does not exist for measures on a subspace.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from otbench import SQEUCLIDEAN, FitContext, MapProblem, Problem, Solver, Transport


if TYPE_CHECKING:
    import torch

RIDGE = 1e-10
COORDINATES = 2**25  # a sample of images of 12,288 values is one of 2,730


@dataclass(frozen=True)
class Linear(Solver):
    """Optimal affine map between the Gaussian approximations of the measures.

    Attributes:
        n: points of each measure that the moments are taken over; fewer where a point is large,
            `COORDINATES` of them in all.
    """

    name: ClassVar[str] = "linear"
    needs: ClassVar[tuple[str, ...]] = ("ot",)
    trivial: ClassVar[bool] = True
    n: int = 131072

    def __post_init__(self) -> None:
        """Check the parameters."""
        if self.n < 2:
            raise ValueError(f"n must be at least 2, got {self.n}")

    def supports(self, problem: Problem) -> str | None:
        """Map problems between vectors of the same dimension, of squared Euclidean cost."""
        if not isinstance(problem, MapProblem):
            return "takes map problems only"
        if problem.cost != SQEUCLIDEAN:
            return f"optimal for the sqeuclidean cost only, not {problem.cost.name}"
        if len(problem.source.shape) != 1 or problem.source.shape != problem.target.shape:
            return (
                f"takes vectors of one dimension, not shapes {problem.source.shape} and "
                f"{problem.target.shape}"
            )
        return None

    def fit(self, problem: Problem, context: FitContext) -> Transport:
        """Moments of samples, then the closed form."""
        import ot
        import torch

        assert isinstance(problem, MapProblem)
        n = min(self.n, COORDINATES // problem.source.dim)
        m1, s1 = _moments(problem.source.sample(n, context.generator))
        m2, s2 = _moments(problem.target.sample(n, context.generator))
        ridge = (
            RIDGE
            * (s1 + s2).trace()
            / len(m1)
            * torch.eye(len(m1), device=m1.device, dtype=m1.dtype)
        )
        matrix, shift = ot.gaussian.bures_wasserstein_mapping(m1, m2, s1 + ridge, s2 + ridge)[:2]
        return Transport(push=lambda x: (x.double() @ matrix + shift).to(x.dtype), info={"n": n})


def _moments(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    x = x.double()
    return x.mean(0), x.T.cov().reshape(x.shape[1], x.shape[1])
