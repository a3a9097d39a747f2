"""The independent coupling: every target point receives from all source points alike, P = a b'.

The plan of infinite eps; what a coupling of clouds must beat.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from otbench import DiscreteProblem, FitContext, MapProblem, Problem
from otbench.methods.discrete import Coupling, DiscreteSolver


@dataclass(frozen=True)
class Independent(DiscreteSolver):
    """The product of the weights."""

    name: ClassVar[str] = "independent"
    trivial: ClassVar[bool] = True

    def supports(self, problem: Problem) -> str | None:
        """Clouds."""
        return (
            "couples clouds; of two measures it is the map to the mean, see constant"
            if isinstance(problem, MapProblem)
            else None
        )

    def couple(self, pair: DiscreteProblem, context: FitContext) -> Coupling:
        """Multiply."""
        return Coupling(pair.a[:, None] * pair.b)
