"""OTP: max-min training on a smoothed source whose noise is annealed (Choi, Choi & Kwon 2025).

The source of `otm`'s saddle is convolved with N(0, sigma^2 I): it is absolutely continuous then, so
that a saddle is a transport map; what a training ends at need not be one. sigma falls linearly from
``sigma_max`` to ``sigma_min`` over the first ``anneal`` of the training and stays there. What is
returned is a plan: x goes to T(x + sigma_min xi). Its cost is scored with the clean x, its saddle
on the smoothed source. sigma_min = 0 is never reached: the optimal map from a source smoothed ever
less has ever greater slopes.

What is not confirmed of the paper, and chosen here: the schedule and both sigmas (given in units of
the largest standard deviation of the source), the networks, eight map steps for each of a slow
potential. In the suite ``spurious-limits`` it fails on both tasks with ``sigma_min=0.02``, and in
most runs on ``one-to-many`` with a potential that learns as fast as the map.

Presets: ``images`` begins near the linear map from the smoothed source, which makes of its noise
what the target has beyond the source. ``w2-benchmark`` is a little smoothing on top of a convex
max-min solver (``mmv2-r``), as the authors' rebuttal has it in high dimension; the source has a
density there, so that the noise is not needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from otbench import SQEUCLIDEAN, MapProblem, Problem
from otbench.methods.neural.maxmin import MaxMinSolver, Noise


@dataclass(frozen=True)
class Otp(MaxMinSolver):
    """Max-min training with annealed noise on the source.

    Attributes:
        sigma_max, sigma_min: noise at the beginning and at the end, in units of the source's
            largest standard deviation.
        anneal: part of the training over which the noise falls.
        noising: ``additive``, x + sigma xi; or ``variance-preserving``, sqrt(1 - sigma^2) x + sigma
            xi around the mean, sigma < 1.
    """

    name: ClassVar[str] = "otp"
    presets: ClassVar[Mapping[str, Mapping[str, float | str]]] = {
        "images": {
            "steps": 4000,
            "batch": 128,
            "lr_potential": 5e-4,
            "decay": "cosine",
            "start": "linear",
            "width": 128,
            "sigma_max": 0.1,
            "sigma_min": 0.05,
        },
        "w2-benchmark": {
            "steps": 4000,
            "map_updates": 5,
            "lr": 8e-3,
            "lr_potential": 4e-3,
            "decay": "cosine",
            "form": "convex",
            "start": "linear",
            "pull": 0.7,
            "sigma_max": 0.1,
            "sigma_min": 0.02,
        },
    }

    sigma_max: float = 1.2
    sigma_min: float = 0.35
    anneal: float = 0.75
    noising: Literal["additive", "variance-preserving"] = "additive"

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        if not 0 < self.sigma_min <= self.sigma_max:
            raise ValueError(
                f"sigma_min must be positive and at most sigma_max = {self.sigma_max:g}, got "
                f"{self.sigma_min:g}"
            )
        if self.noising == "variance-preserving" and self.sigma_max >= 1:
            raise ValueError(
                "sigma_max must be less than 1 where the variance is preserved, got "
                f"{self.sigma_max:g}"
            )
        if not 0 <= self.anneal <= 1:
            raise ValueError(f"anneal must be between 0 and 1, got {self.anneal:g}")

    def supports(self, problem: Problem) -> str | None:
        """As the base; noise that preserves the variance needs source and target in one space."""
        if (
            self.noising == "variance-preserving"
            and isinstance(problem, MapProblem)
            and problem.cost != SQEUCLIDEAN
        ):
            return "noising=variance-preserving needs source and target in one space"
        return super().supports(problem)

    def noise(self, part: float) -> Noise:
        """Falling noise; where the variance is preserved, ``sqrt(1 - s^2) x + s xi`` is ``keep (x +
        s / keep xi)``.
        """
        left = max(0.0, 1 - part / self.anneal) if self.anneal else 0.0
        sigma = self.sigma_min + (self.sigma_max - self.sigma_min) * left
        if self.noising == "additive":
            return Noise(sigma)
        keep = math.sqrt(1 - sigma**2)
        return Noise(sigma / keep, keep)


@dataclass(frozen=True)
class OtpFixed(Otp):
    """The same without annealing: sigma_min throughout, the ablation of the paper's schedule."""

    name: ClassVar[str] = "otp-fixed"

    anneal: float = 0.0
