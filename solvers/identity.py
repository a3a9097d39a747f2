"""The identity map T(x) = x, or the embedding Q(x) between different spaces: what doing nothing
scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from otbench import FitContext, MapProblem, Problem, Solver, Transport


@dataclass(frozen=True)
class Identity(Solver):
    """T(x) = x, seen in the target's space."""

    name: ClassVar[str] = "identity"
    trivial: ClassVar[bool] = True

    def supports(self, problem: Problem) -> str | None:
        """Map problems."""
        return None if isinstance(problem, MapProblem) else "takes map problems only"

    def fit(self, problem: Problem, context: FitContext) -> Transport:
        """Nothing to fit."""
        assert isinstance(problem, MapProblem)
        embed = problem.cost.embed
        return Transport(push=lambda x: embed(x).clone())
