"""The Hungarian algorithm (Kuhn 1955; Crouse 2016), optimal assignment of two clouds of one size
and of equal weights, by OTT-JAX's ``ott.tools.unreg.hungarian``, in float64.

OTT calls Optax's ``hungarian_algorithm``, shortest augmenting paths in O(n^3), and returns the
assignment without dual potentials. Nothing is as the library would not have it, but for float64.
In the map setting a new point goes where the nearest sample point goes, as with ``pot-emd``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from otbench import DiscreteProblem, FitContext, Problem
from otbench.errors import UserError
from otbench.methods.adapting import few_entries, with_mass
from otbench.methods.discrete import Coupling, DiscreteSolver
from otbench.methods.jax_arrays import to_jax, to_torch
from otbench.methods.refusals import no_bijection


@dataclass(frozen=True)
class OttHungarian(DiscreteSolver):
    """Optimal one-to-one assignment of two clouds of one size, for any cost."""

    name: ClassVar[str] = "ott-hungarian"
    needs: ClassVar[tuple[str, ...]] = ("jax", "ott")

    def supports(self, problem: Problem) -> str | None:
        """As many points of each measure, of equal weights."""
        return no_bijection(problem)

    def couple(self, pair: DiscreteProblem, context: FitContext) -> Coupling:
        """Match the points.

        Raises:
            UserError: a pair of an amortized problem is not as those it was shown.
        """
        import jax
        from ott.geometry.geometry import Geometry
        from ott.tools.unreg import hungarian

        if reason := self.supports(pair):
            raise UserError(f"{self.name} {reason}")
        pair, on_all_points = with_mass(pair)
        with jax.enable_x64(True):
            found = hungarian(Geometry(cost_matrix=to_jax(pair.cost.matrix(pair.x, pair.y))))[1]
            rows, columns = to_torch(found.paired_indices)
        plan = few_entries(rows, columns, pair.a, (len(pair.a), len(pair.b)))
        return on_all_points(Coupling(plan))
