r"""Max-min training of a map against a potential, the machine of OTM, OTP and MM:R.

For the cost ||Q(x) - y||^2 (Q the identity where the spaces are equal) all of them seek a saddle of

    inf_psi sup_G    E[<Q(x), G(x)> - psi(G(x))] + E[psi(y)]    (1)

(Makkuva et al. 2020; Korotin et al. 2021; Rout, Korotin & Burnaev 2022). At a saddle over an
absolutely continuous source G is the optimal map and grad psi its inverse. In cost units the
potential on the target side is g(y) = ||y||^2 - 2 psi(y).

The forms that G and psi may have, u and N being dense quadratic networks:

| form | map G(x) | potential psi(y) |
|---|---|---| | ``plain`` | network(x) | d network(y) | | ``residual`` | Q(x) + network(x) | \|y\|^2
/ 2 + network(y), which bounds the inner supremum | | ``gradient`` | Q(x) + grad u(Q(x)) | \|y\|^2 /
2 + N(y) | | ``convex`` | grad u(Q(x)), u convex | N(y), N convex |

The networks of the first two are MLPs, or for images:

| network | map | potential |
|---|---|---|
| ``convolutions`` | a UNet of Q(x) | residual blocks |
| ``otm-restoration`` | a UNet of Q(x), bounded by a tanh | plain convolutions |
| ``otm-generation`` | a decoder of x, bounded by a tanh | residual blocks, each image normalised |

Those of the last two are Rout et al.'s (`otbench.methods.neural.published_networks`). With
``norm = "batch"`` maps of images are normalised over the batch in training. A map that is returned
is normalised by statistics of fresh batches, so that it acts point by point.

With ``start = "linear"`` all but ``plain`` begin near the linear map between Gaussians of the same
moments instead of near Q, in the better conditioned coordinates of
`otbench.methods.neural.frames.Balanced`. Convolutions need pixels and begin near Q.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from otbench.errors import DivergedError
from otbench.methods.neural.frames import Balanced, Frame, OwnCoordinates, moments
from otbench.methods.neural.maxmin_networks import Architecture, Form, Networks
from otbench.methods.neural.networks import Activation, Rates, Weights
from otbench.methods.neural.published_networks import Decoder
from otbench.methods.neural.sampling import Stream
from otbench.methods.neural.solver import NeuralSolver, as_maps
from otbench.methods.neural.training import Decay, Player, train
from otbench.problem import SQEUCLIDEAN, MapProblem, Problem
from otbench.solver import FitContext, Transport


if TYPE_CHECKING:
    import torch

    from otbench.methods.neural.normalisation import Moments

    Tensor = torch.Tensor

Start = Literal["identity", "linear"]

CHUNK = 2**16  # points pushed at a time
POINT = 1e-12  # variance up to which a measure is a point
AVERAGED = 64  # images of which the map of a stochastic one is the mean
NORM_BATCHES = 16  # that the statistics of a returned map's normalisations are averaged over


@dataclass(frozen=True)
class Noise:
    """What the source is smoothed with: x goes to m + keep (x - m + sigma xi), m being its mean and
    xi ~ N(0, I).

    The saddle of such points is, in other coordinates, one of the source convolved with N(0,
    sigma^2 I): with c = (1 - keep) m the objective (1) at z = x + sigma xi is that of G'(z) = G(c +
    keep z) and psi' = (psi - <c, .>) / keep.

    Attributes:
        sigma: standard deviation, in units of the source's largest along a line (of the target's,
            where the source is a point).
        keep: 1, or less for noise that preserves the variance.
    """

    sigma: float
    keep: float = 1.0


@dataclass(frozen=True)
class MaxMinSolver(NeuralSolver):
    """Base of the solvers that train a map G against a potential psi. The defaults are those of a
    slow potential.

    Attributes:
        steps: rounds of ``map_updates`` steps of the map and one of the potential.
        batch: points of each measure per micro-batch, fresh ones.
        accumulate: micro-batches per step, whose gradients are averaged.
        map_updates: steps of the map for each step of the potential.
        lr, lr_potential: learning rates of the map and of the potential, Adam.
        beta1, beta2: of Adam.
        decay: of the learning rates.
        form: of the networks, see the module's docstring.
        start: what the map begins near.
        network: ``mlp``, or for images ``convolutions`` and others, see the module's docstring.
        width, depth, activation: of the MLPs; of convolutions the width is the number of channels
            (of the potential of ``otm-generation`` half of it), and the depth how many times an
            image is halved or doubled.
        norm: ``batch`` normalises maps of images over the batch in training, or ``none``.
        mixed: convolutions compute in bfloat16 on a GPU.
        rates: of the layers of dense quadratic networks, ``fan-in`` (lower where a layer has many
            inputs) or ``equal``.
        clip: largest norm of a gradient in the weights; 0 does not clip.
        pull: largest size, as a root mean square over coordinates, of the inner objective's
            gradient in an image; 0 does not limit it.
        ema: averaging of the weights that are returned, per round; 0 returns the last.
        r1: weight of the penalty E||grad V(y)||^2 / 2 on the potential V = ||y||^2 / 2 - psi
            (Mescheder et al. 2018), in the coordinates that are trained in.
        go: weight of the penalty ||E grad psi(G(x)) - E Q(x)|| on the potential, the gradient
            optimality of Rout et al. 2022. In their code psi has another scale there, which pulls
            away from the saddle where the source is not centred; here both agree.
    """

    steps: int = 2500
    batch: int = 256
    accumulate: int = 1
    map_updates: int = 8
    lr: float = 1e-3
    lr_potential: float = 1e-4
    beta1: float = 0.5
    beta2: float = 0.9
    decay: Decay = "none"
    form: Form = "residual"
    start: Start = "identity"
    network: Architecture = "mlp"
    width: int = 64
    depth: int = 3
    activation: Activation = "silu"
    norm: Literal["none", "batch"] = "none"
    mixed: bool = False
    rates: Rates = "fan-in"
    clip: float = 0.0
    pull: float = 0.0
    ema: float = 0.99
    r1: float = 0.0
    go: float = 0.0

    def __post_init__(self) -> None:
        """Check the parameters."""
        self.require(
            positive=(
                "steps",
                "batch",
                "accumulate",
                "map_updates",
                "width",
                "depth",
                "lr",
                "lr_potential",
            ),
            not_negative=("clip", "pull", "r1", "go"),
            fractions=("beta1", "beta2", "ema"),
        )
        if self.start == "linear" and self.form == "plain":
            raise ValueError("form=plain has no start: choose start=identity, or another form")
        if self.network != "mlp" and self.form in ("gradient", "convex"):
            raise ValueError(
                f"network={self.network} has no form={self.form}: choose plain or residual"
            )
        if self.network != "mlp" and self.start == "linear":
            raise ValueError(
                f"network={self.network} has no start=linear, whose coordinates are no pixels: "
                "choose start=identity"
            )
        if self.network == "otm-generation" and self.width < 2:
            raise ValueError(
                f"width must be at least 2 with network={self.network}, got {self.width}"
            )
        if self.norm == "batch" and self.network == "mlp":
            raise ValueError("norm=batch is for maps of images: choose another network than mlp")
        if self.norm == "batch" and self.batch < 2:
            raise ValueError(f"batch must be at least 2 with norm=batch, got {self.batch}")

    def supports(self, problem: Problem) -> str | None:
        """Map problems between vectors, of squared Euclidean cost, embedded or not."""
        if not isinstance(problem, MapProblem):
            return "takes map problems only"
        if not problem.cost.name.endswith(SQEUCLIDEAN.name):
            return f"trains for the sqeuclidean cost, not {problem.cost.name}"
        if len(problem.source.shape) != 1 or len(problem.target.shape) != 1:
            return f"takes vectors, not shapes {problem.source.shape} and {problem.target.shape}"
        if self.network != "mlp" and problem.target.image is None:
            return f"network={self.network} takes images only"
        if self.network == "otm-generation" and problem.target.image is not None:
            side = Decoder(problem.source.dim, 1, self.width, self.depth).side
            if problem.target.image[1:] != (side, side):
                height, width = problem.target.image[1:]
                return (
                    f"network={self.network} with depth={self.depth} makes images of {side} x "
                    f"{side} pixels, not of {height} x {width}"
                )
        if self.start == "linear" and problem.cost != SQEUCLIDEAN:
            return "start=linear needs source and target in one space"
        return None

    def noise(self, part: float) -> Noise | None:
        """What the source is smoothed with at this part of the training."""
        return None

    def random_inputs(self, dim: int) -> int:
        """Coordinates of random input that the map has beside x, for targets of this dimension."""
        return 0

    def fit_together(
        self, problems: Sequence[Problem], contexts: Sequence[FitContext]
    ) -> list[Transport | DivergedError]:
        """Train one for each problem, all of the same shapes, as one stack."""
        return _MaxMin(self, as_maps(problems), contexts).train()


SLOW_POTENTIAL: Mapping[str, Any] = {
    field.name: field.default for field in dataclasses.fields(MaxMinSolver)
}


class _MaxMin:
    """A stack of saddles in training."""

    def __init__(
        self, settings: MaxMinSolver, problems: Sequence[MapProblem], contexts: Sequence[FitContext]
    ) -> None:
        import torch

        self.settings, self.problems, self.contexts = settings, problems, contexts
        generators, dtype, device = (
            [context.generator for context in contexts],
            contexts[0].dtype,
            contexts[0].device,
        )
        self.source_dim, dim = problems[0].source.dim, problems[0].target.dim
        self.random_inputs = settings.random_inputs(dim)
        self.frame: Frame = OwnCoordinates(problems)
        noise = settings.noise(1.0)
        if noise is not None or settings.start == "linear":
            known = [
                (moments(problem.source, g), moments(problem.target, g))
                for problem, g in zip(problems, generators, strict=True)
            ]
            if noise is not None:
                spreads = [
                    _spread(of_source[1]) or _spread(of_target[1]) for of_source, of_target in known
                ]
                self.spread = torch.tensor(spreads, dtype=dtype, device=device)[:, None, None]
                self.mean = torch.stack([mean for (mean, _), _ in known])[:, None].to(dtype)
                eye = torch.eye(self.source_dim, dtype=dtype, device=device)
                known = [
                    ((mean, noise.keep**2 * (cov + (noise.sigma * spread) ** 2 * eye)), of_target)
                    for ((mean, cov), of_target), spread in zip(known, spreads, strict=True)
                ]
            if settings.start == "linear":
                self.frame = Balanced.of(known, dtype)
        self.networks = Networks(settings, problems[0], self.random_inputs)
        weights = [
            Weights.draw(network, generators, dtype)
            for network in (self.networks.map, self.networks.potential)
        ]
        self.x = Stream([problem.source.sample for problem in problems], generators, settings.batch)
        self.y = Stream([problem.target.sample for problem in problems], generators, settings.batch)
        self.normal = Stream([self.drawn_normal] * len(contexts), generators, settings.batch)
        shared = {
            "accumulate": settings.accumulate,
            "betas": (settings.beta1, settings.beta2),
            "clip": settings.clip,
            "ema": settings.ema,
            "project": self.networks.project,
        }
        self.map = Player(weights[0], self.map_loss, settings.lr, settings.map_updates, **shared)
        self.potential = Player(weights[1], self.potential_loss, settings.lr_potential, **shared)

    def train(self) -> list[Transport | DivergedError]:
        """Let map and potential take turns."""
        rounds = self.settings.steps

        def offer(done: int, finite: Tensor) -> None:
            for member, context in enumerate(self.contexts):
                if finite[member]:
                    context.checkpoint(done, self.transport(member, done / rounds))

        streams = [self.x, self.y, self.normal]
        finite = train(
            [self.map, self.potential],
            rounds,
            offer,
            self.settings.decay,
            self.contexts[0],
            streams,
        )
        return [
            self.transport(member, 1.0)
            if fine
            else DivergedError("the weights are not finite: lower lr, or clip the gradients")
            for member, fine in enumerate(finite.tolist())
        ]

    def map_loss(self, part: float) -> Tensor:
        """``(stack,)``: its gradient is that of minus the inner objective of (1): at an image y,
        grad psi(y) - Q(x), limited in size.
        """
        x, q = self.draw(part)
        y = self.networks.push(self.map.weights.tensors, x, q, self.frame.scale)
        slope = self.networks.slope(self.potential.weights.frozen, y.detach(), self.frame.scale) - q
        if self.settings.pull:
            norm = slope.norm(dim=-1, keepdim=True) / slope.shape[-1] ** 0.5
            slope = slope * (self.settings.pull / norm).clamp(max=1)
        return (slope * y).sum(-1).mean(1)

    def potential_loss(self, part: float) -> Tensor:
        """``(stack,)``: the outer objective of (1), with its penalties."""
        import torch

        settings = self.settings
        x, q = self.draw(part)
        with torch.no_grad():
            image, y = (
                self.networks.push(self.map.weights.frozen, x, q, self.frame.scale),
                self.frame.of_target(self.y.next()),
            )
        points, penalised = torch.cat([y, image], 1), settings.r1 > 0 or settings.go > 0
        values = self.networks.psi(
            self.potential.weights.tensors, points.requires_grad_(penalised), self.frame.scale
        )
        of_target, of_image = values.chunk(2, 1)
        loss = of_target.mean(1) - of_image.mean(1)
        if penalised:
            of_target, of_image = torch.autograd.grad(values.sum(), points, create_graph=True)[
                0
            ].chunk(2, 1)
            loss = loss + settings.r1 / 2 * (y - of_target).square().sum(-1).mean(1)
            loss = loss + settings.go * (of_image - q).mean(1).norm(dim=-1)
        return loss

    def draw(self, part: float) -> tuple[Tensor, Tensor]:
        """Inputs of the map ``(stack, batch, inputs)``, and Q of the points among them, in the
        frame.
        """
        x = self.x.next()
        if self.settings.noise(part) is None and not self.random_inputs:
            return self.frame.of_source(x)
        return self.inputs(x, self.normal.next(), part, self.frame, slice(None))

    def drawn_normal(self, n: int, generator: torch.Generator) -> Tensor:
        """``(n, source coordinates + random inputs)``."""
        import torch

        context = self.contexts[0]
        return torch.randn(
            n,
            self.source_dim + self.random_inputs,
            generator=generator,
            device=context.device,
            dtype=context.dtype,
        )

    def inputs(
        self, x: Tensor, normal: Tensor, part: float, frame: Frame, members: slice
    ) -> tuple[Tensor, Tensor]:
        """As of `draw`, of source points and standard normal numbers of some members."""
        import torch

        noise = self.settings.noise(part)
        normal, random = normal.split([self.source_dim, self.random_inputs], -1)
        if noise is not None:
            x = x + noise.sigma * self.spread[members] * normal
            x = torch.lerp(self.mean[members], x, noise.keep)
        x, q = frame.of_source(x)
        return torch.cat([x, random], -1), q

    def statistics(
        self, member: int, part: float, frame: Frame, weights: Sequence[Tensor]
    ) -> Sequence[Moments] | None:
        """What the map of one member normalises by once it is returned; nothing of the training
        follows from these batches.
        """
        import torch

        if self.settings.norm == "none":
            return None
        context = self.contexts[member]
        generator = torch.Generator(context.device).manual_seed(context.seed)
        batch, members = self.settings.batch, slice(member, member + 1)

        def inputs() -> tuple[Tensor, Tensor]:
            x = self.problems[member].source.sample(batch, generator)[None]
            normal = self.drawn_normal(batch, generator)[None]
            return self.inputs(x, normal, part, frame, members)

        return self.networks.statistics(weights, (inputs() for _ in range(NORM_BATCHES)))

    def transport(self, member: int, part: float) -> Transport:
        """What one member has learned, at this part of the training."""
        import torch

        networks, frame, noise = self.networks, self.frame.member(member), self.settings.noise(part)
        weights, of_potential = (
            self.map.averaged.member(member),
            self.potential.averaged.member(member),
        )
        random_inputs, seed = self.random_inputs, self.contexts[member].seed
        fixed = self.statistics(member, part, frame, weights)

        def image(x: Tensor, random: Tensor) -> Tensor:
            if noise is not None:
                x = torch.lerp(self.mean[member], x, noise.keep)
            with torch.no_grad():
                x, q = frame.of_source(x[None])
                inputs = torch.cat([x, random[None]], -1)
                return frame.to_target(networks.push(weights, inputs, q, frame.scale, fixed))[0]

        def draws(x: Tensor, k: int, rows: int) -> Tensor:
            generator = torch.Generator(x.device).manual_seed(seed)
            return torch.randn(
                k, rows, random_inputs, generator=generator, device=x.device, dtype=x.dtype
            )

        def sample(x: Tensor, k: int) -> Tensor:
            return torch.stack([image(x, random) for random in draws(x, k, len(x))], 1)

        def push(x: Tensor) -> Tensor:
            random = draws(x, AVERAGED if random_inputs else 1, 1)
            chunks = x.split(CHUNK)
            return torch.cat(
                [
                    torch.stack([image(chunk, z.expand(len(chunk), -1)) for z in random]).mean(0)
                    for chunk in chunks
                ]
            )

        def target_potential(y: Tensor) -> Tensor:
            psi = frame.potential(
                y[None], networks.psi(of_potential, frame.of_target(y[None]), frame.scale)
            )[0]
            if noise is not None and noise.keep < 1:
                psi = (psi - (1 - noise.keep) * y @ self.mean[member, 0]) / noise.keep
            return y.square().sum(1) - 2 * psi

        sigma = 0.0 if noise is None else noise.sigma * float(self.spread[member])
        return Transport(
            push, sample if random_inputs else None, target_potential=target_potential, sigma=sigma
        )


def _spread(cov: Tensor) -> float:
    """Largest standard deviation along a line; zero where it is no more than rounding."""
    import torch

    variance = float(torch.linalg.eigvalsh(cov.double())[-1])
    return variance**0.5 if variance > POINT else 0.0
