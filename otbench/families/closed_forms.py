"""Closed forms that several tasks share: on the cube, and around spheres under noise.

On the cube they are the affine images of Unif([-1, 1]^k) and the monotone maps that undo Gaussian
smoothing coordinate by coordinate. Everything one-dimensional rests on E|t + sigma xi| with xi ~
N(0, 1). It is convex in t, its derivative is the map that carries N(0, sigma^2) to U = Unif([-1,
1]), and half its difference over [t - 1, t + 1] is the map that carries U * N(0, sigma^2) back to
U. Functions of tensors are maps and potentials, element by element; functions of floats are costs.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from otbench.problem import Measure


if TYPE_CHECKING:
    import numpy as np
    import torch

    Tensor = torch.Tensor


def affine_cube(
    axes: np.ndarray, offset: np.ndarray, sigma: float = 0.0, *, device: str, dtype: torch.dtype
) -> Measure:
    """The law of offset + p @ axes + sigma xi, where p is uniform on [-1, 1]^k and xi standard
    normal.

    Args:
        axes: images of the k unit vectors, ``(k, d)``; none of them makes an atom.
        offset: the mean, ``(d,)``.
        sigma: standard deviation of the noise in every direction.
        device: where the mean and the covariance live.
        dtype: of the mean, the covariance and the points.
    """
    import numpy as np
    import torch

    k, d = axes.shape
    covariance = axes.T @ axes / 3 + sigma**2 * np.eye(d)
    matrix, mean, cov = (
        torch.as_tensor(array, device=device, dtype=dtype) for array in (axes, offset, covariance)
    )

    def draw(n: int, generator: torch.Generator) -> Tensor:
        x = (
            mean
            + (2 * torch.rand(n, k, generator=generator, device=generator.device, dtype=dtype) - 1)
            @ matrix
        )
        return (
            x + sigma * torch.randn(n, d, generator=generator, device=generator.device, dtype=dtype)
            if sigma > 0
            else x
        )

    return Measure((d,), draw, mean=mean, cov=cov, variance=float(covariance.trace()))


def squared_distance_to_cube(x: Tensor) -> Tensor:
    """Squared distance from points ``(n, k)`` to [-1, 1]^k, ``(n,)``."""
    return (x.abs() - 1).clamp(min=0).square().sum(1)


def mean_distance(t: Tensor, sigma: float | Tensor) -> Tensor:
    """E|t + sigma xi|, the mean of a folded normal variable; ``sigma`` > 0 broadcasts against
    ``t``.
    """
    z = t / sigma
    return t * (z / math.sqrt(2)).erf() + math.sqrt(2 / math.pi) * sigma * (-z.square() / 2).exp()


def mean_distance_conjugate(y: Tensor, sigma: float) -> Tensor:
    """The convex conjugate sup_t t y - E|t + sigma xi|: -2 sigma times the normal density at the
    quantile of (1 + y) / 2.

    It is infinite outside [-1, 1].
    """
    import torch

    quantile = torch.special.ndtri(
        (1 - y.abs()).clamp(min=0) / 2
    )  # the lower tail, where floating point is fine
    inside = -math.sqrt(2 / math.pi) * sigma * (-quantile.square() / 2).exp()
    return torch.where(y.abs() <= 1, inside, math.inf)


def gaussian_to_uniform(t: Tensor, sigma: float) -> Tensor:
    """The monotone map from N(0, sigma^2) to U, 2 Phi(t / sigma) - 1; ``sigma`` > 0."""
    return (t / (sigma * math.sqrt(2))).erf()


def smoothed_to_uniform(t: Tensor, sigma: float | Tensor) -> Tensor:
    """The monotone map from U * N(0, sigma^2) to U; ``sigma`` > 0 broadcasts against ``t``."""
    return (mean_distance(t + 1, sigma) - mean_distance(t - 1, sigma)) / 2


def gaussian_correlation(sigma: float) -> float:
    """E[X T(X)] for X ~ N(0, sigma^2) and T the monotone map to U: sigma / sqrt(pi)."""
    return sigma / math.sqrt(math.pi)


def smoothed_correlation(sigma: float) -> float:
    """E[X T(X)] for X ~ U * N(0, sigma^2) and T the monotone map to U.

    With F the distribution function of X, T = 2 F - 1, so this is half of Gini's mean difference
    E|X - X'|. There X - X' has a triangular law on [-2, 2] smoothed by N(0, 2 sigma^2), against
    which |w| integrates to a second difference of |w|^3 / 24.
    """
    scale = math.sqrt(2) * sigma
    return (_mean_cube(2, scale) - _mean_cube(0, scale)) / 24


def smoothed_cost(sigma: float) -> float:
    """W2^2(U * N(0, sigma^2), U) in one dimension."""
    return 2 / 3 + sigma**2 - 2 * smoothed_correlation(sigma)


def smoothed_quantile(level: float, sigma: float) -> float:
    """Where the monotone map from U * N(0, sigma^2) to U takes this value in (-1, 1)."""
    from scipy.optimize import root_scalar

    if sigma == 0:
        return level
    reach = 2 + 10 * sigma / (1 - abs(level))

    def gap(t: float) -> float:
        return (_distance(t + 1, sigma) - _distance(t - 1, sigma)) / 2 - level

    return root_scalar(gap, bracket=(-reach, reach), xtol=1e-14).root


def smoothed_excess(t: float, sigma: float) -> float:
    """E[X; X > t] for X ~ U * N(0, sigma^2), from (X - t)^+ = (|X - t| + X - t) / 2."""
    below = (1 + (_distance(t + 1, sigma) - _distance(t - 1, sigma)) / 2) / 2
    distance = (_signed_square(1 - t, sigma) + _signed_square(1 + t, sigma)) / 4
    return t * (1 - below) + (distance - t) / 2


def _distance(t: float, sigma: float) -> float:
    """`mean_distance` of floats."""
    if sigma == 0:
        return abs(t)
    z = t / sigma
    return t * math.erf(z / math.sqrt(2)) + math.sqrt(2 / math.pi) * sigma * math.exp(-z * z / 2)


def _signed_square(t: float, sigma: float) -> float:
    """E[s |s|] for s = t + sigma xi, odd in t; its derivative is 2 E|s|."""
    if sigma == 0:
        return t * abs(t)
    z = t / sigma
    return (t**2 + sigma**2) * math.erf(z / math.sqrt(2)) + t * sigma * math.sqrt(
        2 / math.pi
    ) * math.exp(-z * z / 2)


def _mean_cube(t: float, sigma: float) -> float:
    """E|t + sigma xi|^3."""
    if sigma == 0:
        return abs(t) ** 3
    z = t / sigma
    density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return (t**3 + 3 * t * sigma**2) * math.erf(z / math.sqrt(2)) + 2 * sigma * (
        t**2 + 2 * sigma**2
    ) * density


def noise_off_spheres(power: int, sigma: float, *, k: int, spheres: int, outside: int) -> float:
    """E dist(x, M)^power for x ~ N(y, sigma^2 I) and y uniform on M, a product of unit spheres; by
    quadrature, to about ten digits.

    The noise has a block a_i of k + 1 coordinates for each sphere, and b of ``outside`` ones:
    dist^2 = sum_i (|a_i| - 1)^2 + |b|^2. Here |a_i| / sigma has the noncentral chi law of k + 1
    degrees and centre 1 / sigma, and |b| / sigma the chi law. From q = dist^2 to its root leads
    sqrt(q) = int_0^oo (1 - exp(-t q)) t^{-3/2} dt / (2 sqrt(pi)): the expectation of exp(-t q)
    factorises.

    Args:
        power: 1 or 2.
        sigma: standard deviation of the noise, positive.
        k: dimension of each sphere.
        spheres: number of spheres.
        outside: number of coordinates that vanish on M.
    """
    import numpy as np
    from scipy.stats import ncx2

    variance = sigma**2
    nodes, weights = np.polynomial.legendre.leggauss(200)
    ends = np.array([max(0.0, 1 - 12 * sigma), 1.0, math.sqrt(1 + (k + 1) * variance) + 12 * sigma])
    lengths = np.diff(ends)[:, None]
    radii = (ends[:-1, None] + lengths * (nodes + 1) / 2).ravel()
    weights = (
        (lengths * weights).ravel()
        * radii
        / variance
        * ncx2.pdf(radii**2 / variance, k + 1, 1 / variance)
    )
    squares = (radii - 1) ** 2
    second_moment = spheres * float(weights @ squares) + outside * variance
    if power == 2:
        return second_moment
    step = 0.25
    log_t = np.arange(-60, 60, step)  # in units of 1 / E q
    t = np.exp(log_t) / second_moment
    p = -(
        weights @ np.expm1(-np.outer(squares, t))
    )  # 1 - E exp(-t (|a_i| - 1)^2), which rounding may take above one
    log_laplace = spheres * np.log1p(-p.clip(max=1 - 1e-15)) - outside / 2 * np.log1p(
        2 * variance * t
    )
    return (
        step
        * math.sqrt(second_moment / (4 * math.pi))
        * float(-np.expm1(log_laplace) @ np.exp(-log_t / 2))
    )
