"""Solvers that fit a map to a sample of each measure, for the squared Euclidean cost.

An adapter writes ``between(x, y, context)``. It is given each sample about its mean, in units of
the root of its total variance, which leaves the couplings of least cost what they are: the cost of
a coupling of (x - m) / s and (y - m') / s' is that of x and y up to the factor s s' and terms that
all couplings share. Defaults made for data of size one then do for data of any size, and what the
map is in those units is undone after it: T(x) = m' + s' T'((x - m) / s).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otbench.methods.extension import in_chunks
from otbench.methods.refusals import other_cost
from otbench.problem import SQEUCLIDEAN, MapProblem, Problem
from otbench.solver import Solver, Transport


if TYPE_CHECKING:
    import torch

    from otbench.solver import FitContext

    Tensor = torch.Tensor


@dataclass(frozen=True)
class SampleMap(Solver):
    """Base of the adapters of maps fitted to samples.

    Attributes:
        n: points sampled from each measure.
    """

    n: int = 1024

    def __post_init__(self) -> None:
        """Check the parameters."""
        if self.n < 2:
            raise ValueError(f"n must be at least 2, got {self.n}")

    @abstractmethod
    def between(self, x: Tensor, y: Tensor, context: FitContext) -> Transport:
        """Fit to two samples ``(n, d)`` of mean zero and total variance one, in float64.

        Returns:
            The map ``(k, d) -> (k, d)``, and draws ``(k, d)`` and j to ``(k, j, d)`` where there
            are any, from and to the units of the samples, in float64.
        """

    def supports(self, problem: Problem) -> str | None:
        """Map problems between points of one shape, of squared Euclidean cost."""
        if not isinstance(problem, MapProblem):
            return "takes map problems only"
        if reason := other_cost(problem, SQEUCLIDEAN):
            return reason
        source, target = problem.source.shape, problem.target.shape
        return None if source == target else f"takes points of one shape, not {source} and {target}"

    def fit(self, problem: Problem, context: FitContext) -> Transport:
        """Sample both measures, fit in units of their spread."""
        assert isinstance(problem, MapProblem)
        x, x_mean, x_unit = standard(problem.source.sample(self.n, context.generator))
        y, y_mean, y_unit = standard(problem.target.sample(self.n, context.generator))
        found = self.between(x, y, context)

        def moved(points: Tensor, to: Callable[[Tensor], Tensor]) -> Tensor:
            mapped = y_mean + y_unit * to((points.double().flatten(1) - x_mean) / (x_unit or 1.0))
            return mapped.unflatten(-1, problem.target.shape).to(points.dtype)

        push, sample = found.push, found.sample
        assert push is not None
        return Transport(
            push=in_chunks(lambda points: moved(points, push)),
            sample=sample and (lambda points, k: moved(points, lambda x: sample(x, k))),
            estimates_map=found.estimates_map,
            info={"n": self.n, **found.info},
        )


def standard(points: Tensor) -> tuple[Tensor, Tensor, float]:
    """Points ``(n, d)`` of mean zero and total variance one in float64, and the mean and the unit
    that make them the points ``(n, *shape)``; the unit is zero where all are at one place.
    """
    points = points.double().flatten(1)
    mean = points[0] + (points - points[0]).mean(0)  # exactly the point that all are, if they are
    points = points - mean
    unit = float(points.square().sum(1).mean().sqrt())
    return points / (unit or 1.0), mean, unit
