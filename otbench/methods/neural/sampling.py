"""Fresh samples for a stack: batches cut from chunks, each member's from its own measure and
generator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

CHUNK_POINTS = 2**15  # drawn at a time from each measure, so that a batch costs a slice,
CHUNK_COORDINATES = 2**22  # or as many as have these coordinates, where a point is large


class Stream:
    """Batches without end.

    Args:
        draws: one ``draw(n, generator)`` per member of the stack.
        generators: one per member.
        batch: points of a batch.
    """

    def __init__(
        self,
        draws: Sequence[Callable[[int, torch.Generator], Tensor]],
        generators: Sequence[torch.Generator],
        batch: int,
    ) -> None:
        self.draws, self.generators, self.batch = draws, generators, batch
        self.batches: list[Tensor] = []

    def next(self) -> Tensor:
        """``(stack, batch, *shape)`` points drawn anew."""
        if not self.batches:
            self.batches = self._refill()
        return self.batches.pop()

    def state(self) -> list[Tensor]:
        """The batches that are drawn already; the generators are not the stream's own."""
        return self.batches

    def load(self, state: list[Tensor]) -> None:
        """Go on with the batches of this state."""
        self.batches = state

    def _refill(self) -> list[Tensor]:
        import torch

        with torch.no_grad():
            one = self.draws[0](1, torch.Generator(self.generators[0].device))
            points = min(CHUNK_POINTS, CHUNK_COORDINATES // one.numel())
            n = self.batch * max(1, points // self.batch)
            chunk = torch.stack(
                [
                    draw(n, generator)
                    for draw, generator in zip(self.draws, self.generators, strict=True)
                ]
            )
        return list(chunk.split(self.batch, 1))
