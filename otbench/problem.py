"""What a transport problem is made of: Measure, Cost, Truth, the three kinds of Problem, and Task.

Conventions, everywhere:

* Points are torch tensors of shape ``(n, *shape)``; for vectors ``shape == (d,)``.
* Costs, potentials and entropic ``eps`` are in the units of the named cost. ``sqeuclidean`` is
  ``||x - y||^2``, without the 1/2 of the papers, which is converted at the border.
* A problem lives on one device with one dtype; what a solver returns must live there too.

Nothing heavy is imported here: torch appears in annotations only, so that listing tasks and solvers
    stays fast.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar

from otbench.parameters import Parameters


if TYPE_CHECKING:
    import numpy as np
    import torch

    Tensor = torch.Tensor


DIRECT_DIM = 16  # up to this dimension distances are as fast from differences of coordinates
CANCELLED = 2**20 * 2.0**-52  # of both squared norms: smaller costs are off by more than 1e-6
PATCH = 2**16  # entries that are computed again at a time


@dataclass(frozen=True)
class Cost:
    """A named ground cost with its convention.

    ``pairwise(x, y)`` takes ``(n, *shape)`` twice to ``(n,)``; ``matrix(x, y)`` takes ``(n,
    *shape)`` and ``(m, *shape)`` to ``(n, m)``; in single or double precision, whatever that of the
    problem.

    Attributes:
        power: the cost scales as this power of the distance.
        translates: whether a shift of both points leaves the cost as it is.
        embed: the map Q of source points into the target space, where the two spaces differ; the
            identity otherwise.
        project: nearest points of the space that the cost is defined on, where that is not all of
            R^d.
    """

    name: str
    convention: str
    pairwise: Callable[[Tensor, Tensor], Tensor] = field(repr=False, compare=False)
    matrix: Callable[[Tensor, Tensor], Tensor] = field(repr=False, compare=False)
    power: int = 1
    translates: bool = False
    embed: Callable[[Tensor], Tensor] = field(default=lambda x: x, repr=False, compare=False)
    project: Callable[[Tensor], Tensor] = field(default=lambda y: y, repr=False, compare=False)

    def embedded(self, embed: Callable[[Tensor], Tensor]) -> Cost:
        """The cost c(Q(z), y) between spaces of different shapes, Q being ``embed``."""
        return Cost(
            f"embedded-{self.name}",
            f"{self.convention} with x = Q(z)",
            lambda z, y: self.pairwise(embed(z), y),
            lambda z, y: self.matrix(embed(z), y),
            self.power,
            embed=embed,
            project=self.project,
        )

    def scale(self, variance: float) -> float:
        """The cost of moving by the standard deviation of a measure of this total variance, in cost
        units.
        """
        return variance ** (self.power / 2)


def _sq_pairwise(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).flatten(1).square().sum(1)


def _sq_matrix(x: Tensor, y: Tensor) -> Tensor:
    """Squared distances: in low dimension from differences of coordinates; above by the Gram matrix
    about the mean of y, where in double precision entries that it rounds away are taken from
    differences, too.
    """
    import torch

    x, y = x.flatten(1), y.flatten(1)
    if x.shape[1] <= DIRECT_DIM:
        distances = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
        return distances.square() if distances.requires_grad else distances.square_()
    origin = y.detach().mean(0)
    x, y = x - origin, y - origin
    of_x, of_y = x.square().sum(1)[:, None], y.square().sum(1)
    squared = (x @ y.T).mul_(-2).add_(of_x).add_(of_y).clamp_(min=0)
    left = squared.requires_grad or squared.dtype != torch.float64 or not squared.numel()
    if not left and squared.min() < CANCELLED * (of_x.max() + of_y.max()):
        rows, columns = (squared < CANCELLED * (of_x + of_y)).nonzero(as_tuple=True)
        for i, j in zip(rows.split(PATCH), columns.split(PATCH), strict=True):
            squared[i, j] = (x[i] - y[j]).square().sum(1)
    return squared


def _distances(x: Tensor, y: Tensor) -> Tensor:
    import torch

    x, y = x.flatten(1), y.flatten(1)
    if x.shape[1] <= DIRECT_DIM:
        return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    if x.dtype == torch.float64 and not (x.requires_grad or y.requires_grad):
        return _sq_matrix(x, y).sqrt_()
    origin = y.detach().mean(0)
    return torch.cdist(x - origin, y - origin)


def _on_sphere(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True).clamp(min=1e-12)


def _geodesic_pairwise(x: Tensor, y: Tensor) -> Tensor:
    x, y = _on_sphere(x), _on_sphere(y)
    return 2 * (x - y).norm(dim=-1).atan2((x + y).norm(dim=-1))


def _geodesic_matrix(x: Tensor, y: Tensor) -> Tensor:
    x, y = _on_sphere(x), _on_sphere(y)
    return 2 * _distances(x, y).atan2(_distances(x, -y))


SQEUCLIDEAN = Cost("sqeuclidean", "c(x, y) = ||x - y||^2", _sq_pairwise, _sq_matrix, 2, True)
EUCLIDEAN = Cost(
    "euclidean",
    "c(x, y) = ||x - y||",
    lambda x, y: (
        (x - y).flatten(1).norm(dim=1)
    ),  # whose gradient at zero is zero; that of a square root is not a number
    _distances,
    translates=True,
)
GEODESIC = Cost(
    "geodesic",
    "c(x, y) = arccos <x, y> in radians, x and y on the unit sphere",
    _geodesic_pairwise,  # not by arccos, which loses half of the digits of a small angle
    _geodesic_matrix,
    project=_on_sphere,
)
COSTS: Mapping[str, Cost] = {cost.name: cost for cost in (SQEUCLIDEAN, EUCLIDEAN, GEODESIC)}


@dataclass(frozen=True)
class Measure:
    """A probability measure that can be sampled.

    Attributes:
        shape: shape of one point, ``(d,)`` for vectors.
        draw: ``draw(n, generator)`` gives ``(n, *shape)`` independent points on the generator's
            device.
        mean: ``(d,)`` where known exactly.
        cov: ``(d, d)`` where known exactly.
        variance: total variance E||y - E y||^2 where known (exactly, or as an official reference
            value).
        held_out: ``held_out(n, generator)`` gives points kept for scoring, where the measure is
            known by a finite sample only: at most ``n`` of them, without repetition, in random
            order.
        image: ``(channels, height, width)`` where the points are images laid out as vectors,
            ``x.unflatten(1, image)``; pixels are from -1 (black) to 1.
    """

    shape: tuple[int, ...]
    draw: Callable[[int, torch.Generator], Tensor] = field(repr=False)
    mean: Tensor | None = field(default=None, repr=False)
    cov: Tensor | None = field(default=None, repr=False)
    variance: float | None = None
    held_out: Callable[[int, torch.Generator], Tensor] | None = field(default=None, repr=False)
    image: tuple[int, int, int] | None = None

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """``(n, *shape)`` independent points, on the generator's device."""
        return self.draw(n, generator)

    def sample_test(self, n: int, generator: torch.Generator) -> Tensor:
        """Points to score on: ``(n, *shape)`` independent ones, or where the measure is a finite
        sample at most ``n`` held-out ones.
        """
        return (self.held_out or self.draw)(n, generator)

    @property
    def dim(self) -> int:
        """Number of coordinates of one point."""
        total = 1
        for size in self.shape:
            total *= size
        return total


