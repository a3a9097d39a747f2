"""Point clouds: which points of one weighted cloud go to which of another, at the least cost.

The points x_i of weights a_i are to be moved to the points y_j of weights b_j, cost C_ij = ||x_i -
y_j||^2 or ||x_i - y_j||:

    min <C, P>    over P >= 0 with P 1 = a and P' 1 = b.

The x_i are N(0, I_d); the y_j are N(m, G G') with |m| = 1 and G a random matrix with entries N(0,
1/d); the weights are uniform on the simplex. The truth is the exact linear program (network
simplex, POT's ``ot.emd``) in float64, on points and weights as rounded to the dtype asked for;
beyond 2^26 costs, such as 8192 points of each cloud, there is a lower bound of the cost instead.

The plain problem of discrete transport, easy for linear programs while the clouds are small. Hard
for entropic solvers, which blur it: some optimal plan has at most n + m - 1 entries above zero,
theirs has none at zero, and they converge the more slowly the sharper it is to be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from otbench import COSTS, DiscreteProblem, Task, Truth
from otbench.methods.discrete import solved


if TYPE_CHECKING:
    import numpy as np
    import torch


@dataclass(frozen=True)
class PointClouds(Task):
    """Two random clouds with random weights.

    Attributes:
        n: points of the source.
        m: points of the target.
        dim: dimension d.
        cost: ``sqeuclidean`` or ``euclidean``.
    """

    name: ClassVar[str] = "point-clouds"
    setting: ClassVar[str] = "discrete"
    needs: ClassVar[tuple[str, ...]] = ("ot",)
    n: int = 300
    m: int = 300
    dim: int = 2
    cost: Literal["sqeuclidean", "euclidean"] = "sqeuclidean"

    def __post_init__(self) -> None:
        """Refuse empty clouds and unknown costs."""
        self.require(at_least_one=("n", "m", "dim"))
        if self.cost not in ("sqeuclidean", "euclidean"):
            raise ValueError(f"cost must be sqeuclidean or euclidean, got {self.cost!r}")

    def problem(
        self, rng: np.random.Generator, *, device: str, dtype: torch.dtype
    ) -> DiscreteProblem:
        """Draw the clouds from ``rng``."""
        import numpy as np
        import torch

        shift = rng.standard_normal(self.dim)
        shape = rng.standard_normal((self.dim, self.dim)) / np.sqrt(self.dim)
        arrays = (
            rng.standard_normal((self.n, self.dim)),
            rng.dirichlet(np.ones(self.n)),
            rng.standard_normal((self.m, self.dim)) @ shape.T + shift / np.linalg.norm(shift),
            rng.dirichlet(np.ones(self.m)),
        )
        x, a, y, b = (torch.as_tensor(array, device=device, dtype=dtype) for array in arrays)
        return solved(DiscreteProblem(x, a, y, b, COSTS[self.cost], Truth("none")))
