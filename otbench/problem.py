"""The nouns of the suite: Measure, Cost, Problem, Truth, Transport, Run, Task, Solver.

Conventions, everywhere:

* Points are torch tensors of shape ``(n, *shape)``; for vectors ``shape == (d,)``.
* Costs, potentials and entropic ``eps`` are in the units of the named cost. ``sqeuclidean`` is ``||x - y||^2``, without the 1/2
  of the papers, which is converted at the border.
* A problem lives on one device with one dtype; what a solver returns must live there too.

Nothing heavy is imported here: torch appears in annotations only, so that listing tasks and solvers stays fast.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar


if TYPE_CHECKING:
    import numpy as np
    import torch

    Tensor = torch.Tensor


@dataclass(frozen=True)
class Cost:
    """A named ground cost with its convention.

    ``pairwise(x, y)`` takes ``(n, *shape)`` twice to ``(n,)``; ``matrix(x, y)`` takes ``(n, *shape)`` and ``(m, *shape)`` to ``(n, m)``.
    """

    name: str
    convention: str
    pairwise: Callable[[Tensor, Tensor], Tensor] = field(repr=False, compare=False)
    matrix: Callable[[Tensor, Tensor], Tensor] = field(repr=False, compare=False)


def _sq_pairwise(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).flatten(1).square().sum(1)


def _sq_matrix(x: Tensor, y: Tensor) -> Tensor:
    x, y = x.flatten(1), y.flatten(1)
    gram = x @ y.T
    return gram.mul_(-2).add_(x.square().sum(1)[:, None]).add_(y.square().sum(1)).clamp_(min=0)


def _geodesic(cosine: Tensor) -> Tensor:
    return cosine.clamp(-1, 1).arccos()


SQEUCLIDEAN = Cost("sqeuclidean", "c(x, y) = ||x - y||^2", _sq_pairwise, _sq_matrix)
EUCLIDEAN = Cost(
    "euclidean",
    "c(x, y) = ||x - y||",
    lambda x, y: _sq_pairwise(x, y).sqrt(),
    lambda x, y: _sq_matrix(x, y).sqrt_(),
)
GEODESIC = Cost(
    "geodesic",
    "c(x, y) = arccos <x, y> in radians, x and y on the unit sphere",
    lambda x, y: _geodesic((x * y).sum(-1)),
    lambda x, y: _geodesic(x @ y.T),
)
COSTS: Mapping[str, Cost] = {cost.name: cost for cost in (SQEUCLIDEAN, EUCLIDEAN, GEODESIC)}


@dataclass(frozen=True)
class Measure:
    """A probability measure that can be sampled.

    Attributes:
        shape: shape of one point, ``(d,)`` for vectors.
        draw: ``draw(n, generator)`` gives ``(n, *shape)`` independent points on the generator's device.
        mean: ``(d,)`` where known exactly.
        cov: ``(d, d)`` where known exactly.
        variance: total variance E||y - E y||^2 where known (exactly, or as an official reference value).
    """

    shape: tuple[int, ...]
    draw: Callable[[int, torch.Generator], Tensor] = field(repr=False)
    mean: Tensor | None = field(default=None, repr=False)
    cov: Tensor | None = field(default=None, repr=False)
    variance: float | None = None

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """``(n, *shape)`` independent points, on the generator's device."""
        return self.draw(n, generator)

    @property
    def dim(self) -> int:
        """Number of coordinates of one point."""
        total = 1
        for size in self.shape:
            total *= size
        return total


@dataclass(frozen=True)
class Truth:
    """What is known of the answer, and how it is known.

    Attributes:
        certificate: ``closed_form`` (a formula), ``brenier`` (the gradient of an explicit convex potential), ``dual_certificate``
            (plan cost = dual cost), ``lp`` (exact on the given points) or ``entropic``.
        cost: optimal transport cost in cost units.
        map: the optimal map, ``(n, *source shape) -> (n, *target shape)``; absent where there is none or it is not unique.
        plan: the optimal plan of a discrete problem, ``(n, m)``, summing to one.
        potential: a Kantorovich potential on the source side, ``(n, *shape) -> (n,)``.
    """

    certificate: str
    cost: float | None = None
    map: Callable[[Tensor], Tensor] | None = field(default=None, repr=False)
    plan: Tensor | None = field(default=None, repr=False)
    potential: Callable[[Tensor], Tensor] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class MapProblem:
    """Setting *map*: two measures; find T with T#source = target of least cost E c(x, T(x))."""

    setting: ClassVar[str] = "map"
    source: Measure
    target: Measure
    cost: Cost
    truth: Truth


