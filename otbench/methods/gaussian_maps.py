"""Optimal maps between Gaussians, from moments.

Between N(m, S) and N(n, T) it is ``n + A (x - m)`` with ``A = S^{-1/2} (S^{1/2} T S^{1/2})^{1/2}
S^{-1/2}`` (Dowson & Landau 1982; Knott & Smith 1984).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

RIDGE = 1e-10  # of the mean variance: without it A does not exist for measures on a subspace


def moments_of(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean ``(d,)`` and covariance ``(d, d)`` of points ``(n, d)``."""
    return x.mean(0), x.T.cov().reshape(x.shape[1], x.shape[1])


def optimal_matrix(s: Tensor, t: Tensor) -> Tensor:
    """A, from the covariances ``(d, d)``, of which S is positive definite."""
    root, inverse_root = powers(s, 0.5, -0.5)
    (middle,) = powers(root @ t @ root, 0.5)
    return inverse_root @ middle @ inverse_root


def gaussian_map(x: Tensor, y: Tensor) -> Callable[[Tensor], Tensor]:
    """The optimal map between the Gaussians of the moments of two samples ``(n, d)``."""
    (m, s), (n, t) = moments_of(x.double()), moments_of(y.double())
    ridge = ridge_of(s, t, RIDGE)
    matrix = optimal_matrix(s + ridge, t + ridge)
    return lambda z: ((z.double() - m) @ matrix + n).to(z.dtype)


def ridge_of(s: Tensor, t: Tensor, share: float) -> Tensor:
    """``(d, d)``: the identity, times this share of the mean variance of both."""
    import torch

    eye = torch.eye(len(s), dtype=s.dtype, device=s.device)
    return share * (s + t).trace() / (2 * len(s)) * eye


def powers(matrix: Tensor, *exponents: float) -> list[Tensor]:
    """Powers of a symmetric matrix that is positive semi-definite but for rounding."""
    import torch

    values, axes = torch.linalg.eigh(matrix)
    values = values.clamp(min=0)
    return [axes * values**exponent @ axes.T for exponent in exponents]
