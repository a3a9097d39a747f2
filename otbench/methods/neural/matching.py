"""Batches of matched pairs: the points of a batch of the source lie, under the map as it is, near
those of its batch of the target.

What potentials are trained on is the difference of two means, that over target points and that over
images of source points, and near the optimum the difference is noise. Where the points of two
batches lie near one another it is small, for any smooth potential. So large clouds of both measures
are cut in halves at medians, along the coordinate in which their cells are widest, again and again
and both alike, as in the bijections of BSP-OT (Genest et al. 2025); a batch has one point of either
cloud from each of as many parts of the tree. Every point that is drawn is used, and used once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from otbench.methods.neural.sampling import Draw, Draws, draw_each


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

Coordinates = Callable[["Tensor", "Tensor"], tuple["Tensor", "Tensor"]]

POINTS = 2**16  # drawn at a time from each measure, at most,
COORDINATES = 2**22  # or as many as have these coordinates, where a point is large
LEAF = 4  # points of a cell that is not cut any further, at most
SEEN = 64  # points of a cell, about, that tell in which coordinate it is widest


class MatchedPairs(Draws):
    """Batches of source points and of target points that lie near their images, ``(stack, 2 batch,
    d)``, those of the source first, in no order among themselves.

    Args:
        source: one ``draw(n, generator)`` of points ``(n, d)`` per member of the stack.
        target: likewise, of as many coordinates.
        generators: one per member.
        batch: points of each measure.
        coordinates: takes source points and target points, both ``(stack, n, d)``, to the images
            and the points that are to be near.
    """

    def __init__(
        self,
        source: Sequence[Draw],
        target: Sequence[Draw],
        generators: Sequence[torch.Generator],
        batch: int,
        coordinates: Coordinates,
    ) -> None:
        self.source, self.target, self.generators = source, target, generators
        self.batch, self.coordinates = batch, coordinates
        self.batches: list[Tensor] = []

    def match(self) -> None:
        """Match new points if there are none left. To be called between rounds: in the middle of
        one the images would be those of other weights than in a round that is repeated as a graph.
        """
        import torch

        if self.batches:
            return
        with torch.no_grad():
            dim = self.source[0](1, torch.Generator(self.generators[0].device)).shape[-1]
            points = min(POINTS, COORDINATES // dim)
            # A power of two of batches, so that cells can be halved; two at least.
            number = 1 << max(1, (points // self.batch).bit_length() - 1)
            x, y = (
                draw_each(draws, self.generators, number * self.batch)
                for draws in (self.source, self.target)
            )
            self.batches = self._cut(x, y, number)

    def draw(self) -> Tensor:
        """As of `Draws`."""
        self.match()
        return self.batches.pop()

    def state(self) -> list[Tensor]:
        """As of `Draws`."""
        return self.batches

    def load(self, state: list[Tensor]) -> None:
        """As of `Draws`."""
        self.batches = state

    def _cut(self, x: Tensor, y: Tensor, number: int) -> list[Tensor]:
        """So many batches of these points."""
        import torch

        def shuffled(*shape: int) -> Tensor:
            return torch.stack(
                [
                    torch.rand(*shape, generator=generator, device=generator.device).argsort(-1)
                    for generator in self.generators
                ]
            )

        # Parts of the tree with a point for each batch, in an order of their own in either batch:
        # what a loss takes a pair of points for is then one of independent points.
        parts = (len(self.generators), self.batch, number)
        which = shuffled(self.batch, number)
        orders = [
            order.view(parts).gather(2, which).mT.gather(2, shuffled(number, self.batch))
            for order in matched_orders(*self.coordinates(x, y))
        ]
        of_both = [
            torch.stack([cloud[order] for cloud, order in zip(points, one, strict=True)])
            for points, one in zip((x, y), orders, strict=True)
        ]
        return list(torch.cat(of_both, 2).unbind(1))


def matched_orders(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Orders ``(stack, n)`` of two stacks of clouds ``(stack, n, d)`` in which points of the same
    place lie near one another, and near those of the places beside.

    Cells are halved at the medians of both clouds, along the coordinate in which both together are
    widest, until they have at most `LEAF` points or an odd number.
    """
    import torch

    stack, n, dim = x.shape
    clouds = [cloud.reshape(-1, dim) for cloud in (x, y)]
    first = torch.arange(stack, device=x.device)[:, None] * n
    orders = [first + torch.arange(n, device=x.device) for _ in clouds]
    size = n
    while size % 2 == 0 and size > LEAF:
        some = slice(None, None, max(1, size // SEEN))
        spreads = [
            cloud[order[:, some]].var(1) for cloud, order in zip(clouds, orders, strict=True)
        ]
        widest = (spreads[0] + spreads[1]).argmax(1, keepdim=True)
        size //= 2
        orders = [
            order.gather(1, cloud[order, widest].argsort(1)).view(-1, size)
            for cloud, order in zip(clouds, orders, strict=True)
        ]
    of_x, of_y = (order.view(stack, n) - first for order in orders)
    return of_x, of_y
