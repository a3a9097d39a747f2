"""OT-CFM: a velocity regressed on straight lines between coupled points (Lipman et al. 2023; Tong
et al. 2024).

    min_v    E |v(x_t, t) - (x_1 - x_0)|^2,    x_t = (1 - t) x_0 + t x_1 + sigma z,
    t uniform in [0, 1], z ~ N(0, I),

where (x_0, x_1) are pairs of a coupling of source and target. T(x) is where the flow dx/dt = v(x,
t) takes x in unit time. Its push-forward is the target whatever the coupling, but for sigma; pairs
of an optimal coupling make paths straight and T optimal. Here each batch of the source is coupled
with one of the target by a discrete solver, which as the batches grow comes near to that.

``coupling`` selects the solver, as on the command line: of the discrete setting, or of the
amortized one, which first learns from batches of their own; ``independent`` takes points as they
are drawn. As many pairs as the batch has points are drawn from the plan, with replacement.

Presets:

* ``cpu``, the defaults, is the protocol of Truong & Nguyen (2026) for points in the plane, with the
  1,000 steps of their example, but for eps, which is a multiple of the mean cost.
* ``paper`` takes 20,000 steps, as their code does by default, and an eps of 0.1 in cost units.
  Which of the two numbers of steps their tables have is not confirmed, nor is the eps: where one of
  the methods makes its kernels, their code has 5. For the potentials of the paper's methods give
  ``coupling=ra-ot[preset=paper]`` or ``oa-ot[preset=paper]``.

Neither has the weight decay of 1e-5, which moves a weight by a part in 1e5 of itself in 1,000 steps
and by 2e-4 in 20,000. Fine-tuning on CIFAR-10 is not here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from otbench import (
    SQEUCLIDEAN,
    AmortizedProblem,
    DiscreteProblem,
    DivergedError,
    FitContext,
    MapProblem,
    Problem,
    Transport,
    Truth,
)
from otbench.errors import UserError
from otbench.methods.neural.networks import MLP, Activation, Weights
from otbench.methods.neural.sampling import Draws, Stream, normal_numbers, uniform_numbers
from otbench.methods.neural.solver import NeuralSolver, as_maps
from otbench.methods.neural.training import Decay, Player, train
from otbench.registry import registry


if TYPE_CHECKING:
    import numpy as np
    import torch

    Tensor = torch.Tensor

INDEPENDENT = "independent"
CHUNK = 2048  # points that flow at a time
MEASURED = 512  # source points whose paths are measured
CHECKPOINT_STEPS = (
    20  # most steps along the flow for a checkpoint, which is off by a thousandth then
)
TOLERANCE = 1e-5  # relative and absolute, of the adaptive solution whose evaluations are counted


@dataclass(frozen=True)
class OtCfm(NeuralSolver):
    """Conditional flow matching with coupled batches.

    Attributes:
        coupling: the solver that couples a batch, ``name[param=value]``, or ``independent``.
        eps: entropic regularisation of the batches' problems; of no consequence for linear
            programs.
        eps_rule: ``relative``: eps is a multiple of the batches' mean cost; ``absolute``: it is in
            cost units.
        pretrain: pairs of batches that an amortized solver learns from.
        sigma: standard deviation of the noise around the lines.
        steps: of the optimiser, Adam.
        batch: points of each measure per step, fresh ones.
        lr: learning rate.
        decay: of the learning rate.
        width, depth, activation: of the velocity, an MLP of x and t.
        ode_steps: of the Runge-Kutta method of order 4, which takes points along the flow.
    """

    name: ClassVar[str] = "ot-cfm"
    needs: ClassVar[tuple[str, ...]] = ("ot",)
    presets: ClassVar[Mapping[str, Mapping[str, float | int | str | bool]]] = {
        "cpu": {},
        "paper": {
            "eps": 0.1,
            "eps_rule": "absolute",
            "pretrain": 50,
            "sigma": 0.1,
            "steps": 20_000,
            "batch": 512,
            "lr": 1e-3,
            "decay": "none",
            "width": 64,
            "depth": 3,
            "activation": "selu",
        },
    }

    coupling: str = "pot-emd"
    eps: float = 0.1
    eps_rule: Literal["relative", "absolute"] = "relative"
    pretrain: int = 50
    sigma: float = 0.1
    steps: int = 1000
    batch: int = 512
    lr: float = 1e-3
    decay: Decay = "none"
    width: int = 64
    depth: int = 3
    activation: Activation = "selu"
    ode_steps: int = 100

    def __post_init__(self) -> None:
        """Check the parameters."""
        self.require(
            positive=("eps", "pretrain", "steps", "batch", "lr", "width", "depth", "ode_steps"),
            not_negative=("sigma",),
        )
        if self.coupling != INDEPENDENT:
            try:
                selected = registry("solver").select(self.coupling)
            except UserError as error:
                raise ValueError(
                    f"coupling must be {INDEPENDENT} or a solver, got {self.coupling!r}: {error}"
                ) from None
            if len(selected) != 1:
                raise ValueError(
                    f"coupling must be one solver, got {self.coupling!r}, which are {len(selected)}"
                )

    @property
    def solvers(self) -> tuple[str, ...]:
        """That of the coupling."""
        return () if self.coupling == INDEPENDENT else (self.coupling,)

    def supports(self, problem: Problem) -> str | None:
        """Map problems within one vector space, of squared Euclidean cost."""
        if not isinstance(problem, MapProblem):
            return "takes map problems only"
        if problem.cost != SQEUCLIDEAN:
            return f"goes along straight lines: takes the sqeuclidean cost, not {problem.cost.name}"
        if len(problem.source.shape) != 1:
            return f"takes vectors, not shape {problem.source.shape}"
        return None

    def fit_together(
        self, problems: Sequence[Problem], contexts: Sequence[FitContext]
    ) -> list[Transport | DivergedError]:
        """Train one for each problem, all of the same shapes, as one stack."""
        return _Matching(self, as_maps(problems), contexts).train()


class _Matching:
    """A stack of velocities in training."""

    def __init__(
        self, settings: OtCfm, problems: Sequence[MapProblem], contexts: Sequence[FitContext]
    ) -> None:
        self.settings, self.problems, self.contexts = settings, problems, contexts
        self.dim, generators = problems[0].source.dim, [context.generator for context in contexts]
        self.network = MLP(
            self.dim + 1, self.dim, settings.width, settings.depth, settings.activation
        )
        dtype = contexts[0].dtype
        weights = Weights.draw(self.network, generators, dtype)
        self.velocity = Player(weights, [self.loss], settings.lr)
        self.pairs = Pairs(settings, problems, contexts)
        self.t, self.normal = (
            Stream([draw] * len(contexts), generators, settings.batch)
            for draw in (uniform_numbers(1, dtype), normal_numbers(self.dim, dtype))
        )

    def train(self) -> list[Transport | DivergedError]:
        """Descend."""

        def offer(done: int, finite: Tensor) -> None:
            for member, context in enumerate(self.contexts):
                if finite[member] and done < self.settings.steps:
                    context.checkpoint(done, self.flow(member, CHECKPOINT_STEPS).transport())

        finite = train(
            [self.velocity],
            self.settings.steps,
            offer,
            self.settings.decay,
            draws=[self.pairs, self.t, self.normal],
        ).tolist()
        seconds = {"coupling_seconds": self.pairs.seconds / len(self.contexts)}
        outcomes: list[Transport | DivergedError] = []
        for member, context in enumerate(self.contexts):
            if not finite[member]:
                outcomes.append(DivergedError("the weights are not finite: lower lr"))
                continue
            flow = self.flow(member)
            x = self.problems[member].source.sample(MEASURED, context.generator)
            transport = flow.transport(
                {**seconds, "nfe": flow.evaluations(x), "path_energy": flow.energy(x)}
            )
            context.checkpoint(self.settings.steps, transport)
            outcomes.append(transport)
        return outcomes

    def loss(self) -> Tensor:
        """``(stack,)``: mean squared error of the velocity on lines between coupled points."""
        import torch

        x, y = self.pairs.next()
        t = self.t.next()
        at = torch.lerp(x, y, t) + self.settings.sigma * self.normal.next()
        velocity = self.network(self.velocity.weights.tensors, torch.cat([at, t], -1))
        return (velocity - (y - x)).square().mean((1, 2))

    def flow(self, member: int, steps: int | None = None) -> Flow:
        """The flow of one member's velocity as it is now, in at most so many steps."""
        most = self.settings.ode_steps
        return Flow(
            self.network,
            self.velocity.averaged.member(member),
            most if steps is None else min(steps, most),
        )


