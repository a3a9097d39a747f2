"""Partial transport: which share of one weighted cloud goes to which of another, when the rest may
stay where it is.

Of the mass of points x_i of weights a_i a share s is to be moved to points y_j of weights b_j, at
the least cost C_ij = ||x_i - y_j||^2:

    min <C, P>    over P >= 0 with P 1 <= a, P' 1 <= b and 1' P 1 = s.

The x_i are N(0, I_d), the y_j N(m, I_d) with |m| = 2; the weights are uniform on the simplex. Each
cloud has one point more, which takes what the other keeps, at no cost: so the problem is a balanced
one, of weights that sum to one and costs divided by 2 - s, and any solver that takes any cost
solves it. The truth is its exact linear program in float64.

Hard for entropic solvers. The cheapest half of the mass moves at a small part of the mean cost, a
fortieth, so that an eps which is a multiple of that is large; and which points stay is decided by
small differences of the potentials.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from otbench import DiscreteProblem, Task
from otbench.families.partial import partial_pair
from otbench.methods.discrete import solved


if TYPE_CHECKING:
    import numpy as np
    import torch


@dataclass(frozen=True)
class PartialClouds(Task):
    """Two random clouds, of which a share is moved.

    Attributes:
        n: points of the source, without the one that is added.
        m: points of the target likewise.
        dim: dimension d.
        share: s, of the mass that is moved.
    """

    name: ClassVar[str] = "partial-clouds"
    setting: ClassVar[str] = "discrete"
    needs: ClassVar[tuple[str, ...]] = ("ot",)
    n: int = 300
    m: int = 300
    dim: int = 2
    share: float = 0.5

    def __post_init__(self) -> None:
        """Refuse empty clouds and shares that are none."""
        self.require(at_least_one=("n", "m", "dim"))
        if not 0 < self.share <= 1:
            raise ValueError(f"share must be above 0 and at most 1, got {self.share}")

    def problem(
        self, rng: np.random.Generator, *, device: str, dtype: torch.dtype
    ) -> DiscreteProblem:
        """Draw the clouds from ``rng``."""
        import numpy as np
        import torch

        shift = rng.standard_normal(self.dim)
        arrays = (
            rng.standard_normal((self.n, self.dim)),
            rng.dirichlet(np.ones(self.n)),
            rng.standard_normal((self.m, self.dim)) + 2 * shift / np.linalg.norm(shift),
            rng.dirichlet(np.ones(self.m)),
        )
        x, a, y, b = (torch.as_tensor(array, device=device, dtype=dtype) for array in arrays)
        return solved(partial_pair(x, a, y, b, self.share))
