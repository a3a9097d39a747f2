"""A spurious map with the true potential, planted: the second control of the verdict, which must
call it ``spurious``.

Not a method: the failure tasks know a map that is optimal against the true target potential and yet
does not push the source to the target (Choi, Choi & Kwon 2025). Its saddle is perfect, so only the
marginal can tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from otbench import FitContext, MapProblem, Problem, Solver, Transport


@dataclass(frozen=True)
class Planted(Solver):
    """The spurious map of the task."""

    name: ClassVar[str] = "planted"
    control: ClassVar[bool] = True

    def supports(self, problem: Problem) -> str | None:
        """Map problems that know a spurious map."""
        if not isinstance(problem, MapProblem):
            return "takes map problems only"
        return (
            None if problem.truth.spurious is not None else "no spurious map of this task is known"
        )

    def fit(self, problem: Problem, context: FitContext) -> Transport:
        """Nothing to fit."""
        assert isinstance(problem, MapProblem)
        return Transport(
            push=problem.truth.spurious, target_potential=problem.truth.target_potential
        )
