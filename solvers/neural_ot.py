"""NOT, neural optimal transport for strong and weak costs (Korotin, Selikhanovych & Burnaev 2023,
algorithm 1).

A potential g on the target is trained against a map,

    sup_g inf_T    E_x[C(x, T(x, .)#N(0, I))] - E_{x, z}[g(T(x, z))] + E_y[g(y)],

by turns, the map several steps for each of the potential. A *weak* cost is one between a point x
and the law of all its images (Gozlan et al. 2017).

* ``not-strong``: the cost ||x - T(x)||^2 of single images and a map without random input. The
  saddle is that of ``otm``; what differs are the networks, a map without a skip and a free g, and
  the settings.
* ``not-weak``: C(x, law) = E||x - y||^2 - gamma Var(y), of a map with random input z beside x. For
  gamma = 0 it is the cost of ``otm-s``, for gamma = 1 ||x - E y||^2. In between it is (1 - gamma)
  Var(y) + ||x - E y||^2: images of one x are to spread. The plan sought is that of least weak cost
  and for gamma > 0 no optimal plan of the task's own cost, which scores hold it against: from N(0,
  1) to N(0, s^2) its conditional means are min(s, 1 / gamma) x. Its g belongs to the weak cost and
  is not offered as a potential then. Against the right g other plans than the optimal one may be
  as good (Korotin, Selikhanovych & Burnaev 2023b, whose kernel costs rule that out).

The law is estimated by ``images`` draws of z for each x, their variance without bias. Costs are
halved in the paper, and means over coordinates in its code, which is a matter of units: g = d times
the network.

Presets: ``cpu``, the defaults, has larger, decaying learning rates, averaged weights and fewer
rounds. ``paper`` is as the official notebook trains in the plane: 10 map steps, Adam at 1e-4,
batches of 64 points and 4 images of each, 10,001 rounds; its activations are ReLUs, here leaky
ones of slope 0.01, its initial weights are Kaiming's, and its z, of standard deviation 0.1, has 1
here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from otbench import DivergedError, FitContext, MapProblem, Problem, Transport
from otbench.methods.neural.maxmin import MaxMinSolver
from otbench.methods.neural.maxmin_networks import Form
from otbench.methods.neural.maxmin_training import MaxMinTraining
from otbench.methods.neural.sampling import Stream
from otbench.methods.neural.solver import as_maps
from otbench.methods.neural.training import Decay


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

NOTEBOOK: Mapping[str, float | str] = {
    "steps": 10_001,
    "batch": 64,
    "map_updates": 10,
    "lr": 1e-4,
    "lr_potential": 1e-4,
    "beta1": 0.9,
    "beta2": 0.999,
    "decay": "none",
    "form": "direct",
    "width": 100,
    "depth": 3,
    "activation": "leaky-relu",
    "ema": 0.0,
}


@dataclass(frozen=True)
class NotStrong(MaxMinSolver):
    """Neural optimal transport for the strong quadratic cost, by a deterministic map."""

    name: ClassVar[str] = "not-strong"
    tuning: ClassVar[str] = "as otm, on seeds below 1000; map_updates as published"
    presets: ClassVar[Mapping[str, Mapping[str, float | str]]] = {"cpu": {}, "paper": NOTEBOOK}

    steps: int = 1000
    map_updates: int = 10
    lr_potential: float = 5e-4
    beta2: float = 0.99
    decay: Decay = "cosine"
    form: Form = "direct"
    width: int = 128


@dataclass(frozen=True)
class NotWeak(NotStrong):
    """Neural optimal transport for the weak quadratic cost, by a map with random input; ``push`` is
    its mean over that input.

    Attributes:
        gamma: weight of the variance of the images of a point, from 0 to 1.
        images: draws of them for each point, at least 2; a batch is ``batch / images`` points with
            as many draws each.
    """

    name: ClassVar[str] = "not-weak"
    presets: ClassVar[Mapping[str, Mapping[str, float | str]]] = {
        "cpu": {},
        "paper": {**NOTEBOOK, "batch": 256},
    }

    gamma: float = 2 / 3
    images: int = 4

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        if not 0 <= self.gamma <= 1:
            raise ValueError(f"gamma must be between 0 and 1, got {self.gamma:g}")
        if self.images < 2 or self.batch % self.images:
            raise ValueError(
                f"images must be at least 2 and divide batch = {self.batch}, got {self.images}"
            )
        if self.form in ("gradient", "convex"):
            raise ValueError(
                f"form={self.form} is a function of x alone: choose plain, direct or residual"
            )
        if self.start == "linear":
            raise ValueError(
                "start=linear changes what the variance of images weighs: choose start=identity"
            )

    def random_inputs(self, dim: int) -> int:
        """As many as the target has coordinates."""
        return dim

    def fit_together(
        self, problems: Sequence[Problem], contexts: Sequence[FitContext]
    ) -> list[Transport | DivergedError]:
        """Train one for each problem, all of the same shapes, as one stack."""
        return WeakTraining(self, as_maps(problems), contexts).train()


class WeakTraining(MaxMinTraining[NotWeak]):
    """A stack of saddles of weak costs: each source point comes as often as it has images."""

    def __init__(
        self, settings: NotWeak, problems: Sequence[MapProblem], contexts: Sequence[FitContext]
    ) -> None:
        super().__init__(settings, problems, contexts)
        draws = [_repeated(problem.source.sample, settings.images) for problem in problems]
        self.x = Stream(draws, self.x.generators, settings.batch)

    def inner_slope(self, y: Tensor, q: Tensor) -> Tensor:
        """That of single images, less what the variance of those of one point adds."""
        images = self.settings.images
        of_point = y.detach().unflatten(1, (-1, images))
        deviation = (of_point - of_point.mean(2, keepdim=True)).flatten(1, 2)
        return super().inner_slope(y, q) - self.settings.gamma * images / (images - 1) * deviation

    def transport(self, member: int, part: float) -> Transport:
        """What one member has learned; its potential only where the cost is not weak."""
        transport = super().transport(member, part)
        if self.settings.gamma == 0:
            return transport
        return dataclasses.replace(transport, target_potential=None)


def _repeated(
    draw: Callable[[int, torch.Generator], Tensor], times: int
) -> Callable[[int, torch.Generator], Tensor]:
    """Points that come so many times in a row."""
    return lambda n, generator: draw(-(-n // times), generator).repeat_interleave(times, 0)[:n]
