"""Adversarial regulariser: points restored by descent on a learned critic and on the distance they
have come (Lunz, Oktem & Schonlieb 2018).

A critic u, high on the source of degraded points and low on the target of clean ones, is trained as
for WGAN-LP and then left as it is; each point x goes to a minimum of

    ||z - x||^2 + m u(z),    by gradient steps from z = x.

This is what TTC is compared with in denoising (Milne, Bilocq & Nachman 2022): there u is the first
of TTC's critics, m twice the mean norm of the noise, the descent 200 steps of length 0.05, as here.
Where u has slope one all points move by m / 2. So the map is no transport map: it does not stop
where the target is, and the push-forward is right only as far as all have as far to go.

The mean norm of the noise is not known from samples: in its place is the critic's own estimate of
W1, the mean distance to be travelled, E u(x) - E u(y). ``weight`` multiplies it.

Presets: ``cpu``, the defaults, trains MLPs as ``ttc`` does, one critic for 4,000 steps.
``paper-denoising`` is the critic of TTC's code, which is that of Lunz et al.: convolutions, lambda
1000, Adam at 1e-4, 2,500 batches of 32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from otbench import DivergedError, FitContext, MapProblem, Problem, Transport
from otbench.methods.neural.critics import (
    CHUNK,
    CriticSolver,
    CriticTraining,
    PotentialNetwork,
    images_only,
    sampled_ends,
)
from otbench.methods.neural.published_networks import ttc_critic
from otbench.methods.neural.solver import as_maps


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor


@dataclass(frozen=True)
class AdversarialRegularizer(CriticSolver):
    """Descent on a learned critic, held to the point it began at.

    Attributes:
        weight: of the critic, as a multiple of twice the estimated W1.
        descent: gradient steps of each point.
        rate: their length, less than 1.
        network: ``mlp``, or for images ``ar-convnet``, the plain convolutions of the paper that
            begin with ``width`` channels.
    """

    name: ClassVar[str] = "adversarial-regularizer"
    presets: ClassVar[Mapping[str, Mapping[str, float | str]]] = {
        "cpu": {},
        "paper-denoising": {
            "steps": 2500,
            "batch": 32,
            "lr": 1e-4,
            "decay": "none",
            "width": 16,
            "ema": 0.0,
            "penalty": 1000.0,
            "network": "ar-convnet",
        },
    }
    tuning: ClassVar[str] = "those of the other critics, and of the published comparison; not tuned"

    weight: float = 1.0
    descent: int = 200
    rate: float = 0.05
    network: Literal["mlp", "ar-convnet"] = "mlp"

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        self.require(
            positive=("width", "penalty", "descent", "rate"),
            not_negative=("weight",),
            fractions=("rate",),
        )

    def supports(self, problem: Problem) -> str | None:
        """As the base; convolutions take images."""
        return images_only(self.network, problem) or super().supports(problem)

    def critic(self, problem: MapProblem) -> PotentialNetwork:
        """An MLP, or the convolutions of the paper."""
        if self.network == "mlp":
            return super().critic(problem)
        assert problem.source.image is not None, "refused by supports"
        return ttc_critic(self.network, problem.source.image, self.width, self.leak)

    def fit_together(
        self, problems: Sequence[Problem], contexts: Sequence[FitContext]
    ) -> list[Transport | DivergedError]:
        """Train one critic for each problem, as one stack."""
        maps = as_maps(problems)
        return RegularizerTraining(self, self.critic(maps[0]), maps, contexts).solve()


class RegularizerTraining(CriticTraining[AdversarialRegularizer]):
    """A stack of critics in training, whose maps descend on them."""

    def __init__(
        self,
        settings: AdversarialRegularizer,
        network: PotentialNetwork,
        problems: Sequence[MapProblem],
        contexts: Sequence[FitContext],
    ) -> None:
        super().__init__(settings, network, problems, contexts)
        self.ends = sampled_ends(problems, contexts)

    def transport(self, member: int) -> Transport:
        """The descent, with the critic as the potential."""
        import torch

        settings, u = self.settings, self.potential(member)
        with torch.no_grad():
            source, target = (float(u(points).mean()) for points in self.ends[member])
        w1 = max(source - target, 0.0)
        pull = settings.weight * 2 * w1

        def push(x: Tensor) -> Tensor:
            chunks = []
            for start in x.split(CHUNK):
                z = start
                for _ in range(settings.descent):
                    z = z - settings.rate * (2 * (z - start) + pull * u.gradient(z))
                chunks.append(z)
            return torch.cat(chunks)

        return Transport(
            push, potential=u, target_potential=lambda y: -u(y), info={"w1_estimate": w1}
        )
