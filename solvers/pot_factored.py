"""Factored couplings (Forrow et al. 2019): both clouds are transported to a few points between
them, POT's ``ot.factored.factored_optimal_transport``, in float64 on the host.

    min_mu  W_2^2(a, mu) + W_2^2(mu, b)   over measures mu of ``rank`` points of equal weights

The plan ``rank Ga Gb`` out of the two optimal ones has exact marginals. The problem is not convex:
mu starts from normal points, as in POT, about the mean of the target in units of the distance
between the measures, and is moved at most 100 times. POT's ``solve_sample(method="factored")``
forgets the weights in 0.9.7; the function itself does not. In the map setting a new point goes to
the mean of the row of the nearest sample point, and draws are from that row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

from otbench import SQEUCLIDEAN, DiscreteProblem, FitContext, Problem
from otbench.methods.adapting import standardised, with_mass
from otbench.methods.discrete import Coupling, DiscreteSolver
from otbench.methods.refusals import other_cost


if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class PotFactored(DiscreteSolver):
    """Plan through a few points between the clouds, squared Euclidean cost.

    Attributes:
        rank: number of these points.
        max_iters: most moves of them, each after two exact problems.
        tolerance: stop where they move less than this in all, in units of the root mean squared
            distance between the measures.
    """

    name: ClassVar[str] = "pot-factored"
    needs: ClassVar[tuple[str, ...]] = ("ot",)
    tuning: ClassVar[str] = "POT's defaults"
    rank: int = 100
    max_iters: int = 100
    tolerance: float = 1e-7

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        self.require(positive=("rank", "max_iters", "tolerance"))

    def supports(self, problem: Problem) -> str | None:
        """The cost of which the points between are means."""
        return other_cost(problem, SQEUCLIDEAN)

    def couple(self, pair: DiscreteProblem, context: FitContext) -> Coupling:
        """Move the points between, from where ``context.generator`` puts them."""
        import ot
        import torch

        pair, on_all_points = with_mass(pair)
        x, y, _ = standardised(pair)
        first = torch.empty(self.rank, x.shape[1], dtype=x.dtype, device=x.device)
        first.normal_(generator=context.generator)
        x, y, a, b, first = (held.cpu().numpy() for held in (x, y, pair.a, pair.b, first))
        result = ot.factored.factored_optimal_transport(
            x,
            y,
            a,
            b,
            r=self.rank,
            X0=first,
            stopThr=self.tolerance,
            numItermax=self.max_iters,
            log=True,
        )
        to, away, _, log = cast("tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]", result)
        plan = torch.as_tensor(self.rank * to @ away, device=pair.x.device)
        return on_all_points(Coupling(plan, info={"moves": len(log["delta_iter"])}))
