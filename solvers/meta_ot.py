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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from otbench import FitContext, Problem
from otbench.errors import DivergedError
from otbench.methods.amortized.solver import (
    AmortizedSolver,
    Info,
    Predictor,
)
from otbench.methods.entropic import Entropic
from otbench.methods.neural.networks import MLP, Weights, weights_of_each
from otbench.methods.neural.sampling import Stream
from otbench.methods.neural.training import Decay, Player, train
from otbench.problem import AmortizedProblem, Cost, DiscreteProblem


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
        pairs = [problem.pair for problem in problems]
        network = self._network(pairs, context)
        weights = Weights.draw(network, [context.generator], context.dtype)
        sources, targets = _sides(problems)
        eps = sources.masses.new_tensor([problem.eps for problem in problems])
        costs = _costs(sources, targets, pairs[0].cost)

        def draw(n: int, generator: torch.Generator) -> Tensor:
            shape = (n, 2)
            return torch.randint(len(pairs), shape, generator=generator, device=generator.device)

        chosen = Stream([draw], [context.generator], self.batch)

        def loss() -> Tensor:
            which, others = chosen.next()[0].unbind(1)
            source = sources.of(which)
            target = targets.of(others if self.pairs == "crossed" else which)
            f = network(weights.tensors, source, target).double()
            # One pair after another: the costs of all of a batch are more than a cache holds.
            slopes = [
                _semidual_gradient(potential, *pair)
                for potential, *pair in zip(
                    unit * f.detach(),
                    costs(source, target),
                    source.masses,
                    target.masses,
                    eps[which],
                    strict=True,
                )
            ]
            return -(torch.stack(slopes) * f).sum(1).mean()[None]

        steps = self.steps  # of a training that was saved at its end

        def progress(done: int) -> float:
            nonlocal steps
            limited = self.seconds and done  # one step at least
            spent = (time.perf_counter() - start) / self.seconds if limited else 0.0
            steps = done + (spent < 1)
            return max(done / self.steps, spent)

        train(
            [Player(weights, [loss], self.lr, clip=CLIP)],
            self.steps,
            lambda done, finite: None,
            self.decay,
            None if self.seconds else context,  # time that was spent is not saved
            [chosen],
            progress=progress,
        )
        if not weights.flat.isfinite().all():  # also where time ended it between two checks
            raise DivergedError("the weights are not finite: lower lr")

        def predict(problem: Entropic) -> Tensor:
            if self.encoder == "weights" and not _same_points(problem.pair, pairs[0]):
                raise ValueError(MOVED)
            return unit * network(weights.frozen, *_sides([problem]))[0].double()

        dual = sum(_semidual(problem, predict(problem)) for problem in problems) / len(problems)
        return predict, {"dual_value": dual, "steps": steps}

    def _network(
        self, pairs: Sequence[DiscreteProblem], context: FitContext
    ) -> _OfWeights | _OfSets:
        import torch

        if self.encoder == "weights":
            n, m = len(pairs[0].a), len(pairs[0].b)
            network = MLP(n + m, n, self.width, self.depth, "leaky-relu", leak=0)
            return _OfWeights(n, m, network, context.dtype)
        points = torch.cat([cloud.flatten(1) for pair in pairs for cloud in (pair.x, pair.y)]).to(
            context.dtype
        )
        features = MLP(points.shape[1], self.width, self.width, self.depth, "silu")
        head = MLP(2 * self.width, self.width, self.width, self.depth, "silu")
        return _OfSets(features, head, points.mean(0), points.var(0).sum().sqrt() / SPREAD)


@dataclass(frozen=True)
class Side:
    """The clouds of one side of a batch of pairs: their points with mass, padded to as many.

    Attributes:
        points: ``(batch, k, *shape)``; or ``(n, *shape)``, all points of clouds that share them.
        masses: ``(batch, k)``, float64, zero where a cloud has fewer.
        rows: ``(batch, k)``, the places of the points in their clouds.
        shared: whether clouds share their points.
    """

    points: Tensor
    masses: Tensor
    rows: Tensor
    shared: bool

    def of(self, which: Tensor) -> Side:
        """Some of the clouds."""
        points = self.points if self.shared else self.points[which]
        return Side(points, self.masses[which], self.rows[which], self.shared)

    def on_all_points(self, n: int) -> Tensor:
        """``(batch, n)`` masses of clouds of n points."""
        return self.masses.new_zeros(len(self.masses), n).scatter_add_(1, self.rows, self.masses)


