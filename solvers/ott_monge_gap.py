"""Map trained with the Monge gap (Uscidda & Cuturi 2023), OTT-JAX's
``ott.neural.methods.monge_gap.MongeGapEstimator``, in float32.

A network T minimises the Sinkhorn divergence of T#source and the target plus ``strength`` times the
Monge gap, E c(x, T(x)) - W_eps(source, T#source), which is zero where T is optimal for what it maps
to. Both are the library's (``sinkdiv``, ``monge_gap_from_samples``) with its default eps, 0.05
standard deviations of the costs of a batch; so is the network, ``PotentialMLP`` as a map, x + N(x).

Adam with the library's rate, which falls here (cosine), and a strength of 1, its default. Here
steps are fewer than its 10,000, and points are in standard units (`otbench.methods.standard`).
These keep the optimal map of the squared Euclidean cost only, so that no other cost is taken,
though the library has them. There is no potential.
"""

from __future__ import annotations

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
class OttMongeGap(Solver):
    """Network trained to meet the target and to have no Monge gap, for the squared Euclidean cost.

    Attributes:
        steps: of the training.
        batch: points of each measure in a step.
        lr: rate of Adam at the start; it falls to a hundredth (cosine).
        width: of the three layers of the network.
        strength: weight of the Monge gap.
    """

    name: ClassVar[str] = "ott-monge-gap"
    needs: ClassVar[tuple[str, ...]] = ("jax", "ott", "flax", "diffrax")
    tuning: ClassVar[str] = "steps, batch, lr: gaussian in dimension 2, seed 1000"
    steps: int = 1000
    batch: int = 128
    lr: float = 1e-3
    width: int = 64
    strength: float = 1.0

    def __post_init__(self) -> None:
        """Check the parameters."""
        self.require(positive=("steps", "batch", "lr", "width"), not_negative=("strength",))

    def supports(self, problem: Problem) -> str | None:
        """Map problems between equal shapes, of squared Euclidean cost."""
        return no_standard(problem)

    def fit(self, problem: Problem, context: FitContext) -> Transport:
        """Train the network.

        Raises:
            DivergedError: the weights are not finite.
        """
        import jax

        assert isinstance(problem, MapProblem)
        stream, shape, dim = context.generator, problem.target.shape, problem.source.dim
        units = Standard.of(problem, stream)
        estimator, network, optimizer, mapped = _compiled(
            dim, self.steps, self.lr, self.width, self.strength
        )
        key = jax.random.key(context.seed)
        estimator.state_neural_net = network.create_train_state(key, optimizer, (1, dim))
        x, y = (map(to_jax, drawn) for drawn in units.batches(problem, self.batch, stream))
        weights = estimator.train_map_estimator(x, y, x, y)[0].params
        check_weights(self.name, weights)

        def push(x: torch.Tensor) -> torch.Tensor:
            return units.push(lambda u: to_torch(mapped(weights, to_jax(u))), x, shape)

        return Transport(push=in_chunks(push))


@cache
def _compiled(
    dim: int, steps: int, lr: float, width: int, strength: float
) -> tuple[Any, Any, Any, Any]:
    """The trainer, its network and optimiser, and the map, compiled once, however often they are
    asked for.
    """
    import jax
    import optax
    from ott.neural.methods.monge_gap import MongeGapEstimator, monge_gap_from_samples
    from ott.neural.networks.potentials import PotentialMLP
    from ott.tools.sinkhorn_divergence import sinkdiv

    network = PotentialMLP([width] * 3, is_potential=False)
    optimizer: Any = optax.adam(optax.cosine_decay_schedule(lr, steps, alpha=1e-2))

    losses: Any = {
        "fitting_loss": lambda mapped, target: (sinkdiv(mapped, target)[0], None),
        "regularizer": lambda source, mapped: (monge_gap_from_samples(source, mapped), None),
    }
    estimator = MongeGapEstimator(
        dim, network, optimizer, **losses, regularizer_strength=strength, num_train_iters=steps
    )
    return estimator, network, optimizer, jax.jit(lambda of, x: network.apply({"params": of}, x))
