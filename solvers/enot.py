r"""ENOT: two potentials, each the other's conjugate, with an expectile regulariser (Buzun, Bobrin &
Dylov 2024, arXiv 2403.03777), trained in both directions.

For the correlation <x, y>, of potentials phi of the source and psi of the target, T = grad phi:

    inf_psi sup_phi    E[<x, T(x)> - psi(T(x))] + E[psi(y)] + 2 weight E[L(u)],
    u = <x, y> - psi(y) - <x, T(x)> + psi(T(x)),

x and y independent, u what the pair (x, y) violates the dual's constraint by, L(u) = u^2 times
``expectile`` where u is positive, times the rest where it is not; the factor of two is for
potentials of ||x - y||^2, to which the paper's weight belongs. As in OTT-JAX's code L stands
twice in the loss, once with the gradient at y and once with that at T(x): together they are that of
one. Each round does the same from target to source, with phi and psi in exchanged roles: the map
that is returned is trained as the argmax against psi and as the gradient of the potential phi.

What is not as in the paper (`cpu`, the defaults): potentials are half the square and a dense
quadratic network, the benchmark's own architecture (Korotin et al. 2021); training begins at the
linear map, in coordinates in which it is the identity (`otbench.methods.neural.frames`); where phi
is the potential, images are improved by ``refine`` steps of gradient ascent before it is trained on
them (in the spirit of Amos 2023; phi is near the potential of a map, psi near that of its inverse,
which is steep where the map is flat, so that the same steps on psi may leave the target); the
gradients of the inner problems are limited in size; averaged weights; potentials are compared on
batches of points that lie near one another (`otbench.methods.neural.matching`), so that less of
their gradients is chance. The regulariser, which keeps the potentials from running away where
batches are independent, acts in the coordinates that are trained in, whose unit is the spread of
the measures where training begins at the linear map.

Presets:

* ``cpu``, the defaults, for five minutes on one core in up to 16 dimensions, and ``cpu-64``, for
  three to four in 64.
* ``paper`` is as in the authors' script for the Wasserstein-2 benchmark in 64 dimensions: MLPs of
  three layers of 512 with ELUs, batches of 1,024, Adam at 5e-4 with betas .9 and .99, expectile 1
  of weight 0.5, 300,001 steps of one direction, two of which are a round here. It needs a GPU. The
  rate falls to a hundredth there, to zero here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from otbench import DivergedError, FitContext, MapProblem, Problem, Transport
from otbench.methods.neural.frames import Balanced, Frame, OwnCoordinates, moments
from otbench.methods.neural.matching import MatchedPairs
from otbench.methods.neural.maxmin_networks import square_plus, square_plus_gradient
from otbench.methods.neural.networks import MLP, Activation, DenseQuadratic, Weights
from otbench.methods.neural.sampling import Stream
from otbench.methods.neural.solver import NeuralSolver, as_maps
from otbench.methods.neural.training import Decay, Player, limited, outcomes, train
from otbench.methods.refusals import no_vector_space


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

CHUNK = 2**16  # points pushed at a time,
PLACED = 2**12  # and while training
FIRST_STEP, LONGEST_STEP = 0.5, 10.0  # of the ascent that improves images
SHORTEST = 1e-20  # squared length below which a step tells nothing of the curvature


@dataclass(frozen=True)
class Enot(NeuralSolver):
    """Potentials trained against each other in both directions.

    Attributes:
        steps: rounds of one step of each potential in each of its two roles.
        batch: points of each measure per step, fresh ones.
        lr: learning rate, Adam.
        beta1, beta2: of Adam.
        decay: of the learning rate.
        network: ``quadratic``, or an ``mlp``.
        width: units of a hidden layer, half as many of the last of a ``quadratic`` network; 0 makes
            it 128, or twice the dimension where that is more.
        depth: number of hidden layers.
        activation: of the MLP.
        start: what training begins near, the ``linear`` map or the ``identity``.
        expectile: of the regulariser, between a half and one.
        weight: of the regulariser; 0 has none.
        refine: steps that images are improved by where phi is the potential.
        pull: largest size, as a root mean square over coordinates, of the gradient of an inner
            problem; 0 does not limit it.
        pairs: what potentials are compared on: batches of source and target points that are
            ``matched`` under the map as it is, or ``independent`` ones.
        ema: averaging of the weights that are returned, per round; 0 returns the last.
    """

    name: ClassVar[str] = "enot"
    presets: ClassVar[Mapping[str, Mapping[str, float | str]]] = {
        "cpu": {},
        "cpu-64": {"steps": 4000},
        "paper": {
            "steps": 150_000,
            "batch": 1024,
            "lr": 5e-4,
            "beta1": 0.9,
            "beta2": 0.99,
            "network": "mlp",
            "width": 512,
            "depth": 3,
            "activation": "elu",
            "start": "identity",
            "expectile": 1.0,
            "weight": 0.5,
            "refine": 0,
            "pull": 0.0,
            "pairs": "independent",
            "ema": 0.0,
        },
    }
    tuning: ClassVar[str] = (
        "lr, betas, batch, width, refine, ema, pairs on mix3tomix10 in dimensions 4, 16 and 64, "
        "seed 1000; "
        "weight on log-sum-exp and petals, seeds from 1000 on"
    )

    steps: int = 10_000
    batch: int = 256
    lr: float = 8e-3
    beta1: float = 0.5
    beta2: float = 0.99
    decay: Decay = "cosine"
    network: Literal["quadratic", "mlp"] = "quadratic"
    width: int = 0
    depth: int = 3
    activation: Activation = "elu"
    start: Literal["linear", "identity"] = "linear"
    expectile: float = 1.0
    weight: float = 0.1
    refine: int = 2
    pull: float = 0.7
    pairs: Literal["matched", "independent"] = "matched"
    ema: float = 0.99

    def __post_init__(self) -> None:
        """Check the parameters."""
        self.require(
            positive=("steps", "batch", "lr", "depth"),
            not_negative=("width", "weight", "refine", "pull"),
            fractions=("beta1", "beta2", "ema"),
        )
        if not 0.5 <= self.expectile <= 1:
            raise ValueError(f"expectile must be between 0.5 and 1, got {self.expectile}")

    def supports(self, problem: Problem) -> str | None:
        """Map problems between vectors of one space, of squared Euclidean cost."""
        return no_vector_space(problem)

    def potential(self, dim: int) -> MLP | DenseQuadratic:
        """The network of a potential, without half the square."""
        width = self.width or max(2 * dim, 128)
        if self.network == "mlp":
            return MLP(dim, 1, width, self.depth, self.activation)
        return DenseQuadratic(dim, (*[width] * (self.depth - 1), -(-width // 2)), convex=False)

    def fit_together(
        self, problems: Sequence[Problem], contexts: Sequence[FitContext]
    ) -> list[Transport | DivergedError]:
        """Train a pair of potentials for each problem, as one stack."""
        return ConjugateTraining(self, as_maps(problems), contexts).train()


class Side(NamedTuple):
    """One of the measures with its potential.

    Attributes:
        points: batches of the measure.
        weights: of its potential.
        to_frame: from points to the coordinates that are trained in.
    """

    points: Stream
    weights: Weights
    to_frame: Callable[[Tensor], Tensor]


class ConjugateTraining:
    """A stack of pairs of potentials in training."""

    def __init__(
        self, settings: Enot, problems: Sequence[MapProblem], contexts: Sequence[FitContext]
    ) -> None:
        self.settings, self.contexts = settings, contexts
        generators, dtype = [context.generator for context in contexts], contexts[0].dtype
        self.frame: Frame = OwnCoordinates(problems)
        if settings.start == "linear":
            known = [
                (moments(problem.source, g), moments(problem.target, g))
                for problem, g in zip(problems, generators, strict=True)
            ]
            self.frame = Balanced.of(known, dtype)
        self.network = settings.potential(problems[0].source.dim)
        phi, psi = (Weights.draw(self.network, generators, dtype) for _ in range(2))
        x, y = (
            Stream([measure.sample for measure in measures], generators, settings.batch)
            for measures in zip(*((p.source, p.target) for p in problems), strict=True)
        )
        self.source = Side(x, phi, lambda x: self.frame.of_source(x)[1])
        self.target = Side(y, psi, self.frame.of_target)
        self.pairs = MatchedPairs(x.draws, y.draws, generators, settings.batch, self.places)
        there, back = (self.source, self.target), (self.target, self.source)
        map_loss, potential_loss = self.map_loss, self.potential_loss
        betas = settings.beta1, settings.beta2
        self.phi, self.psi = (
            Player(side.weights, losses, settings.lr, betas=betas, ema=settings.ema)
            for side, losses in (
                (
                    self.source,
                    [partial(map_loss, *there), partial(potential_loss, *back, settings.refine)],
                ),
                (self.target, [partial(map_loss, *back), partial(potential_loss, *there, 0)]),
            )
        )

    def value(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        """A potential at points ``(stack, n, d)`` of the frame, ``(stack, n)``."""
        return square_plus(self.network, weights, x, self.frame.scale)

    def push(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        """The gradient of a potential, ``(stack, n, d)``."""
        return square_plus_gradient(self.network, weights, x, self.frame.scale)

    def places(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Images of source points, and target points, ``(stack, n, d)`` of the frame."""
        import torch

        images = [
            self.push(self.source.weights.frozen, self.source.to_frame(part))
            for part in x.split(PLACED, 1)
        ]
        return torch.cat(images, 1), self.target.to_frame(y)

    def batches(self, start: Side, end: Side) -> tuple[Tensor, Tensor]:
        """Points of both measures to compare a potential on, ``(stack, batch, d)`` of the frame."""
        if self.settings.pairs == "independent":
            x, y = start.points.next(), end.points.next()
        else:
            x, y = self.pairs.next().chunk(2, 1)
            if start is self.target:
                x, y = y, x
        return start.to_frame(x), end.to_frame(y)

    def map_loss(self, start: Side, end: Side) -> Tensor:
        """``(stack,)``: what the potential of ``start`` minimises as a map: its gradient is that of
        E[psi(T(x)) - <x, T(x)>], limited in size at each image.
        """
        import torch

        x = start.to_frame(start.points.next())
        y = self.push(start.weights.tensors, x)
        with torch.no_grad():
            slope = limited(self.push(end.weights.frozen, y) - x, self.settings.pull)
        return (slope * y).sum(-1).mean(1)

    def potential_loss(self, start: Side, end: Side, refine: int) -> Tensor:
        """``(stack,)``: what the potential of ``end`` minimises against images of ``start``."""
        import torch

        settings = self.settings
        x, y = self.batches(start, end)
        with torch.no_grad():
            image = self.push(start.weights.frozen, x)
            if refine:
                image = self.improved(end.weights.frozen, image, x, refine)
        of_y, of_image = self.value(end.weights.tensors, torch.cat([y, image], 1)).chunk(2, 1)
        loss = of_y.mean(1) - of_image.mean(1)
        if settings.weight:
            conjugate = (x * image).sum(-1) - of_image
            excess = (x * y).sum(-1) - of_y - conjugate
            part = torch.where(excess >= 0, settings.expectile, 1 - settings.expectile)
            loss = loss + 2 * settings.weight * (part * excess.square()).mean(1)
        return loss

    def improved(self, weights: Sequence[Tensor], y: Tensor, x: Tensor, steps: int) -> Tensor:
        """Images nearer to the maximiser of <x, y> - psi(y), by gradient steps with the step
        lengths of Barzilai & Borwein (1988), those that bring the slope nearer to x.
        """
        import torch

        slope = self.push(weights, y) - x
        size = slope.norm(dim=-1, keepdim=True)
        length = torch.full_like(size, FIRST_STEP)
        for _ in range(steps):
            tried = y - length * limited(slope, self.settings.pull)
            new = self.push(weights, tried) - x
            change, turn = tried - y, new - slope
            secant = (change * turn).sum(-1, keepdim=True) / turn.square().sum(
                -1, keepdim=True
            ).clamp(min=SHORTEST)
            better = new.norm(dim=-1, keepdim=True) < size
            y, slope = torch.where(better, tried, y), torch.where(better, new, slope)
            size = slope.norm(dim=-1, keepdim=True)
            length = torch.where(better & (secant > 0), secant.clamp(max=LONGEST_STEP), length / 4)
        return y

    def train(self) -> list[Transport | DivergedError]:
        """Let both potentials take turns, in both of their roles."""

        def prepare(part: float) -> None:
            if self.settings.pairs == "matched":
                self.pairs.match()

        def offer(done: int, finite: Tensor) -> None:
            for member, context in enumerate(self.contexts):
                if finite[member]:
                    context.checkpoint(done, self.transport(member))

        finite = train(
            [self.phi, self.psi],
            self.settings.steps,
            offer,
            self.settings.decay,
            self.contexts[0],
            [self.source.points, self.target.points, self.pairs],
            prepare,
        )
        return outcomes(finite, self.transport, "lower lr, or pull")

    def transport(self, member: int) -> Transport:
        """What one member has learned."""
        import torch

        frame, network = self.frame.member(member), self.network
        phi, psi = self.phi.averaged.member(member), self.psi.averaged.member(member)

        def image(x: Tensor) -> Tensor:
            q = frame.of_source(x[None])[1]
            return frame.to_target(square_plus_gradient(network, phi, q, frame.scale))[0]

        def push(x: Tensor) -> Tensor:
            with torch.no_grad():
                return torch.cat([image(chunk) for chunk in x.split(CHUNK)])

        def target_potential(y: Tensor) -> Tensor:
            v = frame.of_target(y[None])
            values = square_plus(network, psi, v, frame.scale)
            return y.square().sum(1) - 2 * frame.potential(y[None], values)[0]

        return Transport(push, target_potential=target_potential)
