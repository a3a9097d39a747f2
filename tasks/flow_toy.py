"""Flow toys: a Gaussian in the plane to eight Gaussians, two moons, an S-curve or a Swiss roll, on
which flows are shown.

N(0, I_2) is to be moved to one of the distributions of `otbench.families.toys`, cost ||x - y||^2.
These are the toys of flow matching with coupled batches (Tong et al. 2024; Truong & Nguyen 2026),
in the latter's scale; the noise of their moons may be another. The Swiss roll, ``swirl``, is that
of Rout, Korotin & Burnaev 2022.

No optimal map is known in closed form; the source being absolutely continuous, there is exactly one
(Brenier 1991). The optimal cost is estimated by exact linear programs between samples of n = 512,
1,024 and 2,048 points of each (network simplex, POT's ``ot.emd``): 410 of them for each target and
324 for ``swirl``, means and second moments of the points taken as control variates, and an excess
proportional to 1/n fitted and taken off. The error stated covers the law log(n)/n too.

Hard for solvers that learn a continuous map: the target has clusters or arms, and T jumps between
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from otbench import SQEUCLIDEAN, MapProblem, Task, Truth
from otbench.families.toys import TOYS, Toy, normal, toy


if TYPE_CHECKING:
    import numpy as np
    import torch

COSTS: Mapping[Toy, tuple[float, float]] = {
    "8gaussians": (14.393, 0.01),
    "moons": (3.828, 0.008),
    "s-curve": (0.503, 0.003),
    "swirl": (13.331, 0.009),
}  # and errors


@dataclass(frozen=True)
class FlowToy(Task):
    """A Gaussian and a toy distribution. Nothing about it is random.

    Attributes:
        target: ``8gaussians``, ``moons``, ``s-curve`` or ``swirl``.
    """

    name: ClassVar[str] = "flow-toy"
    target: Toy = "8gaussians"

    def __post_init__(self) -> None:
        """Refuse unknown targets."""
        if self.target not in TOYS:
            raise ValueError(f"target must be one of {', '.join(TOYS)}, got {self.target!r}")

    def problem(self, rng: np.random.Generator, *, device: str, dtype: torch.dtype) -> MapProblem:
        """The problem, the same for every ``rng``."""
        cost, error = COSTS[self.target]
        truth = Truth(
            "lp",
            cost,
            cost_error=error,
            no_map="unknown: a toy distribution, without a closed form",
        )
        return MapProblem(
            normal(device=device, dtype=dtype),
            toy(self.target, device=device, dtype=dtype),
            SQEUCLIDEAN,
            truth,
        )
