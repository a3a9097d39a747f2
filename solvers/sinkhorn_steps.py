"""A few iterations of Sinkhorn's algorithm from zero (Cuturi 2013), among the points with mass:
what a learned prediction must beat.

The same code as that of the truths of entropic tasks (`otbench.methods.entropic`): an iteration
updates the potential of the target, then that of the source. Points without mass take no part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from otbench import DiscreteProblem, FitContext, MapProblem, Problem
from otbench.methods.discrete import Coupling, SinkhornSolver


@dataclass(frozen=True)
class SinkhornSteps(SinkhornSolver):
    """By default one iteration; ``sinkhorn-steps[max_iters=[1,10]]``."""

    name: ClassVar[str] = "sinkhorn-steps"
    trivial: ClassVar[bool] = True
    max_iters: int = 1
    tolerance: float = 1e-9

    def supports(self, problem: Problem) -> str | None:
        """Clouds."""
        return (
            "couples clouds; for maps take pot-sinkhorn"
            if isinstance(problem, MapProblem)
            else None
        )

    def couple(self, pair: DiscreteProblem, context: FitContext) -> Coupling:
        """Iterate."""
        problem = self.entropic_problem(pair)
        return Coupling(
            problem.on_all_points(
                problem.solve(tolerance=self.tolerance, max_iters=self.max_iters).plan
            )
        )
