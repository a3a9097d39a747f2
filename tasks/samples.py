"""Samples: two files of points of one's own, of which solvers see one half and are scored on the
other.

The points of one file are to be moved to those of the other, cost ||x - y||^2, ||x - y|| or the
angle on the sphere. The measures are known by their samples only: a random half of each is held out
for scoring, and solvers draw from the other half. The optimal cost is estimated on the held-out
points, at most 4,096 of each, by the exact linear program (network simplex, POT's ``ot.emd``)

    min <C, P> = max mean f(x_i) + mean g(y_j),    P >= 0 with uniform marginals,
    f(x_i) + g(y_j) <= c(x_i, y_j),

whose standard error is s = (var f / n + var g / m)^{1/2} by the central limit theorem (del Barrio &
Loubes 2019). That is about the mean of the estimate, which lies above the true cost, as a maximum
over potentials fitted to the sample does, and the excess falls slowly with n in high dimensions.
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
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from otbench import COSTS, Cost, MapProblem, Task, Truth, empirical
from otbench.data.points import read_samples
from otbench.errors import UserError
from otbench.methods.exact import exact_plan


if TYPE_CHECKING:
    import numpy as np
    import torch

LP_POINTS = 4096


@dataclass(frozen=True)
class Samples(Task):
    """The points of two files (npy, npz, csv, parquet: see `otbench.data.points.read_points`).
    Which half is held out is random.

    Attributes:
        source: path of the source's points, relative to the working directory.
        target: path of the target's points, of the same dimension.
        cost: ``sqeuclidean``, ``euclidean``, or ``geodesic`` for points on the unit sphere.
    """

    name: ClassVar[str] = "samples"
    needs: ClassVar[tuple[str, ...]] = ("ot",)
    source: str = ""
    target: str = ""
    cost: Literal["sqeuclidean", "euclidean", "geodesic"] = "sqeuclidean"

    def __post_init__(self) -> None:
        """Refuse absent files and unknown costs."""
        if not (self.source and self.target):
            raise ValueError(
                "source and target must be files of points: otbench run --source FILE --target FILE"
            )
        for field in ("source", "target"):
            if not Path(getattr(self, field)).is_file():
                raise ValueError(
                    f"{field} must be a file of points, got {getattr(self, field)!r}, which is none"
                )
        if self.cost not in COSTS:
            raise ValueError(f"cost must be one of {', '.join(COSTS)}, got {self.cost!r}")

    @property
    def files(self) -> tuple[str, ...]:
        """Both files, by their absolute paths."""
        return str(Path(self.source).resolve()), str(Path(self.target).resolve())

    def problem(self, rng: np.random.Generator, *, device: str, dtype: torch.dtype) -> MapProblem:
        """Read the samples, split each with ``rng``, and solve the linear program of the held-out
        halves.

        Raises:
            UserError: a file does not hold points that can be compared, or the target's to learn
                from are all the same in ``dtype``.
        """
        import torch

        halves = []
        for points in read_samples(self.source, self.target, self.cost):
            shuffled = torch.as_tensor(rng.permutation(points), device=device, dtype=dtype)
            halves.append((shuffled[len(points) // 2 :], shuffled[: len(points) // 2]))
        (train_x, test_x), (train_y, test_y) = halves
        if (train_y == train_y[0]).all():
            raise UserError(
                f"{self.target}: its points are all the same in {dtype}, or all but a few: give "
                "others, or centre them"
            )
        cost = COSTS[self.cost]
        x, y = test_x[:LP_POINTS], test_y[:LP_POINTS]
        value, standard_error = exact_cost(x, y, cost)
        bias = (
            sum(
                exact_cost(half, rest, cost)[0]
                for half, rest in (x.tensor_split(2), y.tensor_split(2))
            )
            / 2
        )
        no_map = "unknown: the measures are known by samples only"
        truth = Truth("lp", value, cost_error=math.hypot(standard_error, bias / 3), no_map=no_map)
        return MapProblem(empirical(train_x, test_x), empirical(train_y, test_y), cost, truth)


def exact_cost(x: torch.Tensor, y: torch.Tensor, cost: Cost) -> tuple[float, float]:
    """Optimal cost between ``(n, d)`` and ``(m, d)`` points of equal weights, and its standard
    error as an estimate, bias apart.
    """
    import numpy as np

    matrix = cost.matrix(x.double(), y.double()).cpu().numpy()
    n, m = matrix.shape
    found = exact_plan(matrix, np.full(n, 1 / n), np.full(m, 1 / m))
    error = float(np.sqrt(found.f.var() / n + found.g.var() / m))
    return found.cost, math.hypot(error, found.gap)