def reached(sums: Tensor, levels: Tensor) -> Tensor:
    """Indices at which cumulative sums ``(n,)`` of weights reach levels in [0, 1), as shares."""
    import torch

    return torch.searchsorted(sums, levels * sums[-1], right=True).clamp(max=len(sums) - 1)


def weighted(points: Tensor, weights: Tensor) -> Callable[[int, torch.Generator], Tensor]:
    """``draw(n, generator)``: points ``(n, *shape)`` with replacement, by weights ``(m,)`` in
    float64.
    """
    import torch

    sums = weights.cumsum(0)

    def draw(n: int, generator: torch.Generator) -> Tensor:
        levels = torch.rand(n, generator=generator, device=generator.device, dtype=torch.float64)
        return points[reached(sums, levels)]

    return draw


def empirical(train: Tensor, held_out: Tensor) -> Measure:
    """The measure known by a finite sample: ``train`` is drawn from with replacement, ``held_out``
    is kept for scoring.
    """
    import torch

    def draw(n: int, generator: torch.Generator) -> Tensor:
        return train[torch.randint(len(train), (n,), generator=generator, device=generator.device)]

    def draw_test(n: int, generator: torch.Generator) -> Tensor:
        return held_out[
            torch.randperm(len(held_out), generator=generator, device=generator.device)[:n]
        ]

    return Measure(tuple(train.shape[1:]), draw, held_out=draw_test)


class Probe(Protocol):
    """Turns mapped points into named arrays that the metrics of one family of tasks take.

    Attributes:
        several: for arrays of several mapped points of one x, the name of the array of one.
    """

    several: ClassVar[Mapping[str, str]]

    def measure(self, x: Tensor, y: Tensor) -> Mapping[str, Tensor]:
        """Arrays of `otbench.metrics.arrays`, each ``(n, ...)``, of source points x ``(n, *source
        shape)`` and the points y ``(n, *target shape)`` that they are sent to.
        """
        ...


