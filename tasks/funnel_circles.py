"""Funnels onto circles: each point of a Gaussian falls straight onto one of three circles.

N(0, 1.2^2 I_d) goes to three circles M_j that attract by their distance plus an offset b_j, cost
||x - y||. They lie in planes parallel to (x_1, x_2), with centres on the third axis. The potential
u is the least of these funnels, and T follows its gradient down to the bottom:

    u(x) = min_j (dist(x, M_j) + b_j),    T(x) = the point of M_j(x) nearest to x, j(x) the argmin.

The target is the push-forward of the source. u is 1-Lipschitz and u(x) - u(T(x)) = |x - T(x)| by
the triangle inequality, which certifies T; every optimal plan takes x to a nearest point of a
circle that attains the minimum, of which there is one almost everywhere, so T is unique.

Hard for solvers whose maps are continuous: the source must be cut along curved walls between the
circles, and onto each circle mass falls from all sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from otbench import EUCLIDEAN, MapProblem, Measure, Task, Truth


if TYPE_CHECKING:
    import numpy as np
    import torch

    Tensor = torch.Tensor

SIGMA = 1.2  # of the source
HEIGHTS = (0.0, 1.5, -1.5)  # third coordinates of the centres
RADII = (1.0, 0.5, 0.7)
OFFSETS = (0.0, -0.35, 0.2)


@dataclass(frozen=True)
class FunnelCircles(Task):
    """A Gaussian that falls onto three circles along straight lines. Nothing about it is random.

    Attributes:
        dim: dimension d, at least three.
    """

    name: ClassVar[str] = "funnel-circles"
    dim: int = 3

    def __post_init__(self) -> None:
        """Refuse a space that has no third axis."""
        if self.dim < 3:
            raise ValueError(f"dim must be at least 3, got {self.dim}")

    def problem(self, rng: np.random.Generator, *, device: str, dtype: torch.dtype) -> MapProblem:
        """The problem, the same for every ``rng``."""
        import torch
        from torch.nn.functional import normalize, pad

        heights, radii, offsets = (
            torch.tensor(values, device=device, dtype=dtype) for values in (HEIGHTS, RADII, OFFSETS)
        )
        centres = pad(heights[:, None], (2, self.dim - 3))

        def nearest(x: Tensor) -> Tensor:
            """The nearest point of each circle, ``(n, 3, d)``."""
            return centres + pad(
                radii[:, None] * normalize(x[:, None, :2], dim=2), (0, self.dim - 2)
            )

        def funnels(x: Tensor, points: Tensor) -> Tensor:
            return torch.linalg.vector_norm(x[:, None] - points, dim=2) + offsets

        def push(x: Tensor) -> Tensor:
            points = nearest(x)
            return points.take_along_dim(funnels(x, points).argmin(1)[:, None, None], 1).squeeze(1)

        def potential(x: Tensor) -> Tensor:
            return funnels(x, nearest(x)).amin(1)

        def draw(n: int, generator: torch.Generator) -> Tensor:
            return SIGMA * torch.randn(
                n, self.dim, generator=generator, device=generator.device, dtype=dtype
            )

        zero, eye = (
            torch.zeros(self.dim, device=device, dtype=dtype),
            torch.eye(self.dim, device=device, dtype=dtype),
        )
        source = Measure(
            (self.dim,), draw, mean=zero, cov=SIGMA**2 * eye, variance=self.dim * SIGMA**2
        )
        target = Measure((self.dim,), lambda n, generator: push(draw(n, generator)))
        truth = Truth(
            "dual_certificate",
            map=push,
            potential=potential,
            target_potential=lambda y: -potential(y),
        )
        return MapProblem(source, target, EUCLIDEAN, truth)