class Pairs(Draws):
    """Fresh points of both measures in pairs, ``(2, stack, batch, d)``.

    Attributes:
        seconds: taken so far by learning to couple and coupling, for all members.
    """

    def __init__(
        self, settings: OtCfm, problems: Sequence[MapProblem], contexts: Sequence[FitContext]
    ) -> None:
        generators = [context.generator for context in contexts]
        self.x = Stream([problem.source.sample for problem in problems], generators, settings.batch)
        self.y = Stream([problem.target.sample for problem in problems], generators, settings.batch)
        started = time.perf_counter()
        self.couplings = [
            _coupling(settings, problem, context)
            for problem, context in zip(problems, contexts, strict=True)
        ]
        self.seconds = time.perf_counter() - started

    def draw(self) -> Tensor:
        """As of `Draws`."""
        import torch

        x, y = self.x.draw(), self.y.draw()
        started = time.perf_counter()
        pairs = [couple(*clouds) for couple, *clouds in zip(self.couplings, x, y, strict=True)]
        self.seconds += time.perf_counter() - started
        return torch.stack([torch.stack(points) for points in zip(*pairs, strict=True)])

    def state(self) -> list[list[Tensor]]:
        """As of `Draws`."""
        return [self.x.state(), self.y.state()]

    def load(self, state: list[list[Tensor]]) -> None:
        """As of `Draws`."""
        self.x.load(state[0])
        self.y.load(state[1])