class _OfWeights:
    """From the weights of all points, n of the source and m of the target, to a value for each of
    the source.
    """

    def __init__(self, n: int, m: int, network: MLP, dtype: torch.dtype) -> None:
        self.n, self.m, self.network, self.dtype = n, m, network, dtype
        self.rates, self.initial = network.rates, network.initial

    def __call__(self, weights: Sequence[Tensor], source: Side, target: Side) -> Tensor:
        """``(batch, k)``, on the points of the source with mass."""
        import torch

        inputs = torch.cat(
            [self.n * source.on_all_points(self.n), self.m * target.on_all_points(self.m)], 1
        )
        return self.network(weights, inputs.to(self.dtype)[None])[0].gather(1, source.rows)


class _OfSets:
    """From averages of features of the points of both clouds to the coefficients of a potential in
    these features.
    """

    def __init__(self, features: MLP, head: MLP, mean: Tensor, scale: Tensor) -> None:
        self.features, self.head, self.mean, self.scale = features, head, mean, scale
        self.rates, self.inputs = [*features.rates, *head.rates], features.inputs

    def initial(self, generator: torch.Generator, dtype: torch.dtype) -> list[Tensor]:
        """Weights of both networks."""
        return [*self.features.initial(generator, dtype), *self.head.initial(generator, dtype)]

    def __call__(self, weights: Sequence[Tensor], source: Side, target: Side) -> Tensor:
        """``(batch, k)``, on the points of the source with mass."""
        import torch

        of_features, of_head = weights_of_each([self.features, self.head], weights)

        def features(side: Side) -> Tensor:
            points = side.points.flatten(1 if side.shared else 2).to(self.mean.dtype)
            scaled = ((points - self.mean) / self.scale).view(1, -1, self.inputs)
            found = self.features(of_features, scaled)
            return found[0].view(*points.shape[:-1], -1)

        of_source, of_target = features(source), features(target)
        averages = [
            side.on_all_points(len(found)).to(found.dtype) @ found
            if side.shared
            else (side.masses.to(found.dtype)[:, None] @ found)[:, 0]
            for side, found in ((source, of_source), (target, of_target))
        ]
        coefficients = self.head(of_head, torch.cat(averages, 1)[None])[0]
        if source.shared:
            return (coefficients @ of_source.T).gather(1, source.rows)
        return (of_source @ coefficients[..., None])[..., 0]


def _sides(problems: Sequence[Entropic]) -> tuple[Side, Side]:
    """Sources and targets of the problems."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    pairs = [problem.pair for problem in problems]
    shared = all(_same_points(pair, pairs[0]) for pair in pairs)

    def side(clouds: Sequence[Tensor], masses: Sequence[Tensor], rows: Sequence[Tensor]) -> Side:
        places = pad_sequence(list(rows), batch_first=True)  # by the first point
        if shared:
            points = clouds[0]
        else:
            each = zip(clouds, places, strict=True)
            points = torch.stack([cloud[of_it] for cloud, of_it in each])
        return Side(points, pad_sequence(list(masses), batch_first=True), places, shared)

    return (
        side([p.x for p in pairs], [p.a for p in problems], [p.rows for p in problems]),
        side([p.y for p in pairs], [p.b for p in problems], [p.columns for p in problems]),
    )


def _costs(sources: Side, targets: Side, cost: Cost) -> Callable[[Side, Side], Iterator[Tensor]]:
    """Of the points of some of the targets and sources, ``(l, k)`` for each pair: from one matrix
    where they share their points.
    """
    if not sources.shared:
        return lambda source, target: (
            cost.matrix(x, y).T
            for x, y in zip(source.points.double(), target.points.double(), strict=True)
        )
    matrix = cost.matrix(sources.points.double(), targets.points.double()).T.contiguous()
    return lambda source, target: (
        matrix[columns[:, None], rows]
        for rows, columns in zip(source.rows, target.rows, strict=True)
    )


def _same_points(pair: DiscreteProblem, other: DiscreteProblem) -> bool:
    import torch

    return all(
        points is others or torch.equal(points, others)
        for points, others in ((pair.x, other.x), (pair.y, other.y))
    )


def _semidual(problem: Entropic, f: Tensor) -> float:
    return float(problem.a @ f + problem.b @ problem.target_potential(f))


def _semidual_gradient(f: Tensor, costs: Tensor, a: Tensor, b: Tensor, eps: Tensor) -> Tensor:
    """``(k,)``: ``a - P 1``, where each column of P, a row of costs ``(l, k)``, is its mass times a
    softmax.
    """
    return a - b @ (f + eps * a.log() - costs).div_(eps).softmax(1)
