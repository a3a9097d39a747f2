"""Circles: a noisy circle in the plane to a wider one, along the rays from the centre.

A circle of radius r with noise N(0, sigma^2 I_2) goes to one of radius 1 with the same noise, cost
||x - y||^2. Both are invariant under rotation: the optimal map moves each point along its ray, by
the monotone map of the radii. With F_r the law of ||x||, of Rice's density,

    T(x) = q(||x||) x / ||x||,    q = F_1^{-1} o F_r,
    W2^2 = E (||x|| - q(||x||))^2,

T is the gradient of a convex function, hence optimal and unique (Brenier 1991). q is tabulated from
noncentral chi-squared distribution functions and interpolated, to about eight digits of sigma.

The circles are those of Rout, Korotin & Burnaev 2022, by default at their radius 1/2 and noise 0.01
(scikit-learn's ``make_circles``). There angles are a regular grid, here they are independent.

Hard for solvers that alternate between map and potential as far as the source is thin: without
noise it has no density, and a saddle need not be a transport map (Choi, Choi & Kwon 2025).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from otbench import SQEUCLIDEAN, MapProblem, Measure, Task, Truth


if TYPE_CHECKING:
    import numpy as np
    import torch

    Tensor = torch.Tensor

REACH, KNOTS = 9.0, 4097  # of the table of radii: in standard deviations of the noise, and in all


@dataclass(frozen=True)
class Circles(Task):
    """Two noisy circles about the origin. Nothing about it is random.

    Attributes:
        radius: of the source's circle; the target's is 1.
        sigma: standard deviation of the noise of both.
    """

    name: ClassVar[str] = "circles"
    radius: float = 0.5
    sigma: float = 0.01

    def __post_init__(self) -> None:
        """Check the parameters."""
        if not self.radius > 0:
            raise ValueError(f"radius must be positive, got {self.radius:g}")
        most = min(self.radius, 1.0) / 10
        if not most / 100 <= self.sigma <= most:
            raise ValueError(
                f"sigma must be between {most / 100:g} and {most:g}, a tenth of the smaller "
                f"radius, got {self.sigma:g}"
            )

    def problem(self, rng: np.random.Generator, *, device: str, dtype: torch.dtype) -> MapProblem:
        """The problem, the same for every ``rng``."""
        import torch

        knots, images = (
            torch.as_tensor(array, device=device, dtype=torch.float64)
            for array in _table(self.radius, self.sigma, self.sigma)[:2]
        )

        def push(x: Tensor) -> Tensor:
            radius = x.double().norm(dim=1, keepdim=True)
            right = torch.searchsorted(knots, radius).clamp(1, KNOTS - 1)
            left = right - 1
            share = (radius - knots[left]) / (knots[right] - knots[left])
            image = torch.lerp(images[left], images[right], share)
            return (x.double() * (image / radius.clamp(min=torch.finfo(x.dtype).tiny))).to(x.dtype)

        truth = Truth(
            "brenier",
            _table(self.radius, self.sigma, self.sigma)[2],
            push,
            smoothed_cost=lambda added: _table(
                self.radius, math.hypot(self.sigma, added), self.sigma
            )[2],
        )
        source, target = (
            _circle(radius, self.sigma, device=device, dtype=dtype) for radius in (self.radius, 1.0)
        )
        return MapProblem(source, target, SQEUCLIDEAN, truth)


def _circle(radius: float, sigma: float, *, device: str, dtype: torch.dtype) -> Measure:
    import torch

    def draw(n: int, generator: torch.Generator) -> Tensor:
        where = {"generator": generator, "device": generator.device, "dtype": dtype}
        angle = 2 * math.pi * torch.rand(n, **where)
        return radius * torch.stack([angle.cos(), angle.sin()], 1) + sigma * torch.randn(
            n, 2, **where
        )

    variance = radius**2 + 2 * sigma**2
    eye = torch.eye(2, device=device, dtype=dtype)
    return Measure((2,), draw, mean=eye.new_zeros(2), cov=eye * (variance / 2), variance=variance)


def _table(
    radius: float, sigma: float, target_sigma: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Radii of the source, those of the target that they go to, and the mean squared difference.

    Both laws are compared by the normal quantiles of their distribution functions, which are nearly
    linear; each from its nearer tail.
    """
    import numpy as np
    from scipy.stats import ncx2, norm

    def quantiles(centre: float, spread: float) -> tuple[np.ndarray, np.ndarray]:
        least = max(0.0, centre - REACH * spread)
        shares = np.linspace(0, 1, KNOTS) ** (1 if least else 2)  # more of them near the origin
        knots = least + shares * (centre + REACH * spread - least)
        law, squared = ncx2(2, (centre / spread) ** 2), (knots / spread) ** 2
        below, above = law.cdf(squared), law.sf(squared)
        return knots, np.where(below < above, norm.ppf(below), norm.isf(above))

    knots, levels = quantiles(radius, sigma)
    images, target_levels = quantiles(1.0, target_sigma)
    moved = np.interp(levels, target_levels, images)
    lengths = (moved - knots)[1:] + (moved - knots)[:-1]
    return knots, moved, float(np.diff(norm.cdf(levels)) @ lengths**2) / 4
