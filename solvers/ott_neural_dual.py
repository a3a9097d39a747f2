"""Neural dual with conjugates by L-BFGS (Makkuva et al. 2020; Amos 2023), OTT-JAX's
``ott.neural.methods.neuraldual.W2NeuralDual``, in float32.

It maximises the dual of the correlation <x, y>, -E[f(x)] - E[f*(y)], over a network f. The
conjugate ``f*(y) = max_x <x, y> - f(x)`` is computed point by point by the library's
``FenchelConjugateLBFGS``, from where a second network, trained to predict the maximiser, puts it.
The map is grad f. Both potentials are offered for the cost ||x - y||^2, the one on the target side
with the maximisers that the second network predicts (the library's ``finetune_g=False``).

Of the library: networks, losses, training loop. From its tutorial: widths, Adam and its rates. As
not in the tutorial: f is the library's ``PotentialMLP``, half the squared norm and a network that
need not be convex, where the tutorial has its ``ICNN`` (``network=icnn``); L-BFGS stops after ten
steps, the default of its class; batches are of 128 points, not 2,048; all steps go forward, from
source to target; points are in standard units (`otbench.methods.standard`). The map is taken from
f itself: that of ``DualPotentials.transport`` goes half of the way in OTT-JAX 0.6, which takes
potentials of half the cost for those of the cost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from otbench import FitContext, MapProblem, Problem, Solver, Transport
from otbench.methods.extension import in_chunks
from otbench.methods.jax_arrays import check_weights, to_jax, to_torch
from otbench.methods.standard import Standard, no_standard


if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class OttNeuralDual(Solver):
    """Gradient of a potential trained against its conjugate, for the squared Euclidean cost.

    Attributes:
        steps: of the training.
        batch: points of each measure in a step.
        lr: rate of Adam at the start; it falls to a hundredth (cosine).
        width: of the four layers of both networks.
        network: f is an ``mlp`` or a convex ``icnn``.
    """

    name: ClassVar[str] = "ott-neural-dual"
    needs: ClassVar[tuple[str, ...]] = ("jax", "ott", "flax", "diffrax")
    presets: ClassVar[Mapping[str, Mapping[str, float | int | str | bool]]] = {
        "tutorial": {"network": "icnn", "steps": 5001, "batch": 2048}
    }
    tuning: ClassVar[str] = "network, batch, steps: two Gaussians in dimension 2, drawn for it"
    steps: int = 4000
    batch: int = 128
    lr: float = 1e-3
    width: int = 64
    network: Literal["mlp", "icnn"] = "mlp"

    def __post_init__(self) -> None:
        """Check the parameters."""
        self.require(positive=("steps", "batch", "lr", "width"))
        if self.network not in ("mlp", "icnn"):
            raise ValueError(f"network must be mlp or icnn, got {self.network!r}")

    def supports(self, problem: Problem) -> str | None:
        """Map problems between equal shapes, of squared Euclidean cost."""
        return no_standard(problem)

    def fit(self, problem: Problem, context: FitContext) -> Transport:
        """Train both networks.

        Raises:
            DivergedError: the weights are not finite.
        """
        import jax

        assert isinstance(problem, MapProblem)
        stream, shape = context.generator, problem.target.shape
        units = Standard.of(problem, stream)
        dual, potential, conjugate = _compiled(
            problem.source.dim, self.steps, self.lr, self.width, self.network
        )
        keys = jax.random.split(jax.random.key(context.seed))
        dual.state_f, dual.state_g = (
            net.create_train_state(key, state.tx, (1, problem.source.dim))
            for net, state, key in zip(
                (dual.neural_f, dual.neural_g), (dual.state_f, dual.state_g), keys, strict=True
            )
        )
        x, y = (map(to_jax, drawn) for drawn in units.batches(problem, self.batch, stream))
        dual(x, y, x, y)
        of_f, of_g = dual.state_f.params, dual.state_g.params
        check_weights(self.name, (of_f, of_g))

        def of_source(u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            value, slope = potential(of_f, to_jax(u))
            return to_torch(value), to_torch(slope)

        def of_target(v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            value, slope = conjugate(of_f, of_g, to_jax(v))
            return to_torch(value), to_torch(slope)

        return Transport(
            push=in_chunks(lambda x: units.push(lambda u: of_source(u)[1], x, shape)),
            potential=units.potential(of_source),
            target_potential=units.target_potential(of_target),
        )


@cache
def _compiled(
    dim: int, steps: int, lr: float, width: int, network: Literal["mlp", "icnn"]
) -> tuple[Any, Callable[..., Any], Callable[..., Any]]:
    """The trainer, f with its gradient, and the predicted conjugate of f with its gradient:
    compiled once, however often they are asked for.
    """
    import jax
    import optax
    from ott.neural.methods.neuraldual import W2NeuralDual
    from ott.neural.networks.icnn import ICNN
    from ott.neural.networks.layers.conjugate import FenchelConjugateLBFGS
    from ott.neural.networks.potentials import PotentialMLP

    hidden = [width] * 4
    neural_f = PotentialMLP(hidden) if network == "mlp" else ICNN(dim, hidden, pos_weights=True)
    neural_g = PotentialMLP(hidden, is_potential=False)
    rate = optax.cosine_decay_schedule(lr, steps, alpha=1e-2)
    optimizers: Any = optax.adam(rate, b1=0.5, b2=0.5), optax.adam(rate, b1=0.9, b2=0.999)
    dual = W2NeuralDual(
        dim,
        neural_f,
        neural_g,
        *optimizers,
        num_train_iters=steps,
        valid_freq=steps + 1,
        conjugate_solver=FenchelConjugateLBFGS(),
        back_and_forth=False,
    )

    @jax.jit
    def potential(of_f, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.vmap(jax.value_and_grad(neural_f.potential_value_fn(of_f)))(x)

    @jax.jit
    def conjugate(of_f, of_g, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = neural_g.potential_gradient_fn(of_g)(y)
        return (x * y).sum(1) - jax.vmap(neural_f.potential_value_fn(of_f))(x), x

    return dual, potential, conjugate
