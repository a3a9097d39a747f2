"""Sinkhorn's algorithm in the log domain (Cuturi 2013) by OTT-JAX (Cuturi et al. 2022), in float64,
which is not JAX's default.

OTT's squared Euclidean cost is ``||x - y||^2`` and its Euclidean cost ``||x - y||`` as here,
unsmoothed, so eps needs no conversion. In the map setting new points follow, for the former, OTT's
own entropic map ``T(x) = x - grad f(x) / 2`` (``DualPotentials.transport``), f being the soft
c-transform of g at x; for the latter, whose gradient has no inverse, the entropic map of Pooladian
& Niles-Weed (2021). Draws given a new point have the weights of which that map is the mean. OTT's g
contains ``eps log b`` (``P_ij = exp((f_i + g_j - C_ij) / eps)``): its c-transform, which weighs
with b again, is given no b, and the potential relative to the weights is ``g - eps log b``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from otbench import EUCLIDEAN, SQEUCLIDEAN, Cost, DiscreteProblem, FitContext, Problem
from otbench.methods.adapting import centred, mean_cost
from otbench.methods.discrete import Coupling, SinkhornSolver
from otbench.methods.jax_arrays import to_jax, to_torch
from otbench.methods.refusals import other_cost


if TYPE_CHECKING:
    import jax
    import torch


@dataclass(frozen=True)
class OttSinkhorn(SinkhornSolver):
    """Entropic optimal transport between two clouds, squared Euclidean or Euclidean cost."""

    name: ClassVar[str] = "ott-sinkhorn"
    needs: ClassVar[tuple[str, ...]] = ("jax", "ott")

    def supports(self, problem: Problem) -> str | None:
        """The costs that OTT has too."""
        return other_cost(problem, SQEUCLIDEAN, EUCLIDEAN)

    def couple(self, pair: DiscreteProblem, context: FitContext) -> Coupling:
        """Iterate until the marginals are met (OTT looks every tenth iteration, at the l1 norm).

        Raises:
            MissingError: the problem is on a GPU that this JAX does not know.
        """
        import jax
        import numpy as np

        solve, transport = _compiled(pair.cost, self.max_iters, self.tolerance)
        x, y, origin = centred(pair)
        mean = mean_cost(pair)
        eps = self.in_cost_units(pair, mean)
        with jax.enable_x64(True):
            output, matrix = solve(to_jax(x), to_jax(y), to_jax(pair.a), to_jax(pair.b), eps)
            plan, potential = to_torch(matrix), to_torch(output.g)
            iterations = int(output.n_iters)
            output = jax.tree.map(np.asarray, output)  # stays float64 when it is saved and loaded
        g = (potential - eps * pair.b.log()).masked_fill(pair.b == 0, 0)  # where it is -inf + inf
        info = self.report(eps, mean, iterations)
        if pair.cost == EUCLIDEAN:
            return Coupling(plan, g, eps, info=info)

        def push(new: torch.Tensor) -> torch.Tensor:
            with jax.enable_x64(True):
                pushed = to_torch(transport(output, to_jax(new.flatten(1) - origin)))
            return (pushed + origin).reshape(-1, *pair.y.shape[1:])

        return Coupling(plan, g, eps, push, info)


@cache
def _compiled(
    cost: Cost, max_iters: int, tolerance: float
) -> tuple[Callable[..., Any], Callable[..., jax.Array]]:
    """The solver and its map, compiled once per shape, however often they are asked for."""
    import jax
    from ott.geometry import costs
    from ott.geometry.pointcloud import PointCloud
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers import linear

    cost_fn = costs.Euclidean() if cost == EUCLIDEAN else costs.SqEuclidean()

    @jax.jit
    def solve(x: jax.Array, y: jax.Array, a: jax.Array, b: jax.Array, eps: float):
        with jax.default_matmul_precision("highest"):
            output = linear.solve(
                PointCloud(x, y, cost_fn, epsilon=eps),
                a,
                b,
                max_iterations=max_iters,
                threshold=tolerance,
            )
            return output, output.matrix

    @jax.jit
    def transport(output, x: jax.Array) -> jax.Array:
        with jax.default_matmul_precision("highest"):
            return output.set(ot_prob=LinearProblem(output.geom)).to_dual_potentials().transport(x)

    return solve, transport
