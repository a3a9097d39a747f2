"""TTC: mass moves down a succession of critics, all of it by one step length each (Milne, Bilocq & Nachman 2022; Milne & Nachman 2021).

    u_n = the critic for (mu_n, nu), begun at the weights of u_{n-1};    x <- x - eta grad u_n(x),    eta = theta W1(mu_n, nu),

where the critic's own objective estimates W1, the penalty subtracted; mu_{n+1} is the law of the moved points, and the map is the
composition of all steps. The direction of each step is that of an optimal map, and for theta = 1 its length is right on average: where the
distances to travel differ, points overshoot, and the composition is no optimal map. `ttc-ray` and `ttc-semidual` step as far as each ray
goes instead.

What differs from the official code, the algorithm staying the same: a pool of source points is moved along and training batches are drawn
from it, so that training costs O(critics) and not O(critics^2) gradients; W1 is estimated on as many points as the pool has (there on 100
batches); a step that is not positive ends the training.

Presets:

* ``cpu``, the defaults: penalty 100, MLPs with leaky ReLUs, 25 critics of 300 steps at a higher learning rate. About 16 s on one core.
* ``paper`` has lambda 1000, Adam at 1e-4, batches of 128, 20 critics of 1,000 steps. Its networks are for images; here they are MLPs.
* ``2021`` is the first version of the algorithm, with its settings for generation: the step is estimated on the last training batches.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from otbench import DivergedError, MapProblem, Problem, Run, Transport
from otbench.neural.critics import CHUNK, CriticSolver, CriticTraining, Potential, PotentialNetwork, as_maps
from otbench.neural.sampling import Stream
from otbench.neural.training import CHECKPOINTS, Decay


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

LAST_BATCHES = 100  # whose mean loss estimates W1 in the version of 2021


@dataclass(frozen=True)
class Ttc(CriticSolver):
    """Steps down a succession of critics.

    Attributes:
        critics: N, how many at most.
        moves: S, steps down each critic; the step length is estimated before each.
        theta: part of the estimated W1 that each step goes.
        estimate: what the step length is estimated on, ``fresh`` points, or the last ``training`` batches as in 2021.
        tolerance: training ends where a step is no longer than this part of the first.
        pool: source points that are moved along.
    """

    name: ClassVar[str] = "ttc"
    presets: ClassVar[Mapping[str, Mapping[str, float | str]]] = {
        "cpu": {},
        "paper": {"critics": 20, "steps": 1000, "batch": 128, "lr": 1e-4, "penalty": 1000.0, "pool": 16384},
        "2021": {
            "critics": 20,
            "steps": 5000,
            "batch": 50,
            "lr": 1e-4,
            "penalty": 1000.0,
            "theta": 0.9,
            "estimate": "training",
            "pool": 16384,
        },
    }

    critics: int = 25
    moves: int = 1
    theta: float = 1.0
    estimate: Literal["fresh", "training"] = "fresh"
    tolerance: float = 0.0
    pool: int = 8192
    steps: int = 300
    lr: float = 1e-3
    decay: Decay = "none"
    ema: float = 0.0

    def __post_init__(self) -> None:
        """Refuse settings that define no steps."""
        super().__post_init__()
        self.require(positive=("critics", "moves", "theta", "pool"), fractions=("tolerance",))
        if self.estimate == "training" and self.moves > 1:
            raise ValueError(f"moves must be 1 with estimate=training, got {self.moves}: training batches know the first step only")

    def fit_together(self, problems: Sequence[Problem], runs: Sequence[Run]) -> list[Transport | DivergedError]:
        """Move one pool for each problem, as one stack."""
        maps = as_maps(problems)
        return Descent(self, self.network(maps[0].source.dim), maps, runs).solve()


class Descent(CriticTraining[Ttc]):
    """Pools of points on their way down."""

    def __init__(self, settings: Ttc, network: PotentialNetwork, problems: Sequence[MapProblem], runs: Sequence[Run]) -> None:
        import torch

        super().__init__(settings, network, problems, runs)
        self.pools = torch.stack(
            [p.source.sample(settings.pool, generator) for p, generator in zip(problems, self.generators, strict=True)]
        )
        self.history: list[tuple[list[Potential], Tensor]] = []
        self.losses: deque[Tensor] = deque(maxlen=LAST_BATCHES)

    def solve(self) -> list[Transport | DivergedError]:
        """Train a critic, step, and so on; a checkpoint after the steps of a critic."""
        import torch

        checkpoints = {round(part * self.settings.critics) for part in CHECKPOINTS}
        finite = torch.ones(len(self.runs), dtype=torch.bool)
        for done in range(1, self.settings.critics + 1):
            self.x = Stream([_drawn_from(pool) for pool in self.pools], self.generators, self.settings.batch)
            finite &= self.train(lambda *_: None)
            for _ in range(self.settings.moves):
                self.move()
            if done in checkpoints:
                for member, run in enumerate(self.runs):
                    if finite[member]:
                        run.checkpoint(done * self.settings.steps, self.transport(member))
            if not finite.any() or not (self.history[-1][1] > 0).any():
                break
        return self.outcomes(finite)

    def loss(self, done: float) -> Tensor:
        """``(stack,)``: of the next batches; kept."""
        loss = super().loss(done)
        self.losses.append(loss.detach())
        return loss

    def move(self) -> None:
        """One step of all points, by a length of its own for each member; none where a member has ended."""
        import torch

        settings = self.settings
        with torch.no_grad():
            if settings.estimate == "fresh":
                y, between = (
                    torch.stack([draw(settings.pool, generator) for draw, generator in zip(draws, self.generators, strict=True)])
                    for draws in ([problem.target.sample for problem in self.problems], [self.mixture] * len(self.runs))
                )
                loss = self.penalised(self.averaged.frozen, self.pools, y, between)
            else:
                loss = torch.stack(list(self.losses)).mean(0)
            eta = settings.theta * -loss
            first, last = (self.history[0][1], self.history[-1][1]) if self.history else (eta, torch.ones_like(eta))
            eta = torch.where((last > 0) & (eta > settings.tolerance * first), eta.clamp(min=0), 0)
            self.history.append(([self.potential(member) for member in range(len(self.runs))], eta))
            self.pools = self.pools - eta[:, None, None] * self.network.gradient(self.averaged.frozen, self.pools)

    def transport(self, member: int) -> Transport:
        """The composition of the steps so far."""
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
        info = {"moves": len(taken), "eta_first": etas[0], "eta_last": etas[-1], "etas": " ".join(f"{eta:.4g}" for eta in etas)}
        return Transport(push, potential=steps[0][0], info=info)


def _drawn_from(pool: Tensor):
    """Points of a pool, with replacement."""
    import torch

    def draw(n: int, generator: torch.Generator) -> Tensor:
        return pool[torch.randint(len(pool), (n,), generator=generator, device=generator.device)]

    return draw
