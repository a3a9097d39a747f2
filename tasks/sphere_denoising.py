"""Denoising a sphere: noisy points go back to the nearest point of a sphere.

The source is the target under noise, y + N(0, sigma^2 I_d) with y uniform on M, the unit sphere of
dimension k in the first k + 1 coordinates. The cost is ||x - y|| or ||x - y||^2, and for both each
noisy point goes to the point of M nearest to it, which need not be the one it came from. Let a be
the first k + 1 coordinates of x, and b the others:

    T(x) = (a / |a|, 0),    u(x) = dist(x, M) = sqrt((|a| - 1)^2 + |b|^2).

The noise is isotropic, so by symmetry T pushes the source exactly to the uniform measure of M. The
nearest point is unique almost everywhere, so T is the only optimum for both costs (W1: u is
1-Lipschitz and falls by |x - T(x)|; W2: the potentials are u^2 and 0). The optimal cost, the mean
of u or u^2, is a one-dimensional quadrature.

Hard for solvers for W1, which cannot read the length of their steps off the gradient of a potential
(Milne, Bilocq & Nachman 2022), and for those that learn densities, as the target has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from otbench import COSTS, MapProblem, Measure, Task, Truth
from otbench.families import closed_forms


if TYPE_CHECKING:
    import numpy as np
    import torch

    Tensor = torch.Tensor

ON_TARGET = 1e-6  # squared distance up to which a rounded point lies on the target


@dataclass(frozen=True)
class SphereDenoising(Task):
    """A unit sphere and the same sphere under Gaussian noise. Nothing about it is random.

    Attributes:
        k: dimension of the sphere.
        dim: dimension d of the space, at least k + 1.
        sigma: standard deviation of the noise.
        cost: the map is the same for both.
    """

    name: ClassVar[str] = "sphere-denoising"
    k: int = 1
    dim: int = 8
    sigma: float = 0.3
    cost: Literal["euclidean", "sqeuclidean"] = "euclidean"

    def __post_init__(self) -> None:
        """Refuse a sphere that does not fit, no noise, or another cost."""
        self.require(at_least_one=("k",))
        if self.dim < self.k + 1:
            raise ValueError(f"dim must be at least k + 1 = {self.k + 1}, got {self.dim}")
        self.require(positive=("sigma",))
        if self.cost not in ("euclidean", "sqeuclidean"):
            raise ValueError(f"cost must be euclidean or sqeuclidean, got {self.cost!r}")

    def problem(self, rng: np.random.Generator, *, device: str, dtype: torch.dtype) -> MapProblem:
        """The problem, the same for every ``rng``."""
        import torch
        from torch.nn.functional import normalize, pad

        inside, outside = self.k + 1, self.dim - self.k - 1
        cost = COSTS[self.cost]

        def project(x: Tensor) -> Tensor:
            return pad(normalize(x[:, :inside], dim=1), (0, outside))

        def potential(x: Tensor) -> Tensor:
            return torch.linalg.vector_norm(x - project(x), dim=1) ** cost.power

        def target_potential(y: Tensor) -> Tensor:
            u = potential(y)
            return (
                -u
                if cost.power == 1
                else torch.where(u < ON_TARGET, torch.zeros_like(u), -torch.inf)
            )

        def normal(n: int, generator: torch.Generator) -> Tensor:
            return torch.randn(
                n, self.dim, generator=generator, device=generator.device, dtype=dtype
            )

        def clean(n: int, generator: torch.Generator) -> Tensor:
            return project(normal(n, generator))

        def noisy(n: int, generator: torch.Generator) -> Tensor:
            return clean(n, generator) + self.sigma * normal(n, generator)

        zero, eye = (
            torch.zeros(self.dim, device=device, dtype=dtype),
            torch.eye(self.dim, device=device, dtype=dtype),
        )
        cov = torch.diag(pad(eye.new_full((inside,), 1 / inside), (0, outside)))
        source = Measure(
            (self.dim,),
            noisy,
            mean=zero,
            cov=cov + self.sigma**2 * eye,
            variance=1 + self.dim * self.sigma**2,
        )
        target = Measure((self.dim,), clean, mean=zero, cov=cov, variance=1.0)
        value = closed_forms.noise_off_spheres(
            cost.power, self.sigma, k=self.k, spheres=1, outside=outside
        )
        truth = Truth(
            "closed_form", value, project, potential=potential, target_potential=target_potential
        )
        return MapProblem(source, target, cost, truth)
