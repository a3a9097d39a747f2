"""Partial optimal transport, of which only a share of the mass is moved, as a balanced problem
(Caffarelli & McCann 2010; Chapel, Alaya & Gasso 2020).

    min <C, P>    over P >= 0 with P 1 <= a, P' 1 <= b and 1' P 1 = s.

Each cloud gets one point more, which takes what the other keeps, at no cost: between weights (a, 1
- s) and (b, 1 - s) the plans are [[P, a - P 1], [(b - P' 1)', 0]], of mass 2 - s. Nothing goes from
the one added point to the other, for then more than s would be moved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otbench.problem import SQEUCLIDEAN, Cost, DiscreteProblem, Truth


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor


def _pairwise(x: Tensor, y: Tensor) -> Tensor:
    return SQEUCLIDEAN.pairwise(x[:, :-1], y[:, :-1]) * ((x[:, -1] == 0) & (y[:, -1] == 0))


def _matrix(x: Tensor, y: Tensor) -> Tensor:
    costs = SQEUCLIDEAN.matrix(x[:, :-1], y[:, :-1])
    return costs.masked_fill((x[:, -1:] != 0) | (y[:, -1] != 0), 0)


PARTIAL = Cost(
    "partial-sqeuclidean",
    "c(x, y) = ||x - y||^2 of all coordinates but the last, 0 where the last of one is 1",
    _pairwise,
    _matrix,
    2,
)


def partial_pair(x: Tensor, a: Tensor, y: Tensor, b: Tensor, share: float) -> DiscreteProblem:
    """The balanced problem of moving a share of the mass.

    Args:
        x: points ``(n, d)``.
        a: their weights ``(n,)``, summing to one.
        y: points ``(m, d)``.
        b: their weights ``(m,)``, summing to one.
        share: s, in (0, 1].

    Returns:
        Clouds ``(n + 1, d + 1)`` and ``(m + 1, d + 1)``, the added points last, whose weights sum
        to one: plans and costs are those of the partial problem divided by 2 - s.
    """
    import torch

    def extended(points: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        flagged = torch.nn.functional.pad(points, (0, 1, 0, 1))
        flagged[-1, -1] = 1
        return flagged, torch.cat([weights, weights.new_tensor([1 - share])]) / (2 - share)

    return DiscreteProblem(*extended(x, a), *extended(y, b), PARTIAL, Truth("none"))
