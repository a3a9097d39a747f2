"""Low-rank Sinkhorn: the cheapest coupling of a given rank (Scetbon, Cuturi & Peyre 2021), by
OTT-JAX's ``ott.solvers.linear.sinkhorn_lr.LRSinkhorn``, in float64.

The plan is ``Q diag(1/g) R^T``, with ``rank`` columns of Q and R, found by mirror descent whose
steps are projected by Dykstra's algorithm. Its cost is above the optimum by what the rank is too
small for; it is a local minimum, so that it depends on the factors it begins with, which are drawn
anew for every seed (the library: always the same). Steps are in units of the costs, which are
divided by their mean, the library's ``scale_cost="mean"``, as it is not by default; for the squared
Euclidean cost they are never a matrix. Points without weight are left out.

The library's default tolerance, 1e-3, stops near the plan of independent points; here it is 1e-5.

There is no dual: in the map setting a new point goes to the mean of the row of the nearest sample
point. The library's ``epsilon``, on the entropies of the factors, is 0, its default.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

from otbench import SQEUCLIDEAN, DiscreteProblem, FitContext, Problem
from otbench.errors import DivergedError
from otbench.methods.adapting import centred, with_mass
from otbench.methods.discrete import Coupling, DiscreteSolver
from otbench.methods.jax_arrays import to_jax, to_torch
from otbench.methods.refusals import regularised


DYKSTRA = 1e-3  # the library's default


@dataclass(frozen=True)
class OttLrSinkhorn(DiscreteSolver):
    """Cheapest coupling of low rank between two clouds, for any cost.

    Attributes:
        rank: of the plan; at most as many as there are points.
        gamma: step of the mirror descent, in units of the largest entry of its gradients.
        max_iters: most steps.
        tolerance: stop where the factors change less in a step, in Jensen-Shannon divergence.
    """

    name: ClassVar[str] = "ott-lr-sinkhorn"
    needs: ClassVar[tuple[str, ...]] = ("jax", "ott")
    tuning: ClassVar[str] = (
        "rank, tolerance: Gaussian clouds of 60 to 300 points, seeds 1000 and 1001"
    )
    rank: int = 20
    gamma: float = 10.0
    max_iters: int = 2000
    tolerance: float = 1e-5

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        self.require(positive=("rank", "gamma", "max_iters", "tolerance"))

    @property
    def marginal_tolerance(self) -> float:
        """That of the library's Dykstra's algorithm, which meets the marginals after each step."""
        return DYKSTRA

    def supports(self, problem: Problem) -> str | None:
        """Problems without an eps: a plan of low rank is not regularised by one."""
        return regularised(problem)

    def couple(self, pair: DiscreteProblem, context: FitContext) -> Coupling:
        """Descend from random factors.

        Raises:
            DivergedError: the factors are not finite, as where all costs are zero.
        """
        import jax

        pair, on_all_points = with_mass(pair)
        if pair.cost == SQEUCLIDEAN:  # rounds less about the origin
            costs = centred(pair)[:2]
        else:
            costs = (pair.cost.matrix(pair.x, pair.y),)
        rank = min(self.rank, len(pair.x), len(pair.y))
        solve = _compiled(rank, self.gamma, self.max_iters, self.tolerance)
        with jax.enable_x64(True):
            marginals = to_jax(pair.a), to_jax(pair.b)
            key = jax.random.key(context.seed)
            matrix, iterations = solve(tuple(map(to_jax, costs)), *marginals, key)
            found, iterations = to_torch(matrix), int(iterations)
        if not found.sum().isfinite():
            raise DivergedError(
                "ott-lr-sinkhorn: the plan is not finite; lower gamma, or give it costs that are "
                "not all zero"
            )
        return on_all_points(Coupling(found, info={"rank": rank, "iterations": iterations}))


@cache
def _compiled(rank: int, gamma: float, max_iters: int, tolerance: float) -> Callable[..., Any]:
    """The solver, compiled once per shape, however often it is asked for."""
    import jax
    from ott.geometry.geometry import Geometry
    from ott.geometry.pointcloud import PointCloud
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers.linear.sinkhorn_lr import LRSinkhorn

    solver = LRSinkhorn(rank, gamma, max_iterations=max_iters, threshold=tolerance)

    @jax.jit
    def solve(costs, a, b, key):
        geometry = (PointCloud if len(costs) == 2 else Geometry)(*costs, scale_cost="mean")
        with jax.default_matmul_precision("highest"):
            output = solver(LinearProblem(geometry, a, b), rng=key)
            return output.matrix, output.n_iters

    return solve
