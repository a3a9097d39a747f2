"""GENOT: generative entropic neural optimal transport (Klein, Uscidda, Theis & Cuturi 2024), by the
last OTT-JAX that has it, 0.5.1, in an environment of its own (``otbench env create ott-genot``).

A velocity field, given x, carries noise to the law of y given x under the entropic plan: it is
trained by flow matching on pairs that are drawn from the plans of batches, whose eps is relative to
their mean cost. Draws from the plan are fresh noise, carried; the map is the mean over ``draws``
fixed noises, an estimate of the barycentric map. Of the library: networks (``VelocityField``),
batch plans (Sinkhorn), training loop and integration. Points are in standard coordinates
(`otbench.methods.standard`); integration is by Tsit5 with equal steps, not adaptive ones. The
entropic plan is not the optimal one: its draws keep a spread that eps decides.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# (of the OTT-JAX in the solver's own environment)

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from otbench import FitContext, MapProblem, Problem, Solver, Transport
from otbench.methods.extension import in_chunks
from otbench.methods.jax_arrays import check_weights, to_jax, to_torch
from otbench.methods.standard import Standard, no_standard


if TYPE_CHECKING:
    import jax
    import torch


@dataclass(frozen=True)
class OttGenot(Solver):
    """Flow from noise to the conditional law of the entropic plan, squared Euclidean cost.

    Attributes:
        steps: of the training.
        batch: points of each measure in a step.
        lr: rate of Adam.
        width: of the three layers of each part of the network.
        eps: of the plans of batches, relative to their mean cost.
        draws: noises that the map is the mean over.
        ode_steps: of the integration.
    """

    name: ClassVar[str] = "ott-genot"
    needs: ClassVar[tuple[str, ...]] = ("jax", "ott", "flax", "diffrax")
    environment: ClassVar[tuple[str, ...]] = ("ott-jax[neural]==0.5.1",)
    steps: int = 2000
    batch: int = 256
    lr: float = 1e-3
    width: int = 64
    eps: float = 0.01
    draws: int = 16
    ode_steps: int = 8

    def __post_init__(self) -> None:
        """Check the parameters."""
        self.require(positive=("steps", "batch", "lr", "width", "eps", "draws", "ode_steps"))

    def supports(self, problem: Problem) -> str | None:
        """Map problems between equal shapes, of squared Euclidean cost."""
        return no_standard(problem)

    def fit(self, problem: Problem, context: FitContext) -> Transport:
        """Train the velocity field.

        Raises:
            DivergedError: the weights are not finite.
        """
        import jax
        import torch

        assert isinstance(problem, MapProblem)
        stream, shape, dim = context.generator, problem.target.shape, problem.source.dim
        units = Standard.of(problem, stream)
        genot = self._genot(dim, jax.random.key(context.seed))
        carry = _integrated(genot.vf, self.ode_steps)

        def batches() -> Iterator[dict[str, jax.Array]]:
            for x, y in zip(*units.batches(problem, self.batch, stream), strict=True):
                yield {"src_lin": to_jax(x), "tgt_lin": to_jax(y)}

        genot(batches(), self.steps, jax.random.key(context.seed + 1))
        weights = genot.vf_state.params
        check_weights(self.name, weights)

        noise = torch.Generator(context.device).manual_seed(context.seed)
        fixed = torch.randn(self.draws, dim, generator=noise, device=context.device)

        def carried(u: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
            return to_torch(carry(weights, to_jax(latent), to_jax(u)))

        def mean(u: torch.Tensor) -> torch.Tensor:
            return torch.stack([carried(u, z.expand(len(u), -1)) for z in fixed]).mean(0)

        def sample(x: torch.Tensor, k: int) -> torch.Tensor:
            stream = torch.Generator(x.device).manual_seed(context.seed)
            latent = torch.randn(len(x), k, dim, generator=stream, device=x.device)
            drawn = [
                units.push(lambda u, z=z: carried(u, z.contiguous()), x, shape)
                for z in latent.unbind(1)
            ]
            return torch.stack(drawn, 1)

        return Transport(
            push=in_chunks(lambda x: units.push(mean, x, shape)),
            sample=sample,
            estimates_map=True,
        )

    def _genot(self, dim: int, key: jax.Array) -> Any:
        """The library's model."""
        import jax
        import optax
        from ott.geometry.pointcloud import PointCloud
        from ott.neural.methods.flows.dynamics import ConstantNoiseFlow
        from ott.neural.methods.flows.genot import GENOT
        from ott.neural.networks.velocity_field import VelocityField
        from ott.solvers import linear

        hidden = [self.width] * 3
        field: Any = VelocityField(hidden, [*hidden, dim], condition_dims=hidden)

        @jax.jit
        def plan(x: jax.Array, y: jax.Array) -> jax.Array:
            # The library takes a relative eps in its units of the mean cost.
            cloud = PointCloud(x, y, epsilon=self.eps, scale_cost="mean")
            return linear.solve(cloud).matrix

        return GENOT(
            field,
            ConstantNoiseFlow(0.0),
            plan,
            source_dim=dim,
            target_dim=dim,
            rng=key,
            optimizer=optax.adam(self.lr),
        )


def _integrated(field: Any, steps: int) -> Callable[..., jax.Array]:
    """``(weights, noise, x)`` to where the noise is carried. It is that of the library's
    ``GENOT.transport``, which is compiled anew at every call and draws the noise itself.
    """
    import jax
    from diffrax import ConstantStepSize, ODETerm, Tsit5, diffeqsolve

    @jax.jit
    def carry(weights, noise: jax.Array, x: jax.Array) -> jax.Array:
        def carried(z: jax.Array, condition: jax.Array) -> jax.Array:
            term = ODETerm(lambda t, y, c: field.apply({"params": weights}, t, y, c, train=False))
            equal = ConstantStepSize()
            given = {"args": condition, "stepsize_controller": equal, "max_steps": steps + 1}
            return diffeqsolve(term, Tsit5(), 0.0, 1.0, 1 / steps, z, **given).ys[0]  # pyright: ignore[reportOptionalSubscript]

        return jax.vmap(carried)(noise, x)

    return carry
