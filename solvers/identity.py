"""The identity map T(x) = x: what doing nothing scores. Defined where source and target have the same shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from otbench import MapProblem, Problem, Run, Solver, Transport


@dataclass(frozen=True)
class Identity(Solver):
    """T(x) = x."""

    name: ClassVar[str] = "identity"
    trivial: ClassVar[bool] = True

    def supports(self, problem: Problem) -> str | None:
        """Map problems between equal spaces."""
        if not isinstance(problem, MapProblem):
            return "takes map problems only"
        return None if problem.source.shape == problem.target.shape else "source and target have different shapes"

    def fit(self, problem: Problem, run: Run) -> Transport:
        """Nothing to fit."""
        return Transport(push=lambda x: x.clone())
