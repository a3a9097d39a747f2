"""Shrinking noise onto a subspace: points pushed off it sideways go straight back to where they
were.

A cube in a k-dimensional subspace of R^d, under Gaussian noise across the subspace, goes to the
cube without noise; the cost is ||x - y|| or ||x - y||^2. The source is (p, r) with p uniform on
[-1, 1]^k and r ~ N(0, sigma^2 I_{d-k}) independent of it:

    T(p, r) = (p, 0),    u(p, r) = |r|,    W1 = sigma sqrt(2) Gamma((d-k+1)/2) / Gamma((d-k)/2),
    W2^2 = (d-k) sigma^2.

T takes each point to the nearest one of the subspace, here the one it came from. That is unique, so
T is the only optimum for both costs (W1: u is 1-Lipschitz and falls by |x - T(x)|; W2: the
potentials are u^2 and 0).

Hard for solvers for W1, which must move points by different lengths along directions that are
singular on the target itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from otbench import COSTS, MapProblem, Measure, Task, Truth


if TYPE_CHECKING:
    import numpy as np
    import torch

    Tensor = torch.Tensor

ON_TARGET = 1e-6  # squared distance up to which a rounded point lies on the target


@dataclass(frozen=True)
class SubspaceShrink(Task):
    """A cube in a subspace and the same with Gaussian noise across the subspace. Nothing about it
    is random.

    Attributes:
        k: dimension of the subspace.
        dim: dimension d of the space, more than k.
        sigma: standard deviation of the noise.
        cost: the map is the same for both.
    """

    name: ClassVar[str] = "subspace-shrink"
    k: int = 4
    dim: int = 16
    sigma: float = 0.5
    cost: Literal["euclidean", "sqeuclidean"] = "euclidean"

    def __post_init__(self) -> None:
        """Check the parameters."""
        self.require(at_least_one=("k",))
        if self.dim < self.k + 1:
            raise ValueError(f"dim must be at least k + 1 = {self.k + 1}, got {self.dim}")
        self.require(positive=("sigma",))
        if self.cost not in ("euclidean", "sqeuclidean"):
            raise ValueError(f"cost must be euclidean or sqeuclidean, got {self.cost!r}")

    def problem(self, rng: np.random.Generator, *, device: str, dtype: torch.dtype) -> MapProblem:
        """The problem, the same for every ``rng``."""
        import torch
        from torch.nn.functional import pad

        across = self.dim - self.k
        cost = COSTS[self.cost]

        def project(x: Tensor) -> Tensor:
            return pad(x[:, : self.k], (0, across))

        def potential(x: Tensor) -> Tensor:
            return torch.linalg.vector_norm(x[:, self.k :], dim=1) ** cost.power

        def target_potential(y: Tensor) -> Tensor:
            u = potential(y)
            return (
                -u
                if cost.power == 1
                else torch.where(u < ON_TARGET, torch.zeros_like(u), -torch.inf)
            )

        def clean(n: int, generator: torch.Generator) -> Tensor:
            cube = torch.rand(n, self.k, generator=generator, device=generator.device, dtype=dtype)
            return pad(2 * cube - 1, (0, across))

        def noisy(n: int, generator: torch.Generator) -> Tensor:
            noise = torch.randn(
                n, across, generator=generator, device=generator.device, dtype=dtype
            )
            return clean(n, generator) + pad(self.sigma * noise, (self.k, 0))

        if cost.power == 2:
            value = across * self.sigma**2
        else:
            value = (
                self.sigma
                * math.sqrt(2)
                * math.exp(math.lgamma((across + 1) / 2) - math.lgamma(across / 2))
            )
        zero = torch.zeros(self.dim, device=device, dtype=dtype)
        cov = pad(zero.new_full((self.k,), 1 / 3), (0, across))
        noise_cov = pad(zero.new_full((across,), self.sigma**2), (self.k, 0))
        source = Measure(
            (self.dim,),
            noisy,
            mean=zero,
            cov=torch.diag(cov + noise_cov),
            variance=self.k / 3 + across * self.sigma**2,
        )
        target = Measure((self.dim,), clean, mean=zero, cov=torch.diag(cov), variance=self.k / 3)
        truth = Truth(
            "closed_form", value, project, potential=potential, target_potential=target_potential
        )
        return MapProblem(source, target, cost, truth)
