"""DIOTM: maps in both directions trained against one potential that changes along displacement
interpolation (Choi, Chen & Choi 2025, arXiv 2410.03783).

The displacement interpolants mu_t = ((1 - t) id + t T)#mu, 0 <= t <= 1, lie between source and
target at the squared distances W2^2(mu, mu_t) = t^2 W2^2 and W2^2(mu_t, nu) = (1 - t)^2 W2^2. One
potential V_t tells mu_t from either side, with c the cost ||x - y||^2,

    W2^2 = sup_V inf_{T, S}    E_x[t c(x, T(x)) - V_t((1 - t) x + t T(x))]
                             + E_y[(1 - t) c(S(y), y) + V_t((1 - t) S(y) + t y)]

for every t, T from source to target and S back. Here t is uniform on [0, 1], one for each point of
a batch. At t = 1 the terms of V and T are those of ``otm``, at t = 0 those of V and S are those of
the way back; -V_0 and V_1 are a pair of Kantorovich potentials. Along the geodesic V solves the
Hamilton-Jacobi equation of this cost, and its violation at the interpolants is penalised,

    hjb E|d/dt V_t + ||grad V_t||^2 / 4|.

Returned are T, V_1 and -V_0. The verdict is about the saddle of T and V_1.

The objective is derived here from duality on both sides of mu_t; the paper's abstract and outline
were read, its tables and settings were not. Chosen here: residual MLPs for the maps, an MLP of (z,
t) for V, three steps of each map for one of the potential, learning rates, the weight ``hjb``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from otbench import DivergedError, FitContext, MapProblem, Problem, Transport
from otbench.methods.neural.maxmin_training import CHUNK
from otbench.methods.neural.networks import MLP, Activation, Weights
from otbench.methods.neural.sampling import Stream, uniform_numbers
from otbench.methods.neural.solver import NeuralSolver, as_maps
from otbench.methods.neural.training import Decay, Player, outcomes, train
from otbench.methods.refusals import no_vector_space


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor


@dataclass(frozen=True)
class Diotm(NeuralSolver):
    """Two maps and a potential along displacement interpolation.

    Attributes:
        steps: rounds of ``map_updates`` steps of each map and one of the potential.
        batch: points of each measure per step, fresh ones.
        map_updates: steps of the maps for each step of the potential.
        lr, lr_potential: learning rates of the maps and of the potential, Adam.
        beta1, beta2: of Adam.
        decay: of the learning rates.
        width, depth, activation: of the networks.
        ema: averaging of the weights that are returned, per round; 0 returns the last.
        hjb: weight of the violation of the Hamilton-Jacobi equation.
    """

    name: ClassVar[str] = "diotm"
    tuning: ClassVar[str] = (
        "hjb from 0, 0.01, 0.1, 1 and lr_potential from 5e-4, 2e-3 on gaussian (2 and 16 "
        "dimensions), petals and circles, seed 1000, 200 rounds; the rest as otm, on "
        "seeds below 1000"
    )

    steps: int = 1000
    batch: int = 256
    map_updates: int = 3
    lr: float = 1e-3
    lr_potential: float = 2e-3
    beta1: float = 0.5
    beta2: float = 0.99
    decay: Decay = "cosine"
    width: int = 128
    depth: int = 3
    activation: Activation = "silu"
    ema: float = 0.99
    hjb: float = 0.01

    def __post_init__(self) -> None:
        """Check the parameters."""
        self.require(
            positive=("steps", "batch", "map_updates", "width", "depth", "lr", "lr_potential"),
            not_negative=("hjb",),
            fractions=("beta1", "beta2", "ema"),
        )

    def supports(self, problem: Problem) -> str | None:
        """Map problems between vectors of one space, of squared Euclidean cost."""
        return no_vector_space(problem)

    def fit_together(
        self, problems: Sequence[Problem], contexts: Sequence[FitContext]
    ) -> list[Transport | DivergedError]:
        """Train one for each problem, all of the same shapes, as one stack."""
        return InterpolationTraining(self, as_maps(problems), contexts).train()


class InterpolationTraining:
    """A stack of maps T and S and of potentials V in training."""

    def __init__(
        self, settings: Diotm, problems: Sequence[MapProblem], contexts: Sequence[FitContext]
    ) -> None:
        self.settings, self.contexts = settings, contexts
        generators, dtype = [context.generator for context in contexts], contexts[0].dtype
        dim, width, depth = problems[0].source.dim, settings.width, settings.depth
        self.map = MLP(dim, dim, width, depth, settings.activation)
        self.network = MLP(dim + 1, 1, width, depth, settings.activation)
        there, back, potential = (
            Weights.draw(network, generators, dtype)
            for network in (self.map, self.map, self.network)
        )
        self.x, self.y, self.t = (
            Stream(draws, generators, settings.batch)
            for draws in (
                [problem.source.sample for problem in problems],
                [problem.target.sample for problem in problems],
                [uniform_numbers(1, dtype)] * len(contexts),
            )
        )
        betas, lr, updates = (settings.beta1, settings.beta2), settings.lr, settings.map_updates
        self.there = Player(there, [self.loss_there], lr, updates, betas=betas, ema=settings.ema)
        self.back = Player(back, [self.loss_back], lr, updates, betas=betas, ema=settings.ema)
        self.potential = Player(
            potential, [self.potential_loss], settings.lr_potential, betas=betas, ema=settings.ema
        )

    def image(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        """T or S of points ``(stack, n, d)``."""
        return x + self.map(weights, x)

    def v(self, weights: Sequence[Tensor], z: Tensor, t: Tensor) -> Tensor:
        """V_t ``(stack, n)`` of points ``(stack, n, d)``, each at its time ``(stack, n, 1)``."""
        import torch

        return self.network(weights, torch.cat([z, t], -1))[..., 0]

    def loss_there(self) -> Tensor:
        """``(stack,)``: what T minimises."""
        import torch

        x, t = self.x.next(), self.t.next()
        y = self.image(self.there.weights.tensors, x)
        moved = t[..., 0] * (y - x).square().sum(-1)
        return (moved - self.v(self.potential.weights.frozen, torch.lerp(x, y, t), t)).mean(1)

    def loss_back(self) -> Tensor:
        """``(stack,)``: what S minimises."""
        import torch

        y, t = self.y.next(), self.t.next()
        x = self.image(self.back.weights.tensors, y)
        moved = (1 - t[..., 0]) * (y - x).square().sum(-1)
        return (moved + self.v(self.potential.weights.frozen, torch.lerp(x, y, t), t)).mean(1)

    def potential_loss(self) -> Tensor:
        """``(stack,)``: what V minimises."""
        import torch

        x, y, t = self.x.next(), self.y.next(), self.t.next()
        with torch.no_grad():
            z = torch.cat(
                [
                    torch.lerp(x, self.image(self.there.weights.frozen, x), t),
                    torch.lerp(self.image(self.back.weights.frozen, y), y, t),
                ],
                1,
            )
        t, weights = torch.cat([t, t], 1), self.potential.weights.tensors
        of_there, of_back = self.v(weights, z, t).chunk(2, 1)
        loss = of_there.mean(1) - of_back.mean(1)
        if not self.settings.hjb:
            return loss
        slope = self.network.gradient(weights, torch.cat([z, t], -1))
        return loss + self.settings.hjb * hamilton_jacobi(slope).abs().mean(1)

    def train(self) -> list[Transport | DivergedError]:
        """Let the maps and the potential take turns."""

        def offer(done: int, finite: Tensor) -> None:
            for member, context in enumerate(self.contexts):
                if finite[member]:
                    context.checkpoint(done, self.transport(member))

        finite = train(
            [self.there, self.back, self.potential],
            self.settings.steps,
            offer,
            self.settings.decay,
            self.contexts[0],
            [self.x, self.y, self.t],
        )
        return outcomes(finite, self.transport)

    def transport(self, member: int) -> Transport:
        """What one member has learned."""
        import torch

        there, potential = (
            player.averaged.member(member) for player in (self.there, self.potential)
        )

        step, network = self.map, self.network

        def push(x: Tensor) -> Tensor:
            with torch.no_grad():
                return torch.cat([part + step(there, part[None])[0] for part in x.split(CHUNK)])

        def at(time: float, z: Tensor) -> Tensor:
            timed = torch.cat([z, torch.full_like(z[:, :1], time)], 1)
            return network(potential, timed[None])[0, :, 0]

        return Transport(
            push, potential=lambda x: -at(0.0, x), target_potential=lambda y: at(1.0, y)
        )


def hamilton_jacobi(slope: Tensor) -> Tensor:
    """``d/dt V_t + ||grad V_t||^2 / 4``, from derivatives ``(..., d + 1)`` in the point and, last,
    in time.
    """
    return slope[..., -1] + slope[..., :-1].square().sum(-1) / 4
