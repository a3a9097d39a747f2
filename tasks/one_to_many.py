"""One to many: each point of a flat cube is to be split between two images, which no map can do.

The cube [-1, 1]^{d-1} at height 0 goes to its two copies at the heights -1 and 1, half of the mass
to each, cost ||x - y||^2. With U_k uniform on [-1, 1]^k,

    U_{d-1} x delta_0 to U_{d-1} x (delta_{-1} + delta_1) / 2,    W2^2 = 1.

The only optimal plan sends (u, 0) to (u, -1) or (u, 1) with probability one half. No optimal map
exists; maps that oscillate ever faster come close. With C the cube [-1, 1]^{d-1} the potentials
f(x) = dist(x_u, C)^2 + (|x_d| - 1)^2 - 1 and g(y) = dist(y_u, C)^2 + y_d^2 prove it. The problem is
named by Choi, Choi & Kwon 2025; the supports are our reading of it.

Hard for solvers without randomness, which have nothing better than a map. Against g a map to one of
the two images looks optimal: a spurious solution lifts the whole cube to the upper copy and leaves
the lower one empty.

With ``sigma`` > 0 the source is convolved with N(0, sigma^2 I), hence absolutely continuous. Its
coordinates stay independent: the only optimal map rearranges each of the first d - 1 monotonically
(see `otbench.families.closed_forms`) and takes the sign of the last.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from otbench import SQEUCLIDEAN, MapProblem, Measure, Task, Truth
from otbench.families import closed_forms
from otbench.families.probes import Branches


if TYPE_CHECKING:
    import numpy as np
    import torch

    Tensor = torch.Tensor


@dataclass(frozen=True)
class OneToMany(Task):
    """A flat cube and its two translates. Nothing about it is random.

    Attributes:
        dim: dimension d; the cube has one less.
        cube: dimension of the cube where it is to be less still; its other coordinates are zero
            then. 0 for the default.
        sigma: standard deviation of the noise added to the source; 0 leaves it singular.
    """

    name: ClassVar[str] = "one-to-many"
    dim: int = 2
    cube: int = 0
    sigma: float = 0.0

    def __post_init__(self) -> None:
        """Check the parameters."""
        if self.dim < 2:
            raise ValueError(f"dim must be at least 2, got {self.dim}")
        if not 0 <= self.cube < self.dim:
            raise ValueError(
                f"cube must be less than dim = {self.dim}, or 0 for dim - 1, got {self.cube}"
            )
        self.require(not_negative=("sigma",))

    def problem(self, rng: np.random.Generator, *, device: str, dtype: torch.dtype) -> MapProblem:
        """The problem, the same for every ``rng``."""
        import numpy as np
        import torch

        k, cube = self._cube, np.eye(self.dim)[: self._cube]
        source = closed_forms.affine_cube(
            cube, np.zeros(self.dim), self.sigma, device=device, dtype=dtype
        )
        middle = closed_forms.affine_cube(cube, np.zeros(self.dim), device=device, dtype=dtype)
        assert middle.cov is not None and middle.variance is not None
        cov = middle.cov.clone()
        cov[-1, -1] = 1

        def images(x: Tensor) -> Tensor:
            return torch.stack([_with_last(x, side) for side in (-1.0, 1.0)])

        def fork(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            x = middle.sample(n, generator)
            side = torch.randint(2, (n,), generator=generator, device=generator.device)
            return x, images(x)[side, torch.arange(n, device=generator.device)]

        target = Measure(
            (self.dim,),
            lambda n, generator: fork(n, generator)[1],
            mean=middle.mean,
            cov=cov,
            variance=middle.variance + 1,
        )
        if self.sigma > 0:
            truth = Truth(
                "brenier",
                self._cost(self.sigma),
                lambda x: torch.cat(
                    [
                        closed_forms.smoothed_to_uniform(x[:, :k], self.sigma),
                        0 * x[:, k:-1],
                        x[:, -1:].sign(),
                    ],
                    1,
                ),
                smoothed_cost=lambda added: self._cost(math.hypot(self.sigma, added)),
            )
        else:
            truth = Truth(
                "dual_certificate",
                self._cost(0),
                no_map="does not exist: each point has two images",
                pairs=fork,
                potential=lambda x: self._to_cube(x) + (x[:, -1].abs() - 1).square() - 1,
                target_potential=lambda y: self._to_cube(y) + y[:, -1].square(),
                smoothed_cost=self._cost,
                probes=(Branches(images),),
                spurious=lambda x: _with_last(x, 1.0),
            )
        return MapProblem(source, target, SQEUCLIDEAN, truth)

    @property
    def _cube(self) -> int:
        return self.cube or self.dim - 1

    def _to_cube(self, x: Tensor) -> Tensor:
        """Squared distance of all coordinates but the last to the cube."""
        return closed_forms.squared_distance_to_cube(x[:, : self._cube]) + x[
            :, self._cube : -1
        ].square().sum(1)

    def _cost(self, sigma: float) -> float:
        last = 1 + sigma**2 - 2 * sigma * math.sqrt(2 / math.pi)
        return (
            self._cube * closed_forms.smoothed_cost(sigma)
            + (self.dim - 1 - self._cube) * sigma**2
            + last
        )


def _with_last(x: Tensor, value: float) -> Tensor:
    """The points ``(n, d)`` with their last coordinate replaced."""
    import torch

    return torch.cat([x[:, :-1], torch.full_like(x[:, -1:], value)], 1)
