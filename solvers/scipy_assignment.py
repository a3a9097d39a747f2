"""Optimal assignment of two clouds of equal size and weights, the linear sum assignment problem, by
a shortest augmenting path algorithm (Jonker & Volgenant 1987; Crouse 2016): SciPy's
``scipy.optimize.linear_sum_assignment``, on the host.

Between such clouds an optimal plan is a bijection (Birkhoff), so this is exact optimal transport,
without the linear program. SciPy returns no dual: there is no potential. In the map setting a new
point goes where the nearest sample point goes: the 1-NN estimator of Manole et al. 2021.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from otbench import DiscreteProblem, FitContext, Problem
from otbench.methods.adapting import few_entries, with_mass
from otbench.methods.discrete import Coupling, DiscreteSolver
from otbench.methods.refusals import no_bijection


@dataclass(frozen=True)
class ScipyAssignment(DiscreteSolver):
    """Cheapest bijection of two clouds, for any cost."""

    name: ClassVar[str] = "scipy-assignment"
    needs: ClassVar[tuple[str, ...]] = ("scipy",)
    tuning: ClassVar[str] = "nothing to choose"

    def supports(self, problem: Problem) -> str | None:
        """As many points of each measure, of equal weights."""
        return no_bijection(problem)

    def couple(self, pair: DiscreteProblem, context: FitContext) -> Coupling:
        """Assign.

        Raises:
            ValueError: the numbers of points or their weights differ.
        """
        import torch
        from scipy.optimize import linear_sum_assignment

        if reason := no_bijection(pair):
            raise ValueError(f"{self.name} {reason}")
        pair, on_all_points = with_mass(pair)
        cost = pair.cost.matrix(pair.x, pair.y)
        rows, columns = (torch.as_tensor(side) for side in linear_sum_assignment(cost.cpu()))
        shape = len(pair.a), len(pair.b)
        plan = few_entries(rows.to(pair.a.device), columns.to(pair.a.device), pair.a, shape)
        return on_all_points(Coupling(plan))
