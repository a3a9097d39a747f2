"""Petals: a Gaussian in the plane cut into sectors that are moved apart to a ring of clusters.

N(0, I_2) is cut into equal sectors; T scales each by eps and moves it outwards by radius, cost ||x
- y||^2. The target is the push-forward. With k(x) = argmax_k <a_k, x> and a_k = radius (cos, sin)(2
pi k / petals),

    T(x) = eps x + a_k(x),
    s = E <a_k(x), x> / radius = sqrt(pi / 2) sin(pi / petals) / (pi / petals),
    W2^2 = 2 (1 - eps)^2 - 2 (1 - eps) radius s + radius^2,
    E |T(x)|^2 = 2 eps^2 + 2 eps radius s + radius^2.

T is the gradient of the convex potential phi(x) = eps |x|^2 / 2 + max_k <a_k, x>, hence optimal and
unique (Brenier 1991). The Kantorovich potentials are |x|^2 - 2 phi(x) and, on the target, |y|^2 - 2
phi*(y) with phi*(y) = |y - a|^2 / (2 eps), a the nearest a_k; with eps = 0 phi* is infinite off the
atoms a_k.

Hard for solvers that learn a continuous map: T jumps at the edges of the sectors, from one cluster
to the next, and a network that cannot jump strews points between them. With eight petals this is a
closed-form relative of the eight Gaussians on which generative models are often shown.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from otbench import SQEUCLIDEAN, MapProblem, Measure, Task, Truth


if TYPE_CHECKING:
    import numpy as np
    import torch

    Tensor = torch.Tensor

ON_ATOM = 1e-4  # distance up to which a rounded point is an atom, in units of the radius


@dataclass(frozen=True)
class Petals(Task):
    """A Gaussian cut into equal sectors that are moved apart. Nothing about it is random.

    Attributes:
        petals: number of sectors, at least three (the target is isotropic then).
        radius: how far each sector is moved.
        eps: by how much each sector is scaled; 0 makes atoms of them.
    """

    name: ClassVar[str] = "petals"
    petals: int = 8
    radius: float = 10.0
    eps: float = 0.5

    def __post_init__(self) -> None:
        """Check the parameters."""
        if self.petals < 3:
            raise ValueError(f"petals must be at least 3, got {self.petals}")
        self.require(positive=("radius",))
        if not self.eps >= 0:
            raise ValueError(
                f"eps must not be negative, got {self.eps}: the potential would not be convex"
            )

    def problem(self, rng: np.random.Generator, *, device: str, dtype: torch.dtype) -> MapProblem:
        """The problem, the same for every ``rng``."""
        import torch

        angles = torch.arange(self.petals, dtype=torch.float64) * (2 * math.pi / self.petals)
        atoms = (self.radius * torch.stack([angles.cos(), angles.sin()], 1)).to(device, dtype)
        zero, eye = (
            torch.zeros(2, device=device, dtype=dtype),
            torch.eye(2, device=device, dtype=dtype),
        )

        def push(x: Tensor) -> Tensor:
            return self.eps * x + atoms[(x @ atoms.T).argmax(1)]

        def draw(n: int, generator: torch.Generator) -> Tensor:
            return torch.randn(n, 2, generator=generator, device=generator.device, dtype=dtype)

        def potential(x: Tensor) -> Tensor:
            return (1 - self.eps) * x.square().sum(1) - 2 * (x @ atoms.T).amax(1)

        def target_potential(y: Tensor) -> Tensor:
            squared = y.square().sum(1)
            if self.eps == 0:
                distance = torch.cdist(y, atoms, compute_mode="donot_use_mm_for_euclid_dist").amin(
                    1
                )
                return torch.where(distance < ON_ATOM * self.radius, squared, -torch.inf)
            return squared - (y - atoms[(y @ atoms.T).argmax(1)]).square().sum(1) / self.eps

        half_angle = math.pi / self.petals
        # E <a_k(x), x>.
        reach = self.radius * math.sqrt(math.pi / 2) * math.sin(half_angle) / half_angle
        cost = 2 * (1 - self.eps) ** 2 - 2 * (1 - self.eps) * reach + self.radius**2
        variance = 2 * self.eps**2 + 2 * self.eps * reach + self.radius**2
        source = Measure((2,), draw, mean=zero, cov=eye, variance=2.0)
        target = Measure(
            (2,),
            lambda n, generator: push(draw(n, generator)),
            mean=zero,
            cov=eye * (variance / 2),
            variance=variance,
        )
        truth = Truth("brenier", cost, push, potential=potential, target_potential=target_potential)
        return MapProblem(source, target, SQEUCLIDEAN, truth)
