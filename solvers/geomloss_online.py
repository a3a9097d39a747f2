"""Symmetric Sinkhorn iterations with annealing of eps, in the log domain (Feydy 2020, section 3.3),
with costs computed anew at each iteration: GeomLoss's ``geomloss.ot.solve_sample`` on KeOps
(Charlier et al. 2021), in float64 on the problem's device.

KeOps compiles a few kernels with the C++ or CUDA compiler of the machine at their first use, which
is booked to the first fit, and keeps them. Memory grows with the number of points until the plan is
formed from the potentials. Parameters, potentials and convergence are those of ``geomloss``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from otbench import SQEUCLIDEAN, DiscreteProblem, FitContext, Problem
from otbench.methods.adapting import mean_cost, standardised, with_mass
from otbench.methods.discrete import Coupling, SinkhornSolver
from otbench.methods.refusals import other_cost


@dataclass(frozen=True)
class GeomLossOnline(SinkhornSolver):
    """Entropic optimal transport between two clouds, squared Euclidean cost."""

    name: ClassVar[str] = "geomloss-online"
    needs: ClassVar[tuple[str, ...]] = ("geomloss", "pykeops")
    tuning: ClassVar[str] = "max_iters as in GeomLoss's examples; eps as of all Sinkhorn solvers"
    presets: ClassVar[Mapping[str, Mapping[str, float | int | str | bool]]] = {
        "precise": {"max_iters": 2000}
    }
    max_iters: int = 100

    def supports(self, problem: Problem) -> str | None:
        """The cost that GeomLoss computes from points."""
        return other_cost(problem, SQEUCLIDEAN)

    def couple(self, pair: DiscreteProblem, context: FitContext) -> Coupling:
        """Take all steps."""
        from geomloss import ot

        pair, on_all_points = with_mass(pair)
        x, y, unit = standardised(pair)
        eps = self.in_cost_units(pair, mean_cost(pair))
        solved = ot.solve_sample(
            x, y, a=pair.a, b=pair.b, reg=eps / unit**2, max_iter=self.max_iters
        )
        found = cast("Any", solved)
        info = {"eps": eps, "iterations": self.max_iters}
        return on_all_points(Coupling(found.plan, found.potential_b * unit**2, eps, info=info))
