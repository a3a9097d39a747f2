"""Transport plans of low nonnegative rank, low-rank Sinkhorn (Scetbon, Cuturi & Peyre 2021), POT's
``ot.lowrank.lowrank_sinkhorn``, in float64 on the host.

    min <C, Q diag(1/w) R'>   over Q >= 0 and R >= 0 with Q 1 = a, R 1 = b, Q' 1 = R' 1 = w

The problem is not convex: the plan depends on the seed, and costs more than the optimal one. POT
always takes 100 steps of mirror descent. As in ``ot.solve_sample(method="lowrank")`` the rank is
100, where ``lowrank_sinkhorn`` itself would take the smaller number of points; marginals are met to
1e-3, as by all Sinkhorn solvers, where POT's 1e-7 takes a hundred times as long or is not reached.
In the map setting a new point goes to the mean of the row of the nearest sample point, and draws
are from that row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

from otbench import SQEUCLIDEAN, DiscreteProblem, FitContext, Problem
from otbench.methods.adapting import standardised, with_mass
from otbench.methods.discrete import Coupling, DiscreteSolver
from otbench.methods.refusals import other_cost


if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class PotLrSinkhorn(DiscreteSolver):
    """Cheapest plan of a given rank, squared Euclidean cost.

    Attributes:
        rank: of the plan, at most the number of points.
        max_iters: most iterations of Dykstra's algorithm in each step.
        tolerance: stop these where the marginals of Q and R are met to this, in the l1 norm.
    """

    name: ClassVar[str] = "pot-lr-sinkhorn"
    needs: ClassVar[tuple[str, ...]] = ("ot",)
    tuning: ClassVar[str] = "POT's rank and iterations; tolerance as of all Sinkhorn solvers"
    rank: int = 100
    max_iters: int = 2000
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        self.require(positive=("rank", "max_iters", "tolerance"))

    @property
    def marginal_tolerance(self) -> float:
        """Its tolerance."""
        return self.tolerance

    def supports(self, problem: Problem) -> str | None:
        """The cost that POT factorises."""
        return other_cost(problem, SQEUCLIDEAN)

    def couple(self, pair: DiscreteProblem, context: FitContext) -> Coupling:
        """Descend from random factors of ``context.seed``."""
        import ot
        import torch

        pair, on_all_points = with_mass(pair)
        x, y, _ = standardised(pair)
        if not x.any() and not y.any():  # any plan will do, and there is nothing to descend
            return on_all_points(Coupling(pair.a[:, None] * pair.b))
        x, y, a, b = (values.cpu().numpy() for values in (x, y, pair.a, pair.b))
        result = ot.lowrank.lowrank_sinkhorn(
            x,
            y,
            a,
            b,
            rank=self.rank,
            seed_init=context.seed,
            numItermax=self.max_iters,
            stopThr=self.tolerance,
        )
        q, r, w = cast("tuple[np.ndarray, np.ndarray, np.ndarray]", result)
        plan = torch.as_tensor((q / w) @ r.T, device=pair.x.device)
        return on_all_points(Coupling(plan, info={"rank": len(w)}))
