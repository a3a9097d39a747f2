"""Atom: a single point to be spread over a whole cube, which no map can do.

All the mass lies at the origin and is to fill the cube [-1, 1]^d evenly, at the cost ||x - y||^2:

    delta_0 to U_d, uniform on [-1, 1]^d,    W2^2 = d / 3.

The product is the only coupling, hence the optimal one. The potentials f(x) = |x|^2 - 2 |x|_1 and
g(y) = |y|^2 prove it.

Hard for every solver that returns a map, as no map splits an atom. Against g every constant looks
optimal: a spurious solution sends all the mass to one point, whichever it is, and the objective
does not see it. This is the extreme case of a source on which maps fail; only a random map can be
right.

With ``sigma`` > 0 the source is N(0, sigma^2 I). The only optimal map is then T(x) = 2 Phi(x /
sigma) - 1, the gradient of sum_j E|x_j + sigma xi|, and W2^2 = d (1 / 3 + sigma^2 - 2 sigma /
sqrt(pi)).
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


@dataclass(frozen=True)
class Atom(Task):
    """A point and a cube. Nothing about it is random.

    Attributes:
        dim: dimension d.
        sigma: standard deviation of the noise added to the source; 0 leaves an atom.
    """

    name: ClassVar[str] = "atom"
    dim: int = 2
    sigma: float = 0.0

    def __post_init__(self) -> None:
        """Check the parameters."""
        self.require(at_least_one=("dim",), not_negative=("sigma",))

    def problem(self, rng: np.random.Generator, *, device: str, dtype: torch.dtype) -> MapProblem:
        """The problem, the same for every ``rng``."""
        import numpy as np
        import torch

        sigma, zero, eye = self.sigma, np.zeros(self.dim), np.eye(self.dim)
        source = closed_forms.affine_cube(eye[:0], zero, sigma, device=device, dtype=dtype)
        target = closed_forms.affine_cube(eye, zero, device=device, dtype=dtype)
        if sigma > 0:
            truth = Truth(
                "brenier",
                self._cost(sigma),
                lambda x: closed_forms.gaussian_to_uniform(x, sigma),
                potential=lambda x: (
                    x.square().sum(1) - 2 * closed_forms.mean_distance(x, sigma).sum(1)
                ),
                target_potential=lambda y: (
                    y.square().sum(1) - 2 * closed_forms.mean_distance_conjugate(y, sigma).sum(1)
                ),
                smoothed_cost=lambda added: self._cost(math.hypot(sigma, added)),
            )
        else:
            truth = Truth(
                "dual_certificate",
                self._cost(0),
                no_map="does not exist: an atom cannot be split",
                pairs=lambda n, generator: (
                    source.sample(n, generator),
                    target.sample(n, generator),
                ),
                potential=lambda x: x.square().sum(1) - 2 * x.abs().sum(1),
                target_potential=lambda y: y.square().sum(1),
                smoothed_cost=self._cost,
                spurious=lambda x: torch.full_like(x, 0.5),
            )
        return MapProblem(source, target, SQEUCLIDEAN, truth)

    def _cost(self, sigma: float) -> float:
        return self.dim * (1 / 3 + sigma**2 - 2 * closed_forms.gaussian_correlation(sigma))
