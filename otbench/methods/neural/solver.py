"""The base of neural solvers: one fit is a stack of one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from otbench.errors import DivergedError
from otbench.problem import MapProblem, Problem
from otbench.solver import TUNED_BELOW_1000, FitContext, Solver, Transport


class NeuralSolver(Solver):
    """Base of solvers that train a stack of problems as one. Its settings are dataclass fields of
    the subclasses.
    """

    batched: ClassVar[bool] = True
    tuning: ClassVar[str] = TUNED_BELOW_1000

    def fit(self, problem: Problem, context: FitContext) -> Transport:
        """Train one.

        Raises:
            DivergedError: the weights are not finite.
        """
        (outcome,) = self.fit_together([problem], [context])
        if isinstance(outcome, DivergedError):
            raise outcome
        return outcome

    @abstractmethod
    def fit_together(
        self, problems: Sequence[Problem], contexts: Sequence[FitContext]
    ) -> list[Transport | DivergedError]:
        """Train one for each problem, all of the same shapes, as one stack."""


def as_maps(problems: Sequence[Problem]) -> list[MapProblem]:
    """The same problems, with the type that ``supports`` makes sure of."""
    maps = [problem for problem in problems if isinstance(problem, MapProblem)]
    assert len(maps) == len(problems), "refused by supports"
    return maps
