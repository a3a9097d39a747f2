"""Sinkhorn's algorithm in the log domain (Cuturi 2013) by OTT-JAX (Cuturi et al. 2022), in float32, JAX's default.

OTT's squared Euclidean cost is ``||x - y||^2`` as here, so eps needs no conversion. In the map setting new points follow OTT's own
entropic map ``T(x) = x - grad f(x) / 2`` (``DualPotentials.transport``), f being the soft c-transform of g at x.
OTT's g contains ``eps log b`` (``P_ij = exp((f_i + g_j - C_ij) / eps)``), but its c-transform weighs with b again: leave b out there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from otbench import SQEUCLIDEAN, DiscreteProblem, MissingError, Problem, Run
from otbench.discrete import Coupling, SinkhornSolver


if TYPE_CHECKING:
    import jax
    import torch


@dataclass(frozen=True)
class OttSinkhorn(SinkhornSolver):
    """Entropic optimal transport between two clouds, squared Euclidean cost."""

    name: ClassVar[str] = "ott-sinkhorn"
    needs: ClassVar[tuple[str, ...]] = ("jax", "ott")

    def supports(self, problem: Problem) -> str | None:
        """The cost that OTT's map inverts."""
        return None if problem.cost == SQEUCLIDEAN else f"takes the sqeuclidean cost only, not {problem.cost.name}"

    def couple(self, pair: DiscreteProblem, run: Run) -> Coupling:
        """Iterate until the marginals are met (OTT looks every tenth iteration, at the l1 norm).

        Raises:
            MissingError: the problem is on a GPU that this JAX does not know.
        """
        import torch

        solve, transport = _compiled(self.max_iters, self.tolerance)
        mean_cost = float(pair.a @ pair.cost.matrix(pair.x, pair.y) @ pair.b)
        eps = self.in_cost_units(mean_cost)
        output, matrix = solve(*(_to_jax(tensor.flatten(1)) for tensor in (pair.x, pair.y)), _to_jax(pair.a), _to_jax(pair.b), eps)

        def push(x: torch.Tensor) -> torch.Tensor:
            return torch.from_dlpack(transport(output, _to_jax(x.flatten(1)))).reshape(-1, *pair.y.shape[1:])

        plan = torch.from_dlpack(matrix).to(pair.x.dtype)
        return Coupling(plan, push=push, info=self.report(pair, plan, eps, mean_cost, int(output.n_iters)))


@cache
def _compiled(max_iters: int, tolerance: float) -> tuple[Callable[..., Any], Callable[..., jax.Array]]:
    """The solver and its map, compiled once per shape, however often they are asked for. TF32 products would cost eps its meaning."""
    import jax
    from ott.geometry.pointcloud import PointCloud
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers import linear

    @jax.jit
    def solve(x: jax.Array, y: jax.Array, a: jax.Array, b: jax.Array, eps: float):
        with jax.default_matmul_precision("highest"):
            output = linear.solve(PointCloud(x, y, epsilon=eps), a, b, max_iterations=max_iters, threshold=tolerance)
            return output, output.matrix

    @jax.jit
    def transport(output, x: jax.Array) -> jax.Array:
        with jax.default_matmul_precision("highest"):
            return output.set(ot_prob=LinearProblem(output.geom)).to_dual_potentials().transport(x)

    return solve, transport


def _to_jax(tensor: torch.Tensor) -> jax.Array:
    import jax

    if tensor.is_cuda and jax.default_backend() == "cpu":
        raise MissingError("ott-sinkhorn on cuda needs JAX with CUDA: pip install 'jax[cuda12]', or run with --device cpu")
    return jax.dlpack.from_dlpack(tensor.float().contiguous())
