"""Semidiscrete optimal transport: from a measure that can be sampled to a finite sample of the
target, OTT-JAX's ``ott.solvers.linear.semidiscrete.SemidiscreteSolver`` (Mousavi-Hosseini, Zhang,
Klein & Cuturi 2025), in float64.

One potential g_j per target point y_j is found by stochastic ascent of the semi-dual (Genevay,
Cuturi, Peyre & Bach 2016)

    E_x[min_j c(x, y_j) - g_j] + sum_j b_j g_j,

without regularisation, from fresh draws of the source. The library's own map sends x to the point
that attains the minimum, into a cell of the target's Laguerre diagram; for the squared Euclidean
cost it is ``x - grad f(x) / 2``. All steps are made: the library's test of convergence comes after
the last. The target is ``n`` draws, of which those at one place are one point of that weight: a
target of few atoms is met as it is.

The library's tutorial has 30,000 steps of SGD with a rate of 0.1 and 128 draws; here it is Adam
with a rate that falls to nothing (cosine), in units of the mean cost. Averaging of the potential
(0.99) is the library's default. For the squared Euclidean cost each measure is given about its mean
m or k, in units s or r of its spread: with v = y - k the potential is

    g(y) = s r g'(v / r) + (1 - s / r) |v|^2 - 2 <v, m - k>

of the g' that is found, so that clouds that are far apart or of different size start no worse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from otbench import EUCLIDEAN, SQEUCLIDEAN, FitContext, MapProblem, Problem, Solver, Transport
from otbench.errors import DivergedError
from otbench.methods.discrete import sample_pair
from otbench.methods.extension import c_transform, in_chunks
from otbench.methods.jax_arrays import to_jax, to_torch
from otbench.methods.refusals import other_cost
from otbench.methods.sample_maps import standard
from otbench.metrics import merged
from otbench.problem import DiscreteProblem, Truth


if TYPE_CHECKING:
    import jax
    import torch


@dataclass(frozen=True)
class OttSemidiscrete(Solver):
    """Map from a continuous source to sampled target points, by stochastic ascent of the semi-dual.

    Attributes:
        n: points sampled from the target.
        steps: of the ascent.
        batch: draws of the source in each step.
        lr: rate of Adam at the start, in units of the mean cost.
    """

    name: ClassVar[str] = "ott-semidiscrete"
    needs: ClassVar[tuple[str, ...]] = ("jax", "ott")
    tuning: ClassVar[str] = "lr: gaussian in dimension 2, seed 1000, n=256"
    n: int = 1024
    steps: int = 4000
    batch: int = 256
    lr: float = 0.01

    def __post_init__(self) -> None:
        """Check the parameters."""
        self.require(positive=("n", "steps", "batch", "lr"))

    def supports(self, problem: Problem) -> str | None:
        """Map problems, for the costs that OTT has too."""
        if not isinstance(problem, MapProblem):
            return "takes map problems only, whose source can be sampled"
        return other_cost(problem, SQEUCLIDEAN, EUCLIDEAN)

    def fit(self, problem: Problem, context: FitContext) -> Transport:
        """Sample the target, then ascend. ``info_marginal_chi2`` is the library's estimate of how
        far the masses of the cells are from the weights: sum_j (mass_j - b_j)^2 / b_j.

        Raises:
            DivergedError: the potential is not finite.
        """
        import jax
        import optax
        from ott.geometry import costs
        from ott.geometry.semidiscrete_pointcloud import SemidiscretePointCloud
        from ott.problems.linear.semidiscrete_linear_problem import SemidiscreteLinearProblem
        from ott.solvers.linear.semidiscrete import SemidiscreteSolver

        assert isinstance(problem, MapProblem)
        pair = sample_pair(problem, self.n, context.generator)
        y, _, (b,) = merged(pair.y, pair.b)
        if problem.cost == SQEUCLIDEAN:
            (_, m, s), (_, k, r) = standard(pair.x), standard(pair.y)
            s, r = 2**0.5 * s or 1.0, 2**0.5 * r or 1.0
        else:
            m = k = pair.y.flatten(1).mean(0)
            s = r = float(problem.cost.pairwise(pair.x, pair.y).mean()) or 1.0

        def draw(count: int, stream: torch.Generator) -> torch.Tensor:
            return (problem.source.sample(count, stream).double().flatten(1) - m) / s

        sampler = _sampler(draw, context.device)
        cost = costs.SqEuclidean() if problem.cost == SQEUCLIDEAN else costs.Euclidean()
        solver = SemidiscreteSolver(
            num_iterations=self.steps,
            batch_size=self.batch,
            optimizer=optax.adam(optax.cosine_decay_schedule(self.lr, self.steps)),
            error_eval_every=self.steps,
        )

        @jax.jit
        def solve(key: jax.Array, y: jax.Array, b: jax.Array):
            cloud = SemidiscretePointCloud(sampler, y, cost, epsilon=0.0)
            return solver(key, SemidiscreteLinearProblem(cloud, b))

        with jax.enable_x64(True), jax.default_matmul_precision("highest"):
            v = y.flatten(1) - k
            found = solve(jax.random.key(context.seed), to_jax(v / r), to_jax(b))
            g = to_torch(found.g) * s
            if problem.cost == SQEUCLIDEAN:
                g = g * r + (1 - s / r) * v.square().sum(1) - 2 * v @ (m - k)
            chi2 = float(found.errors[-1])
        if not g.isfinite().all():
            raise DivergedError("ott-semidiscrete: the potential is not finite; lower lr")
        cells = DiscreteProblem(pair.x, pair.a, y, b, problem.cost, Truth("none"))

        def push(x: torch.Tensor) -> torch.Tensor:
            return y[(problem.cost.matrix(x, y) - g).argmin(1)]

        return Transport(
            push=in_chunks(push),
            potential=c_transform(cells, g, None),
            info={"n": len(y), "marginal_chi2": chi2},
        )


def _sampler(
    draw: Callable[[int, torch.Generator], torch.Tensor], device: str
) -> Callable[..., jax.Array]:
    """``draw`` as the library asks for points: from ``(key, shape, dtype)``, whenever it likes, the
    same for the same key.
    """
    import jax
    import numpy as np
    import torch

    def drawn(shape: tuple[int, ...], words: jax.Array) -> np.ndarray:
        stream = torch.Generator(device).manual_seed(int(np.asarray(words).view(np.int64)[0]))
        return draw(shape[0], stream).detach().float().cpu().numpy()

    def sample(key: jax.Array, shape: tuple[int, ...], dtype: jax.typing.DTypeLike) -> jax.Array:
        single = jax.ShapeDtypeStruct(shape, np.float32)  # JAX's threads know no float64
        words = jax.random.key_data(key)
        return jax.pure_callback(lambda words: drawn(shape, words), single, words).astype(dtype)

    return sample
