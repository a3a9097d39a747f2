"""The constant map T(x) = E y: what knowing only the mean of the target scores, 100 % unexplained
variance by definition.

The mean is that of ``n`` samples, which adds 100 / n % to the score.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from otbench import FitContext, MapProblem, Problem, Solver, Transport


BATCH = 4096  # points drawn at a time: a point may be an image


@dataclass(frozen=True)
class Constant(Solver):
    """T(x) = mean of the target.

    Attributes:
        n: points of the target that the mean is taken over.
    """

    name: ClassVar[str] = "constant"
    trivial: ClassVar[bool] = True
    n: int = 65536

    def __post_init__(self) -> None:
        """Check the parameters."""
        self.require(at_least_one=("n",))

    def supports(self, problem: Problem) -> str | None:
        """Map problems."""
        return None if isinstance(problem, MapProblem) else "takes map problems only"

    def fit(self, problem: Problem, context: FitContext) -> Transport:
        """Average samples of the target, in float64."""
        import torch

        assert isinstance(problem, MapProblem)
        total = torch.zeros(problem.target.shape, device=context.device, dtype=torch.float64)
        for start in range(0, self.n, BATCH):
            total += problem.target.sample(min(BATCH, self.n - start), context.generator).sum(
                0, dtype=torch.float64
            )
        mean = problem.cost.project(total / self.n)
        return Transport(
            push=lambda x: mean.to(x.dtype).repeat(len(x), *(1,) * mean.ndim), info={"n": self.n}
        )
