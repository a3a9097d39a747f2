"""Greedy Sinkhorn, Greenkhorn (Altschuler, Weed & Rigollet 2017): each step scales the one row or
column whose marginal is farthest off. POT's ``ot.bregman.greenkhorn``, in float64 on the host.

``max_iters`` counts n + m steps as one. POT stops on the largest marginal error of a row or column:
``tolerance / (n + m)`` there implies ``tolerance`` in the l1 norm. It scales ``exp(-C / eps)``,
which is no longer finite where eps is below a thousandth of the costs. POT's plan is ``P_ij = u_i
v_j exp(-C_ij / eps)``: the potential relative to the weights is ``g = eps log (v / b)``. In the map
setting new points follow the entropic map (Pooladian & Niles-Weed 2021); draws given a new point
have the weights of which that map is the mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

from otbench import DiscreteProblem, FitContext
from otbench.methods.adapting import eps_of, with_mass
from otbench.methods.discrete import Coupling, SinkhornSolver


if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class PotGreenkhorn(SinkhornSolver):
    """Entropic optimal transport between two clouds, one row or column at a time, for any cost."""

    name: ClassVar[str] = "pot-greenkhorn"
    needs: ClassVar[tuple[str, ...]] = ("ot",)
    tuning: ClassVar[str] = "eps, iterations and tolerance as of all Sinkhorn solvers"

    def couple(self, pair: DiscreteProblem, context: FitContext) -> Coupling:
        """Scale until the marginals are met; POT warns where they are not."""
        import ot
        import torch

        pair, on_all_points = with_mass(pair)
        cost = pair.cost.matrix(pair.x, pair.y)
        eps = eps_of(self, pair, float(pair.a @ cost @ pair.b))
        steps = sum(cost.shape)
        result = ot.bregman.greenkhorn(
            pair.a.cpu().numpy(),
            pair.b.cpu().numpy(),
            cost.cpu().numpy(),
            eps,
            numItermax=self.max_iters * steps,
            stopThr=self.tolerance / steps,
            log=True,
        )
        found, log = cast("tuple[np.ndarray, dict[str, Any]]", result)
        plan, v = (torch.as_tensor(held, device=pair.x.device) for held in (found, log["v"]))
        info = {"eps": eps, "iterations": -(-(log["n_iter"] + 1) // steps)}
        return on_all_points(Coupling(plan, eps * (v / pair.b).log(), eps, info=info))
