"""Meta-OT: a network predicts the potential of a pair, trained on the dual of many pairs (Amos,
Luise, Cohen & Redko 2023).

    max_theta  mean_k  <a_k, f_theta> + <b_k, f_theta^c>,     f_theta = network(pair k),

where ^c is the soft c-transform: no training pair is solved. The gradient of this semi-dual in f is
``a - P 1``, P being the plan of f and its c-transform, so that only the network is differentiated.

``weights`` is the published network for clouds that stay where they are: fully connected, from the
weights (a, b) to a value for each point of the source. ``set`` is for clouds that change: features
of points, averaged over each cloud by its weights (Zaheer et al. 2017), go to the coefficients of a
potential in the same features by a second network (Lu et al. 2021):

    f(x) = <network(sum_i a_i phi(x_i), sum_j b_j phi(y_j)), phi(x)>.

It takes any number of points, and neither their order nor splitting one of them changes anything.

Not as published: weights enter times their number and values leave in units of the training pairs'
mean cost, so that neither the size of the clouds nor the unit of the cost matters; and the learning
rate decays, except in the presets that are others' settings: ``paper``, that of the authors for
digits and on the sphere (in float64 there: ``--dtype float64``), and those of Truong & Nguyen
(2026) for ``digits`` and on the ``sphere``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from otbench import FitContext, Problem
from otbench.errors import DivergedError
from otbench.methods.amortized.solver import (
    AmortizedSolver,
    Info,
    Predictor,
    draw_pairs,
    entropic_problems,
)
from otbench.methods.entropic import Entropic
from otbench.methods.neural.networks import MLP, Weights, weights_of_each
from otbench.methods.neural.training import Decay, Player, decayed
from otbench.problem import AmortizedProblem, DiscreteProblem


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

CLIP = 1.0  # largest norm of a gradient
# Of the points that enter the features: with a small one they are too smooth to tell pairs apart.
SPREAD = 8.0
MOVED = (
    "the encoder of weights takes pairs on the points of the first training pair only: take "
    "encoder=set"
)


@dataclass(frozen=True)
class MetaOt(AmortizedSolver):
    """A network from pairs to potentials.

    Attributes:
        encoder: ``weights``, for pairs that share their points, or ``set``.
        width, depth: units of a hidden layer, number of hidden layers; of both networks of ``set``.
        pairs: trained on: ``crossed``, any training source to any training target, as the authors
            draw any two images; or as ``given``.
        steps: of Adam.
        batch: pairs in each step, drawn with replacement.
        lr: learning rate at the start.
        decay: of the learning rate: ``cosine`` down to zero, or ``none``.
        seconds: stop after so much wall time, if that is before ``steps``; 0 sets no limit. With it
            results depend on the machine.
    """

    name: ClassVar[str] = "meta-ot"
    presets: ClassVar[Mapping[str, Mapping[str, float | int | str | bool]]] = {
        "paper": {
            "encoder": "weights",
            "width": 1024,
            "depth": 3,
            "pairs": "crossed",
            "steps": 50_000,
            "batch": 128,
            "lr": 1e-3,
            "decay": "none",
        },
        "digits": {"pairs": "given", "steps": 5000, "batch": 1, "decay": "none"},
        "sphere": {"pairs": "given", "steps": 5000, "batch": 8, "decay": "none"},
        "set": {"encoder": "set", "width": 128, "depth": 2, "lr": 3e-3},
    }

    encoder: Literal["weights", "set"] = "weights"
    width: int = 512
    depth: int = 3
    pairs: Literal["crossed", "given"] = "crossed"
    steps: int = 2000
    batch: int = 8
    lr: float = 1e-3
    decay: Decay = "cosine"
    seconds: float = 0.0

    def __post_init__(self) -> None:
        """Check the parameters."""
        if self.encoder not in ("weights", "set"):
            raise ValueError(f"encoder must be weights or set, got {self.encoder!r}")
        if self.pairs not in ("crossed", "given"):
            raise ValueError(f"pairs must be crossed or given, got {self.pairs!r}")
        if self.decay not in ("cosine", "none"):
            raise ValueError(f"decay must be cosine or none, got {self.decay!r}")
        self.require(
            at_least_one=("width", "depth", "steps", "batch"),
            positive=("lr",),
            not_negative=("seconds",),
        )

    def supports(self, problem: Problem) -> str | None:
        """Entropic pairs; for the encoder of weights all on the same points, for that of sets both
        clouds in one space.
        """
        reason = super().supports(problem)
        if reason is not None or not isinstance(problem, AmortizedProblem):
            return reason
        pairs = [*problem.train, *problem.test]
        if self.encoder == "weights":
            return None if all(_same_points(pair, pairs[0]) for pair in pairs) else MOVED
        shapes = {cloud.shape[1:] for pair in pairs for cloud in (pair.x, pair.y)}
        return None if len(shapes) == 1 else "the encoder of sets takes clouds in one space only"

    def learn(self, problems: Sequence[Entropic], context: FitContext) -> tuple[Predictor, Info]:
        """Ascend the dual."""
        import torch

        start = time.perf_counter()
        unit = sum(float(problem.a @ problem.matrix @ problem.b) for problem in problems) / len(
            problems
        )
        network = self._network([problem.pair for problem in problems], context)
        weights = Weights.draw(network, [context.generator], context.dtype)
        given, as_entropic = (
            [problem.pair for problem in problems],
            entropic_problems(problems[0].pair.cost),
        )

        def loss() -> Tensor:
            chosen = [
                as_entropic(pair)
                for pair in draw_pairs(
                    given, self.batch, self.pairs == "crossed", context.generator
                )
            ]
            values = network(weights.tensors, [problem.pair for problem in chosen])
            potentials = [
                value[problem.rows].double() for problem, value in zip(chosen, values, strict=True)
            ]
            ascent = [
                _semidual_gradient(problem, unit * f.detach()) @ f
                for problem, f in zip(chosen, potentials, strict=True)
            ]
            return -torch.stack(ascent).mean()[None]

        player = Player(weights, [loss], self.lr, clip=CLIP)
        steps = 0
        while steps < self.steps:
            spent = (time.perf_counter() - start) / self.seconds if self.seconds else 0.0
            if spent >= 1:
                break
            done = max(steps / self.steps, spent)
            steps += 1
            player.prepare(decayed(self.decay, done), steps)
            player.play()
        if not weights.flat.isfinite().all():
            raise DivergedError("the weights are not finite: lower lr")

        def predict(problem: Entropic) -> Tensor:
            return unit * network(weights.frozen, [problem.pair])[0][problem.rows].double()

        dual = sum(_semidual(problem, predict(problem)) for problem in problems) / len(problems)
        return predict, {"dual_value": dual, "steps": steps}

    def _network(
        self, pairs: Sequence[DiscreteProblem], context: FitContext
    ) -> _OfWeights | _OfSets:
        import torch

        first = pairs[0]
        if self.encoder == "weights":
            n, m = len(first.a), len(first.b)
            return _OfWeights(
                first, MLP(n + m, n, self.width, self.depth, "leaky-relu", leak=0), context.dtype
            )
        points = torch.cat([cloud.flatten(1) for pair in pairs for cloud in (pair.x, pair.y)]).to(
            context.dtype
        )
        features = MLP(points.shape[1], self.width, self.width, self.depth, "silu")
        head = MLP(2 * self.width, self.width, self.width, self.depth, "silu")
        return _OfSets(features, head, points.mean(0), points.var(0).sum().sqrt() / SPREAD)


class _OfWeights:
    """From the weights of all points to a value for each of the source."""

    def __init__(self, first: DiscreteProblem, network: MLP, dtype: torch.dtype) -> None:
        self.first, self.network, self.dtype = first, network, dtype
        self.rates, self.initial = network.rates, network.initial

    def __call__(
        self, weights: Sequence[Tensor], pairs: Sequence[DiscreteProblem]
    ) -> Sequence[Tensor]:
        """``(n,)`` for each pair."""
        import torch

        if not all(_same_points(pair, self.first) for pair in pairs):
            raise ValueError(MOVED)
        inputs = torch.stack(
            [torch.cat([len(pair.a) * pair.a, len(pair.b) * pair.b]) for pair in pairs]
        )
        return self.network(weights, inputs.to(self.dtype)[None])[0].unbind()


class _OfSets:
    """From averages of features of the points of both clouds to the coefficients of a potential in
    these features.
    """

    def __init__(self, features: MLP, head: MLP, mean: Tensor, scale: Tensor) -> None:
        self.features, self.head, self.mean, self.scale = features, head, mean, scale
        self.rates = [*features.rates, *head.rates]

    def initial(self, generator: torch.Generator, dtype: torch.dtype) -> list[Tensor]:
        """Weights of both networks."""
        return [*self.features.initial(generator, dtype), *self.head.initial(generator, dtype)]

    def __call__(
        self, weights: Sequence[Tensor], pairs: Sequence[DiscreteProblem]
    ) -> Sequence[Tensor]:
        """``(n,)`` for each pair."""
        import torch

        of_features, of_head = weights_of_each([self.features, self.head], weights)
        clouds = {
            id(cloud): cloud for pair in pairs for cloud in (pair.x, pair.y)
        }  # those that pairs share enter once
        points = (
            torch.cat([cloud.flatten(1) for cloud in clouds.values()]).to(self.mean.dtype)
            - self.mean
        ) / self.scale
        parts = self.features(of_features, points[None])[0].split(
            [len(cloud) for cloud in clouds.values()]
        )
        found = dict(zip(clouds, parts, strict=True))
        sides = [
            (mass.to(self.mean.dtype), found[id(cloud)])
            for pair in pairs
            for mass, cloud in ((pair.a, pair.x), (pair.b, pair.y))
        ]
        averages = torch.stack([mass @ part for mass, part in sides]).view(1, len(pairs), -1)
        coefficients = self.head(of_head, averages)[0]
        return [part @ row for (_, part), row in zip(sides[::2], coefficients, strict=True)]


def _same_points(pair: DiscreteProblem, other: DiscreteProblem) -> bool:
    import torch

    return all(
        points is others or torch.equal(points, others)
        for points, others in ((pair.x, other.x), (pair.y, other.y))
    )


def _semidual(problem: Entropic, f: Tensor) -> float:
    return float(problem.a @ f + problem.b @ problem.target_potential(f))


def _semidual_gradient(problem: Entropic, f: Tensor) -> Tensor:
    return problem.a - problem.plan(f, problem.target_potential(f)).sum(1)
