"""Continuous control: a cube stretched and shifted by an affine map, where nothing spurious can
happen.

The uniform measure U_d on the cube [-1, 1]^d goes to its image under a stretch along random
orthogonal axes and a shift, cost ||x - y||^2:

    T(x) = B x + b,    B symmetric positive definite,    W2^2 = tr (B - I)^2 / 3 + |b|^2.

T is the gradient of the convex potential <x, B x> / 2 + <b, x>, hence optimal and unique (Brenier
1991). From the source convolved with N(0, sigma^2 I), as solvers with noise see it, the optimal
cost lies between two values of

    W2^2 + sigma^2 (d - tr B) + s(sigma) k,

with s the cost of one coordinate, from U_1 convolved with N(0, sigma^2) to U_1: those of k = d
times the least eigenvalue of B, a dual value, and of k = tr B, a plan that moves the coordinates of
x one by one. The latter is taken; it is exact where the axes are those of the cube.

Not hard, on purpose. This is the control beside the families with singular sources
(``perpendicular``, ``one-to-many``, ``parallel-segments``, ``low-dim-manifold``, ``atom``), on
which maps that miss the target look optimal against the true potential. Here the source is
absolutely continuous, and against the true potential only T is optimal, so that there is no such
spurious solution. A solver that fails here fails for another reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from otbench import SQEUCLIDEAN, MapProblem, Task, Truth
from otbench.families import closed_forms


if TYPE_CHECKING:
    import numpy as np
    import torch


@dataclass(frozen=True)
class ContinuousControl(Task):
    """A cube stretched along random axes and moved by a random unit vector.

    Attributes:
        dim: dimension d.
        condition: condition number of B; its eigenvalues are spaced geometrically around 1.
    """

    name: ClassVar[str] = "continuous-control"
    dim: int = 2
    condition: float = 4.0

    def __post_init__(self) -> None:
        """Check the parameters."""
        self.require(at_least_one=("dim", "condition"))

    def problem(self, rng: np.random.Generator, *, device: str, dtype: torch.dtype) -> MapProblem:
        """Draw B and b from ``rng``."""
        import numpy as np
        import torch

        axes = np.linalg.qr(rng.standard_normal((self.dim, self.dim)))[0]
        values = np.geomspace(self.condition**-0.5, self.condition**0.5, self.dim)
        matrix = (axes * values) @ axes.T
        shift = rng.standard_normal(self.dim)
        shift /= np.linalg.norm(shift)
        source = closed_forms.affine_cube(
            np.eye(self.dim), np.zeros(self.dim), device=device, dtype=dtype
        )
        target = closed_forms.affine_cube(matrix, shift, device=device, dtype=dtype)
        B, inverse, b = (
            torch.as_tensor(array, device=device, dtype=dtype)
            for array in (matrix, (axes / values) @ axes.T, shift)
        )
        cost = float(np.sum((values - 1) ** 2) / 3 + shift @ shift)
        truth = Truth(
            "brenier",
            cost,
            lambda x: x @ B + b,
            smoothed_cost=lambda sigma: float(
                cost
                + sigma**2 * (self.dim - values.sum())
                + closed_forms.smoothed_cost(sigma) * values.sum()
            ),
            potential=lambda x: x.square().sum(1) - (x @ B * x).sum(1) - 2 * x @ b,
            target_potential=lambda y: y.square().sum(1) - ((y - b) @ inverse * (y - b)).sum(1),
        )
        return MapProblem(source, target, SQEUCLIDEAN, truth)
