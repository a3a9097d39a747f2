r"""Kantorovich potentials of the cost ||x - y||, and the maps that they define.

    W1(mu, nu) = max { E_mu u - E_nu u : |u(x) - u(y)| <= ||x - y|| }    (1)

Here u is high on the source mu and low on the target nu: mass moves along -grad u, and every
optimal plan joins pairs with u(x) - u(y) = ||x - y||. As a pair of the cost's duality, f = u on the
source side and g = -u on the target side.

A *critic* is a network trained for (1) with a penalty on slopes of its own at random points between
source and target (Gulrajani et al. 2017; Petzka et al. 2018), or one that is 1-Lipschitz by
construction.

Where mu has a density and nu lies on a submanifold of codimension two or more, u determines the
optimal map (Milne, Bilocq & Nachman 2022):

    T(x) = x - alpha(x) grad u(x),    alpha(x) = sup { t >= 0 : u(x) - u(x - t grad u(x)) = t }
    (2)

sends x to the lower end of the transport ray through it. A trained u has slopes that are not
exactly one, and no ray in the strict sense: with some slack s, alpha(x) is the t that maximises
u(x) - u(x - t v) - (1 - s) L t along the line of steepest descent v, L being the slope that most
source points have. For an exact u that is (2) for small s; too much slack jumps from the end of one
ray to that of a deeper one behind it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Generic, Literal, Protocol, TypeVar

from otbench.errors import DivergedError
from otbench.methods.neural.networks import MLP, Network, SpectralMLP, Weights
from otbench.methods.neural.sampling import Stream, uniform_numbers
from otbench.methods.neural.solver import NeuralSolver, as_maps
from otbench.methods.neural.training import Decay, Player, outcomes, train
from otbench.problem import EUCLIDEAN, MapProblem, Problem
from otbench.solver import FitContext, Transport


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

Sides = Literal["one", "two"]

CHUNK = 2**16  # points that are pushed at a time,
SEARCHED = 2**11  # or as many where each is searched for the end of its ray
# Of source and target: the slopes of the ones and the least potential of the others bound the
# length of a ray.
BOUND_POINTS = 2**12
RAY_POINTS, RAY_ROUNDS = (
    17,
    4,
)  # of the search: where there is one maximum, it is found to 1 / (16 * 8^3) of the bound
STEEP = 0.9  # quantile of the slopes at source points that counts as that of a ray
SHORTEST = 1e-12  # norm below which a gradient has no direction


class PotentialNetwork(Network, Protocol):
    """A scalar network with its gradient."""

    def __call__(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        """Values ``(stack, n, d) -> (stack, n, 1)``."""
        ...

    def gradient(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        """Gradients ``(stack, n, d) -> (stack, n, d)``."""
        ...


@dataclass(frozen=True)
class Potential:
    """A trained potential: a network with the weights of one member of a stack."""

    network: PotentialNetwork
    weights: Sequence[Tensor]

    def __call__(self, x: Tensor) -> Tensor:
        """Values ``(n, d) -> (n,)``; autograd goes through them."""
        return self.network(self.weights, x[None])[0, :, 0]

    def gradient(self, x: Tensor) -> Tensor:
        """Gradients ``(n, d) -> (n, d)``."""
        import torch

        with torch.no_grad():
            return self.network.gradient(self.weights, x[None])[0]


def ray_length(
    u: Callable[[Tensor], Tensor],
    x: Tensor,
    v: Tensor,
    longest: Tensor,
    slope: float,
    points: int = RAY_POINTS,
    rounds: int = RAY_ROUNDS,
) -> Tensor:
    """The t that maximises u(x) - u(x - t v) - slope t: a grid search, refined around the best a
    few times, all points at once.

    Args:
        u: the potential, ``(n, d) -> (n,)``.
        x: ``(n, d)`` points.
        v: ``(n, d)`` unit vectors along which u rises.
        longest: ``(n,)`` upper bounds.
        slope: by which u must fall at least, on average, for a longer ray to be better.
        points: of the grid, an odd number, so that the best is in the finer grid too.
        rounds: grids; each is ``(points - 1) / 2`` times as fine as the last.

    Returns:
        ``(n,)``.
    """
    import torch

    grid = torch.linspace(-1, 1, points, device=x.device, dtype=x.dtype)
    best, reach = longest / 2, longest / 2
    for _ in range(rounds):
        t = torch.minimum((best[:, None] + reach[:, None] * grid).clamp(min=0), longest[:, None])
        values = u((x[:, None] - t[:, :, None] * v[:, None]).flatten(0, 1)).reshape(t.shape)
        best = t.gather(1, (values + slope * t).argmin(1, keepdim=True))[:, 0]
        reach = 2 * reach / (points - 1)
    return best


@dataclass(frozen=True)
class PotentialSolver(NeuralSolver):
    """Base of the solvers that train potentials of the cost ||x - y||.

    Class attributes:
        leak: slope on the left of the MLP's leaky ReLUs, as in the code of TTC.

    Attributes:
        steps: of the optimiser, Adam.
        batch: points of each measure per micro-batch, fresh ones.
        accumulate: micro-batches per step, whose gradients are averaged.
        lr: learning rate.
        beta1, beta2: of Adam.
        decay: of the learning rate.
        width, depth: units of a hidden layer of the MLP, number of hidden layers.
        ema: averaging of the weights that are returned, per step; 0 returns the last.
    """

    leak: ClassVar[float] = 0.1

    steps: int = 4000
    batch: int = 256
    accumulate: int = 1
    lr: float = 3e-3
    beta1: float = 0.5
    beta2: float = 0.999
    decay: Decay = "cosine"
    width: int = 64
    depth: int = 3
    ema: float = 0.99

    def __post_init__(self) -> None:
        """Check the parameters."""
        self.require(
            positive=("steps", "batch", "accumulate", "lr", "depth"),
            not_negative=("width",),
            fractions=("beta1", "beta2", "ema"),
        )

    def supports(self, problem: Problem) -> str | None:
        """Map problems between vectors, of the Euclidean cost."""
        if not isinstance(problem, MapProblem):
            return "takes map problems only"
        if problem.cost != EUCLIDEAN:
            return f"trains for the euclidean cost, not {problem.cost.name}"
        return (
            None
            if len(problem.source.shape) == 1
            else f"takes vectors, not shape {problem.source.shape}"
        )

    def critic(self, problem: MapProblem) -> PotentialNetwork:
        """What is trained."""
        dim = problem.source.dim
        return MLP(dim, 1, self.units(dim), self.depth, "leaky-relu", self.leak)

    def units(self, dim: int) -> int:
        """Of a hidden layer, for points of this dimension."""
        return self.width


Settings = TypeVar("Settings", bound=PotentialSolver)


class Training(ABC, Generic[Settings]):
    """A stack of potentials in training.

    Args:
        settings: of the solver.
        network: what is trained.
        problems, contexts: the stack.
    """

    def __init__(
        self,
        settings: Settings,
        network: PotentialNetwork,
        problems: Sequence[MapProblem],
        contexts: Sequence[FitContext],
    ) -> None:
        self.settings, self.network, self.problems, self.contexts = (
            settings,
            network,
            problems,
            contexts,
        )
        self.generators = [context.generator for context in contexts]
        self.weights = self.averaged = Weights.draw(network, self.generators, contexts[0].dtype)
        self.x = Stream(
            [problem.source.sample for problem in problems], self.generators, settings.batch
        )
        self.y = Stream(
            [problem.target.sample for problem in problems], self.generators, settings.batch
        )

    @abstractmethod
    def loss(self) -> Tensor:
        """``(stack,)``: the negative of (1) on a batch."""

    @abstractmethod
    def transport(self, member: int) -> Transport:
        """What one member has learned."""

    @property
    def streams(self) -> list[Stream]:
        """What the loss draws from."""
        return [self.x, self.y]

    @property
    def capturable(self) -> bool:
        """Whether a step may be a CUDA graph."""
        return not isinstance(self.network, SpectralMLP)  # whose norms the host waits for

    def train(
        self, offer: Callable[[int, Tensor], None], context: FitContext | None = None
    ) -> Tensor:
        """Descend with a fresh optimiser; the arguments and what is returned are those of
        `otbench.methods.neural.training.train`.
        """
        s = self.settings
        project = getattr(self.network, "project", None)
        player = Player(
            self.weights,
            [self.loss],
            s.lr,
            accumulate=s.accumulate,
            betas=(s.beta1, s.beta2),
            ema=s.ema,
            project=project,
        )
        self.averaged = player.averaged
        return train(
            [player],
            s.steps,
            offer,
            s.decay,
            context,
            self.streams,
            capturable=self.capturable,
        )

    def offer(self, done: int, which: Tensor) -> None:
        """Checkpoints of some of the members, ``(stack,)``."""
        for member, context in enumerate(self.contexts):
            if which[member]:
                context.checkpoint(done, self.transport(member))

    def solve(self) -> list[Transport | DivergedError]:
        """Train, offering checkpoints; saved where this is no stack of several."""
        return self.outcomes(self.train(self.offer, self.contexts[0]))

    def outcomes(self, finite: Tensor) -> list[Transport | DivergedError]:
        """Of the members, by where their weights are finite."""
        return outcomes(finite, self.transport)

    def potential(self, member: int) -> Potential:
        """The potential of one member now; projected where the network is, an average is not."""
        weights = self.averaged.member(member)
        if self.settings.ema and (project := getattr(self.network, "project", None)):
            project(weights)
        return Potential(self.network, weights)


def sampled_ends(
    problems: Sequence[MapProblem], contexts: Sequence[FitContext]
) -> list[list[Tensor]]:
    """For each problem `BOUND_POINTS` points of the source and of the target, ``(n, d)``."""
    return [
        [
            measure.sample(BOUND_POINTS, context.generator)
            for measure in (problem.source, problem.target)
        ]
        for problem, context in zip(problems, contexts, strict=True)
    ]


def images_only(network: str, problem: Problem) -> str | None:
    """For ``Solver.supports``: networks of convolutions take images."""
    if network != "mlp" and isinstance(problem, MapProblem) and problem.source.image is None:
        return f"network={network} takes images only"
    return None


@dataclass(frozen=True)
class CriticSolver(PotentialSolver):
    """Base of the solvers that train critics with a penalty on their slopes.

    Attributes:
        penalty: lambda, its weight; 0, where ``sides`` says nothing, is for networks that are
            1-Lipschitz by construction.
        sides: ``one`` penalises max(||grad u|| - 1, 0)^2, ``two`` (||grad u|| - 1)^2.
    """

    penalty: float = 100.0
    sides: Sides = "one"

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        self.require(not_negative=("penalty",))


CriticSettings = TypeVar("CriticSettings", bound=CriticSolver)


class CriticTraining(Training[CriticSettings]):
    """A stack of critics in training."""

    def __init__(
        self,
        settings: CriticSettings,
        network: PotentialNetwork,
        problems: Sequence[MapProblem],
        contexts: Sequence[FitContext],
    ) -> None:
        super().__init__(settings, network, problems, contexts)
        self.mixture = uniform_numbers(1, contexts[0].dtype)  # between source and target
        self.between = Stream([self.mixture] * len(contexts), self.generators, settings.batch)

    @property
    def streams(self) -> list[Stream]:
        """What the loss draws from."""
        return [*super().streams, self.between]

    def loss(self) -> Tensor:
        """``(stack,)``: of the next batches."""
        return self.penalised(
            self.weights.tensors, self.x.next(), self.y.next(), self.between.next()
        )

    def penalised(self, weights: Sequence[Tensor], x: Tensor, y: Tensor, between: Tensor) -> Tensor:
        """``(stack,)``: E u(y) - E u(x) + lambda E[penalty at the points between]."""
        import torch

        of_x, of_y = self.network(weights, torch.cat([x, y], 1)).chunk(2, 1)
        loss = of_y.mean((1, 2)) - of_x.mean((1, 2))
        if not self.settings.penalty:
            return loss
        excess = self.network.gradient(weights, torch.lerp(x, y, between)).norm(dim=-1) - 1
        if self.settings.sides == "one":
            excess = excess.clamp(min=0)
        return loss + self.settings.penalty * excess.square().mean(1)


@dataclass(frozen=True)
class RaySolver(CriticSolver):
    """Base of the solvers that train one critic. Their map is that of (2).

    Attributes:
        slack: s, what the critic's slope may lack along a ray.
    """

    slack: float = 0.2

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        if not 0 < self.slack < 1:
            raise ValueError(f"slack must be between 0 and 1, got {self.slack}")

    def fit_together(
        self, problems: Sequence[Problem], contexts: Sequence[FitContext]
    ) -> list[Transport | DivergedError]:
        """Train one critic for each problem, as one stack."""
        return RayTraining(self, as_maps(problems), contexts).solve()


class RayTraining(CriticTraining[RaySolver]):
    """A stack of critics in training, whose maps follow their rays."""

    def __init__(
        self, settings: RaySolver, problems: Sequence[MapProblem], contexts: Sequence[FitContext]
    ) -> None:
        super().__init__(settings, settings.critic(problems[0]), problems, contexts)
        self.ends = sampled_ends(problems, contexts)

    def transport(self, member: int) -> Transport:
        """The map of (2), with slack."""
        import torch

        u, slack = self.potential(member), self.settings.slack

        found: list[tuple[float, Tensor]] = []  # at the first push, and saved with it

        def bounds() -> tuple[float, Tensor]:
            """The slope of a ray that is long enough, and the least potential."""
            if not found:
                source, target = self.ends[member]
                steep = u.gradient(source).norm(dim=1).quantile(STEEP)
                found.append(((1 - slack) * max(float(steep), SHORTEST), u(target).amin()))
            return found[0]

        def push_chunk(x: Tensor) -> Tensor:
            slope, lowest = bounds()
            gradient = u.gradient(x)
            v = gradient / gradient.norm(dim=1, keepdim=True).clamp(min=SHORTEST)
            longest = ((u(x) - lowest) / slope).clamp(min=0)
            return x - ray_length(u, x, v, longest, slope)[:, None] * v

        def push(x: Tensor) -> Tensor:
            with torch.no_grad():
                return torch.cat([push_chunk(chunk) for chunk in x.split(SEARCHED)])

        return Transport(push, potential=u, target_potential=lambda y: -u(y))


@dataclass(frozen=True)
class BenchmarkCritic(RaySolver):
    """Base of critics with the networks of the Wasserstein-1 benchmark (Korotin, Kolesov & Burnaev
    2022), of ReLUs unless overridden.

    Class attributes:
        published: the benchmark's settings of all its critics; each has its own number of steps.

    Attributes:
        width: units of a hidden layer; 0 makes it 128, or twice the dimension where that is more.
    """

    leak: ClassVar[float] = 0.0
    published: ClassVar[Mapping[str, float | str]] = {
        "batch": 1024,
        "lr": 2e-4,
        "beta1": 0.9,
        "decay": "none",
        "ema": 0.0,
    }

    width: int = 0
    depth: int = 2

    def units(self, dim: int) -> int:
        """Of a hidden layer, for points of this dimension."""
        return self.width or max(128, 2 * dim)
