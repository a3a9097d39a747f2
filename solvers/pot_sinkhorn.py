"""Sinkhorn's algorithm in the log domain (Cuturi 2013; Feydy et al. 2019), POT's ``sinkhorn_log``,
in float64 on the problem's device.

POT's plan is ``P_ij = exp(u_i + v_j - C_ij / eps)``: the potential relative to the weights is ``g =
eps (v - log b)``. POT stops on the l2 norm of the marginal error of b every tenth iteration;
``tolerance / sqrt(m)`` there implies ``tolerance`` in the l1 norm. In the map setting new points
follow the entropic map (Pooladian & Niles-Weed 2021); draws given a new point have the weights of
which that map is the mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

from otbench import DiscreteProblem, FitContext
from otbench.methods.discrete import Coupling, SinkhornSolver


if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class PotSinkhorn(SinkhornSolver):
    """Entropic optimal transport between two clouds, for any cost."""

    name: ClassVar[str] = "pot-sinkhorn"
    needs: ClassVar[tuple[str, ...]] = ("ot",)

    def couple(self, pair: DiscreteProblem, context: FitContext) -> Coupling:
        """Iterate until the marginals are met. A point without weight has u or v = -inf, and a plan
        of zero.
        """
        import ot

        cost = pair.cost.matrix(pair.x, pair.y)
        mean_cost = float(pair.a @ cost @ pair.b)
        eps = self.in_cost_units(pair, mean_cost)
        stop = {
            "numItermax": self.max_iters,
            "stopThr": self.tolerance / len(pair.b) ** 0.5,
        }
        result = ot.sinkhorn(pair.a, pair.b, cost, eps, method="sinkhorn_log", log=True, **stop)
        plan, log = cast("tuple[torch.Tensor, dict[str, Any]]", result)
        g = eps * (log["log_v"] - pair.b.log()).masked_fill(
            pair.b == 0, 0
        )  # where it is -inf + inf
        return Coupling(plan, g, eps, info=self.report(eps, mean_cost, log["niter"] + 1))
