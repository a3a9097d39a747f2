"""Metrics of plans that send each x to several points: to two branches with equal probability, or
to a circle, uniformly. Tasks that have such plans supply the probes of `otbench.families.probes`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from otbench.metrics.declare import metric, ratio
from otbench.metrics.distances import exact_w2_squared


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

ON_BRANCH = 0.1  # how far from a branch a mapped point may lie, in half-distances of the branches
SECTORS = 12  # equal ones, that the angles on a circle are counted in
ON_CIRCLE = 0.25  # how far from the unit circle a mapped point may lie
CIRCLE_POINTS = 1024  # mapped points, the first, that are assigned to places on the circle


@metric(unit="1", better="lower", worst=0.5)
def branch_imbalance(branch_position: Tensor) -> float:
    """One-to-many: |share of the mass on the upper branch - 1/2|."""
    return abs(float((branch_position > 0).double().mean()) - 0.5)


@metric(unit="1", better="lower", worst=1.0)
def branch_off(branch_position: Tensor) -> float:
    """One-to-many: share of the mass further from both branches than a tenth of their
    half-distance, along the line that joins them.
    """
    return float(((branch_position.abs() - 1).abs() > ON_BRANCH).double().mean())


@metric(unit="%", better="lower")
def branch_sideways(branch_rest: Tensor, target_variance: float) -> float:
    """One-to-many: squared distance from the line that joins the branches, 100 E / Var(target)."""
    return ratio(100 * float(branch_rest.double().mean()), target_variance)


@metric(unit="1", better="higher", worst=0.0)
def branch_entropy(branch_draws: Tensor) -> float:
    """One-to-many: entropy in bits of the branch given x, mean over x; 1 is right (0.99 with 64
    draws), a deterministic map has 0.
    """
    import torch

    upper = (branch_draws > 0).double().mean(1)
    return float(
        -(torch.xlogy(upper, upper) + torch.xlogy(1 - upper, 1 - upper)).mean() / math.log(2)
    )


@metric(unit="1", better="lower")
def branch_defect(branch_position: Tensor) -> float:
    """Verdict, one-to-many: W2^2 along the line that joins the branches, as a share of the variance
    there.

    One branch alone scores 2, the middle between them 1, in any dimension: the target defect is
    diluted by the other coordinates.
    """
    position = branch_position.double().sort().values
    branch = position.new_ones(len(position))
    branch[: len(position) // 2] = -1
    return float((position - branch).square().mean())


@metric(unit="1", better=None)
def branch_visible(branch_position: Tensor) -> float:
    """Verdict, one-to-many: the branch defect that sampling alone may show, from three standard
    errors of a fair coin.
    """
    return 6 / len(branch_position) ** 0.5


@metric(unit="1", better="higher", worst=0.0)
def circle_entropy(circle_places: Tensor) -> float:
    """One-to-many on a circle: entropy of the angles of the mapped points on it, in 12 equal
    sectors, over log 12, times their share; 1 is right, one direction has 0.
    """
    return float(_entropy(_sectors(circle_places)))


@metric(unit="1", better="lower", worst=1.0)
def circle_tv(circle_places: Tensor) -> float:
    """One-to-many on a circle: total variation of the mapped points, in 12 equal sectors of it or
    off it, to the uniform law on it.
    """
    shares = _sectors(circle_places)
    return float((shares - 1 / SECTORS).abs().sum() + (1 - shares.sum())) / 2


@metric(unit="1", better="lower", worst=1.0)
def circle_off(circle_places: Tensor) -> float:
    """One-to-many on a circle: share of the mapped points further than a quarter of the radius from
    it; the mean of all lies at the centre.
    """
    return float((~_on_circle(circle_places)).double().mean())


@metric(unit="1", better="higher", worst=0.0)
def circle_diversity(circle_draws: Tensor) -> float:
    """One-to-many on a circle: entropy of the sector given x over log 12 times the share of draws
    that lie on the circle, mean over x; 1 is right (0.96 with 64 draws), a map has 0.
    """
    return float(_entropy(_sectors(circle_draws)).mean())


@metric(unit="1", better="lower")
def circle_defect(circle_places: Tensor) -> float:
    """Verdict, one-to-many on a circle: W2^2 in its plane to the uniform law on it, as a share of
    the variance there.

    One direction alone scores 2, the centre 1. The uniform law is that of as many equally spaced
    points, at most 1,024.
    """
    import torch

    places = circle_places[:CIRCLE_POINTS].double().cpu()
    angles = 2 * math.pi * torch.arange(len(places), dtype=torch.float64) / len(places)
    return exact_w2_squared(places, torch.stack([angles.cos(), angles.sin()], 1))


@metric(unit="1", better=None)
def circle_visible(circle_places: Tensor) -> float:
    """Verdict, one-to-many on a circle: the circle defect that sampling alone may show, its 99 %
    quantile.

    With the arc for the chord, and n points turned so that they fit best, the defect is (2 pi)^2 /
    n times Watson's statistic U^2 of uniformity; P(U^2 > u) is about 2 exp(-2 pi^2 u) (Watson
    1961).
    """
    return 2 * math.log(200) / len(circle_places[:CIRCLE_POINTS])


def _on_circle(places: Tensor) -> Tensor:
    return (places.double().norm(dim=-1) - 1).abs() <= ON_CIRCLE


def _sectors(places: Tensor) -> Tensor:
    """Shares ``(..., 12)`` of places ``(..., n, 2)`` that lie in equal sectors of the circle; those
    off it are in none.
    """
    import torch

    angles = torch.atan2(places[..., 1], places[..., 0]).double().remainder(2 * math.pi)
    sectors = (angles * (SECTORS / (2 * math.pi))).long().clamp(max=SECTORS - 1)
    counted = torch.nn.functional.one_hot(sectors, SECTORS) * _on_circle(places)[..., None]
    return counted.double().mean(-2)


def _entropy(shares: Tensor) -> Tensor:
    """Entropy over the last dimension of what is in any sector, as a share of the largest, times
    how much that is.
    """
    import torch

    total = shares.sum(-1, keepdim=True)
    given = shares / total.clamp(min=1e-300)
    entropy = torch.special.entr(given).sum(-1) / math.log(shares.shape[-1])
    return entropy * total.squeeze(-1)
