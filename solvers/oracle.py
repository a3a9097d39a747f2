"""The true map: what being right scores. The first control of the verdict.

Not a method: it reads the answer. It shows the floor of every metric, and that the verdict of a
correct solver is ``ok``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from otbench import FitContext, MapProblem, Problem, Solver, Transport


@dataclass(frozen=True)
class Oracle(Solver):
    """T* with the true potentials, where they are known."""

    name: ClassVar[str] = "oracle"
    control: ClassVar[bool] = True

    def supports(self, problem: Problem) -> str | None:
        """Map problems whose map is known and unique."""
        if not isinstance(problem, MapProblem):
            return "takes map problems only"
        return (
            None
            if problem.truth.map is not None
            else f"there is no map to know ({problem.truth.no_map})"
        )

    def fit(self, problem: Problem, context: FitContext) -> Transport:
        """Nothing to fit."""
        assert isinstance(problem, MapProblem) and problem.truth.map is not None
        truth = problem.truth
        return Transport(
            push=truth.map, potential=truth.potential, target_potential=truth.target_potential
        )
