"""Solvers that learn to predict the potential of an entropic pair, and make its plan from that.

An adapter writes ``learn(problems, context)``: from training problems to a function that predicts
the potential f of a problem on the source points with mass. Every prediction becomes a plan in the
same way, `Entropic.plan_from`, so that what is compared are the predictions.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from otbench.methods.entropic import Entropic
from otbench.problem import AmortizedProblem, Cost, DiscreteProblem, Problem
from otbench.solver import TUNED_BELOW_1000, FitContext, Solver, Transport


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

T = TypeVar("T")
Predictor = Callable[[Entropic], "Tensor"]
Info = Mapping[str, float | int | str | bool]


class Remembered(Generic[T]):
    """A function of tensors that remembers its last value, for pairs that share their points: a
    grid, or fixed locations.

    It goes by the tensors' identity, so that the same points in other tensors are computed again,
    and by their version, so that points that were changed in place are too.
    """

    def __init__(self, function: Callable[..., T]) -> None:
        self.function = function
        self.seen: tuple[tuple[Tensor, int], ...] = ()

    def __call__(self, *tensors: Tensor) -> T:
        """The value for these tensors."""
        seen = self.seen
        if len(seen) != len(tensors) or any(
            a is not b or v != b._version for (a, v), b in zip(seen, tensors, strict=True)
        ):
            self.value = self.function(*tensors)
            self.seen = tuple((tensor, tensor._version) for tensor in tensors)
        return self.value


def entropic_problems(cost: Cost) -> Callable[[DiscreteProblem], Entropic]:
    """Takes pairs to their entropic problems, in float64; on points that pairs share costs are
    computed once.
    """
    costs = Remembered(lambda x, y: cost.matrix(x.double(), y.double()))
    return lambda pair: Entropic(pair, matrix=lambda: costs(pair.x, pair.y))


def draw_pairs(
    pairs: Sequence[DiscreteProblem], number: int, crossed: bool, generator: torch.Generator
) -> list[DiscreteProblem]:
    """``number`` pairs with replacement; ``crossed``: any source with any target, as Amos et al.
    (2023) draw any two images.
    """
    import torch

    indices = torch.randint(
        len(pairs), (2, number), generator=generator, device=generator.device
    ).tolist()
    sources, targets = ([pairs[index] for index in side] for side in indices)
    return (
        [
            replace(source, y=target.y, b=target.b)
            for source, target in zip(sources, targets, strict=True)
        ]
        if crossed
        else sources
    )


@dataclass(frozen=True)
class AmortizedSolver(Solver):
    """Base of the solvers that predict potentials."""

    learns: ClassVar[bool] = True
    tuning: ClassVar[str] = TUNED_BELOW_1000

    def supports(self, problem: Problem) -> str | None:
        """Entropic pairs, some of them to learn from."""
        if not isinstance(problem, AmortizedProblem):
            return (
                "learns from pairs of clouds: takes the amortized setting only, not "
                f"{problem.setting}"
            )
        if not all(pair.eps > 0 for pair in (*problem.train, *problem.test)):
            return "predicts entropic potentials: takes pairs with an eps only"
        return (
            None
            if problem.train or not self.learns
            else "learns from pairs of clouds: this problem has none to train on"
        )

    @abstractmethod
    def learn(self, problems: Sequence[Entropic], context: FitContext) -> tuple[Predictor, Info]:
        """What to predict potentials with, in float64, and what is worth a column. Where nothing is
        learnt, one problem is given.
        """

    def fit(self, problem: Problem, context: FitContext) -> Transport:
        """Learn, and make plans of predictions."""
        assert isinstance(problem, AmortizedProblem)
        as_entropic = entropic_problems(problem.cost)
        predict, info = self.learn(
            [as_entropic(pair) for pair in problem.train or problem.test[:1]], context
        )

        def plan(pair: DiscreteProblem) -> Tensor:
            of_pair = as_entropic(pair)
            return of_pair.on_all_points(of_pair.plan_from(predict(of_pair)))

        def potential(pair: DiscreteProblem) -> Tensor:
            of_pair = as_entropic(pair)
            values = pair.a.new_zeros(len(pair.a))
            values[of_pair.rows] = predict(of_pair).to(values.dtype)
            return values

        return Transport(plan=plan, pair_potential=potential, info=info)
