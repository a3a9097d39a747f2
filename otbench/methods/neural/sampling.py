"""Fresh samples for a stack: batches cut from chunks, each member's from its own measure and
generator; and the buffers of a round's batches.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

Draw = Callable[[int, "torch.Generator"], "Tensor"]

CHUNK_POINTS = 2**15  # drawn at a time from each measure, so that a batch costs a slice,
CHUNK_COORDINATES = 2**22  # or as many as have these coordinates, where a point is large


def uniform_numbers(dim: int, dtype: torch.dtype) -> Draw:
    """Draws ``(n, dim)`` independent numbers, uniform on [0, 1], on the generator's device."""

    def draw(n: int, generator: torch.Generator) -> Tensor:
        import torch

        return torch.rand(n, dim, generator=generator, device=generator.device, dtype=dtype)

    return draw


def normal_numbers(dim: int, dtype: torch.dtype) -> Draw:
    """The same of the standard normal law."""

    def draw(n: int, generator: torch.Generator) -> Tensor:
        import torch

        return torch.randn(n, dim, generator=generator, device=generator.device, dtype=dtype)

    return draw


def draw_each(draws: Sequence[Draw], generators: Sequence[torch.Generator], n: int) -> Tensor:
    """``(stack, n, *shape)``: as many points for each member of a stack."""
    import torch

    return torch.stack(
        [draw(n, generator) for draw, generator in zip(draws, generators, strict=True)]
    )


class Draws(ABC):
    """Batches without end, all of one shape.

    Attributes:
        tape: where the batches of a round lie, while it is repeated.
    """

    tape: Tape | None = None

    def next(self) -> Tensor:
        """A batch drawn anew."""
        return self.draw() if self.tape is None else self.tape.next(self)

    @abstractmethod
    def draw(self) -> Tensor:
        """A batch, past the tape."""

    @abstractmethod
    def state(self) -> Any:
        """The batches that are drawn already; the generators are not its own."""

    @abstractmethod
    def load(self, state: Any) -> None:
        """Go on with the batches of this state."""


class Stream(Draws):
    """Batches of points, ``(stack, batch, *shape)``.

    Args:
        draws: one ``draw(n, generator)`` per member of the stack.
        generators: one per member.
        batch: points of a batch.
    """

    def __init__(
        self,
        draws: Sequence[Draw],
        generators: Sequence[torch.Generator],
        batch: int,
    ) -> None:
        self.draws, self.generators, self.batch = draws, generators, batch
        self.batches: list[Tensor] = []

    def draw(self) -> Tensor:
        """As of `Draws`."""
        if not self.batches:
            self.batches = self._refill()
        return self.batches.pop()

    def state(self) -> list[Tensor]:
        """As of `Draws`."""
        return self.batches

    def load(self, state: list[Tensor]) -> None:
        """As of `Draws`."""
        self.batches = state

    def _refill(self) -> list[Tensor]:
        import torch

        with torch.no_grad():
            one = self.draws[0](1, torch.Generator(self.generators[0].device))
            points = min(CHUNK_POINTS, CHUNK_COORDINATES // one.numel())
            n = self.batch * max(1, points // self.batch)
            chunk = draw_each(self.draws, self.generators, n)
        return list(chunk.split(self.batch, 1))


class Tape:
    """The batches of a round, in buffers that stay where they are.

    In the first round it takes down who draws, and passes on what is drawn; from the first `fill`
    on the same are given their buffers in the same order. What is drawn is the same as without it.
    """

    def __init__(self) -> None:
        self.order: list[Draws] = []
        self.buffers: list[Tensor] = []
        self.position: int | None = None  # of the next buffer; None in the first round

    def next(self, draws: Draws) -> Tensor:
        """The next batch of the round."""
        import torch

        if self.position is None:
            batch = draws.draw()
            self.order.append(draws)
            self.buffers.append(torch.empty_like(batch))
            return batch
        assert self.order[self.position] is draws, "a round draws in another order than the first"
        self.position += 1
        return self.buffers[self.position - 1]

    def fill(self) -> None:
        """Draw the batches of the next round."""
        for draws, buffer in zip(self.order, self.buffers, strict=True):
            buffer.copy_(draws.draw())
        self.rewind()

    def rewind(self) -> None:
        """Go back to the beginning of the round."""
        self.position = 0
