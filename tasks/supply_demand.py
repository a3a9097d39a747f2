"""Supply and demand: which suppliers on the globe serve which consumers, at the least total angle.

Few suppliers x_i with stocks a_i serve many consumers y_j with needs b_j; the cost is the angle
between them in radians (Amos et al. 2023):

    min <C, P>    over P >= 0 with P 1 = a and P' 1 = b,    C_ij = arccos <x_i, y_j>.

The weights are a_i ~ Bernoulli(1/2) U(0, 1) and b_j ~ U(0, 1), normalised: about half of the
suppliers have nothing. The consumers are independent draws from a population, synthetic or of the
world in 2020 (see `otbench.families.globe`).

The truth is the exact linear program (network simplex, POT's ``ot.emd``) or, for ``eps`` > 0, the
plan of least <C, P> + eps KL(P | a b') by Sinkhorn's algorithm, to a marginal error of 1e-9; both
in float64, on values as rounded to the dtype asked for.

Hard for its shape, above all for regularised solvers: the clouds are of very different sizes, some
weights are zero, and the optimal plan cuts crowded regions finely.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from otbench import GEODESIC, DiscreteProblem, Truth
from otbench.families.globe import GlobeTask, Population
from otbench.methods.discrete import solved


if TYPE_CHECKING:
    import numpy as np
    import torch


@dataclass(frozen=True)
class SupplyDemand(GlobeTask):
    """Random suppliers, consumers and weights.

    Attributes:
        supply: number of suppliers.
        demand: number of consumers.
        eps: entropic regularisation in radians; 0 asks for the exact linear program.
        population: ``synthetic``, or ``raster``, which needs its file.
    """

    name: ClassVar[str] = "supply-demand"
    setting: ClassVar[str] = "discrete"
    supply: int = 100
    demand: int = 1000
    eps: float = 0.0
    population: Population = "synthetic"

    def problem(
        self, rng: np.random.Generator, *, device: str, dtype: torch.dtype
    ) -> DiscreteProblem:
        """Draw points and weights from ``rng``.

        Raises:
            MissingError: the raster is absent, or is another.
        """
        import torch

        x, y, a, b = (
            torch.as_tensor(array, device=device, dtype=dtype)
            for array in (*self.draw_points(rng), *self.draw_weights(rng))
        )
        return solved(DiscreteProblem(x, a, y, b, GEODESIC, Truth("none"), self.eps))
