"""Random funnels: mass crowded around a few centres spreads out along rays until it fills a cube.

The target is uniform on the cube [-2.5, 2.5]^d. The source is made from it: the potential u is the
least of ``width`` funnels with random centres a_k and offsets b_k, and each y moves down the funnel
it is in, towards its centre, to the x it comes from; cost ||x - y||:

    u(y) = min_k (|y - a_k| + b_k),    x = a_k + t^power (z - a_k)  where  y = a_k + t (z - a_k).

Here k is the funnel active at y, and z the upper end of the ray from a_k through y, where another
funnel takes over or the cube ends. It is the law of the continuous Wasserstein-1 benchmark
(Korotin, Kolesov & Burnaev 2022) with a_k ~ Unif([-2.5, 2.5]^d) and b_k ~ N(0, 0.1^2).

u is 1-Lipschitz and u(y) - u(x) = |y - x|, which certifies the pairs (x, y) with the potentials f =
-u and g = u. The optimal map is not unique, since mass may be rearranged inside a ray: what is
scored is the gradient of f, the cost and the push-forward. The cost has no closed form.

Hard for discrete solvers, which meet the curse of dimension: between samples of high dimension most
of the cost is noise. Hard for learned potentials where funnels meet, the more so the more there
are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from otbench import MapProblem, Task
from otbench.families.funnels import SIDE, Funnels


if TYPE_CHECKING:
    import numpy as np
    import torch

OFFSET = 0.1  # standard deviation of the offsets


@dataclass(frozen=True)
class W1Funnels(Task):
    """Random funnels.

    Attributes:
        dim: dimension d.
        width: number of funnels.
        power: how far points are moved towards the centres; at 1 they stay.
    """

    name: ClassVar[str] = "w1-funnels"
    dim: int = 16
    width: int = 4
    power: float = 8.0

    def __post_init__(self) -> None:
        """Check the parameters."""
        self.require(at_least_one=("dim", "width", "power"))

    def problem(self, rng: np.random.Generator, *, device: str, dtype: torch.dtype) -> MapProblem:
        """Draw the centres and offsets from ``rng``."""
        import torch

        centers = torch.as_tensor(
            rng.uniform(-SIDE, SIDE, (self.width, self.dim)), device=device, dtype=dtype
        )
        offsets = torch.as_tensor(
            OFFSET * rng.standard_normal(self.width), device=device, dtype=dtype
        )
        return Funnels(centers, offsets).problem(self.power)
