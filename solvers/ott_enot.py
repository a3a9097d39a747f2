"""ENOT, expectile-regularised neural optimal transport (Buzun, Bobrin & Dylov 2024, arXiv
2403.03777), OTT-JAX's ``ott.neural.methods.expectile_neural_dual.ExpectileNeuralDual``, in float32.

Potentials f and g of the cost ||x - y||^2 are trained together, the map T = x - grad f / 2 in place
of a maximiser:

    sup_g inf_f    E[c(x, T(x)) - g(T(x))] + E[g(y)]
                   - weight E[L(c(x, T(x)) - g(T(x)) - c(x, y) + g(y))],

x and y independent, L the asymmetric square of expectile regression: u^2 times ``expectile`` where
u is positive, times the rest where it is not. The term keeps g from exceeding what a conjugate may
be, so that no inner problem has to be solved. Steps alternate between the two directions.

Of the library: losses, training loop, networks (MLPs with ELUs, that need not be convex). From its
tutorial and the authors' code: Adam with its betas and a rate that falls to a hundredth (cosine).
Points are in standard units (`otbench.methods.standard`).

Presets: ``paper`` has what the authors' script for the Wasserstein-2 benchmark in 64 dimensions
has: three layers of 512, batches of 1,024, expectile 1 of weight 0.5, 300,001 steps. It needs a
GPU. That these are the settings of every pair of the paper's table 2 from D = 64 on is not
confirmed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from otbench import FitContext, MapProblem, Problem, Solver, Transport
from otbench.methods.extension import in_chunks
from otbench.methods.jax_arrays import check_weights, to_jax, to_torch
from otbench.methods.standard import Standard, no_standard


if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class OttEnot(Solver):
    """Potentials trained against each other with a regulariser, for the squared Euclidean cost.

    Attributes:
        steps: of the training, of which every other goes from target to source.
        batch: points of each measure in a step.
        lr: rate of Adam at the start; it falls to a hundredth (cosine).
        width, depth: units of a hidden layer of both networks, number of hidden layers.
        expectile: of the regression, between a half and one.
        weight: of the regulariser.
    """

    name: ClassVar[str] = "ott-enot"
    needs: ClassVar[tuple[str, ...]] = ("jax", "ott", "flax", "diffrax")
    presets: ClassVar[Mapping[str, Mapping[str, float | int | str | bool]]] = {
        "paper": {
            "steps": 300_001,
            "batch": 1024,
            "lr": 5e-4,
            "width": 512,
            "depth": 3,
            "expectile": 1.0,
            "weight": 0.5,
        }
    }
    tuning: ClassVar[str] = "steps, batch, lr: two Gaussians in dimension 2, drawn for it"
    steps: int = 10_000
    batch: int = 256
    lr: float = 1e-3
    width: int = 64
    depth: int = 4
    expectile: float = 0.99
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Check the parameters."""
        self.require(positive=("steps", "batch", "lr", "width", "depth"), not_negative=("weight",))
        if not 0.5 <= self.expectile <= 1:
            raise ValueError(f"expectile must be between 0.5 and 1, got {self.expectile}")

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
        dual, values = _compiled(
            problem.source.dim,
            self.steps,
            self.lr,
            self.width,
            self.depth,
            self.expectile,
            self.weight,
        )
        keys = jax.random.split(jax.random.key(context.seed))
        dual.state_f, dual.state_g = (
            net.create_train_state(key, state.tx, (problem.source.dim,))
            for net, state, key in zip(
                (dual.neural_f, dual.neural_g), (dual.state_f, dual.state_g), keys, strict=True
            )
        )
        x, y = (map(to_jax, drawn) for drawn in units.batches(problem, self.batch, stream))
        dual(x, y, x, y)
        of_f, of_g = dual.state_f.params, dual.state_g.params
        check_weights(self.name, (of_f, of_g))

        def of_target(v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            """(|v|^2 - g(v)) / 2, the potential of the correlation, with its gradient."""
            value, slope = map(to_torch, values(of_g, to_jax(v)))
            return (v.square().sum(1) - value) / 2, v - slope / 2

        def of_source(u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            """Its conjugate at the image of u, as the library's: f is known but for a constant."""
            image = u - to_torch(values(of_f, to_jax(u))[1]) / 2
            return (u * image).sum(1) - of_target(image)[0], image

        return Transport(
            push=in_chunks(lambda x: units.push(lambda u: of_source(u)[1], x, shape)),
            potential=units.potential(of_source),
            target_potential=units.target_potential(of_target),
        )


@cache
def _compiled(
    dim: int, steps: int, lr: float, width: int, depth: int, expectile: float, weight: float
) -> tuple[Any, Callable[..., Any]]:
    """The trainer, and a network of it with its gradient: compiled once, however often they are
    asked for.
    """
    import jax
    import optax
    from ott.geometry.costs import SqEuclidean
    from ott.neural.methods.expectile_neural_dual import ExpectileNeuralDual
    from ott.neural.networks.potentials import MLP

    network = MLP(dim_hidden=[*[width] * depth, 1], act_fn=jax.nn.elu)
    rate = optax.cosine_decay_schedule(lr, steps, alpha=1e-2)
    optimizer: Any = optax.adam(rate, b1=0.9, b2=0.99)
    dual = ExpectileNeuralDual(
        dim,
        network,
        network,  # with other weights
        optimizer,
        optimizer,
        cost_fn=SqEuclidean(),
        expectile=expectile,
        expectile_loss_coef=weight,
        num_train_iters=steps,
        valid_freq=steps + 1,
    )

    @jax.jit
    def values(params: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.vmap(jax.value_and_grad(dual.neural_f.potential_value_fn(params)))(x)

    return dual, values
