"""Perpendicular: a flat cube to one or several cubes at right angles to it, where every plan that
sends points to the nearest cube is optimal.

With one of them, a cube in the first k = d / 2 coordinates goes to a cube in the last k, cost ||x -
y||^2; for d = 2 they are two crossing segments. With U_k uniform on [-1, 1]^k,

    U_k x delta_0 to delta_0 x U_k in R^d,    W2^2 = d / 3.

Since <x, y> = 0 on the supports, every coupling is optimal: optimal maps exist and are not unique.
The potentials f(x) = |x|^2 - 2 |x_2|_1 and g(y) = |y|^2 - 2 |y_1|_1, with x = (x_1, x_2) and y =
(y_1, y_2), prove it. The problem is named by Choi, Choi & Kwon 2025; the supports are our reading
of it.

Hard for solvers that alternate between map and potential, which stop anywhere: g is the largest
there is, and against it every map into {0} x R^k is as good as an optimal one. A spurious solution
sends all the mass to a single point of the target.

With ``segments`` = m > 1 the target is m such cubes, of 1 / m of the mass each, through the points
p_j = (2 j + 1) / m - 1 of the first axis. Each takes the points of the source that are nearer to it
than to the others, no matter which goes where, and W2^2 = d / 3 - (1 - 1 / m^2) / 3. With the
convex u(t) = max_j p_j t - p_j^2 / 2 and h(s) = max s t - u(t) over t in [-1, 1], the term |y_11|
of g is h(y_11) instead, and f has -2 u(x_11) in addition. For d = 2 that is a segment crossed by
several; it is our reading of the paper's multi-perpendicular problem.

With ``sigma`` > 0 the source is convolved with N(0, sigma^2 I), hence absolutely continuous. The
only optimal map is then T(x) = (0, 2 Phi(x_2 / sigma) - 1), the gradient of sum_j E|x_2j + sigma
xi|, and W2^2 = 2 k (1 / 3 + sigma^2 - sigma / sqrt(pi)) for one cube; among several, the first
coordinate goes to the p_j in order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from otbench import SQEUCLIDEAN, MapProblem, Measure, Task, Truth
from otbench.families import closed_forms


if TYPE_CHECKING:
    import numpy as np
    import torch

    Tensor = torch.Tensor


@dataclass(frozen=True)
class Perpendicular(Task):
    """Cubes in orthogonal subspaces. Nothing about it is random.

    Attributes:
        dim: dimension d, even; each cube has half of it.
        sigma: standard deviation of the noise added to the source; 0 leaves it singular.
        segments: cubes of the target, side by side along the first axis.
    """

    name: ClassVar[str] = "perpendicular"
    dim: int = 2
    sigma: float = 0.0
    segments: int = 1

    def __post_init__(self) -> None:
        """Check the parameters."""
        if self.dim < 2 or self.dim % 2:
            raise ValueError(f"dim must be even and at least 2, got {self.dim}")
        self.require(at_least_one=("segments",), not_negative=("sigma",))

    def problem(self, rng: np.random.Generator, *, device: str, dtype: torch.dtype) -> MapProblem:
        """The problem, the same for every ``rng``."""
        import numpy as np
        import torch

        k, sigma, zero, eye = self.dim // 2, self.sigma, np.zeros(self.dim), np.eye(self.dim)
        source = closed_forms.affine_cube(eye[:k], zero, sigma, device=device, dtype=dtype)
        cube = closed_forms.affine_cube(eye[k:], zero, device=device, dtype=dtype)
        places = torch.as_tensor(self._places, device=device, dtype=dtype)
        target = _side_by_side(cube, places) if self.segments > 1 else cube
        thresholds = torch.as_tensor(self._thresholds(sigma), device=device, dtype=dtype)
        knots = torch.cat([thresholds.new_full((1,), -1), thresholds, thresholds.new_ones(1)])

        def nearest(x: Tensor, u: Tensor) -> Tensor:
            """The points u of a cube, in the cube that takes x."""
            y = torch.cat([torch.zeros_like(x[:, :k]), u], 1)
            y[:, 0] = places[torch.searchsorted(thresholds, x[:, 0].contiguous())]
            return y

        def u(t: Tensor) -> Tensor:
            return (t[:, None] * places - places.square() / 2).amax(1)

        def h(s: Tensor) -> Tensor:
            return (s[:, None] * knots - u(knots)).amax(1)

        def smoothed_potential(x: Tensor) -> Tensor:
            return x.square().sum(1) - 2 * closed_forms.mean_distance(x[:, k:], sigma).sum(1)

        def smoothed_target_potential(y: Tensor) -> Tensor:
            g = y.square().sum(1) - 2 * closed_forms.mean_distance_conjugate(y[:, k:], sigma).sum(1)
            return torch.where((y[:, :k] == 0).all(1), g, -torch.inf)

        if sigma > 0:
            one = self.segments == 1
            truth = Truth(
                "brenier",
                self._cost(sigma),
                lambda x: nearest(x, closed_forms.gaussian_to_uniform(x[:, k:], sigma)),
                potential=smoothed_potential if one else None,
                target_potential=smoothed_target_potential if one else None,
                smoothed_cost=lambda added: self._cost(math.hypot(sigma, added)),
            )
        else:
            optimal = "every coupling" if self.segments == 1 else "every coupling of nearest points"

            def pairs(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
                x = source.sample(n, generator)
                return x, nearest(x, cube.sample(n, generator)[:, k:])

            truth = Truth(
                "dual_certificate",
                self._cost(0),
                no_map=f"not unique: {optimal} is optimal",
                pairs=pairs,
                potential=lambda x: x.square().sum(1) - 2 * x[:, k:].abs().sum(1) - 2 * u(x[:, 0]),
                target_potential=lambda y: (
                    y.square().sum(1) - 2 * y[:, 1:k].abs().sum(1) - 2 * h(y[:, 0])
                ),
                smoothed_cost=self._cost,
                spurious=lambda x: nearest(x, torch.full_like(x[:, k:], 0.5)),
            )
        return MapProblem(source, target, SQEUCLIDEAN, truth)

    @property
    def _places(self) -> list[float]:
        """The p_j."""
        return [(2 * j + 1) / self.segments - 1 for j in range(self.segments)]

    def _thresholds(self, sigma: float) -> list[float]:
        """First coordinates between which the source, smoothed, goes to one cube: quantiles."""
        levels = [2 * j / self.segments - 1 for j in range(1, self.segments)]
        return [closed_forms.smoothed_quantile(level, sigma) for level in levels]

    def _cost(self, sigma: float) -> float:
        one = self.dim * (1 / 3 + sigma**2 - closed_forms.gaussian_correlation(sigma))
        correlation = sum(
            closed_forms.smoothed_excess(t, sigma) for t in self._thresholds(sigma)
        ) * (2 / self.segments)
        return one + (1 - self.segments**-2) / 3 - 2 * correlation


def _side_by_side(cube: Measure, places: Tensor) -> Measure:
    """Copies of a cube about the origin, moved along the first axis."""
    import torch

    def draw(n: int, generator: torch.Generator) -> Tensor:
        y = cube.sample(n, generator)
        which = torch.randint(len(places), (n,), generator=generator, device=generator.device)
        y[:, 0] += places[which]
        return y

    assert cube.cov is not None and cube.variance is not None
    cov, between = cube.cov.clone(), places.square().mean()
    cov[0, 0] += between
    return Measure(
        cube.shape, draw, mean=cube.mean, cov=cov, variance=cube.variance + float(between)
    )
