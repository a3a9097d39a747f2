"""Clouds: two files of weighted points of one's own; which points of one go to which of the other,
at the least cost.

The points x_i of weights a_i are to be moved to the points y_j of weights b_j, cost C_ij = ||x_i -
y_j||^2, ||x_i - y_j|| or the angle on the sphere:

    min <C, P>    over P >= 0 with P 1 = a and P' 1 = b.

Points of a file without weights weigh the same. The truth is the exact linear program (network
simplex, POT's ``ot.emd``) in float64, on points and weights as rounded to the dtype asked for;
beyond 2^26 costs there is a lower bound of the cost instead, beyond 2^30 nothing.

Hard where the clouds are large, and for entropic solvers, which blur the plan.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from otbench import COSTS, DiscreteProblem, Truth
from otbench.data.cloud_files import read_pair
from otbench.data.clouds import common_origin
from otbench.families.own_data import BOUNDED, OwnData
from otbench.methods.discrete import solved


if TYPE_CHECKING:
    import numpy as np
    import torch


@dataclass(frozen=True)
class Clouds(OwnData):
    """The weighted points of two files, all of them (see `otbench.data.cloud_files.CloudFile`)."""

    name: ClassVar[str] = "clouds"
    setting: ClassVar[str] = "discrete"

    def problem(
        self, rng: np.random.Generator, *, device: str, dtype: torch.dtype
    ) -> DiscreteProblem:
        """Read the clouds; nothing is random.

        Raises:
            UserError: a file does not hold points and weights that can be compared.
        """
        import torch

        def on_device(values: np.ndarray) -> torch.Tensor:
            return torch.as_tensor(values, device=device, dtype=dtype)

        x, y = read_pair(*self.clouds, self.cost)
        origin = common_origin(x, y, self.cost, str(dtype).removeprefix("torch."))
        x, y = x.about(origin), y.about(origin)
        a, b = (on_device(cloud.masses) for cloud in (x, y))
        pair = DiscreteProblem(
            on_device(x.points), a, on_device(y.points), b, COSTS[self.cost], Truth("none")
        )
        if len(a) * len(b) > BOUNDED:
            why = f"no exact solution, no bound: {len(a)} x {len(b)} costs are too many"
            return replace(pair, truth=Truth("none", unsolved=why))
        return solved(pair)
