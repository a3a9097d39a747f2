"""Sinkhorn's algorithm (Cuturi 2013) among the points with mass, stabilised (Schmitzer 2019):
solving from scratch, as fast as we can.

The code of the truths of entropic tasks (`otbench.methods.entropic`), in float64. On digits, where
most points have no mass, it takes less than a hundredth of the time of `pot-sinkhorn`, which keeps
them, and a tenth of that of `ott-sinkhorn`; so it is what learning has to be measured against. In
the map setting new points follow the entropic map (Pooladian & Niles-Weed 2021); draws given a new
point have the weights of which that map is the mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from otbench import DiscreteProblem, FitContext
from otbench.methods.discrete import Coupling, SinkhornSolver


@dataclass(frozen=True)
class Sinkhorn(SinkhornSolver):
    """Entropic optimal transport between two clouds, for any cost."""

    name: ClassVar[str] = "sinkhorn"

    def couple(self, pair: DiscreteProblem, context: FitContext) -> Coupling:
        """Iterate until the marginals are met."""
        problem = self.entropic_problem(pair)
        eps = problem.eps
        found = problem.solve(tolerance=self.tolerance, max_iters=self.max_iters)
        g = found.g.new_zeros(len(pair.b)).index_copy_(0, problem.columns, found.g)
        info = {
            "eps": eps,
            "iterations": found.iterations,
        }
        return Coupling(problem.on_all_points(found.plan), g, eps, info=info)
