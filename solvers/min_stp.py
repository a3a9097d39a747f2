"""Min-STP: a learnt score sorts both clouds, and the plan matches them in that order (amortized
min-sliced transport plans).

    plan(pair) = the monotone plan of the scores s(x_i; pair) and s(y_j; pair),    s trained for
    min    sum_k <C_k, plan(pair_k)>.

The context of a pair comes from averages of random features of the points over each cloud,
standardised on the training pairs, by one network, the score of a point from the point and the
context by another. It is the learnt, non-linear form of the cheapest of many random directions
(``pot-sliced-plan``). On the sphere the context is a direction in the plane of stereographic
projection, and the score a coordinate in that direction. The plan is a coupling with at most n + m
- 1 entries, so its cost bounds that of the linear program from above; a pair's eps plays no part.

A sorted plan has no useful gradient, so in training it is softened: the entropic plan of the scores
for the cost |s - t|^2 (Cuturi, Teboul & Vert 2019), which there is for any weights, where the
published soft permutation is for clouds of equal size and weights. A few iterations of Sinkhorn's
algorithm find it from the exact potential of the scores on the line, through which gradients go as
well. The published context is made of the weights alone. No preset is the authors': that of
``truong-nguyen`` has the steps, learning rate and pairs as given of the comparison of Truong &
Nguyen (2026), how many pairs a step takes there is not confirmed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from otbench import (
    GEODESIC,
    SQEUCLIDEAN,
    AmortizedProblem,
    DiscreteProblem,
    FitContext,
    Problem,
    Solver,
    Transport,
    Truth,
)
from otbench.errors import DivergedError
from otbench.methods.amortized.slices import coordinates, line_potential
from otbench.methods.amortized.solver import draw_pairs, entropic_problems
from otbench.methods.entropic import Entropic
from otbench.methods.neural.networks import MLP, Weights, weights_of_each
from otbench.methods.neural.training import Decay, Player, train
from otbench.solver import TUNED_BELOW_1000


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

CLIP = 1.0  # largest norm of a gradient
SPREAD = 4.0  # of the points that enter the score: with a small one it is too smooth
TINY = 1e-12  # least standard deviation of scores that is divided by


@dataclass(frozen=True)
class MinStp(Solver):
    """Sorting by a learnt score.

    Attributes:
        width, depth: units of a hidden layer, number of hidden layers, of both networks; random
            features are as many as units.
        context: numbers that describe a pair to the score.
        softness: eps of the soft plan, in units of the variance of the scores of both clouds.
        iterations: of Sinkhorn's algorithm for the soft plan.
        pairs: trained on: ``crossed``, any training source to any training target, or as ``given``.
        steps: of Adam.
        batch: pairs in each step, drawn with replacement.
        lr: learning rate at the start.
        decay: of the learning rate: ``cosine`` down to zero, or ``none``.
    """

    name: ClassVar[str] = "min-stp"
    learns: ClassVar[bool] = True
    tuning: ClassVar[str] = TUNED_BELOW_1000
    presets: ClassVar[Mapping[str, Mapping[str, float | int | str | bool]]] = {
        "truong-nguyen": {"pairs": "given", "steps": 5000, "batch": 1, "lr": 1e-3}
    }

    width: int = 128
    depth: int = 2
    context: int = 32
    softness: float = 0.05
    iterations: int = 2
    pairs: Literal["crossed", "given"] = "crossed"
    steps: int = 2000
    batch: int = 4
    lr: float = 3e-3
    decay: Decay = "cosine"

    def __post_init__(self) -> None:
        """Check the parameters."""
        self.require(
            at_least_one=("width", "depth", "context", "iterations", "steps", "batch"),
            positive=("softness", "lr"),
        )
        if self.pairs not in ("crossed", "given"):
            raise ValueError(f"pairs must be crossed or given, got {self.pairs!r}")
        if self.decay not in ("cosine", "none"):
            raise ValueError(f"decay must be cosine or none, got {self.decay!r}")

    def supports(self, problem: Problem) -> str | None:
        """Pairs of clouds in one space, some of them to learn from."""
        if not isinstance(problem, AmortizedProblem):
            return (
                "learns from pairs of clouds: takes the amortized setting only, not "
                f"{problem.setting}"
            )
        if not problem.train:
            return "learns from pairs of clouds: this problem has none to train on"
        shapes = {
            tuple(cloud.shape[1:])
            for pair in (*problem.train, *problem.test)
            for cloud in (pair.x, pair.y)
        }
        if len(shapes) > 1 or (problem.cost == GEODESIC and shapes != {(3,)}):
            return (
                "gives scores to points of one space, of the sphere in three dimensions: not of "
                "spaces of other shapes"
            )
        return None

    def fit(self, problem: Problem, context: FitContext) -> Transport:
        """Train the scores, then sort by them."""
        import torch

        assert isinstance(problem, AmortizedProblem)
        as_entropic = entropic_problems(problem.cost)
        problems = [as_entropic(pair) for pair in problem.train]
        unit = sum(float(pair.a @ pair.matrix @ pair.b) for pair in problems) / len(problems)
        scores = _Scores.of(self, problems, context)
        weights = Weights.draw(scores, [context.generator], context.dtype)

        def loss() -> Tensor:
            chosen = [
                as_entropic(pair)
                for pair in draw_pairs(
                    problem.train, self.batch, self.pairs == "crossed", context.generator
                )
            ]
            soft_costs = [self.soft_cost(pair, *scores(weights.tensors, pair)) for pair in chosen]
            return torch.stack(soft_costs).mean()[None] / unit

        player = Player(weights, [loss], self.lr, clip=CLIP)
        finite = train(
            [player], self.steps, lambda step, finite: None, self.decay, capturable=False
        )
        if not finite.all():
            raise DivergedError("the weights are not finite: lower lr")

        def plan(pair: DiscreteProblem) -> Tensor:
            of_pair = Entropic(pair)
            rows, columns, masses = staircase(
                *scores(weights.frozen, of_pair), of_pair.a, of_pair.b
            )
            indices = torch.stack([of_pair.rows[rows], of_pair.columns[columns]])
            return torch.sparse_coo_tensor(
                indices, masses.to(pair.x.dtype), (len(pair.a), len(pair.b)), check_invariants=True
            ).coalesce()

        return Transport(plan=plan)

    def soft_cost(self, problem: Entropic, s: Tensor, t: Tensor) -> Tensor:
        """The cost of the entropic plan between the scores ``(n,)`` and ``(m,)``."""
        import torch

        soft = Entropic(
            DiscreteProblem(
                s[:, None], problem.a, t[:, None], problem.b, SQEUCLIDEAN, Truth("none")
            ),
            self.softness,
        )
        order, other = s.argsort(), t.argsort()
        sorted_potential = line_potential(s[order], problem.a[order], t[other], problem.b[other])
        f = torch.empty_like(s).scatter(0, order, sorted_potential)
        for _ in range(self.iterations):
            f = soft.source_potential(soft.target_potential(f))
        return (soft.plan(f, soft.target_potential(f)) * problem.matrix).sum()


@dataclass(frozen=True)
class _Scores:
    """From a pair to the scores of its points with mass, of mean zero and variance one over both
    clouds.
    """

    context: MLP
    score: (
        MLP | None
    )  # of a point and the context; none on the sphere, where the context is a direction
    frequencies: Tensor
    phases: Tensor
    points: tuple[Tensor, Tensor]  # mean and scale of the points of the training pairs
    averages: tuple[Tensor, Tensor]  # mean and scale of what describes a training pair

    @classmethod
    def of(cls, solver: MinStp, problems: Sequence[Entropic], context: FitContext) -> _Scores:
        """Networks for problems like these."""
        import torch

        def scaled(values: Tensor) -> tuple[Tensor, Tensor]:
            return values.mean(0), values.var(0, correction=0).sqrt().clamp(min=TINY)

        points = torch.cat(
            [cloud.flatten(1) for problem in problems for cloud in (problem.pair.x, problem.pair.y)]
        ).to(context.dtype)
        dim, on_sphere = points.shape[1], problems[0].pair.cost == GEODESIC
        frequencies = torch.randn(
            dim,
            solver.width,
            generator=context.generator,
            device=context.device,
            dtype=context.dtype,
        )
        phases = (
            2
            * math.pi
            * torch.rand(
                solver.width,
                generator=context.generator,
                device=context.device,
                dtype=context.dtype,
            )
        )
        describe = MLP(
            2 * solver.width, 2 if on_sphere else solver.context, solver.width, solver.depth, "silu"
        )
        score = (
            None if on_sphere else MLP(dim + solver.context, 1, solver.width, solver.depth, "silu")
        )
        bare = cls(
            describe,
            score,
            frequencies,
            phases,
            scaled(points),
            (points.new_zeros(()), points.new_ones(())),
        )
        return replace(
            bare,
            averages=scaled(
                torch.stack([bare.described(problem, bare.placed(problem)) for problem in problems])
            ),
        )

    @property
    def networks(self) -> list[MLP]:
        return [network for network in (self.context, self.score) if network is not None]

    @property
    def rates(self) -> list[float]:
        return [rate for network in self.networks for rate in network.rates]

    def initial(self, generator: torch.Generator, dtype: torch.dtype) -> list[Tensor]:
        return [tensor for network in self.networks for tensor in network.initial(generator, dtype)]

    def placed(self, problem: Entropic) -> Tensor:
        """``(n + m, d)``: the points with mass of both clouds, of unit variance in each coordinate
        over all training pairs.
        """
        import torch

        pair, (mean, scale) = problem.pair, self.points
        return (
            torch.cat([pair.x[problem.rows], pair.y[problem.columns]]).flatten(1).to(mean.dtype)
            - mean
        ) / scale

    def described(self, problem: Entropic, points: Tensor) -> Tensor:
        """``(2 width,)``: averages of random features over each cloud, of unit variance over the
        training pairs.
        """
        import torch

        features = (points @ self.frequencies + self.phases).cos()
        sides = zip(
            (problem.a, problem.b), features.split([len(problem.a), len(problem.b)]), strict=True
        )
        mean, scale = self.averages
        return (torch.cat([mass.to(part.dtype) @ part for mass, part in sides]) - mean) / scale

    def __call__(self, weights: Sequence[Tensor], problem: Entropic) -> tuple[Tensor, Tensor]:
        """``(n,)`` and ``(m,)``, in float64."""
        import torch

        points = self.placed(problem)
        of_context, *others = weights_of_each(self.networks, weights)
        context = self.context(of_context, self.described(problem, points)[None, None])[0]
        if self.score is None:
            pair = problem.pair
            held = torch.cat([pair.x[problem.rows], pair.y[problem.columns]]).double()
            scores = coordinates(held, pair.cost) @ context[0].double()
        else:
            inputs = torch.cat([SPREAD * points, context.expand(len(points), -1)], 1)
            scores = self.score(others[0], inputs[None])[0, :, 0].double()
        masses = torch.cat([problem.a, problem.b]) / 2
        scores = scores - masses @ scores
        scores = scores / (masses @ scores.square()).sqrt().clamp(min=TINY)
        return scores[: len(problem.a)], scores[len(problem.a) :]


def staircase(s: Tensor, t: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The monotone plan on a line: the row, the column and the mass of each entry, at most n + m -
    1 of them.

    Args:
        s: ``(n,)`` places of the source, in any order.
        t: ``(m,)`` places of the target.
        a: ``(n,)`` positive masses of the source, summing to one.
        b: ``(m,)`` those of the target.
    """
    import torch

    order, other = s.argsort(), t.argsort()
    reached, supplied = (masses.cumsum(0).clamp(max=1.0) for masses in (a[order], b[other]))
    reached[-1] = supplied[-1] = 1.0
    levels = torch.cat([reached, supplied[:-1]]).sort().values
    masses = levels.diff(prepend=levels.new_zeros(1))
    kept = masses > 0
    rows, columns = (torch.searchsorted(filled, levels[kept]) for filled in (reached, supplied))
    return order[rows], other[columns], masses[kept]
