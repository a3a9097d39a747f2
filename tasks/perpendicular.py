"""Perpendicular: a flat cube to a cube at right angles to it, where every plan is optimal.

A cube in the first k = d / 2 coordinates goes to a cube in the last k, cost ||x - y||^2; for d = 2
they are two crossing segments. With U_k uniform on [-1, 1]^k,

    U_k x delta_0 to delta_0 x U_k in R^d,    W2^2 = d / 3.

Since <x, y> = 0 on the supports, every coupling is optimal: optimal maps exist and are not unique.
The potentials f(x) = |x|^2 - 2 |x_2|_1 and g(y) = |y|^2 - 2 |y_1|_1, with x = (x_1, x_2) and y =
(y_1, y_2), prove it. The problem is named by Choi, Choi & Kwon 2025; the supports are our reading
of it.

Hard for solvers that alternate between map and potential, which stop anywhere: g is the largest
there is, and against it every map into {0} x R^k is as good as an optimal one. A spurious solution
sends all the mass to a single point of the target.

With ``sigma`` > 0 the source is convolved with N(0, sigma^2 I), hence absolutely continuous. The
only optimal map is then T(x) = (0, 2 Phi(x_2 / sigma) - 1), the gradient of sum_j E|x_2j + sigma
xi|, and W2^2 = 2 k (1 / 3 + sigma^2 - sigma / sqrt(pi)).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from otbench import SQEUCLIDEAN, MapProblem, Task, Truth
from otbench.families import closed_forms


if TYPE_CHECKING:
    import numpy as np
    import torch

    Tensor = torch.Tensor


@dataclass(frozen=True)
class Perpendicular(Task):
    """Two cubes in orthogonal subspaces. Nothing about it is random.

    Attributes:
        dim: dimension d, even; each cube has half of it.
        sigma: standard deviation of the noise added to the source; 0 leaves it singular.
    """

    name: ClassVar[str] = "perpendicular"
    dim: int = 2
    sigma: float = 0.0

    def __post_init__(self) -> None:
        """Check the parameters."""
        if self.dim < 2 or self.dim % 2:
            raise ValueError(f"dim must be even and at least 2, got {self.dim}")
        if not self.sigma >= 0:
            raise ValueError(f"sigma must not be negative, got {self.sigma}")

    def problem(self, rng: np.random.Generator, *, device: str, dtype: torch.dtype) -> MapProblem:
        """The problem, the same for every ``rng``."""
        import numpy as np
        import torch

        k, sigma, zero, eye = self.dim // 2, self.sigma, np.zeros(self.dim), np.eye(self.dim)
        source = closed_forms.affine_cube(eye[:k], zero, sigma, device=device, dtype=dtype)
        target = closed_forms.affine_cube(eye[k:], zero, device=device, dtype=dtype)

        def into_target(u: Tensor) -> Tensor:
            return torch.cat([torch.zeros_like(u), u], 1)

        def smoothed_target_potential(y: Tensor) -> Tensor:
            g = y.square().sum(1) - 2 * closed_forms.mean_distance_conjugate(y[:, k:], sigma).sum(1)
            return torch.where((y[:, :k] == 0).all(1), g, -torch.inf)

        if sigma > 0:
            truth = Truth(
                "brenier",
                self._cost(sigma),
                lambda x: into_target(closed_forms.gaussian_to_uniform(x[:, k:], sigma)),
                potential=lambda x: (
                    x.square().sum(1) - 2 * closed_forms.mean_distance(x[:, k:], sigma).sum(1)
                ),
                target_potential=smoothed_target_potential,
                smoothed_cost=lambda added: self._cost(math.hypot(sigma, added)),
            )
        else:
            truth = Truth(
                "dual_certificate",
                self._cost(0),
                no_map="not unique: every coupling is optimal",
                pairs=lambda n, generator: (
                    source.sample(n, generator),
                    target.sample(n, generator),
                ),
                potential=lambda x: x.square().sum(1) - 2 * x[:, k:].abs().sum(1),
                target_potential=lambda y: y.square().sum(1) - 2 * y[:, :k].abs().sum(1),
                smoothed_cost=self._cost,
                spurious=lambda x: into_target(torch.full_like(x[:, k:], 0.5)),
            )
        return MapProblem(source, target, SQEUCLIDEAN, truth)

    def _cost(self, sigma: float) -> float:
        return self.dim * (1 / 3 + sigma**2 - closed_forms.gaussian_correlation(sigma))