class Flow:
    """The flow of a velocity in unit time.

    Args:
        network: the velocity, of points with the time as their last coordinate.
        weights: of a stack of one.
        steps: of the integration.
    """

    def __init__(self, network: MLP, weights: Sequence[Tensor], steps: int) -> None:
        self.network, self.weights, self.steps = network, weights, steps

    def transport(self, info: Mapping[str, float | int | str | bool] | None = None) -> Transport:
        """Its map and its paths."""
        return Transport(self.push, path=self.path, info=info or {})

    def velocity(self, x: Tensor, t: float) -> Tensor:
        """``(n, d) -> (n, d)``."""
        import torch

        return self.network(self.weights, torch.cat([x, x.new_full((len(x), 1), t)], 1)[None])[0]

    def path(self, x: Tensor) -> Tensor:
        """``(n, d) -> (steps + 1, n, d)``."""
        import torch

        paths = []
        with torch.no_grad():
            for chunk in x.split(CHUNK):
                points = [chunk]
                for step in range(self.steps):
                    points.append(self._next(points[-1], step))
                paths.append(torch.stack(points))
            return torch.cat(paths, 1)

    def push(self, x: Tensor) -> Tensor:
        """``(n, d) -> (n, d)``: the ends of the paths."""
        import torch

        ends = []
        with torch.no_grad():
            for chunk in x.split(CHUNK):
                for step in range(self.steps):
                    chunk = self._next(chunk, step)
                ends.append(chunk)
            return torch.cat(ends)

    def _next(self, x: Tensor, step: int) -> Tensor:
        """The classical method of Runge and Kutta."""
        h, t = 1 / self.steps, step / self.steps
        first = self.velocity(x, t)
        second = self.velocity(x + h / 2 * first, t + h / 2)
        third = self.velocity(x + h / 2 * second, t + h / 2)
        fourth = self.velocity(x + h * third, t + h)
        return x + h / 6 * (first + 2 * second + 2 * third + fourth)

    def energy(self, x: Tensor) -> float:
        """The kinetic energy, the integral of E |v|^2 over time, from the steps of the paths."""
        return self.steps * float(self.path(x).double().diff(dim=0).square().sum((0, 2)).mean())

    def evaluations(self, x: Tensor) -> int:
        """How often an adaptive method (Dormand & Prince 1980) evaluates the velocity for all these
        points at once.
        """
        import torch
        from scipy.integrate import solve_ivp

        def velocity(t: float, flat: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                at = torch.as_tensor(flat, device=x.device, dtype=x.dtype).view_as(x)
                return self.velocity(at, t).flatten().double().cpu().numpy()

        start = x.flatten().double().cpu().numpy()
        return int(
            solve_ivp(
                velocity, (0.0, 1.0), start, t_eval=[1.0], rtol=TOLERANCE, atol=TOLERANCE
            ).nfev
        )


def _coupling(
    settings: OtCfm, problem: MapProblem, context: FitContext
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Takes ``(batch, d)`` points of source and target to as many pairs.

    Raises:
        ValueError: the solver does not couple clouds.
    """
    import torch

    if settings.coupling == INDEPENDENT:
        return lambda x, y: (x, y)
    weights = torch.full(
        (settings.batch,), 1 / settings.batch, device=context.device, dtype=context.dtype
    )
    batches = [
        (
            problem.source.sample(settings.batch, context.generator),
            problem.target.sample(settings.batch, context.generator),
        )
        for _ in range(settings.pretrain)
    ]
    eps = settings.eps
    if settings.eps_rule == "relative":
        eps = eps * sum(float(problem.cost.matrix(x, y).mean()) for x, y in batches) / len(batches)

    def pair(x: Tensor, y: Tensor) -> DiscreteProblem:
        return DiscreteProblem(x, weights, y, weights, problem.cost, Truth("none"), eps)

    pairs = [pair(x, y) for x, y in batches]
    amortized = AmortizedProblem(pairs, pairs[:1], problem.cost, Truth("none"))
    solver = registry("solver").select(settings.coupling)[0].build()
    if reason := solver.supports(amortized):
        raise ValueError(
            f"coupling must be a solver that couples clouds of points; {settings.coupling} {reason}"
        )
    plan = solver.fit(
        amortized, FitContext(context.device, context.dtype, context.seed, context.generator)
    ).plan

    def couple(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        mass = plan(pair(x, y))
        mass = (mass.to_dense() if mass.is_sparse else mass).flatten()
        drawn = mass.multinomial(len(x), replacement=True, generator=context.generator)
        return x[drawn // len(y)], y[drawn % len(y)]

    return couple
