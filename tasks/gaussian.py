"""Gaussian to Gaussian: one normal law moved onto another by an affine map.

N(m1, S1) goes to N(m2, S2), two random normal laws on R^d, at the cost ||x - y||^2. Map and cost
are known (Dowson & Landau 1982):

    T(x) = m2 + A (x - m1),    A = S1^{-1/2} (S1^{1/2} S2 S1^{1/2})^{1/2} S1^{-1/2},
    W2^2 = |m1 - m2|^2 + tr(S1 + S2 - 2 (S1^{1/2} S2 S1^{1/2})^{1/2}).

A is symmetric positive definite, so T is the gradient of a convex potential phi, hence optimal and
unique (Brenier 1991), and the Kantorovich potentials are |x|^2 - 2 phi(x) and |y|^2 - 2 phi*(y).

This is what every solver must get: the map is affine, the measures are smooth, and ``linear``
solves it exactly, up to the sampling error of the moments. What makes it harder is a large
``condition``, for gradient descent, and a large ``dim``, for solvers that match samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from otbench import SQEUCLIDEAN, MapProblem, Measure, Task, Truth


if TYPE_CHECKING:
    import numpy as np
    import torch

    Tensor = torch.Tensor


@dataclass(frozen=True)
class Gaussian(Task):
    """Two Gaussians with random means and covariances.

    Attributes:
        dim: dimension d.
        condition: condition number of both covariances; eigenvalues are spaced geometrically in [1
            / condition, 1].
        shift: norm of the difference of the means.
    """

    name: ClassVar[str] = "gaussian"
    dim: int = 2
    condition: float = 10.0
    shift: float = 1.0

    def __post_init__(self) -> None:
        """Check the parameters."""
        self.require(at_least_one=("dim", "condition"), not_negative=("shift",))

    def problem(self, rng: np.random.Generator, *, device: str, dtype: torch.dtype) -> MapProblem:
        """Draw the two Gaussians from ``rng``."""
        import numpy as np
        import torch

        roots = [_random_root(rng, self.dim, self.condition) for _ in range(2)]
        direction = rng.standard_normal(self.dim)
        means = [np.zeros(self.dim), self.shift * direction / np.linalg.norm(direction)]
        covs = [root @ root for root in roots]
        cross = _sqrt(roots[0] @ covs[1] @ roots[0])
        inverse_root = np.linalg.inv(roots[0])
        slope = inverse_root @ cross @ inverse_root
        matrix, inverse = (
            torch.as_tensor(array, device=device, dtype=dtype)
            for array in (slope, np.linalg.inv(slope))
        )
        cost = float(np.sum((means[0] - means[1]) ** 2) + np.trace(covs[0] + covs[1] - 2 * cross))
        source, target = (
            _measure(mean, cov, root, device=device, dtype=dtype)
            for mean, cov, root in zip(means, covs, roots, strict=True)
        )
        assert source.mean is not None and target.mean is not None
        m1, m2 = source.mean, target.mean

        def push(x: Tensor) -> Tensor:
            return m2 + (x - m1) @ matrix

        def potential(x: Tensor) -> Tensor:
            return x.square().sum(1) - 2 * x @ m2 - ((x - m1) @ matrix * (x - m1)).sum(1)

        def target_potential(y: Tensor) -> Tensor:
            return y.square().sum(1) - 2 * (y - m2) @ m1 - ((y - m2) @ inverse * (y - m2)).sum(1)

        truth = Truth(
            "closed_form", cost, push, potential=potential, target_potential=target_potential
        )
        return MapProblem(source, target, SQEUCLIDEAN, truth)


def _random_root(rng: np.random.Generator, dim: int, condition: float) -> np.ndarray:
    """Symmetric square root of a covariance with this condition number and Haar-random axes."""
    import numpy as np

    axes, r = np.linalg.qr(rng.standard_normal((dim, dim)))
    axes *= np.sign(np.diag(r))
    return (axes * np.geomspace(1 / condition, 1, dim) ** 0.5) @ axes.T


def _sqrt(cov: np.ndarray) -> np.ndarray:
    import numpy as np

    values, axes = np.linalg.eigh(cov)
    return (axes * np.sqrt(values)) @ axes.T


def _measure(
    mean: np.ndarray, cov: np.ndarray, root: np.ndarray, *, device: str, dtype: torch.dtype
) -> Measure:
    import torch

    m, s, r = (torch.as_tensor(array, device=device, dtype=dtype) for array in (mean, cov, root))

    def draw(n: int, generator: torch.Generator) -> torch.Tensor:
        return (
            m
            + torch.randn(n, len(m), generator=generator, device=generator.device, dtype=dtype) @ r
        )

    return Measure((len(m),), draw, mean=m, cov=s, variance=float(cov.trace()))
