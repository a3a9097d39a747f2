"""Samples: two files of points of one's own, of which solvers see one half and are scored on the
other.

The points of one file are to be moved to those of the other, cost ||x - y||^2, ||x - y|| or the
angle on the sphere. The measures are known by their samples only: a random half of each is held out
for scoring, and solvers draw from the other half. Points so far from the origin that their dtype
would move them by 1e-5 of their spread are seen from the mean of the target. The optimal cost is
estimated on the held-out points, at most 4,096 of each, by the exact linear program (network
simplex, POT's ``ot.emd``)

    min <C, P> = max sum a_i f(x_i) + sum b_j g(y_j),    P >= 0 with P 1 = a and P' 1 = b,
    f(x_i) + g(y_j) <= c(x_i, y_j),

with a_i = 1 / n and b_j = 1 / m where the points have no weights. Its standard error is

    s = (sum a_i^2 (f(x_i) - a'f)^2 + sum b_j^2 (g(y_j) - b'g)^2)^{1/2}

by the central limit theorem (del Barrio & Loubes 2019). That is about the mean of the estimate,
which lies above the true cost, as a maximum over potentials fitted to the sample does, and the
excess falls slowly with n in high dimensions.
Two halves of a sample are of one measure, and cost nothing but that excess: with b the mean of the
exact costs between the halves of the held-out source and between those of the target,

    cost_error = (s^2 + (b / 3)^2)^{1/2},

of which three, as many as a verdict forgives, cover the excess. Half as many points make b larger
than the excess, on the safe side.

Hard for solvers that interpolate their sample: a map fitted to one half must reach the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from otbench import COSTS, Cost, MapProblem, Measure, Truth, empirical
from otbench.data.cloud_files import LEAST_POINTS, check_enough, read_pair
from otbench.data.clouds import common_origin
from otbench.errors import UserError
from otbench.families.own_data import LP_POINTS, OwnData
from otbench.methods.exact import exact_plan
from otbench.problem import LazyTruth, reached, weighted


if TYPE_CHECKING:
    import numpy as np
    import torch

    from otbench.data.clouds import Cloud

    Tensor = torch.Tensor


class Weighted(NamedTuple):
    """Points ``(n, d)`` and their weights ``(n,)``, float64 and summing to one; None where all are
    alike.
    """

    points: Tensor
    weights: Tensor | None

    def part(self, rows: slice) -> Weighted:
        """Some of them."""
        if self.weights is None:
            return Weighted(self.points[rows], None)
        weights = self.weights[rows]
        return Weighted(self.points[rows], weights / weights.sum())


@dataclass(frozen=True)
class Samples(OwnData):
    """The points of two files (see `otbench.data.cloud_files.CloudFile`). Which half is held out is
    random.
    """

    name: ClassVar[str] = "samples"

    def problem(self, rng: np.random.Generator, *, device: str, dtype: torch.dtype) -> MapProblem:
        """Read the samples and split each with ``rng``. The linear program of the held-out halves
        is solved when its value is first asked for.

        Raises:
            UserError: a file does not hold points that can be compared, or the target's to learn
                from are all the same in ``dtype``.
        """
        files = self.clouds
        x, y = read_pair(*files, self.cost)
        origin = common_origin(x, y, self.cost, str(dtype).removeprefix("torch."))
        clouds = x.about(origin), y.about(origin)
        for file, cloud in zip(files, clouds, strict=True):
            check_enough(file, cloud)
        source, target = (_halves(cloud, rng, device, dtype) for cloud in clouds)
        learned = target[0].points
        if (learned == learned[0]).all():
            raise UserError(
                f"{self.target}: its points are all the same in {dtype}, or all but a few: give "
                "others, or centre them"
            )
        cost = COSTS[self.cost]
        truth = LazyTruth(
            "lp",
            _estimate,
            source[1],
            target[1],
            cost,
            no_map="unknown: the measures are known by samples only",
        )
        return MapProblem(_measure(*source), _measure(*target), cost, truth)


def _halves(
    cloud: Cloud, rng: np.random.Generator, device: str, dtype: torch.dtype
) -> tuple[Weighted, Weighted]:
    """A random half of the points with mass to learn from, and the rest, which is held out."""
    import numpy as np
    import torch

    some = np.arange(len(cloud.points)) if cloud.weights is None else cloud.weights.nonzero()[0]
    shuffled = rng.permutation(some)
    half = len(some) // 2

    def part(rows: np.ndarray) -> Weighted:
        points = torch.as_tensor(cloud.points[rows], device=device, dtype=dtype)
        if cloud.weights is None:
            return Weighted(points, None)
        weights = torch.as_tensor(cloud.weights[rows], device=device, dtype=torch.float64)
        return Weighted(points, weights / weights.sum())

    return part(shuffled[half:]), part(shuffled[:half])


def _measure(train: Weighted, held_out: Weighted) -> Measure:
    """The measure known by a finite sample, of which the second part is kept for scoring.

    From weighted points one draws with their weights. Those kept are drawn so, too, by levels at
    equal distances over a random order of the points: halves of what is drawn have but one point in
    common, as halves of a sample without weights have none. So many are drawn as the weights are
    worth, (sum b)^2 / sum b^2 (Kish 1965).
    """
    import torch

    (points, weights), (kept, mass) = train, held_out
    if weights is None or mass is None:
        return empirical(points, kept)
    most = max(LEAST_POINTS // 2, round(float(1 / mass.square().sum())))

    def draw_test(n: int, generator: torch.Generator) -> Tensor:
        device, k = generator.device, min(n, most)
        order = torch.randperm(len(mass), generator=generator, device=device)
        start = torch.rand(1, generator=generator, device=device, dtype=torch.float64)
        levels = (torch.arange(k, device=device) + start) / k
        return kept[order[reached(mass[order].cumsum(0), levels)]]

    return Measure(tuple(points.shape[1:]), weighted(points, weights), held_out=draw_test)


def _estimate(source: Weighted, target: Weighted, cost: Cost) -> Truth:
    """The optimal cost between the held-out halves, and how far from the true one it may be."""
    x, y = (held_out.part(slice(LP_POINTS)) for held_out in (source, target))
    value, standard_error = exact_cost(x.points, y.points, cost, x.weights, y.weights)
    bias = 0.0
    for sample in (x, y):
        half = (len(sample.points) + 1) // 2
        first, rest = sample.part(slice(half)), sample.part(slice(half, None))
        bias += exact_cost(first.points, rest.points, cost, first.weights, rest.weights)[0] / 2
    return Truth("lp", value, cost_error=math.hypot(standard_error, bias / 3))


def exact_cost(
    x: Tensor, y: Tensor, cost: Cost, a: Tensor | None = None, b: Tensor | None = None
) -> tuple[float, float]:
    """Optimal cost between ``(n, d)`` and ``(m, d)`` points of weights ``(n,)`` and ``(m,)``, equal
    ones by default, and its standard error as an estimate, bias apart.
    """
    import numpy as np

    matrix = cost.matrix(x.double(), y.double()).cpu().numpy()
    of_x, of_y = (
        np.full(size, 1 / size) if given is None else given.cpu().numpy()
        for size, given in zip(matrix.shape, (a, b), strict=True)
    )
    found = exact_plan(matrix, of_x, of_y)
    variance = sum(
        mass**2 @ (potential - mass @ potential) ** 2
        for mass, potential in ((of_x, found.f), (of_y, found.g))
    )
    return found.cost, math.hypot(float(np.sqrt(variance)), found.gap)
