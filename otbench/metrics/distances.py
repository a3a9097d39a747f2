"""Distances between samples, which metrics are made of."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

EXACT_DIM = 16  # up to this dimension discrepancies are an exact W2^2 too, above it sliced alone
EXACT_POINTS = 4096  # most points of one linear assignment
DIRECTIONS = 512
DIRECTIONS_SEED = 20_111  # far from the seeds of samples, lest directions be points
BLOCK = 4096  # rows of a matrix of distances that are held at a time

# Potentials that an assignment starts from.
SCALED_EPS = (1 / 20, 1 / 100, 1 / 400)  # of the mean cost
SINKHORN_ITERATIONS = 20  # at each eps

# The search for the direction of the largest slice: enough for the defects of docs/power.md, with
# twice the steps and the starts they are hardly larger.
ASCENT_STARTS = 4  # at random
ASCENT_STEPS = 30
ASCENT_ALL = 10  # steps of every start; then the best go on
ASCENT_BEST = 3
ASCENT_LENGTH = 0.1  # of the first step, in radians; they shrink to nothing
TINY = 1e-30  # least variance of points that are not larger than one
NO_LENGTH = 1e-300  # of what is not scaled to length one
MOMENT_DIM = 1024  # most coordinates where eigenvectors of covariances are starts, too


def discrepancies(x: Tensor, y: Tensor) -> Tensor:
    """W2^2 between two samples of equal size: d times sliced and, up to dimension 16, exact;
    ``(1,)`` or ``(2,)``.
    """
    x, y = x.flatten(1).double().cpu(), y.flatten(1).double().cpu()
    sliced = sliced_w2_squared(x, y)
    return x.new_tensor([exact_w2_squared(x, y), sliced] if x.shape[1] <= EXACT_DIM else [sliced])


def plugin_w2_squared(x: Tensor, y: Tensor) -> float:
    """Exact W2^2 between two samples of equal size, of points of any shape."""
    return exact_w2_squared(x.flatten(1).double().cpu(), y.flatten(1).double().cpu())


def exact_w2_squared(x: Tensor, y: Tensor) -> float:
    """Exact W2^2 between uniform samples ``(n, d)`` of equal size, as a linear assignment.

    Of more than 4,096 points it is the mean over blocks of so many; points that do not fill a block
    are left out. Sixty Sinkhorn iterations in float32 give potentials that the assignment starts
    from: it then takes half of the time or less. With equal rows, as a constant map has, it takes a
    thirtieth: what is left of their columns is zero.
    """
    import torch
    from scipy.optimize import linear_sum_assignment

    if x.shape[1] == 1:
        return float((x.sort(0).values - y.sort(0).values).square().mean())
    mode = (
        "donot_use_mm_for_euclid_dist" if x.shape[1] <= EXACT_DIM else "use_mm_for_euclid_dist"
    )  # in float64 it rounds well enough
    costs = []
    for start in range(0, max(1, len(x) - EXACT_POINTS + 1), EXACT_POINTS):
        cost = torch.cdist(
            x[start : start + EXACT_POINTS], y[start : start + EXACT_POINTS], compute_mode=mode
        ).square()
        if not torch.isfinite(cost).all():
            return math.inf
        reduced = cost - _column_potential(cost)
        reduced -= reduced.min(1, keepdim=True).values
        reduced -= reduced.min(0).values
        rows, columns = linear_sum_assignment(reduced.numpy())
        costs.append(float(cost[rows, columns].mean()))
    return sum(costs) / len(costs)


def _column_potential(cost: Tensor) -> Tensor:
    """``(m,)`` entropic potential of Sinkhorn's algorithm in float32, with eps scaled down."""
    import torch

    mean = float(cost.mean())
    if not mean > 0:
        return cost.new_zeros(cost.shape[1])
    cost = (cost / mean).float()
    g = cost.new_zeros(cost.shape[1])
    for eps in SCALED_EPS:
        f = (cost - g).amin(1, keepdim=True)
        # Not below 2e-22: arithmetic of subnormal numbers is slow.
        kernel = ((f + g - cost) / eps).clamp_(min=-50).exp_()
        v = torch.ones_like(g)
        for _ in range(SINKHORN_ITERATIONS):
            u = (kernel @ v).reciprocal()
            v = (kernel.T @ u).reciprocal()
        g = g + eps * v.log()
    return mean * g.double()


def sliced_w2_squared(x: Tensor, y: Tensor) -> float:
    """Mean W2^2 of the projections on 512 fixed directions (Rabin et al. 2011), times d: a
    translation then scores as in W2^2.
    """
    import numpy as np
    import torch

    directions = torch.randn(
        DIRECTIONS,
        x.shape[1],
        generator=torch.Generator().manual_seed(DIRECTIONS_SEED),
        dtype=x.dtype,
    )
    directions /= directions.norm(dim=1, keepdim=True)
    total = 0.0
    for part in directions.split(64):
        # numpy sorts several times faster than torch, which sorts indices too
        projected, other = (np.sort((part @ z.T).numpy(), axis=1) for z in (x, y))
        total += float(np.square(projected - other).mean(1).sum())
    return x.shape[1] * total / DIRECTIONS


