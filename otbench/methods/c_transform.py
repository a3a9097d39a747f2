"""The c-transform of a potential, min_y c(x, y) - g(y), by descent from several starts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

DESCENT_STEPS = 50
UNBOUNDED = -1e30  # of a c-transform that has no minimum: a number, so that the gaps are numbers


def c_transform(
    cost: Any,
    g: Callable[[Tensor], Tensor],
    x: Tensor,
    start: Tensor,
    pool: Tensor,
    calling: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
) -> Tensor:
    """``(n,)`` upper bounds of min_y c(x, y) - g(y) that gradient descent makes tight (the pool
    alone is biased upwards).

    Args:
        cost: the problem's cost; the descent stays in the space it is defined on.
        g: potential on the target side.
        x: ``(n, *source shape)``.
        start: ``(n, *target shape)``, a candidate for each x.
        pool: ``(m, *target shape)``, candidates for all.
        calling: entered while g and its gradient are computed.
    """
    import torch

    with torch.no_grad():
        rows = max(1, 2**24 // len(pool))
        best = torch.cat([(cost.matrix(part, pool) - g(pool)).argmin(1) for part in x.split(rows)])
        candidates = torch.stack([start, pool[best]])

    def objective(y: Tensor) -> tuple[Tensor, Tensor]:
        """Its values at y, and their gradient."""
        y = y.detach().requires_grad_()
        with calling(), torch.enable_grad():
            values = cost.pairwise(x, y) - g(y)
            (slope,) = torch.autograd.grad(values.sum(), y)
        return values.detach(), slope

    with torch.no_grad():
        stay = cost.embed(x)
        least = cost.pairwise(x, stay) - g(
            stay
        )  # where a 1-Lipschitz potential of the cost ||x - y|| has its minimum, a kink
        least = least.nan_to_num(nan=torch.inf)
        for candidate in candidates:
            y = candidate.detach().clone()
            step = y.new_full((len(y), *(1,) * (y.ndim - 1)), 0.5)
            value, slope = objective(y)
            for _ in range(DESCENT_STEPS):
                moved = cost.project(y - step * slope)
                trial, slope_there = objective(moved)
                better = (trial < value).reshape(step.shape)
                y = torch.where(better, moved, y)
                slope = torch.where(better, slope_there, slope)
                value = torch.where(better.flatten(), trial, value)
                step *= torch.where(better, 1.2, 0.5)
            least = torch.minimum(least, value)
    return least.clamp(min=UNBOUNDED)
