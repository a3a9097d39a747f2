"""TTC: mass moves down a succession of critics, all of it by one step length each (Milne, Bilocq &
Nachman 2022; Milne & Nachman 2021).

    u_n = the critic for (mu_n, nu), begun at the weights of u_{n-1};    x <- x - eta grad u_n(x),
    eta = theta W1(mu_n, nu),

where the critic's own objective estimates W1, the penalty subtracted; mu_{n+1} is the law of the
moved points, and the map is the composition of all steps. The direction of each step is that of an
optimal map, and for theta = 1 its length is right on average: where the distances to travel differ,
points overshoot, and the composition is no optimal map. `ttc-ray` and `ttc-semidual` step as far as
each ray goes instead.

What differs from the official code: a pool of source points is moved along and training batches are
drawn from it, so that training costs O(critics) and not O(critics^2) gradients; W1 is estimated on
a second pool of as many points, never trained on (there on 100 fresh batches); a step that is not
positive ends the training. A critic may fit a pool of few points; ``pool`` says how many it has.

Presets:

* ``cpu``, the defaults: penalty 100, MLPs with leaky ReLUs, 15 critics of 500 steps at a higher
  learning rate. Some 15 to 18 s on one core.
* ``paper-generation``, ``paper-denoising`` and ``paper-translation`` are as the scripts of the
  official code train on images, for a GPU: the critics ``infogan``, ``ar-convnet`` and ``sndcgan``
  with leaky ReLUs of slope 0.1, lambda 1000, Adam at 1e-4. For digits and clothes of 32 x 32 pixels
  ten critics of two steps are followed by twenty of one, each trained for 1,000 batches of 128; the
  others have 20 critics of one step, each trained for 2,500 batches of 32. Deblurring has the
  settings of translation.
* ``lambda-1000`` has lambda, learning rate, batches and the 1,000 steps that are the code's
  defaults, and 20 critics, for points: MLPs of this suite, of which the paper has none.
* ``cpu-8x8`` and ``cpu-28`` are for images of these sizes on one core, MLPs and convolutions.
* ``2021`` is the first version of the algorithm, with its settings for generation but an MLP: the
  step is estimated on the last training batches.

The text of the paper could not be read: its settings are those of the scripts that come with its
code, whose words are that they approximate what was run. What it has for CelebA-HQ is not confirmed
and no preset, nor is a number of its tables anywhere here. Its restored images are crops of BSDS500
of 128 x 128 pixels, which are not among the data here. How many points the pool has is chosen here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from otbench import DivergedError, FitContext, MapProblem, Problem, Transport
from otbench.methods.neural.convolutions import ResidualCritic
from otbench.methods.neural.critics import (
    CHUNK,
    CriticSolver,
    CriticTraining,
    Potential,
    PotentialNetwork,
    images_only,
)
from otbench.methods.neural.published_networks import ttc_critic
from otbench.methods.neural.sampling import Stream
from otbench.methods.neural.solver import as_maps
from otbench.methods.neural.training import CHECKPOINTS, Decay


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

LAST_BATCHES = 100  # whose mean loss estimates W1 in the version of 2021

PAPER: Mapping[str, float | str] = {
    "theta": 1.0,
    "estimate": "fresh",
    "lr": 1e-4,
    "beta1": 0.5,
    "beta2": 0.999,
    "decay": "none",
    "ema": 0.0,
    "penalty": 1000.0,
    "sides": "one",
}
RESTORATION: Mapping[str, float | str] = {
    "critics": 20,
    "moves": 1,
    "steps": 2500,
    "batch": 32,
    "pool": 8192,
}


@dataclass(frozen=True)
class Ttc(CriticSolver):
    """Steps down a succession of critics.

    Attributes:
        critics: N, how many at most.
        moves: S, steps down each critic; the step length is estimated before each.
        moves_until: the critics with so many steps are the first ones up to this, the later ones
            have one step; 0 gives so many to all.
        theta: part of the estimated W1 that each step goes.
        estimate: what the step length is estimated on, ``fresh`` points, or the last ``training``
            batches as in 2021.
        tolerance: training ends where a step is no longer than this part of the first.
        pool: source points that are moved along for training, and as many for estimates.
        network: ``mlp``, or for images ``convolutions``, residual critics of ``width`` channels
            that halve the image ``depth`` times; or those of the paper, plain convolutions that
            begin with ``width`` channels: ``infogan``, ``ar-convnet``, ``sndcgan``.
        mixed: convolutions compute in bfloat16 on a GPU.
    """

    name: ClassVar[str] = "ttc"
    presets: ClassVar[Mapping[str, Mapping[str, float | str]]] = {
        "cpu": {},
        "paper-generation": {
            **PAPER,
            "critics": 30,
            "moves": 2,
            "moves_until": 10,
            "steps": 1000,
            "batch": 128,
            "pool": 16384,
            "network": "infogan",
            "width": 64,
        },
        "paper-denoising": {**PAPER, **RESTORATION, "network": "ar-convnet", "width": 16},
        "paper-translation": {**PAPER, **RESTORATION, "network": "sndcgan", "width": 64},
        "lambda-1000": {
            "critics": 20,
            "steps": 1000,
            "batch": 128,
            "lr": 1e-4,
            "penalty": 1000.0,
            "pool": 32768,
        },
        "cpu-8x8": {
            "critics": 14,
            "steps": 350,
            "batch": 128,
            "lr": 5e-4,
            "theta": 0.5,
            "pool": 16384,
            "width": 128,
        },
        "cpu-28": {
            "critics": 12,
            "steps": 150,
            "batch": 16,
            "lr": 1e-3,
            "theta": 0.6,
            "pool": 2048,
            "network": "convolutions",
            "width": 8,
            "depth": 3,
        },
        "2021": {
            "critics": 20,
            "steps": 5000,
            "batch": 50,
            "lr": 1e-4,
            "penalty": 1000.0,
            "theta": 0.9,
            "estimate": "training",
            "pool": 32768,
        },
    }

    critics: int = 15
    moves: int = 1
    moves_until: int = 0
    theta: float = 1.0
    estimate: Literal["fresh", "training"] = "fresh"
    tolerance: float = 0.0
    pool: int = 32768
    steps: int = 500
    lr: float = 2e-3
    decay: Decay = "none"
    ema: float = 0.0
    network: Literal["mlp", "convolutions", "infogan", "ar-convnet", "sndcgan"] = "mlp"
    mixed: bool = False

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        self.require(
            positive=("width", "penalty", "critics", "moves", "theta", "pool"),
            not_negative=("moves_until",),
            fractions=("tolerance",),
        )
        if self.estimate == "training" and self.moves > 1:
            raise ValueError(
                f"moves must be 1 with estimate=training, got {self.moves}: training batches know "
                "the first step only"
            )

    def supports(self, problem: Problem) -> str | None:
        """As the base; convolutions take images."""
        return images_only(self.network, problem) or super().supports(problem)

    def critic(self, problem: MapProblem) -> PotentialNetwork:
        """An MLP, or convolutions."""
        if self.network == "mlp":
            return super().critic(problem)
        image = problem.source.image
        assert image is not None, "refused by supports"
        if self.network == "convolutions":
            return ResidualCritic(image, self.width, self.depth, self.mixed)
        return ttc_critic(self.network, image, self.width, self.leak, self.mixed)

    def moves_of(self, critic: int) -> int:
        """Steps down this critic, the first being 1."""
        return self.moves if not self.moves_until or critic <= self.moves_until else 1

    def fit_together(
        self, problems: Sequence[Problem], contexts: Sequence[FitContext]
    ) -> list[Transport | DivergedError]:
        """Move one pool for each problem, as one stack."""
        maps = as_maps(problems)
        return Descent(self, self.critic(maps[0]), maps, contexts).solve()


class Descent(CriticTraining[Ttc]):
    """Pools of points on their way down.

    Attributes:
        pools: ``(2, stack, n, d)``, for training and for estimates.
        history: the potentials and step lengths so far.
        ended: the members whose steps were no longer positive, ``(stack,)``.
        losses: of the last batches of the present critic.
    """

    def __init__(
        self,
        settings: Ttc,
        network: PotentialNetwork,
        problems: Sequence[MapProblem],
        contexts: Sequence[FitContext],
    ) -> None:
        import torch

        super().__init__(settings, network, problems, contexts)
        self.pools = torch.stack([self.draw([p.source.sample for p in problems]) for _ in range(2)])
        self.history: list[tuple[list[Potential], Tensor]] = []
        self.ended = torch.zeros(len(contexts), dtype=torch.bool)
        self.losses: deque[Tensor] = deque(maxlen=LAST_BATCHES)

    @property
    def capturable(self) -> bool:
        """As of `CriticTraining`; not where the host keeps the losses."""
        return super().capturable and self.settings.estimate == "fresh"

    def draw(self, draws: Sequence[Callable[[int, torch.Generator], Tensor]]) -> Tensor:
        """``(stack, pool, ...)``: as many points as a pool has, for each member."""
        import torch

        return torch.stack(
            [
                draw(self.settings.pool, generator)
                for draw, generator in zip(draws, self.generators, strict=True)
            ]
        )

    def solve(self) -> list[Transport | DivergedError]:
        """Train a critic, step, and so on; a member offers checkpoints until it has ended."""
        import torch

        context, checkpoints = (
            self.contexts[0],
            {round(part * self.settings.critics) for part in CHECKPOINTS},
        )
        first, finite = 1, torch.ones(len(self.contexts), dtype=torch.bool)
        if (state := context.restored()) is not None:
            first, finite = state["done"] + 1, state["finite"]
            self.load(state)
        for done in range(first, self.settings.critics + 1):
            before = self.ended
            self.x = Stream(
                [_drawn_from(pool) for pool in self.pools[0]], self.generators, self.settings.batch
            )
            self.losses.clear()
            finite &= self.train(lambda *_: None) | before
            for _ in range(self.settings.moves_of(done)):
                self.move()
            self.offer(
                done * self.settings.steps,
                finite & ~before & (self.ended if done not in checkpoints else finite),
            )
            if (self.ended | ~finite).all():
                break
            context.save(partial(self.state, done, finite))
        return self.outcomes(finite)

    def state(self, done: int, finite: Tensor) -> dict[str, Any]:
        """After so many critics: all that the next ones depend on."""
        return {
            "done": done,
            "finite": finite,
            "weights": self.weights.flat,
            "pools": self.pools,
            "ended": self.ended,
            "history": [
                ([potential.weights for potential in potentials], eta)
                for potentials, eta in self.history
            ],
            "batches": [stream.state() for stream in (self.y, self.between)],
        }

    def load(self, state: dict[str, Any]) -> None:
        """Be as the descent of this state was."""
        self.weights.flat.copy_(state["weights"])
        self.pools, self.ended = state["pools"], state["ended"]
        self.history = [
            ([Potential(self.network, weights) for weights in of_members], eta)
            for of_members, eta in state["history"]
        ]
        for stream, batches in zip((self.y, self.between), state["batches"], strict=True):
            stream.load(batches)

    def loss(self) -> Tensor:
        """``(stack,)``: of the next batches; kept where they are the estimate."""
        loss = super().loss()
        if self.settings.estimate == "training":
            self.losses.append(loss.detach())
        return loss

    def move(self) -> None:
        """One step of all points, by a length of its own for each member; none where a member has
        ended.
        """
        import torch

        settings, weights = self.settings, self.averaged.frozen
        with torch.no_grad():
            if settings.estimate == "fresh":
                y, between = (
                    self.draw([problem.target.sample for problem in self.problems]),
                    self.draw([self.mixture] * len(self.contexts)),
                )
                loss = self.penalised(weights, self.pools[1], y, between)
            else:
                loss = torch.stack(list(self.losses)).mean(0)
            eta = settings.theta * -loss
            least = (
                settings.tolerance * self.history[0][1] if self.history else torch.zeros_like(eta)
            )
            self.ended = self.ended | ~(eta > least).cpu()
            eta = eta.masked_fill(self.ended.to(eta.device), 0)
            self.history.append(
                ([self.potential(member) for member in range(len(self.contexts))], eta)
            )
            self.pools = torch.stack(
                [
                    pool - eta[:, None, None] * self.network.gradient(weights, pool)
                    for pool in self.pools
                ]
            )

    def transport(self, member: int) -> Transport:
        """The composition of the steps so far; the potential is that of the first critic, the only
        one between source and target.
        """
        import torch

        steps = [(potentials[member], float(eta[member])) for potentials, eta in self.history]
        taken = [(u, eta) for u, eta in steps if eta > 0]

        def push(x: Tensor) -> Tensor:
            chunks = []
            for chunk in x.split(CHUNK):
                for u, eta in taken:
                    chunk = chunk - eta * u.gradient(chunk)
                chunks.append(chunk)
            return torch.cat(chunks)

        etas = [eta for _, eta in taken] or [0.0]
        info = {
            "moves": len(taken),
            "eta_first": etas[0],
            "eta_last": etas[-1],
            "etas": " ".join(f"{eta:.4g}" for eta in etas),
        }
        return Transport(push, potential=steps[0][0], info=info)


def _drawn_from(pool: Tensor) -> Callable[[int, torch.Generator], Tensor]:
    """Points of a pool, with replacement."""
    import torch

    def draw(n: int, generator: torch.Generator) -> Tensor:
        return pool[torch.randint(len(pool), (n,), generator=generator, device=generator.device)]

    return draw