@dataclass(frozen=True)
class DiscreteProblem:
    """Setting *discrete*: two weighted point clouds; find a plan of least cost.

    Attributes:
        x, y: points, ``(n, d)`` and ``(m, d)``.
        a, b: weights, ``(n,)`` and ``(m,)``, non-negative, each summing to one.
    """

    setting: ClassVar[str] = "discrete"
    x: Tensor
    a: Tensor
    y: Tensor
    b: Tensor
    cost: Cost
    truth: Truth


@dataclass(frozen=True)
class AmortizedProblem:
    """Setting *amortized*: learn from training pairs, then solve held-out pairs fast. Each pair is a discrete problem."""

    setting: ClassVar[str] = "amortized"
    train: Sequence[DiscreteProblem]
    test: Sequence[DiscreteProblem]
    cost: Cost
    truth: Truth


Problem = MapProblem | DiscreteProblem | AmortizedProblem


@dataclass(frozen=True)
class Transport:
    """What a solver returns. Whatever it does not have stays None.

    Attributes:
        push: the map, ``(n, *source shape) -> (n, *target shape)``; required in the map setting. It must act point by point.
        sample: draws from the plan given x: ``sample(x, k)`` is ``(n, k, *target shape)``.
        potential: Kantorovich potential on the source side in cost units, ``(n, *shape) -> (n,)``.
        plan: the coupling of a discrete problem, ``(n, m)``; required in the discrete and amortized settings.
        info: plain numbers, strings and booleans worth a column (``info_<name>``), units in the names.
    """

    push: Callable[[Tensor], Tensor] | None = None
    sample: Callable[[Tensor, int], Tensor] | None = None
    potential: Callable[[Tensor], Tensor] | None = None
    plan: Callable[[DiscreteProblem], Tensor] | None = None
    info: Mapping[str, float | int | str | bool] = field(default_factory=dict)


@dataclass
class Run:
    """What a solver is given beside the problem.

    Attributes:
        device, dtype: where tensors must live.
        seed: integer seed of the algorithm's own randomness (for JAX and numpy).
        generator: torch generator on the device for the algorithm's randomness, a stream apart from those of ``seed`` and of torch itself.
    """

    device: str
    dtype: torch.dtype
    seed: int
    generator: torch.Generator
    on_checkpoint: Callable[[int, Transport], None] | None = field(default=None, repr=False)

    def checkpoint(self, step: int, transport: Transport) -> None:
        """Offer the state after ``step`` steps for scoring. The clock stands still meanwhile."""
        if self.on_checkpoint is not None:
            self.on_checkpoint(step, transport)


class Task(ABC):
    """A family of problems with known answers. Subclass as a frozen dataclass; its annotated fields are the parameters.

    Class attributes:
        name: kebab-case, unique in the registry.
        setting: ``map``, ``discrete`` or ``amortized``.
        needs: import names that must be installed, beside torch.
    """

    name: ClassVar[str]
    setting: ClassVar[str] = "map"
    needs: ClassVar[tuple[str, ...]] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """Real data files it reads, relative to the data folder; their checksums go into the provenance."""
        return ()

    @abstractmethod
    def problem(self, rng: np.random.Generator, *, device: str, dtype: torch.dtype) -> Problem:
        """Build the problem. ``rng`` decides everything random about it, so that all solvers see the same one.

        Raises:
            MissingError: a data file is absent.
        """


class Solver(ABC):
    """A way to solve problems. Subclass as a frozen dataclass; its annotated fields are the parameters.

    Class attributes:
        name: kebab-case, unique in the registry.
        needs: import names that must be installed; they are imported before the clock starts.
        trivial: True for rows that a real method must beat (identity, constant, linear).
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    trivial: ClassVar[bool] = False

    def supports(self, problem: Problem) -> str | None:
        """None if this solver takes the problem, else the reason why not (the run ends ``skipped``)."""
        return None

    @abstractmethod
    def fit(self, problem: Problem, run: Run) -> Transport:
        """Solve the problem. The caller owns the clock, the seeds (``run.generator``, ``run.seed``) and the device."""
