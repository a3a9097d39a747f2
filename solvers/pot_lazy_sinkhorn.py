"""Sinkhorn's algorithm in the log domain (Cuturi 2013; Schmitzer 2019) with costs computed anew in
blocks at each iteration: POT's ``ot.solve_sample(lazy=True, reg=...)``, that is
``ot.bregman.empirical_sinkhorn(isLazy=True)``, in float64.

Memory grows with the number of points until the plan is formed from the potentials. POT expands
``||x - y||^2``, so it is given points about their mean, in units of their distance. Its plan is
``P_ij = exp(u_i + v_j - C_ij / eps)``: the potential relative to the weights is ``g = eps (v - log
b)``. It stops on the l1 norm of the marginal error of a every tenth iteration, those of b being
exact. In the map setting new points follow the entropic map (Pooladian & Niles-Weed 2021); draws
given a new point have the weights of which that map is the mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

from otbench import EUCLIDEAN, SQEUCLIDEAN, DiscreteProblem, FitContext, Problem
from otbench.methods.adapting import mean_cost, standardised, with_mass
from otbench.methods.discrete import Coupling, SinkhornSolver
from otbench.methods.refusals import other_cost


if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class PotLazySinkhorn(SinkhornSolver):
    """Entropic optimal transport between two clouds, squared Euclidean or Euclidean cost.

    Attributes:
        block: points whose costs to all others are held at a time; POT's default.
    """

    name: ClassVar[str] = "pot-lazy-sinkhorn"
    needs: ClassVar[tuple[str, ...]] = ("ot",)
    tuning: ClassVar[str] = "POT's block; eps, iterations and tolerance as of all Sinkhorn solvers"
    block: int = 100

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        self.require(at_least_one=("block",))

    def supports(self, problem: Problem) -> str | None:
        """The costs that POT computes from points."""
        return other_cost(problem, SQEUCLIDEAN, EUCLIDEAN)

    def couple(self, pair: DiscreteProblem, context: FitContext) -> Coupling:
        """Iterate until the marginals are met; POT warns where they are not."""
        import ot

        pair, on_all_points = with_mass(pair)
        x, y, unit = standardised(pair)
        eps = self.in_cost_units(pair, mean_cost(pair))
        result = ot.bregman.empirical_sinkhorn(
            x,
            y,
            eps / unit**pair.cost.power,
            pair.a,
            pair.b,
            metric=pair.cost.name,
            numIterMax=self.max_iters,
            stopThr=self.tolerance,
            isLazy=True,
            batchSize=self.block,
            log=True,
        )
        _, v, log = cast("tuple[torch.Tensor, torch.Tensor, dict[str, Any]]", result)
        info = {"eps": eps, "iterations": log["niter"] + 1}
        g = eps * (v - pair.b.log())
        return on_all_points(Coupling(log["lazy_plan"][:], g, eps, info=info))