NO_MAP = ("does not exist", "not unique")  # reasons why the optimal plan is no map
REASONS = (*NO_MAP, "is not known", "unknown")  # why there is no map to score against


@dataclass(frozen=True)
class Truth:
    """What is known of the answer, and how it is known.

    Attributes:
        certificate: ``closed_form`` (a formula), ``brenier`` (the gradient of an explicit convex
            potential), ``dual_certificate`` (plan cost = dual cost), ``lp`` (exact on the given
            points), ``entropic`` (the problem has an eps, and is solved to 1e-9) or ``none`` (the
            optimal map is not known).
        cost: optimal transport cost in cost units; of an entropic problem <C, P> of its plan.
        cost_error: standard error of ``cost``, where it is an estimate.
        map: the optimal map, ``(n, *source shape) -> (n, *target shape)``; absent where there is
            none or it is not unique.
        no_map: why there is no ``map`` to score against, beginning with one of `REASONS`: none
            exists, it is not unique, or it is not known.
        pairs: ``pairs(n, generator)`` draws ``(x, y)`` from an optimal plan, ``(n, *source shape)``
            and ``(n, *target shape)``; not needed beside ``map``.
        potential: a Kantorovich potential f on the source side, ``(n, *shape) -> (n,)``.
        target_potential: the potential g on the target side: f(x) + g(y) <= c(x, y), with equality
            on the optimal plan; minus infinity where no finite value will do.
        smoothed_cost: ``smoothed_cost(sigma)`` is the optimal cost from the source convolved with
            N(0, sigma^2 I).
        atoms: ``(k, *target shape)``, where the target is a discrete measure.
        test_points: ``test_points(n, generator)`` draws test points of the source, at most ``n``,
            and named arrays of what each was drawn with, such as the ``partner`` it was made from:
            the answer of a restoration, hidden from solvers, which need not be the optimal map. The
            earlier half of them is independent of the target's held-out points.
        probes: what a family of tasks alone is scored by, see `Probe`.
        spurious: a map that is optimal against the true ``target_potential`` and yet does not push
            the source to the target.
        plan: the optimal plan of a discrete problem, ``(n, m)``, summing to one; dense, or sparse
            COO where a dense one would be too large.
        unsolved: why a discrete problem has neither cost nor plan.
        cost_bound: a lower bound of the optimal cost then.
    """

    certificate: str
    cost: float | None = None
    map: Callable[[Tensor], Tensor] | None = field(default=None, repr=False)
    cost_error: float = 0.0
    no_map: str = ""
    pairs: Callable[[int, torch.Generator], tuple[Tensor, Tensor]] | None = field(
        default=None, repr=False
    )
    potential: Callable[[Tensor], Tensor] | None = field(default=None, repr=False)
    target_potential: Callable[[Tensor], Tensor] | None = field(default=None, repr=False)
    smoothed_cost: Callable[[float], float] | None = field(default=None, repr=False)
    atoms: Tensor | None = field(default=None, repr=False)
    test_points: Callable[[int, torch.Generator], tuple[Tensor, Mapping[str, Tensor]]] | None = (
        field(default=None, repr=False)
    )
    probes: tuple[Probe, ...] = field(default=(), repr=False)
    spurious: Callable[[Tensor], Tensor] | None = field(default=None, repr=False)
    plan: Tensor | None = field(default=None, repr=False)
    unsolved: str = ""
    cost_bound: float | None = None

    def __post_init__(self) -> None:
        """Refuse a map beside ``no_map``, for no solver is scored against one optimum among many,
        and a reason that does not say whether the optimal plan is a map.
        """
        if self.map is not None and self.no_map:
            raise ValueError(f"a truth has a map or says why not, not both: {self.no_map}")
        if self.no_map and not self.no_map.startswith(REASONS):
            raise ValueError(
                f"no_map must begin with one of {', '.join(map(repr, REASONS))}, got "
                f"{self.no_map!r}"
            )

    @property
    def plan_is_map(self) -> bool:
        """Whether the optimal plan may be taken for a map: all but where ``no_map`` says that none
        exists or that it is not unique. Plans are then judged by their means, elsewhere by draws.
        """
        return not self.no_map.startswith(NO_MAP)


