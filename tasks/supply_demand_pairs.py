"""Supply-demand pairs: learn from many days of trade on the globe to plan a new day at once.

Suppliers x_i and consumers y_j stay where they are, drawn once as in supply-demand; from pair to
pair stocks and needs change, a_i ~ Bernoulli(1/2) U(0, 1) and b_j ~ U(0, 1), normalised (Amos et
al. 2023; Truong & Nguyen 2026):

    min <C, P> + eps KL(P | a b')    over P >= 0 with P 1 = a and P' 1 = b,
    C_ij = arccos <x_i, y_j>.

The truth of the held-out pairs is Sinkhorn's algorithm in float64, to a marginal error of 1e-9, or
with eps = 0 the exact linear program (network simplex, POT's ``ot.emd``), on values as rounded to
the dtype asked for. Training pairs are not solved.

The populations are those of `otbench.families.globe`, synthetic or of the world in 2020.

Hard is not the pair, which takes Sinkhorn's algorithm some 14 iterations at an eps so large, but to
foresee it: any half of the suppliers may have nothing, and the solver must be right about all of
the others to spare a few iterations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from otbench import GEODESIC, AmortizedProblem, DiscreteProblem, Truth
from otbench.families.globe import GlobeTask, Population
from otbench.methods.discrete import certificate, solved


if TYPE_CHECKING:
    import numpy as np
    import torch


@dataclass(frozen=True)
class SupplyDemandPairs(GlobeTask):
    """Random stocks and needs at fixed places.

    Attributes:
        supply: number of suppliers.
        demand: number of consumers.
        eps: entropic regularisation in radians; 0 asks for the linear program.
        train: training pairs.
        test: held-out pairs, the same for every ``train``.
        population: ``synthetic``, or ``raster``, which needs its file.
    """

    name: ClassVar[str] = "supply-demand-pairs"
    setting: ClassVar[str] = "amortized"
    supply: int = 100
    demand: int = 10_000
    eps: float = 0.5
    population: Population = "synthetic"
    train: int = 50
    test: int = 20

    def __post_init__(self) -> None:
        """Refuse what the globe refuses, and nothing to score on."""
        super().__post_init__()
        for field, least in (("train", 0), ("test", 1)):
            if getattr(self, field) < least:
                raise ValueError(f"{field} must be at least {least}, got {getattr(self, field)}")

    def problem(
        self, rng: np.random.Generator, *, device: str, dtype: torch.dtype
    ) -> AmortizedProblem:
        """Draw the places, then the weights from ``rng``.

        Raises:
            MissingError: the raster is absent, or is another.
        """
        import torch

        x, y = (
            torch.as_tensor(points, device=device, dtype=dtype) for points in self.draw_points(rng)
        )

        def draw(stream: np.random.Generator) -> DiscreteProblem:
            a, b = (
                torch.as_tensor(weights, device=device, dtype=dtype)
                for weights in self.draw_weights(stream)
            )
            return DiscreteProblem(x, a, y, b, GEODESIC, Truth("none"), self.eps)

        train, test = rng.spawn(
            2
        )  # so that held-out pairs do not depend on the number of training pairs
        pairs = [draw(train) for _ in range(self.train)]
        held_out = [solved(draw(test)) for _ in range(self.test)]
        return AmortizedProblem(pairs, held_out, GEODESIC, Truth(certificate(self.eps)))
