"""Low-dimensional manifold: a flat cube in a large space goes to a flat cube in a tilted plane.

The source is x = A p with p uniform on [-1, 1]^m, a cube in a random m-plane of R^d; the target y =
L p lies in another, cost ||x - y||^2:

    L = A D + N H,    T(x) = L D^{-1} L^T x,    W2^2 = sum_j ((1 - D_j)^2 + H_j^2) / 3.

A and N are orthonormal and normal to each other, D and H diagonal and positive. T takes A p to L p.
The potentials f(x) = |x|^2 - |D^{-1/2} L^T x|^2 and g(y) = |y|^2 - |D^{-1/2} A^T y|^2 prove it
optimal, and it is unique on the source.

Hard for solvers that alternate between map and potential: what is normal to the source's plane is
invisible to them. Against g the component of T(x) along N is arbitrary; a spurious solution is the
map A p -> A D p, which stretches the cube within its own plane and never leaves it.

With ``sigma`` > 0 the source is convolved with N(0, sigma^2 I), hence absolutely continuous. As <x,
L p> = <L^T x, p> and L^T L is diagonal, the coordinates of L^T x are independent and the only
optimal map is T(x) = L p(x), where p_j(x) rearranges (D^{-1} L^T x)_j, a uniform variable with
normal noise of standard deviation sigma sqrt(1 + H_j^2 / D_j^2), monotonically (see
`otbench.families.closed_forms`).
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
class LowDimManifold(Task):
    """Two cubes of low dimension in random planes; D and H are uniform on [1/2, 3/2].

    Attributes:
        dim: dimension d of the space.
        intrinsic: dimension m of the planes, cut to d / 2 so that there is room for m normal
            directions.
        sigma: standard deviation of the noise added to the source; 0 leaves it singular.
    """

    name: ClassVar[str] = "low-dim-manifold"
    dim: int = 16
    intrinsic: int = 2
    sigma: float = 0.0

    def __post_init__(self) -> None:
        """Check the parameters."""
        if self.dim < 2:
            raise ValueError(f"dim must be at least 2, got {self.dim}")
        self.require(at_least_one=("intrinsic",), not_negative=("sigma",))

    def problem(self, rng: np.random.Generator, *, device: str, dtype: torch.dtype) -> MapProblem:
        """Draw the planes, D and H from ``rng``."""
        import numpy as np
        import torch

        m = min(self.intrinsic, self.dim // 2)
        frame = np.linalg.qr(rng.standard_normal((self.dim, 2 * m)))[0].T
        along, across = rng.uniform(0.5, 1.5, (2, m))  # the diagonals of D and H
        plane = frame[:m]
        tilted = along[:, None] * plane + across[:, None] * frame[m:]
        ratio = np.sqrt(1 + (across / along) ** 2)  # sigma_j / sigma

        def cost(sigma: float) -> float:
            correlations = np.array([closed_forms.smoothed_correlation(sigma * r) for r in ratio])
            return float(
                self.dim * sigma**2
                + np.sum((1 + along**2 + across**2) / 3 - 2 * along * correlations)
            )

        zero = np.zeros(self.dim)
        source = closed_forms.affine_cube(plane, zero, self.sigma, device=device, dtype=dtype)
        target = closed_forms.affine_cube(tilted, zero, device=device, dtype=dtype)
        A, L, D, noise = (
            torch.as_tensor(array, device=device, dtype=dtype)
            for array in (plane.T, tilted.T, along, self.sigma * ratio)
        )
        if self.sigma > 0:
            truth = Truth(
                "brenier",
                cost(self.sigma),
                lambda x: closed_forms.smoothed_to_uniform(x @ L / D, noise) @ L.T,
                smoothed_cost=lambda added: cost(math.hypot(self.sigma, added)),
            )
        else:
            truth = Truth(
                "dual_certificate",
                cost(0),
                lambda x: (x @ L / D) @ L.T,
                potential=lambda x: x.square().sum(1) - ((x @ L).square() / D).sum(1),
                target_potential=lambda y: y.square().sum(1) - ((y @ A).square() / D).sum(1),
                smoothed_cost=cost,
                spurious=lambda x: (x @ A * D) @ A.T,
            )
        return MapProblem(source, target, SQEUCLIDEAN, truth)
