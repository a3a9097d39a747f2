"""Greedy Sinkhorn, Greenkhorn (Altschuler, Weed & Rigollet 2017): each step scales the one row or
column whose marginal is farthest off. POT's ``ot.bregman.greenkhorn``, in float64 on the host.

``max_iters`` counts n + m steps as one. POT stops on the largest marginal error of a row or column:
``tolerance / (n + m)`` there implies ``tolerance`` in the l1 norm. It scales ``exp(-C / eps)``,
which vanishes where a point is farther than 700 eps from all others: then nothing is returned.
POT's plan is ``P_ij = u_i v_j exp(-C_ij / eps)``: the potential relative to the weights is ``g =
eps log (v / b)``. In the map setting new points follow the entropic map (Pooladian & Niles-Weed
2021); draws given a new point have the weights of which that map is the mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

from otbench import DiscreteProblem, FitContext
from otbench.errors import DivergedError
from otbench.methods.adapting import with_mass
from otbench.methods.discrete import Coupling, SinkhornSolver


if TYPE_CHECKING:
    import numpy as np

VANISHED = 700.0  # exp(-745) is the least positive number


@dataclass(frozen=True)
class PotGreenkhorn(SinkhornSolver):
    """Entropic optimal transport between two clouds, one row or column at a time, for any cost."""

    name: ClassVar[str] = "pot-greenkhorn"
    needs: ClassVar[tuple[str, ...]] = ("ot",)
    tuning: ClassVar[str] = "eps, iterations and tolerance as of all Sinkhorn solvers"

    def couple(self, pair: DiscreteProblem, context: FitContext) -> Coupling:
        """Scale until the marginals are met; POT warns where they are not.

        Raises:
            DivergedError: all entries of a row or column of the kernel vanish.
        """
        import ot
        import torch

        pair, on_all_points = with_mass(pair)
        cost = pair.cost.matrix(pair.x, pair.y)
        eps = self.in_cost_units(pair, float(pair.a @ cost @ pair.b))
        farthest = max(float(cost.amin(side).max()) for side in (0, 1))
        if farthest > VANISHED * eps:
            raise DivergedError(
                f"{self.name}: exp(-C / eps) vanishes at eps = {eps:.3g} for a point of least "
                f"cost {farthest:.3g}; take a larger eps, or pot-eps-scaling"
            )
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
