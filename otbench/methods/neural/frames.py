"""Coordinates that a map is trained in: those of the problem, or those in which the linear map is
the identity.

Maps are trained for the correlation <Q(x), y>, which has the same optimal maps as the cost ||Q(x) -
y||^2. A frame translates points of both spaces, images, and the potential psi of
`otbench.methods.neural.maxmin`. All of it is stacked: points are ``(stack, n, d)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otbench.methods.gaussian_maps import moments_of, optimal_matrix, powers, ridge_of
from otbench.problem import SQEUCLIDEAN, MapProblem, Measure


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor
    Moments = tuple[Tensor, Tensor]

MOMENT_POINTS = 2**16  # for the moments of a measure that does not know its own,
MOMENT_COORDINATES = 2**24  # or as many as have these coordinates
RIDGE = 1e-6  # of the mean variance: directions without mass have no linear map
# Exponent of the variances in the scale of network inputs: half of the way to equal variances.
SCALING = -0.25


@dataclass(frozen=True)
class OwnCoordinates:
    """The problems' own coordinates.

    Attributes:
        problems: the stack.
        scale: of what networks take in.
    """

    problems: Sequence[MapProblem]
    scale: float = 1.0

    def of_source(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs of the map, and Q(x), which is to be correlated with its images."""
        import torch

        if all(problem.cost == SQEUCLIDEAN for problem in self.problems):
            return x, x
        return x, torch.stack(
            [problem.cost.embed(points) for problem, points in zip(self.problems, x, strict=True)]
        )

    def of_target(self, y: Tensor) -> Tensor:
        """Coordinates of points of the target's space."""
        return y

    def to_target(self, y: Tensor) -> Tensor:
        """Points of the target's space from their coordinates."""
        return y

    def potential(self, y: Tensor, psi: Tensor) -> Tensor:
        """Values ``(stack, n)`` of psi for the problem as given at ``y``, from those in these
        coordinates.
        """
        return psi

    def member(self, index: int) -> OwnCoordinates:
        """The frame of one problem of the stack."""
        return OwnCoordinates(self.problems[index : index + 1])


@dataclass(frozen=True)
class Balanced:
    """Coordinates ``x' = (x - m) M / s``, ``y' = (y - n) M^-T / s`` in which the linear map is the
    identity.

    They keep the correlation: ``<x, y> = s^2 <x', y'>`` up to terms of x or of y alone. With m, n
    the means and M M^T the optimal linear map between the Gaussians of the same moments, both
    measures have the mean 0 and one covariance, by choice of M and s a diagonal one of mean 1: the
    identity is the optimal map as far as two moments can tell, and a network has only the rest to
    learn.

    Attributes:
        source_mean, target_mean: m and n, ``(stack, 1, d)``.
        matrix, inverse: M and its inverse, ``(stack, d, d)``.
        unit: s, ``(stack, 1, 1)``.
        scale: the diagonal to the power `SCALING`, ``(stack, 1, d)``.
    """

    source_mean: Tensor
    target_mean: Tensor
    matrix: Tensor
    inverse: Tensor
    unit: Tensor
    scale: Tensor

    @classmethod
    def of(cls, known: Sequence[tuple[Moments, Moments]], dtype: torch.dtype) -> Balanced:
        """From the moments of source and target, in float64."""
        import torch

        members = [_balance(of_source, of_target) for of_source, of_target in known]
        return cls(*(torch.stack(parts).to(dtype) for parts in zip(*members, strict=True)))

    def of_source(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As of `OwnCoordinates`; Q is the identity here, and the inputs are scaled."""
        x = (x - self.source_mean) @ self.matrix / self.unit
        return self.scale * x, x

    def of_target(self, y: Tensor) -> Tensor:
        """As of `OwnCoordinates`."""
        return (y - self.target_mean) @ self.inverse.mT / self.unit

    def to_target(self, y: Tensor) -> Tensor:
        """As of `OwnCoordinates`."""
        return self.unit * y @ self.matrix.mT + self.target_mean

    def potential(self, y: Tensor, psi: Tensor) -> Tensor:
        """``s^2 psi'(y') + <m, y>``."""
        return self.unit[..., 0] ** 2 * psi + (y * self.source_mean).sum(-1)

    def member(self, index: int) -> Balanced:
        """As of `OwnCoordinates`."""
        parts = (
            self.source_mean,
            self.target_mean,
            self.matrix,
            self.inverse,
            self.unit,
            self.scale,
        )
        return Balanced(*(part[index : index + 1] for part in parts))


Frame = OwnCoordinates | Balanced


def _balance(of_source: Moments, of_target: Moments) -> tuple[Tensor, ...]:
    """The attributes of `Balanced` for one problem, without the stack."""
    import torch

    (m, s), (n, t) = ((mean.double(), cov.double()) for mean, cov in (of_source, of_target))
    ridge = ridge_of(s, t, RIDGE)
    half, inverse_half = powers(optimal_matrix(s + ridge, t + ridge), 0.5, -0.5)
    variances, axes = torch.linalg.eigh(half @ (s + ridge) @ half)
    unit = variances.mean()
    return (
        m[None],
        n[None],
        half @ axes,
        axes.T @ inverse_half,
        unit.sqrt().reshape(1, 1),
        (variances / unit)[None] ** SCALING,
    )


def moments(measure: Measure, generator: torch.Generator) -> Moments:
    """Mean ``(d,)`` and covariance ``(d, d)``, as known or of a sample."""
    if measure.mean is not None and measure.cov is not None:
        return measure.mean, measure.cov
    points = measure.sample(min(MOMENT_POINTS, MOMENT_COORDINATES // measure.dim), generator)
    return moments_of(points)
