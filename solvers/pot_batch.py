"""Sinkhorn's algorithm in the log domain (Cuturi 2013) on stacks of problems, POT's
``ot.batch.solve_batch(method="log_sinkhorn")``, in float64 on the problem's device.

The setting asks for the plan of one held-out pair after the other, so a stack holds one pair. POT's
plan is ``P_ij = exp(u_i + v_j - C_ij / eps)``: the potential relative to the weights is ``g = eps
(v - log b)``. POT stops on the l2 norm of the marginal error of a every tenth iteration, without a
word where it is not met; ``tolerance / sqrt(n)`` there implies ``tolerance`` in the l1 norm. In the
map setting new points follow the entropic map (Pooladian & Niles-Weed 2021); draws given a new
point have the weights of which that map is the mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, cast

from otbench import DiscreteProblem, FitContext
from otbench.methods.adapting import with_mass
from otbench.methods.discrete import Coupling, SinkhornSolver


@dataclass(frozen=True)
class PotBatch(SinkhornSolver):
    """Entropic optimal transport between two clouds, for any cost."""

    name: ClassVar[str] = "pot-batch"
    needs: ClassVar[tuple[str, ...]] = ("ot",)
    tuning: ClassVar[str] = "eps, iterations and tolerance as of all Sinkhorn solvers"

    def couple(self, pair: DiscreteProblem, context: FitContext) -> Coupling:
        """Iterate until the marginals are met."""
        import ot

        pair, on_all_points = with_mass(pair)
        cost = pair.cost.matrix(pair.x, pair.y)
        eps = self.in_cost_units(pair, float(pair.a @ cost @ pair.b))
        result = ot.batch.solve_batch(
            cost[None],
            eps,
            pair.a[None],
            pair.b[None],
            max_iter=self.max_iters,
            tol=self.tolerance / len(pair.a) ** 0.5,
            method="log_sinkhorn",
            grad="detach",
        )
        found = cast("Any", result)  # whose fields are declared as perhaps None
        info = {"eps": eps, "iterations": found.log["n_iter"] + 1}
        g = eps * (found.potentials[1][0] - pair.b.log())
        return on_all_points(Coupling(found.plan[0], g, eps, info=info))
