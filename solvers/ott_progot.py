"""Progressive entropic optimal transport (Kassraie, Pooladian, Klein, Thornton, Niles-Weed & Cuturi
2024), OTT-JAX's ``ott.tools.progot.ProgOT``, in float64.

The source points walk to the target in ``steps``: each step couples where they are with the target
by Sinkhorn's algorithm and moves them part of the way along its entropic map. The map of new points
is the library's own, the same walk; the plan is that of the last step, between the last stop and
the target. It has the marginals, but it is no entropic plan of the costs between x and y, and it
has no potential of them.

The library's default eps is 0.05 standard deviations of the costs, anew at every step, and the
paper's falls or rises between one for the first step and one that is chosen by a trial transport of
held-out target points. Here it is ``eps``, the same at all steps. The library ignores weights, so
that only equal ones are taken. Of OTT-JAX 0.6 each step of a fit begins between the first points
and the last images (since its pull request 650), not between the last points and the last images as
in the paper and in its own map of new points; so it is asked for one step at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from otbench import SQEUCLIDEAN, DiscreteProblem, FitContext, Problem
from otbench.errors import DivergedError, UserError
from otbench.methods.adapting import centred, mean_cost
from otbench.methods.discrete import Coupling, SinkhornSolver
from otbench.methods.jax_arrays import to_jax, to_torch
from otbench.methods.refusals import other_cost, regularised, weighted


if TYPE_CHECKING:
    import jax
    import torch


@dataclass(frozen=True)
class OttProgot(SinkhornSolver):
    """Entropic transport in steps, each from where the last one led.

    Attributes:
        steps: number of steps.
        speed: part of the way of each step: ``lin``, equal parts of the whole way; ``exp``, 1/e of
            what is left; ``quad``, faster and faster.
    """

    name: ClassVar[str] = "ott-progot"
    needs: ClassVar[tuple[str, ...]] = ("jax", "ott")
    tuning: ClassVar[str] = "steps: gaussian in dimension 2 and 8, shifts 1 and 5, seed 1000"
    steps: int = 4
    speed: Literal["lin", "exp", "quad"] = "lin"

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        self.require(at_least_one=("steps",))
        if self.speed not in ("lin", "exp", "quad"):
            raise ValueError(f"speed must be lin, exp or quad, got {self.speed!r}")

    def supports(self, problem: Problem) -> str | None:
        """The squared Euclidean cost, points of equal weights, no eps."""
        return other_cost(problem, SQEUCLIDEAN) or weighted(problem) or regularised(problem)

    def couple(self, pair: DiscreteProblem, context: FitContext) -> Coupling:
        """Walk to the target; ``info_iterations`` is the sum over the steps.

        Raises:
            DivergedError: the potentials are not finite, as where all costs are zero.
            UserError: a pair of an amortized problem is not as those it was shown.
        """
        import jax
        import numpy as np

        if reason := self.supports(pair):
            raise UserError(f"{self.name} {reason}")
        x, y, origin = centred(pair)
        mean = mean_cost(pair)
        eps = self.in_cost_units(pair, mean)
        solve, transport = _compiled(self.steps, self.speed, self.max_iters, self.tolerance)
        with jax.enable_x64(True):
            output, matrix, iterations = solve(to_jax(x), to_jax(y), eps)
            plan, iterations = to_torch(matrix), int(iterations)
            output = jax.tree.map(np.asarray, output)  # stays float64 when it is saved and loaded
        if not plan.sum().isfinite():
            raise DivergedError(
                "ott-progot: the plan is not finite; raise eps, or give it costs that are not zero"
            )

        def push(new: torch.Tensor) -> torch.Tensor:
            with jax.enable_x64(True):
                pushed = to_torch(transport(output, to_jax(new.flatten(1) - origin)))
            return (pushed + origin).reshape(-1, *pair.y.shape[1:])

        info = self.report(eps, mean, iterations)
        return Coupling(plan, push=push, info=info)


@cache
def _compiled(
    steps: int, speed: Literal["lin", "exp", "quad"], max_iters: int, tolerance: float
) -> tuple[Callable[..., Any], Callable[..., jax.Array]]:
    """The solver and its map, compiled once per shape, however often they are asked for."""
    import jax
    import jax.numpy as jnp
    from ott.geometry.pointcloud import PointCloud
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.tools.progot import ProgOT, ProgOTOutput, get_alpha_schedule

    @jax.jit
    def solve(x: jax.Array, y: jax.Array, eps: float):
        alphas = get_alpha_schedule(speed, num_steps=steps)
        epsilons = jnp.full(1, eps)
        with jax.ensure_compile_time_eval():  # the library looks at the value of alpha
            stepper = ProgOT(jnp.ones(1), epsilons=epsilons)

        def step(at: jax.Array, alpha: jax.Array):
            problem = LinearProblem(PointCloud(at, y))
            done = stepper(problem, max_iterations=max_iters, threshold=tolerance)
            return (1 - alpha) * at + alpha * done.transport(at)[1], done.get_output(0)

        with jax.default_matmul_precision("highest"):
            outputs = jax.lax.scan(step, x, alphas)[1]
            problem = LinearProblem(PointCloud(x, y))
            output = ProgOTOutput(problem, alphas, jnp.full(steps, eps), outputs)
            return output, output.get_output(-1).matrix, output.num_iters.sum()

    @jax.jit
    def transport(output, x: jax.Array) -> jax.Array:
        with jax.default_matmul_precision("highest"):
            return output.transport(x)[1]

    return solve, transport
