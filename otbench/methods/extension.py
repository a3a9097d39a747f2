"""Couplings of sample points extended to new points: maps, draws and potentials.

Extension to a new point x, as a map, either

* *entropic map* (Pooladian & Niles-Weed 2021, eq. 5), where the coupling has a target potential g
  and its eps: ``T(x) = sum_j w_j(x) y_j`` with ``w(x) = softmax_j(log b_j + (g_j - c(x, y_j)) /
  eps)``; or
* *nearest neighbour*: the barycentric image ``sum_j P_ij y_j / sum_j P_ij`` of the sample point x_i
  nearest to x, whose copies in the sample count as one; or
* the adapter's own ``push``, where its library has one.

Averages are projected to the space of the cost, where that is not all of R^d.

Where the optimal plan is no map, a plan is not its means. There an extension is judged by draws
from the conditional law of y given x, which are target points of the pair, either

* *entropic*: y_j with probability ``w_j(x)``, the weights above. At a sample point they are its
  row of the plan; elsewhere the row that the potentials give x, f being the soft c-transform of g;
  or
* *nearest neighbour*: y_j with probability ``P_ij / sum_j P_ij``, x_i being the sample point
  nearest to x. It is not shifted by x - x_i, as the map is not: it stays on the target. Sample
  points at one place share their rows, for the mass of an atom is what a plan splits.

A plan that gives each sample point one target point, as an optimal one between points of equal
weights does, has one draw: that of its map.

A target potential g also gives a potential on the source side, its c-transform f(x) = min_j c(x,
y_j) - g_j, soft where the coupling has an eps: f(x) = -eps log sum_j b_j exp((g_j - c(x, y_j)) /
eps). No potential on the target side is offered: the map is not found against it, so it makes no
saddle to be judged by (see `otbench.scoring.verdict`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from otbench.metrics import marginal, merged
from otbench.problem import DiscreteProblem
from otbench.solver import Coupling


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

CHUNK = 4096  # rows of a cost matrix held at a time while pushing


def extend(coupling: Coupling, pair: DiscreteProblem) -> Callable[[Tensor], Tensor]:
    """The map of new points that a coupling of sample points defines, see the module."""
    import torch

    project = pair.cost.project
    if coupling.push is not None:
        return in_chunks(coupling.push)
    if coupling.g is None or coupling.eps is None:
        # copies of a point go where their mass goes together, points without mass nowhere
        of_points = coupling.plan @ pair.y.flatten(1), marginal(coupling.plan, 1)
        x, _, (sums, mass) = merged(pair.x, *of_points)
        moved = mass > 0
        images = sums[moved] / mass[moved, None]
        x, images = pair.cost.embed(x[moved]), project(images.reshape(-1, *pair.y.shape[1:]))
        return in_chunks(lambda new: images[pair.cost.matrix(new, x).argmin(1)])
    weights, y = gibbs_weights(pair, coupling.g, coupling.eps), pair.y[pair.b > 0]
    return in_chunks(lambda new: project(torch.tensordot(weights(new), y, 1)))


def conditional(
    coupling: Coupling, pair: DiscreteProblem, seed: int
) -> Callable[[Tensor, int], Tensor]:
    """Draws from the plan given new points, ``(n, *shape)`` and k to ``(n, k, *target shape)``, see
    the module.

    Args:
        coupling: of the pair.
        pair: two clouds.
        seed: of the draws, which are the same at every call.
    """
    import torch

    if coupling.g is None or coupling.eps is None:
        drawn = nearest_row(coupling.plan, pair)
    else:
        drawn = gibbs_row(pair, coupling.g, coupling.eps)

    def sample(x: Tensor, k: int) -> Tensor:
        stream = torch.Generator(x.device).manual_seed(seed)
        u = torch.rand(len(x), k, generator=stream, device=x.device, dtype=torch.float64)
        chunks = zip(x.split(CHUNK), u.split(CHUNK), strict=True)
        return pair.y[torch.cat([drawn(part.double(), level) for part, level in chunks])].to(
            x.dtype
        )

    return sample


def gibbs_weights(pair: DiscreteProblem, g: Tensor, eps: float) -> Callable[[Tensor], Tensor]:
    """``(k, *shape) -> (k, m)``: the law of y given x under the entropic plan of ``g``, among the m
    target points with mass.
    """
    import torch

    kept = pair.b > 0
    y, offset = pair.y[kept], pair.b[kept].log() + g[kept] / eps
    return lambda x: torch.add(offset, pair.cost.matrix(x, y), alpha=-1 / eps).softmax(1)


def gibbs_row(pair: DiscreteProblem, g: Tensor, eps: float) -> Callable[[Tensor, Tensor], Tensor]:
    """As `nearest_row`, of the laws that the entropic plan of ``g`` gives to any x."""
    import torch

    weights, kept = gibbs_weights(pair, g, eps), pair.b.nonzero()[:, 0]

    def drawn(x: Tensor, levels: Tensor) -> Tensor:
        reached = weights(x).cumsum(1)
        column = torch.searchsorted(reached, levels * reached[:, -1:], right=True)
        return kept[column.clamp(max=len(kept) - 1)]

    return drawn


def nearest_row(plan: Tensor, pair: DiscreteProblem) -> Callable[[Tensor, Tensor], Tensor]:
    """``(k, *shape)`` and levels ``(k, draws)`` in [0, 1) to the target points, ``(k, draws)``, at
    which the laws of y given the nearest sample points reach these levels.
    """
    import torch

    moved = marginal(plan, 1) > 0
    place = torch.unique(pair.x.flatten(1), dim=0, return_inverse=True)[1]
    x, place_of = pair.cost.embed(pair.x[moved]), place[moved]
    entries = plan.to_sparse_coo().coalesce()
    held = entries.values() > 0
    (rows, columns), mass = entries.indices()[:, held], entries.values()[held]
    at, order = place[rows].sort(stable=True)
    columns, mass = columns[order], mass[order]
    # the laws of all places one after the other, each of mass one
    total = mass.new_zeros(len(place)).index_add_(0, at, mass)
    reached = (mass / total[at]).cumsum(0)
    before = torch.cat([reached.new_zeros(1), reached])
    end = torch.bincount(at, minlength=len(place)).cumsum(0)
    begin = torch.cat([end.new_zeros(1), end[:-1]])

    def drawn(new: Tensor, levels: Tensor) -> Tensor:
        here = place_of[pair.cost.matrix(new, x).argmin(1)][:, None]
        low, high = before[begin[here]], before[end[here]]
        entry = torch.searchsorted(reached, low + levels * (high - low), right=True)
        return columns[entry.clamp(begin[here], end[here] - 1)]

    return drawn


def c_transform(pair: DiscreteProblem, g: Tensor, eps: float | None) -> Callable[[Tensor], Tensor]:
    """``(k, *shape) -> (k,)``: the potential on the source side of ``g`` on the target points, soft
    where ``eps`` is given.

    Autograd goes through it: the gradient of the hard one is that of the cost to the point that
    attains the minimum.
    """
    import torch

    kept = pair.b > 0
    cost, y, b, g = pair.cost, pair.y[kept], pair.b[kept], g[kept]
    if eps is None:

        def hard(x: Tensor) -> Tensor:
            best = (cost.matrix(x.detach(), y) - g).argmin(1)
            return cost.pairwise(x, y[best]) - g[best]

        return in_chunks(hard)
    offset = g / eps + b.log()

    def soft(x: Tensor) -> Tensor:
        return -eps * torch.add(offset, cost.matrix(x, y), alpha=-1 / eps).logsumexp(1)

    class Soft(torch.autograd.Function):
        """The cost matrix is computed again for the gradient: kept, those of all chunks together
        could fill the memory.
        """

        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return soft(x)

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, slope: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
            with torch.enable_grad():
                x = ctx.saved_tensors[0].detach().requires_grad_()
                return torch.autograd.grad(soft(x) @ slope, x)[0]

    return in_chunks(Soft.apply)


def in_chunks(push: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The same map, computed in float64 on `CHUNK` points at a time; the result is in the dtype of
    the points.
    """
    import torch

    return lambda x: torch.cat([push(chunk.double()) for chunk in x.split(CHUNK)]).to(x.dtype)
