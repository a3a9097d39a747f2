"""Funnels: the law of the pairs of the continuous Wasserstein-1 benchmark (Korotin, Kolesov &
Burnaev 2022), cost ||x - y||.

The potential is the least of several funnels, and points fall within the funnel they are in, along
the ray to its centre:

    u(y) = min_k (|y - a_k| + b_k),    y ~ Unif([-2.5, 2.5]^d),    x = a_k + t^power (z - a_k)
    where    y = a_k + t (z - a_k).

Here k is the funnel active at y, and z the upper end of the ray from a_k through y: the first point
where another funnel takes over, or where the ray leaves the cube. The target is the law of y, the
source that of x. The centres and offsets are the caller's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from otbench.problem import EUCLIDEAN, MapProblem, Measure, Truth


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

SIDE = 2.5  # half the side of the cube


@dataclass(frozen=True)
class Funnels:
    """A minimum of funnels.

    Attributes:
        centers: the a_k, ``(width, d)``.
        offsets: the b_k, ``(width,)``.
    """

    centers: Tensor
    offsets: Tensor

    def active(self, x: Tensor) -> Tensor:
        """The index of the least funnel at each of ``(n, d)`` points."""
        return (_distances(x.detach(), self.centers) + self.offsets).argmin(1)

    def potential(self, x: Tensor) -> Tensor:
        """The potential u at ``(n, d)`` points, ``(n,)``."""
        import torch

        k = self.active(x)
        return torch.linalg.vector_norm(x - self.centers[k], dim=1) + self.offsets[k]

    def move_down(self, y: Tensor, power: float) -> Tensor:
        """The points x below ``(n, d)`` points y of the cube, each on its ray.

        Another funnel j takes over at the distance r from a_k in the unit direction v where |a_k +
        r v - a_j| + b_j = r + b_k. With e = a_k - a_j and h = b_k - b_j this is r = (|e|^2 - h^2) /
        (2 (h - <e, v>)) if h > <e, v>, and nowhere otherwise.
        """
        import torch

        k = self.active(y)
        low = self.centers[k]
        length = torch.linalg.vector_norm(y - low, dim=1, keepdim=True)
        v = (y - low) / length
        to_face = ((SIDE - low * v.sign()) / v.abs()).amin(1, keepdim=True)
        h = self.offsets[k, None] - self.offsets
        # H - <e, v>; zero at k itself.
        closing = h - (low * v).sum(1, keepdim=True) + v @ self.centers.T
        closing.scatter_(1, k[:, None], 0)
        e_squared = _distances(self.centers, self.centers).square()[k]
        to_funnel = torch.where(
            closing > 0, (e_squared - h.square()) / (2 * closing), torch.inf
        ).amin(1, keepdim=True)
        full = torch.minimum(to_face, to_funnel)
        return low + (length / full).clamp(max=1) ** power * full * v

    def problem(self, power: float) -> MapProblem:
        """The pair of the module's docstring, certified by its potentials f = -u and g = u;
        ``power`` at least 1.
        """
        import torch

        dim = self.centers.shape[1]
        eye = torch.eye(dim, device=self.centers.device, dtype=self.centers.dtype)

        def draw(n: int, generator: torch.Generator) -> Tensor:
            return SIDE * (
                2
                * torch.rand(
                    n, dim, generator=generator, device=generator.device, dtype=self.centers.dtype
                )
                - 1
            )

        def pairs(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            y = draw(n, generator)
            return self.move_down(y, power), y

        source = Measure((dim,), lambda n, generator: pairs(n, generator)[0])
        target = Measure(
            (dim,),
            draw,
            mean=eye.new_zeros(dim),
            cov=eye * (SIDE**2 / 3),
            variance=dim * SIDE**2 / 3,
        )
        truth = Truth(
            "dual_certificate",
            no_map="not unique: mass may be rearranged inside a ray",
            pairs=pairs,
            potential=lambda x: -self.potential(x),
            target_potential=self.potential,
        )
        return MapProblem(source, target, EUCLIDEAN, truth)


def _distances(x: Tensor, centers: Tensor) -> Tensor:
    """``(n, width)`` distances, from the differences: no Gram matrix, which would round at the size
    of its terms.
    """
    import torch

    return torch.cdist(x, centers, compute_mode="donot_use_mm_for_euclid_dist")
