"""UOTM: max-min training for unbalanced optimal transport, with relaxed marginals (Choi, Choi &
Kang 2023, algorithm 1).

What is sought is not a transport plan from source mu to target nu but a measure pi that is cheap
and whose marginals are near both,

    inf_pi    <c, pi> + (D_1(pi_1 | mu) + D_2(pi_2 | nu)) / tau,
    sup_g inf_T    -E Psi_1*(-tau (c(x, T(x)) - g(T(x)))) - E Psi_2*(-tau g(y)),    over tau,

D_i being the divergence of Psi_i, whose convex conjugate Psi_i* is ``linear`` (t: the marginal is
held, D infinite elsewhere), ``kl`` (e^t - 1: the Kullback-Leibler divergence) or ``softplus`` (2
log(1 + e^t) - 2 log 2). Mass that is far from any partner, such as outliers, is left out rather
than moved. So the push-forward of the source by the returned map is *not* exactly the target, and
scores count that as a defect: it vanishes as tau does, the divergences being at most tau W2^2.
Between N(0, s^2 I) and the same moved by m the map with ``kl`` on both sides is x + m / (1 + 4 tau
s^2). With both conjugates linear this is ``otm``; else g is the potential of another problem and is
not offered.

tau is the paper's, which multiplies the cost there: 0.001 for images with pixels from -1 to 1,
0.02 and 0.1 for points of the line. By ``tau_rule = relative`` it is divided by the mean cost
between independent points of source and target, so that it does not depend on the units.

Deviations from the paper: no random input; networks and settings of ``otm`` (a residual map, five
map steps for each of a slower potential, learning rates that decay). The official toys have five
steps of the potential for each of the map, ``kl`` and Adam at 1e-4, images R1 (parameter ``r1``).
That softplus is scaled to slope one at zero, so that equal masses are left as they are, is not
confirmed of that code. Its image networks are not here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from otbench import DivergedError, FitContext, MapProblem, Problem, Transport
from otbench.methods.neural.maxmin import MaxMinSolver
from otbench.methods.neural.maxmin_training import MaxMinTraining
from otbench.methods.neural.solver import as_maps
from otbench.methods.neural.training import Decay


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

Conjugate = Literal["linear", "kl", "softplus"]

COST_POINTS = 2**14  # of source and target, for the mean cost


def conjugate(name: Conjugate, t: Tensor) -> Tensor:
    """Psi*(t), element by element: 0 with slope 1 at 0."""
    from torch.nn.functional import softplus

    if name == "kl":
        return t.expm1()
    return 2 * (softplus(t) - math.log(2)) if name == "softplus" else t


@dataclass(frozen=True)
class Uotm(MaxMinSolver):
    """Max-min training for unbalanced optimal transport.

    Attributes:
        tau: how much the cost weighs against the divergences of the marginals.
        tau_rule: ``relative`` to one over the mean cost between independent points, or ``absolute``
            in one over cost units.
        source_conjugate: ``linear``, ``kl`` or ``softplus``: how the source marginal is relaxed.
        target_conjugate: the same of the target marginal.
    """

    name: ClassVar[str] = "uotm"
    tuning: ClassVar[str] = (
        "tau from 0.01, 0.02 and 0.1 on gaussian and petals, seed 1000, 200 rounds; the rest as "
        "otm, on seeds below 1000"
    )

    steps: int = 1000
    map_updates: int = 5
    lr_potential: float = 5e-4
    beta2: float = 0.99
    decay: Decay = "cosine"
    width: int = 128
    tau: float = 0.02
    tau_rule: Literal["relative", "absolute"] = "relative"
    source_conjugate: Conjugate = "kl"
    target_conjugate: Conjugate = "kl"

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        self.require(positive=("tau",))
        if self.start == "linear":
            raise ValueError("start=linear changes what the cost weighs: choose start=identity")

    @property
    def relaxed(self) -> bool:
        """Whether one of the marginals is."""
        return (self.source_conjugate, self.target_conjugate) != ("linear", "linear")

    def fit_together(
        self, problems: Sequence[Problem], contexts: Sequence[FitContext]
    ) -> list[Transport | DivergedError]:
        """Train one for each problem, all of the same shapes, as one stack."""
        return UnbalancedTraining(self, as_maps(problems), contexts).train()


class UnbalancedTraining(MaxMinTraining[Uotm]):
    """A stack of saddles with relaxed marginals."""

    def __init__(
        self, settings: Uotm, problems: Sequence[MapProblem], contexts: Sequence[FitContext]
    ) -> None:
        super().__init__(settings, problems, contexts)
        taus = [
            settings.tau / (_mean_cost(problem, c) if settings.tau_rule == "relative" else 1.0)
            for problem, c in zip(problems, contexts, strict=True)
        ]
        self.tau = self.map.weights.flat.new_tensor(taus)[:, None]

    def outer_objective(
        self, of_target: Tensor, of_image: Tensor, y: Tensor, image: Tensor, q: Tensor
    ) -> Tensor:
        """As of `MaxMinTraining`, of g(y) = ||y||^2 - 2 psi(y) in place of psi."""
        settings, tau = self.settings, self.tau
        g = y.square().sum(-1) - 2 * of_target
        excess = (q * (2 * image - q)).sum(-1) - 2 * of_image  # g(T(x)) - c(x, T(x))
        losses = conjugate(settings.source_conjugate, tau * excess) + conjugate(
            settings.target_conjugate, -tau * g
        )
        return (losses / (2 * tau)).mean(1)

    def transport(self, member: int, part: float) -> Transport:
        """What one member has learned; its potential only where no marginal is relaxed."""
        transport = super().transport(member, part)
        if not self.settings.relaxed:
            return transport
        return dataclasses.replace(transport, target_potential=None)


def _mean_cost(problem: MapProblem, context: FitContext) -> float:
    """Between independent points; 1 where it is nothing."""
    x, y = (
        measure.sample(COST_POINTS, context.generator)
        for measure in (problem.source, problem.target)
    )
    return float(problem.cost.pairwise(x, y).double().mean()) or 1.0
