"""The training of a stack of saddles: losses, penalties, and what is returned (see
`otbench.methods.neural.maxmin`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

from otbench.errors import DivergedError
from otbench.methods.neural.frames import Balanced, Frame, OwnCoordinates, moments
from otbench.methods.neural.maxmin_networks import Networks
from otbench.methods.neural.networks import Weights
from otbench.methods.neural.sampling import Stream, normal_numbers
from otbench.methods.neural.training import Player, limited, outcomes, train
from otbench.problem import MapProblem
from otbench.solver import FitContext, Transport


if TYPE_CHECKING:
    import torch

    from otbench.methods.neural.maxmin import MaxMinSolver
    from otbench.methods.neural.normalisation import Moments

    Tensor = torch.Tensor

Settings = TypeVar("Settings", bound="MaxMinSolver")

CHUNK = 2**16  # points pushed at a time
POINT = 1e-12  # variance up to which a measure is a point
AVERAGED = 64  # images of which the map of a stochastic one is the mean
NORM_BATCHES = 16  # that the statistics of a returned map's normalisations are averaged over


class MaxMinTraining(Generic[Settings]):
    """A stack of saddles in training. Methods with another objective override `inner_slope` or
    `outer_objective`.

    Args:
        settings: of the solver.
        problems, contexts: the stack.
    """

    def __init__(
        self, settings: Settings, problems: Sequence[MapProblem], contexts: Sequence[FitContext]
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
        self.noise: tuple[Tensor, Tensor] | None = None  # its sigma and its keep, now
        if noise is not None or settings.start == "linear":
            known = [
                (moments(problem.source, g), moments(problem.target, g))
                for problem, g in zip(problems, generators, strict=True)
            ]
            if noise is not None:
                sigma, keep = torch.ones(2, dtype=dtype, device=device)
                self.noise = sigma, keep
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
        self.drawn_normal = normal_numbers(self.source_dim + self.random_inputs, dtype)
        self.normal = Stream([self.drawn_normal] * len(contexts), generators, settings.batch)
        shared = {
            "accumulate": settings.accumulate,
            "betas": (settings.beta1, settings.beta2),
            "clip": settings.clip,
            "ema": settings.ema,
            "project": self.networks.project,
        }
        self.map = Player(weights[0], [self.map_loss], settings.lr, settings.map_updates, **shared)
        self.potential = Player(weights[1], [self.potential_loss], settings.lr_potential, **shared)

    @property
    def streams(self) -> list[Stream]:
        """What the losses draw from."""
        return [self.x, self.y, self.normal]

    def train(self) -> list[Transport | DivergedError]:
        """Let map and potential take turns."""
        rounds = self.settings.steps

        def offer(done: int, finite: Tensor) -> None:
            for member, context in enumerate(self.contexts):
                if finite[member]:
                    context.checkpoint(done, self.transport(member, done / rounds))

        finite = train(
            [self.map, self.potential],
            rounds,
            offer,
            self.settings.decay,
            self.contexts[0],
            self.streams,
            self.prepare,
        )
        return outcomes(
            finite, lambda member: self.transport(member, 1.0), "lower lr, or clip the gradients"
        )

    def prepare(self, part: float) -> None:
        """Smooth the source as it is to be at this part of the training."""
        noise = self.settings.noise(part)
        if self.noise is not None and noise is not None:
            for tensor, number in zip(self.noise, noise, strict=True):
                tensor.fill_(number)

    def map_loss(self) -> Tensor:
        """``(stack,)``: its gradient is that of minus the inner objective, limited in size at each
        image.
        """
        x, q = self.draw()
        y = self.networks.push(self.map.weights.tensors, x, q, self.frame.scale)
        slope = self.inner_slope(y.detach(), q)
        return (limited(slope, self.settings.pull) * y).sum(-1).mean(1)

    def inner_slope(self, y: Tensor, q: Tensor) -> Tensor:
        """``(stack, batch, d)``: the gradient of minus the inner objective at images ``y``, which
        points embedded at ``q`` are mapped to.
        """
        return self.networks.slope(self.potential.weights.frozen, y, self.frame.scale) - q

    def outer_objective(
        self, of_target: Tensor, of_image: Tensor, y: Tensor, image: Tensor, q: Tensor
    ) -> Tensor:
        """``(stack,)``: what the potential minimises.

        Args:
            of_target: psi at ``y``, ``(stack, batch)``.
            of_image: psi at ``image``, ``(stack, batch)``.
            y: target points, ``(stack, batch, d)``.
            image: images, ``(stack, batch, d)``.
            q: what was mapped to them, embedded.
        """
        return of_target.mean(1) - of_image.mean(1)

    def potential_loss(self) -> Tensor:
        """``(stack,)``: the outer objective with its penalties."""
        import torch

        settings = self.settings
        x, q = self.draw()
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
        loss = self.outer_objective(of_target, of_image, y, image, q)
        if penalised:
            of_target, of_image = torch.autograd.grad(values.sum(), points, create_graph=True)[
                0
            ].chunk(2, 1)
            loss = loss + settings.r1 / 2 * (y - of_target).square().sum(-1).mean(1)
            loss = loss + settings.go * (of_image - q).mean(1).norm(dim=-1)
        return loss

    def draw(self) -> tuple[Tensor, Tensor]:
        """Inputs of the map ``(stack, batch, inputs)``, and Q of the points among them, in the
        frame.
        """
        x = self.x.next()
        if self.noise is None and not self.random_inputs:
            return self.frame.of_source(x)
        return self.inputs(x, self.normal.next(), self.noise, self.frame, slice(None))

    def inputs(
        self,
        x: Tensor,
        normal: Tensor,
        noise: tuple[Tensor, Tensor] | tuple[float, float] | None,
        frame: Frame,
        members: slice,
    ) -> tuple[Tensor, Tensor]:
        """As of `draw`, of source points and standard normal numbers of some members, with the
        sigma and the keep of a `Noise`.
        """
        import torch

        normal, random = normal.split([self.source_dim, self.random_inputs], -1)
        if noise is not None:
            sigma, keep = noise
            x = x + sigma * self.spread[members] * normal
            x = torch.lerp(self.mean[members], x, keep)
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
        context, noise = self.contexts[member], self.settings.noise(part)
        generator = torch.Generator(context.device).manual_seed(context.seed)
        batch, members = self.settings.batch, slice(member, member + 1)

        def inputs() -> tuple[Tensor, Tensor]:
            x = self.problems[member].source.sample(batch, generator)[None]
            normal = self.drawn_normal(batch, generator)[None]
            return self.inputs(x, normal, noise, frame, members)

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
        # What is returned refers to nothing of the training, which would be saved with it.
        mean = None if noise is None else self.mean[member]

        def image(x: Tensor, random: Tensor) -> Tensor:
            if noise is not None and mean is not None:
                x = torch.lerp(mean, x, noise.keep)
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
            if noise is not None and mean is not None and noise.keep < 1:
                psi = (psi - (1 - noise.keep) * y @ mean[0]) / noise.keep
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
