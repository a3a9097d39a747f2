"""Symmetric Sinkhorn iterations with annealing of eps, in the log domain (Feydy 2020, section 3.3),
GeomLoss's ``geomloss.ot.solve``, in float64 on the problem's device.

GeomLoss takes the cost matrix as it is: its ``reg`` is eps in cost units, its potentials are
relative to the weights, as here, and its plan is that of the entropic problem, not debiased. (Its
older ``SamplesLoss(p=2)`` has ``||x - y||^2 / 2`` and ``blur^2`` for these, half of both.) eps
falls from the range of the costs to its value in ``max_iters`` steps, all of which are taken:
GeomLoss has no stopping rule yet, so ``tolerance`` stops nothing here. The marginal error falls as
1 / ``max_iters``: a few hundredths by default, thousandths with ``geomloss[preset=precise]``. In
the map setting new points follow the entropic map (Pooladian & Niles-Weed 2021); draws given a new
point have the weights of which that map is the mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from otbench import DiscreteProblem, FitContext
from otbench.methods.adapting import with_mass
from otbench.methods.discrete import Coupling, SinkhornSolver


@dataclass(frozen=True)
class GeomLoss(SinkhornSolver):
    """Entropic optimal transport between two clouds, for any cost."""

    name: ClassVar[str] = "geomloss"
    needs: ClassVar[tuple[str, ...]] = ("geomloss",)
    tuning: ClassVar[str] = "max_iters as in GeomLoss's examples; eps as of all Sinkhorn solvers"
    presets: ClassVar[Mapping[str, Mapping[str, float | int | str | bool]]] = {
        "precise": {"max_iters": 2000}
    }
    max_iters: int = 100

    def couple(self, pair: DiscreteProblem, context: FitContext) -> Coupling:
        """Take all steps."""
        from geomloss import ot

        pair, on_all_points = with_mass(pair)
        cost = pair.cost.matrix(pair.x, pair.y)
        eps = self.in_cost_units(pair, float(pair.a @ cost @ pair.b))
        found = cast("Any", ot.solve(cost, reg=eps, a=pair.a, b=pair.b, max_iter=self.max_iters))
        info = {"eps": eps, "iterations": self.max_iters}
        return on_all_points(Coupling(found.plan, found.potential_b, eps, info=info))