def largest_slice(x: Tensor, y: Tensor) -> float:
    """W2^2 of the projections of two samples ``(n, d)`` on the direction where it is largest
    (Deshpande et al. 2019), as a share of the variance of y there, or of its mean variance in a
    direction where that is more.

    The direction is sought on the first half of each sample and the distance is taken on the
    second: in high dimension some direction parts any two samples. It is found by ascent from
    random starts, the difference of the means, and the directions where the variance of x is most
    above and below that of y. Not a number where y is a single point.
    """
    from torch.nn.functional import normalize

    x, y = x[: len(y)].flatten(1).double().cpu(), y[: len(x)].flatten(1).double().cpu()
    x, y = x - y.mean(0), y - y.mean(0)
    unit = max(float(x.abs().max()), float(y.abs().max()))
    x, y = x / unit, y / unit
    least, half = float(y.square().mean()), len(y) // 2
    if not least > 0:
        return math.inf if y.any() else math.nan
    directions = _ascent_starts(x[:half], y[:half])
    for step in range(ASCENT_STEPS):
        sought, slope = _slice_shares(x[:half], y[:half], directions, least)
        if step == ASCENT_ALL:
            best = sought.topk(ASCENT_BEST).indices
            directions, slope = directions[best], slope[best]
        slope -= (slope * directions).sum(1, keepdim=True) * directions
        length = ASCENT_LENGTH * (1 - step / ASCENT_STEPS)
        directions = normalize(directions + length * normalize(slope, eps=NO_LENGTH), eps=NO_LENGTH)
    sought, _ = _slice_shares(x[:half], y[:half], directions, least)
    shares, _ = _slice_shares(x[half:], y[half:], directions, least)
    return float(shares[sought.argmax()])


def _ascent_starts(x: Tensor, y: Tensor) -> Tensor:
    import torch
    from scipy.linalg import eigh
    from torch.nn.functional import normalize

    generator = torch.Generator().manual_seed(DIRECTIONS_SEED)
    starts = [
        torch.randn(ASCENT_STARTS, x.shape[1], generator=generator, dtype=x.dtype),
        (x.mean(0) - y.mean(0))[None],
    ]
    if x.shape[1] <= MOMENT_DIM:
        s, t = x.T.cov(), y.T.cov()
        least = t.diagonal().mean().clamp(min=TINY)
        _, axes = eigh((s - t).numpy(), (t + least * torch.eye(len(t), dtype=t.dtype)).numpy())
        starts.append(torch.from_numpy(axes[:, [0, -1]].T))
    return normalize(torch.cat(starts), eps=NO_LENGTH)


def _slice_shares(x: Tensor, y: Tensor, directions: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """W2^2 of the projections on each direction over the variance of those of y, but at least over
    ``least``, ``(k,)``; half its gradient ``(k, d)``.
    """
    import numpy as np
    import torch

    projections = directions @ x.T, directions @ y.T
    # numpy sorts several rows faster than torch
    of_x, of_y = (torch.from_numpy(np.argsort(z.numpy(), axis=1)) for z in projections)
    projected = projections[1]
    apart = projections[0].gather(1, of_x) - projected.gather(1, of_y)
    of_x, of_y = (torch.empty_like(apart).scatter_(1, order, apart) for order in (of_x, of_y))
    variance = projected.square().mean(1, keepdim=True)
    share = apart.square().mean(1, keepdim=True) / variance.clamp(min=least)
    slope = of_x @ x - of_y @ y - share * (variance > least) * (projected @ y)
    return share[:, 0], slope / variance.clamp(min=least) / len(x)


def total_distance(x: Tensor, y: Tensor) -> float:
    """Sum of ||x_i - y_j|| over all i and j, in float64, a block of rows at a time."""
    import torch

    x, y = x.flatten(1).double(), y.flatten(1).double()
    rows = max(1, BLOCK * BLOCK // len(y))
    return sum(float(torch.cdist(part, y).sum()) for part in x.split(rows))


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """W2^2 between the Gaussians with the means and covariances of samples ``(n, d)`` and ``(m,
    d)`` (Dowson & Landau 1982), in float64.

    With covariances R'R and S'S the trace of the root of their product is the nuclear norm of R S',
    for any rank. Not a number for fewer than two points.
    """
    import torch

    x, y = x.double(), y.double()
    if not (torch.isfinite(x).all() and torch.isfinite(y).all()):
        return math.inf
    if min(len(x), len(y)) < 2:
        return math.nan
    r, s = (torch.linalg.qr(z - z.mean(0), mode="r").R / (len(z) - 1) ** 0.5 for z in (x, y))
    apart = (x.mean(0) - y.mean(0)).square().sum() + r.square().sum() + s.square().sum()
    return max(0.0, float(apart - 2 * torch.linalg.matrix_norm(r @ s.T, "nuc")))