class LazyTruth(Truth):
    """A truth that is solved for when its cost or plan is first asked for: not while the problem is
    built, and not in the time and memory of a solver.

    Args:
        certificate: of what is found.
        solve: finds the truth, given ``arguments``.
        arguments: the discrete problem, for instance.
        no_map: as in `Truth`.
    """

    _solve: Callable[..., Truth]
    _arguments: tuple[object, ...]

    def __init__(
        self, certificate: str, solve: Callable[..., Truth], *arguments: object, no_map: str = ""
    ) -> None:
        vars(self).update(
            certificate=certificate, no_map=no_map, _solve=solve, _arguments=arguments
        )

    def __repr__(self) -> str:
        """Without solving."""
        return f"LazyTruth({self.certificate!r})"

    @cached_property
    def found(self) -> Truth:
        """What was found."""
        return self._solve(*self._arguments)

    def through(self, kept: Callable[[LazyTruth], Truth]) -> LazyTruth:
        """The same truth as ``kept`` gives it, which need not ask for what is ``found`` here."""
        return LazyTruth(self.certificate, kept, self, no_map=self.no_map)

    cost = property(lambda self: self.found.cost)  # type: ignore[assignment]
    cost_error = property(lambda self: self.found.cost_error)  # type: ignore[assignment]
    plan = property(lambda self: self.found.plan)  # type: ignore[assignment]
    unsolved = property(lambda self: self.found.unsolved)  # type: ignore[assignment]
    cost_bound = property(lambda self: self.found.cost_bound)  # type: ignore[assignment]


@dataclass(frozen=True)
class MapProblem:
    """Setting *map*: two measures; find T with T#source = target of least cost E c(x, T(x))."""

    setting: ClassVar[str] = "map"
    source: Measure
    target: Measure
    cost: Cost
    truth: Truth

    def sample_pairs(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor] | None:
        """``n`` independent pairs (x, y) from an optimal plan; None where no plan is known."""
        if self.truth.pairs is not None:
            return self.truth.pairs(n, generator)
        if self.truth.map is None:
            return None
        x = self.source.sample(n, generator)
        return x, self.truth.map(x)


@dataclass(frozen=True)
class DiscreteProblem:
    """Setting *discrete*: two weighted point clouds; find a plan of least cost.

    Attributes:
        x, y: points, ``(n, *shape)`` and ``(m, *shape)``.
        a, b: weights, ``(n,)`` and ``(m,)``, non-negative, each summing to one.
        eps: what is asked for is the plan of least <C, P> + eps KL(P | a b'), in cost units; with
            0, the cheapest.
        pixels: ``(h, w)`` index of the source point of each pixel, where the source is the palette
            of a picture.
        target_pixels: the same of the target.
    """

    setting: ClassVar[str] = "discrete"
    x: Tensor
    a: Tensor
    y: Tensor
    b: Tensor
    cost: Cost
    truth: Truth
    eps: float = 0.0
    pixels: Tensor | None = field(default=None, repr=False)
    target_pixels: Tensor | None = field(default=None, repr=False)


@dataclass(frozen=True)
class AmortizedProblem:
    """Setting *amortized*: learn from training pairs, then solve held-out pairs fast. Each pair is
    a discrete problem.
    """

    setting: ClassVar[str] = "amortized"
    train: Sequence[DiscreteProblem]
    test: Sequence[DiscreteProblem]
    cost: Cost
    truth: Truth


Problem = MapProblem | DiscreteProblem | AmortizedProblem


P = TypeVar("P", bound=Problem)


def without_answers(problem: P) -> P:
    """The problem as a solver is given it: without its truth and its held-out points, and in the
    amortized setting without the pairs it is to answer later (with the first alone where there are
    none to learn from).
    """
    if isinstance(problem, MapProblem):
        source, target = (replace(m, held_out=None) for m in (problem.source, problem.target))
        return replace(problem, source=source, target=target, truth=Truth("none"))
    if isinstance(problem, DiscreteProblem):
        return replace(problem, truth=Truth("none"))
    train, test = (
        [replace(pair, truth=Truth("none")) for pair in pairs]
        for pairs in (problem.train, problem.test[: not problem.train])
    )
    return replace(problem, train=train, test=test, truth=Truth("none"))


class Task(Parameters, ABC):
    """A family of problems with known answers. Subclass as a frozen dataclass; its annotated fields
    are the parameters.

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
        """Real data files it reads, relative to the data folder; their checksums go into the
        provenance.
        """
        return ()

    @abstractmethod
    def problem(self, rng: np.random.Generator, *, device: str, dtype: torch.dtype) -> Problem:
        """Build the problem. ``rng`` decides everything random about it, so that all solvers see
        the same one.

        Raises:
            MissingError: a data file is absent.
        """
