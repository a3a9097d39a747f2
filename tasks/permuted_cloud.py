"""Permuted cloud: points matched to their images under the gradient of a convex function, in random
order, cost ||x - y||^2; the optimal permutation is known for a million points.

The sources are n points x_i of N(0, I_d); the targets are y_j = T(x_order(j)); all weights are 1 /
n. With A a random rotation,

    T(x) = A' f(A x) + m,    f(t) = t + tanh(2 t) in each coordinate,    |m| = 1,

which is the gradient of a strictly convex function: matching each point with its own image is
optimal (Brenier 1991) and, the points being distinct, the only optimal plan. That is exact, up to
the rounding of the points, for any n, where no linear program answers. The cost is that of the
points as they stand.

What Sinkhorn's algorithm is for, at sizes at which the n^2 costs do not fit into memory: 40 GB in
float32 for n = 10^5, 4 TB for 10^6. The more points, the closer they lie, and the smaller the eps
at which a plan tells a point's image from those of its neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from otbench import SQEUCLIDEAN, DiscreteProblem, Task, Truth


if TYPE_CHECKING:
    import numpy as np
    import torch

DENSE = 4096  # largest n whose plan is a dense matrix


@dataclass(frozen=True)
class PermutedCloud(Task):
    """Normal points and their images in random order.

    Attributes:
        n: points of each cloud.
        dim: dimension d.
    """

    name: ClassVar[str] = "permuted-cloud"
    setting: ClassVar[str] = "discrete"
    n: int = 1000
    dim: int = 3

    def __post_init__(self) -> None:
        """Refuse empty clouds."""
        self.require(at_least_one=("n", "dim"))

    def problem(
        self, rng: np.random.Generator, *, device: str, dtype: torch.dtype
    ) -> DiscreteProblem:
        """Draw points, map and order from ``rng``."""
        import numpy as np
        import torch

        rotation = np.linalg.qr(rng.standard_normal((self.dim, self.dim)))[0]
        shift = rng.standard_normal(self.dim)
        points = rng.standard_normal((self.n, self.dim))
        turned = points @ rotation.T
        images = (turned + np.tanh(2 * turned)) @ rotation + shift / np.linalg.norm(shift)
        order = torch.as_tensor(rng.permutation(self.n), device=device)
        x, y = (torch.as_tensor(cloud, device=device, dtype=dtype) for cloud in (points, images))
        cost = float(SQEUCLIDEAN.pairwise(x.double(), y.double()).mean())
        y = y[order]
        weights = x.new_full((self.n,), 1 / self.n)
        matches = torch.stack([order, torch.arange(self.n, device=device)])
        plan = torch.sparse_coo_tensor(
            matches, weights, (self.n, self.n), check_invariants=True
        ).coalesce()
        truth = Truth("brenier", cost, plan=plan if self.n > DENSE else plan.to_dense())
        return DiscreteProblem(x, weights, y, weights, SQEUCLIDEAN, truth)
