"""OTM-GP: OTM with a gradient penalty on the potential, its authors' own ablation (Rout, Korotin &
Burnaev 2022).

The saddle of ``otm``, with a penalty on the potential in place of gradient optimality,

    gp d E[(||grad psi(z)|| / d - 1)^2],    z between a target point and an image,

two-sided as that of WGAN-GP (Gulrajani et al. 2017), in units of means over d coordinates as in the
official code. At the saddle the slope of psi at y is ||T^{-1}(y)||, whatever that is: the penalty
keeps the potential smooth at the price of a bias that grows with ``gp``, and a map that it trains
need not push the source to the target.

Presets: ``cpu``, the defaults, has the networks and settings of ``otm``. ``paper`` is as the
official notebooks with the penalty train on points of the plane (circles, S-curve, Swiss roll):
plain MLPs, 16 map steps, ``gp`` of 1, 10,001 rounds. There one random place between two points
serves a whole batch, here each pair of points has its own. The paper's restored images with the
penalty are another setting, of unknown weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from otbench import DivergedError, FitContext, MapProblem, Problem, Transport
from otbench.methods.neural.maxmin import MaxMinSolver
from otbench.methods.neural.maxmin_training import MaxMinTraining
from otbench.methods.neural.sampling import Stream, uniform_numbers
from otbench.methods.neural.solver import as_maps
from otbench.methods.neural.training import Decay


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor


@dataclass(frozen=True)
class OtmGp(MaxMinSolver):
    """Max-min training of a deterministic map with a gradient penalty on the potential.

    Attributes:
        gp: weight of the penalty.
    """

    name: ClassVar[str] = "otm-gp"
    tuning: ClassVar[str] = (
        "gp from 0.1 and 1 on gaussian and petals, seed 1000, 200 rounds; the rest as otm, on "
        "seeds below 1000"
    )
    presets: ClassVar[Mapping[str, Mapping[str, float | str]]] = {
        "cpu": {},
        "paper": {
            "steps": 10_001,
            "batch": 400,
            "map_updates": 16,
            "lr": 1e-3,
            "lr_potential": 1e-3,
            "decay": "none",
            "form": "plain",
            "activation": "leaky-relu",
            "ema": 0.0,
            "gp": 1.0,
        },
    }

    steps: int = 1000
    map_updates: int = 5
    lr_potential: float = 5e-4
    beta2: float = 0.99
    decay: Decay = "cosine"
    width: int = 128
    gp: float = 0.1

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        self.require(not_negative=("gp",))

    def fit_together(
        self, problems: Sequence[Problem], contexts: Sequence[FitContext]
    ) -> list[Transport | DivergedError]:
        """Train one for each problem, all of the same shapes, as one stack."""
        return PenalisedTraining(self, as_maps(problems), contexts).train()


class PenalisedTraining(MaxMinTraining[OtmGp]):
    """A stack of saddles whose potentials have a gradient penalty."""

    def __init__(
        self, settings: OtmGp, problems: Sequence[MapProblem], contexts: Sequence[FitContext]
    ) -> None:
        super().__init__(settings, problems, contexts)
        places = uniform_numbers(1, contexts[0].dtype)
        self.places = Stream([places] * len(contexts), self.x.generators, settings.batch)

    @property
    def streams(self) -> list[Stream]:
        """As of `MaxMinTraining`, and where between two points the penalty is."""
        return [*super().streams, self.places]

    def outer_objective(
        self, of_target: Tensor, of_image: Tensor, y: Tensor, image: Tensor, q: Tensor
    ) -> Tensor:
        """As of `MaxMinTraining`, with the penalty."""
        import torch

        objective, dim = super().outer_objective(of_target, of_image, y, image, q), y.shape[-1]
        z = torch.lerp(y, image, self.places.next()).requires_grad_()
        values = self.networks.psi(self.potential.weights.tensors, z, self.frame.scale)
        (slope,) = torch.autograd.grad(values.sum(), z, create_graph=True)
        penalty = (slope.norm(dim=-1) / dim - 1).square().mean(1)
        return objective + self.settings.gp * dim * penalty
