"""Toy distributions in the plane that generative models are shown on: eight Gaussians, two moons,
an S-curve, a Swiss roll.

Noise is added to points of a curve; the moments are closed forms. Points are independent and curves
filled uniformly in their parameter t, where scikit-learn's moons are a regular grid of angles, half
of it on each.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, get_args

from otbench.problem import Measure


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

Draw = Callable[[int, "torch.Generator"], "Tensor"]
Described = tuple[Draw, list[float], list[list[float]]]  # with mean and covariance
Toy = Literal["8gaussians", "moons", "s-curve", "swirl"]
TOYS: tuple[Toy, ...] = get_args(Toy)

RADIUS, CLUSTER_VARIANCE = 5.0, math.sqrt(0.1)  # of the eight Gaussians
MOONS_SCALE, MOONS_SHIFT, MOONS_NOISE = 3.0, -1.0, 0.2  # 3 z - 1, where z has the noise
CURVE_NOISE = 0.1
ROLL_SCALE, ROLL_NOISE = 0.5, 0.01  # z / 2, where z has the noise


def normal(*, device: str, dtype: torch.dtype) -> Measure:
    """N(0, I_2)."""
    import torch

    eye = torch.eye(2, device=device, dtype=dtype)
    return Measure(
        (2,),
        lambda n, generator: _normal(n, generator, dtype),
        mean=eye.new_zeros(2),
        cov=eye,
        variance=2.0,
    )


def toy(name: Toy, *, device: str, dtype: torch.dtype) -> Measure:
    """One of the distributions, with exact moments:

    * ``8gaussians``: one of eight points on a circle of radius 5, plus N(0, sqrt(0.1) I): sqrt(0.1)
      is the variance of a coordinate.
    * ``moons``: 3 z - 1, with z = (cos t, sin t) or (1 - cos t, 1/2 - sin t), t uniform in [0, pi],
      plus N(0, 0.2^2 I).
    * ``s-curve``: (sin t, sign(t) (cos t - 1)), t uniform in [-3 pi / 2, 3 pi / 2], plus N(0, 0.1^2
      I): coordinates 0 and 2 of scikit-learn's.
    * ``swirl``: z / 2, with z = (t sin t, t cos t), t uniform in [3 pi / 2, 9 pi / 2], plus N(0,
      0.01^2 I): coordinates 2 and 0 of scikit-learn's Swiss roll, as of Rout et al. 2022.
    """
    import torch

    draw, mean, cov = {
        "8gaussians": _eight_gaussians,
        "moons": _moons,
        "s-curve": _s_curve,
        "swirl": _swirl,
    }[name](dtype)
    moments = (torch.tensor(values, device=device, dtype=dtype) for values in (mean, cov))
    return Measure((2,), draw, *moments, variance=cov[0][0] + cov[1][1])


def _normal(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    import torch

    return torch.randn(n, 2, generator=generator, device=generator.device, dtype=dtype)


def _uniform(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    import torch

    return torch.rand(n, generator=generator, device=generator.device, dtype=dtype)


def _eight_gaussians(dtype: torch.dtype) -> Described:
    import torch

    def draw(n: int, generator: torch.Generator) -> Tensor:
        cluster = torch.randint(8, (n,), generator=generator, device=generator.device)
        angle = (math.pi / 4) * cluster.to(dtype)
        centre = RADIUS * torch.stack([angle.cos(), angle.sin()], 1)
        return centre + math.sqrt(CLUSTER_VARIANCE) * _normal(n, generator, dtype)

    variance = RADIUS**2 / 2 + CLUSTER_VARIANCE
    return draw, [0.0, 0.0], [[variance, 0.0], [0.0, variance]]


def _moons(dtype: torch.dtype) -> Described:
    import torch

    def draw(n: int, generator: torch.Generator) -> Tensor:
        t = math.pi * _uniform(n, generator, dtype)
        upper = torch.stack([t.cos(), t.sin()], 1)
        lower = torch.tensor([1.0, 0.5], device=t.device, dtype=dtype) - upper
        first = torch.randint(2, (n, 1), generator=generator, device=t.device).bool()
        return (
            MOONS_SCALE
            * (torch.where(first, upper, lower) + MOONS_NOISE * _normal(n, generator, dtype))
            + MOONS_SHIFT
        )

    noise = MOONS_NOISE**2
    cov = [
        [3 / 4 + noise, 1 / 8 - 1 / math.pi],
        [1 / 8 - 1 / math.pi, 9 / 16 - 1 / math.pi + noise],
    ]
    mean = [MOONS_SCALE * at + MOONS_SHIFT for at in (1 / 2, 1 / 4)]
    return draw, mean, [[MOONS_SCALE**2 * entry for entry in row] for row in cov]


def _s_curve(dtype: torch.dtype) -> Described:
    import torch

    def draw(n: int, generator: torch.Generator) -> Tensor:
        t = 3 * math.pi * (_uniform(n, generator, dtype) - 0.5)
        return torch.stack([t.sin(), t.sign() * (t.cos() - 1)], 1) + CURVE_NOISE * _normal(
            n, generator, dtype
        )

    noise, across = CURVE_NOISE**2, -1 / (3 * math.pi)
    return draw, [0.0, 0.0], [[1 / 2 + noise, across], [across, 3 / 2 + 4 / (3 * math.pi) + noise]]


def _swirl(dtype: torch.dtype) -> Described:
    import torch

    def draw(n: int, generator: torch.Generator) -> Tensor:
        t = 3 * math.pi * (_uniform(n, generator, dtype) + 0.5)
        curve = t[:, None] * torch.stack([t.sin(), t.cos()], 1)
        return ROLL_SCALE * (curve + ROLL_NOISE * _normal(n, generator, dtype))

    mean = [2 / (3 * math.pi), 2.0]
    squared, across = 39 / 8 * math.pi**2 + ROLL_NOISE**2, 3 * math.pi / 2 - mean[0] * mean[1]
    cov = [[squared + 1 / 4 - mean[0] ** 2, across], [across, squared - 1 / 4 - mean[1] ** 2]]
    return (
        draw,
        [ROLL_SCALE * at for at in mean],
        [[ROLL_SCALE**2 * entry for entry in row] for row in cov],
    )
