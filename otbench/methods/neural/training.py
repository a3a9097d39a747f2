"""The training loop that all neural solvers share: players with weights and losses take turns.

One way to train for every method: Adam on flat weights, a learning rate that may decay, gradient
clipping, averaged weights, a stop where weights are no longer finite, checkpoints that the runner
scores while its clock stands still, a state that an interrupted training goes on from. On a GPU the
rounds are CUDA graphs (`otbench.methods.neural.graphs`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from otbench.errors import DivergedError
from otbench.methods.neural.graphs import Round, capture_on
from otbench.methods.neural.networks import Weights
from otbench.methods.neural.sampling import Draws
from otbench.solver import FitContext, Transport


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

Decay = Literal["none", "cosine"]

CHECKPOINTS = (
    1 / 64,
    1 / 32,
    1 / 16,
    1 / 8,
    1 / 4,
    3 / 8,
    1 / 2,
    5 / 8,
    3 / 4,
    9 / 10,
    1,
)  # parts of the training
CHECK_EVERY = 100  # steps between checks that the weights are finite


@dataclass
class Player:
    """One of those whose weights are trained, each against its own loss.

    Attributes:
        weights: of a stack of networks.
        losses: each gives one per member, ``(stack,)``. They draw from `Draws` alone, and read what
            changes from round to round from tensors.
        lr: learning rate at the start.
        updates: how often it descends each of its losses, one after another, in each round.
        accumulate: parts of a batch, one call of a loss each, whose gradients are averaged before
            a step.
        betas: of Adam.
        clip: largest norm of a member's gradient; 0 does not clip.
        ema: averaged weights keep this part of themselves at every round; 0 keeps none.
        project: called after each step, to bring the weights back to where they must be.
    """

    weights: Weights
    losses: Sequence[Callable[[], Tensor]]
    lr: float
    updates: int = 1
    accumulate: int = 1
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float = 0.0
    ema: float = 0.0
    project: Callable[[Sequence[Tensor]], None] | None = None
    averaged: Weights = field(init=False)
    rates: Tensor | None = field(init=False)
    rate: Tensor = field(init=False)
    follow: Tensor = field(init=False)
    optimizer: torch.optim.Adam = field(init=False)

    def __post_init__(self) -> None:
        """Set up the optimiser and the average."""
        import torch

        flat = self.weights.flat
        flat.grad = torch.zeros_like(flat)
        # Tensors of one number each, which a CUDA graph reads anew in every round.
        self.rate = torch.tensor(self.lr, device=flat.device, dtype=torch.float32)
        self.follow = flat.new_ones(())
        self.optimizer = torch.optim.Adam(
            [flat], lr=self.rate, betas=self.betas, fused=True, capturable=flat.is_cuda
        )
        rates = [
            flat.new_full((math.prod(shape),), rate)
            for shape, rate in zip(self.weights.shapes, self.weights.rates, strict=True)
        ]
        self.rates = torch.cat(rates) if any(rate != 1 for rate in self.weights.rates) else None
        self.averaged = (
            Weights(flat.clone(), self.weights.shapes, self.weights.rates)
            if self.ema
            else self.weights
        )

    def prepare(self, factor: float, rounds: int) -> None:
        """Set the learning rate, and let the average follow faster while it is young.

        Args:
            factor: of the learning rate in this round.
            rounds: how many there are with this one.
        """
        self.rate.fill_(factor * self.lr)
        self.follow.fill_(max(1 - self.ema, 9 / (9 + rounds)))

    def play(self) -> None:
        """Take one turn: all steps of a round, and the average's."""
        for _ in range(self.updates):
            for loss in self.losses:
                self.step(loss)
        if self.ema:
            self.averaged.flat.lerp_(self.weights.flat, self.follow)

    def step(self, loss: Callable[[], Tensor]) -> None:
        """Descend once."""
        import torch

        flat, tensors = self.weights.flat, self.weights.tensors
        assert flat.grad is not None

        def gradients() -> list[Tensor]:
            """Zero where the loss does not depend on a tensor: a map of slopes on the last bias."""
            found = torch.autograd.grad(loss().sum(), tensors, materialize_grads=True)
            return [gradient.flatten(1) for gradient in found]

        torch.cat(gradients(), 1, out=flat.grad)
        if self.accumulate > 1:
            for _ in range(self.accumulate - 1):
                flat.grad.add_(torch.cat(gradients(), 1))
            flat.grad.div_(self.accumulate)
        if self.clip:
            flat.grad.mul_((self.clip / flat.grad.norm(dim=1, keepdim=True)).clamp_(max=1))
        before = flat.clone() if self.rates is not None else flat
        self.optimizer.step()
        if self.rates is not None:  # a step of Adam is proportional to its learning rate
            torch.lerp(before, flat, self.rates, out=flat)
        if self.project is not None:
            self.project(tensors)

    def state(self) -> dict[str, Any]:
        """All that training changes."""
        return {
            "weights": self.weights.flat,
            "averaged": self.averaged.flat,
            "optimizer": self.optimizer.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Restore a state, as `state` gives it."""
        self.weights.flat.copy_(state["weights"])
        self.averaged.flat.copy_(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.optimizer.param_groups[0]["lr"] = self.rate


def train(
    players: Sequence[Player],
    rounds: int,
    offer: Callable[[int, Tensor], None],
    decay: Decay = "cosine",
    context: FitContext | None = None,
    draws: Sequence[Draws] = (),
    prepare: Callable[[float], None] = lambda part: None,
    capturable: bool = True,
    progress: Callable[[int], float] | None = None,
) -> Tensor:
    """Let the players take turns.

    Args:
        players: in the order of their turns.
        rounds: how many times each has its turn.
        offer: called at each checkpoint and at the end, with the number of rounds done and where
            the weights are finite, ``(stack,)``.
        decay: of the learning rates: ``none``, or ``cosine`` down to zero.
        context: where the training is saved, and goes on if it was interrupted.
        draws: what the losses draw from, all of it.
        prepare: called before each round with the part of the training that is done, in [0, 1), to
            set the tensors that depend on it.
        capturable: False where a loss draws by itself, or keeps what the host is to see, so that a
            round cannot be a CUDA graph.
        progress: the part of the training that is done after so many rounds, where it is not that
            of the rounds; the training ends where it is one.

    Returns:
        ``(stack,)`` true where the weights are finite; the training stops early where none are.
    """
    import torch

    checkpoints = {round(part * rounds) for part in CHECKPOINTS}
    flat = players[0].weights.flat
    parts, first, finite = (
        (*players, *draws),
        0,
        torch.ones(len(flat), dtype=torch.bool),
    )
    if context is not None and (state := context.restored()) is not None:
        first, finite = state["done"], state["finite"]
        # Popped, so that its memory is free again.
        for one, its_state in zip(parts, state.pop("parts"), strict=True):
            one.load(its_state)

    def play() -> None:
        for player in players:
            player.play()

    one_round = Round(play, draws, capture_on(flat.device) if capturable else None)
    for done in range(first, rounds):
        part = done / rounds if progress is None else progress(done)
        if part >= 1:
            break
        for player in players:
            player.prepare(decayed(decay, part), done + 1)
        prepare(part)
        one_round()
        if done + 1 in checkpoints or (done + 1) % CHECK_EVERY == 0:
            finite = (
                torch.stack([player.weights.flat.isfinite().all(1) for player in players])
                .all(0)
                .cpu()
            )
            if not finite.any():
                break
        if done + 1 in checkpoints:
            offer(done + 1, finite)
        if context is not None:
            context.save(partial(_state, done + 1, finite, parts))
    one_round.close()
    return finite


def decayed(decay: Decay, part: float) -> float:
    """What the learning rates are multiplied by at this part of the training, in [0, 1)."""
    return (1 + math.cos(math.pi * part)) / 2 if decay == "cosine" else 1.0


def limited(slope: Tensor, most: float) -> Tensor:
    """Gradients ``(..., d)`` of a size of at most ``most``, as a root mean square over coordinates;
    0 does not limit it.
    """
    if not most:
        return slope
    norm = slope.norm(dim=-1, keepdim=True) / slope.shape[-1] ** 0.5
    return slope * (most / norm).clamp(max=1)


def outcomes(
    finite: Tensor, transport: Callable[[int], Transport], remedy: str = "lower lr"
) -> list[Transport | DivergedError]:
    """What the members of a stack have learned, by where their weights are finite, ``(stack,)``."""
    return [
        transport(member) if fine else DivergedError(f"the weights are not finite: {remedy}")
        for member, fine in enumerate(finite.tolist())
    ]


def _state(done: int, finite: Tensor, parts: Sequence[Player | Draws]) -> dict[str, Any]:
    """Of a training after so many rounds."""
    return {"done": done, "finite": finite, "parts": [part.state() for part in parts]}
