"""Disjoint parts of a set of images, and the measures they are known by.

Unpaired restoration needs three (Rout, Korotin & Burnaev 2022): images A are degraded and are the
source, images B as they are are the target, images C, degraded, are scored on. A and B are halves
of the images to learn from, C are images kept from both. Of C the first half comes first wherever
test points are drawn, and the target's held-out points are of the second: what is compared as
samples has no image in common.

Images stay bytes where they lie, in memory-mapped files for most data; what is drawn is copied.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from otbench.data.images import Data, load
from otbench.errors import MissingError
from otbench.problem import Measure


if TYPE_CHECKING:
    import numpy as np
    import torch

    Tensor = torch.Tensor
    Degrade = Callable[[Tensor, torch.Generator], Tensor]


LEAST, LEAST_OF_CLASS = (
    16,
    8,
)  # images to learn from or to score on, and those of a class among them


@dataclass(frozen=True)
class Pool:
    """Images that a measure is known by.

    Attributes:
        pixels: ``(n, channels, side, side)`` bytes of all images.
        white: the byte that becomes 1; 0 becomes -1.
        rows: ``(k,)`` those of this pool.
        device, dtype: of what is drawn.
        copies: of each channel in what is drawn, 3 makes grey images coloured ones.
    """

    pixels: np.ndarray
    white: int
    rows: np.ndarray
    device: str
    dtype: torch.dtype
    copies: int = 1

    @property
    def image(self) -> tuple[int, int, int]:
        """``(channels, height, width)``."""
        channels, height, width = self.pixels.shape[1:]
        return self.copies * channels, height, width

    def __len__(self) -> int:
        """Number of images."""
        return len(self.rows)

    def take(self, places: Tensor) -> Tensor:
        """Images ``(n, d)`` at these places of the pool, pixels from -1 to 1."""
        import torch

        drawn = torch.as_tensor(self.pixels[self.rows[places.cpu().numpy()]])
        if isinstance(
            self.pixels.base, mmap.mmap
        ):  # what was read would count as the memory of the solver
            self.pixels.base.madvise(mmap.MADV_DONTNEED)
        images = drawn.to(self.device).to(self.dtype).mul_(2 / self.white).sub_(1)
        if self.copies > 1:
            images = images.repeat(1, self.copies, 1, 1)
        return images.flatten(1)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """``n`` images, with replacement."""
        import torch

        return self.take(
            torch.randint(len(self), (n,), generator=generator, device=generator.device)
        )

    def draw_once(self, n: int, generator: torch.Generator) -> Tensor:
        """At most ``n`` images, in random order."""
        import torch

        return self.take(
            torch.randperm(len(self), generator=generator, device=generator.device)[:n]
        )

    def halves(self) -> tuple[Pool, Pool]:
        """The first and the second half of the images."""
        half = len(self) // 2
        return replace(self, rows=self.rows[:half]), replace(self, rows=self.rows[half:])

    def of(self, kept: np.ndarray) -> Pool:
        """The images for which ``kept``, one for each of all images, is true.

        Raises:
            MissingError: there are hardly any.
        """
        rows = self.rows[kept[self.rows]]
        if len(rows) < LEAST_OF_CLASS:
            raise MissingError(
                f"{len(rows)} images of a class in a part of {len(self)}: {LEAST_OF_CLASS} are "
                "needed; get more images"
            )
        return replace(self, rows=rows)


def check_sizes(side: int, test: int, widest: int, least: int) -> None:
    """Refuse sizes that `split` makes nothing of: a side of other than 8 to ``widest`` pixels, or
    0, and fewer than ``least`` test images.

    Raises:
        ValueError: one of them is such.
    """
    if side != 0 and not 8 <= side <= widest:
        raise ValueError(f"side must be from 8 to {widest}, or 0, got {side}")
    if not test >= least:
        raise ValueError(f"test must be at least {least}, got {test}")


def split(
    data: Data, side: int, test: int, rng: np.random.Generator, device: str, dtype: torch.dtype
) -> tuple[Pool, Pool, Pool]:
    """Parts A, B and C of a set of images, in an order that ``rng`` decides.

    Args:
        data: the set.
        side: of the images; 0 takes that of the data.
        test: images of C, at most.
        rng: decides which image is in which part.
        device: of what is drawn.
        dtype: of what is drawn.

    Raises:
        MissingError: a file is absent or damaged.
    """
    images = load(data, side)
    held_out = len(images.pixels) - images.learnt
    if min(images.learnt, held_out) < LEAST:
        raise MissingError(
            f"{data} has {images.learnt} images to learn from and {held_out} to score on here: "
            f"{LEAST} of each are needed"
        )
    learnt = Pool(images.pixels, images.white, rng.permutation(images.learnt), device, dtype)
    kept = images.learnt + rng.permutation(held_out)[:test]
    return *learnt.halves(), replace(learnt, rows=kept)


def degraded(pool: Pool, degrade: Degrade, shape: tuple[int, ...]) -> Measure:
    """The law of the pool's images after ``degrade(images, generator)``, which keeps the shape of a
    point.
    """
    return Measure(
        shape, lambda n, generator: degrade(pool.draw(n, generator), generator), image=pool.image
    )


def clean(pool: Pool, held_out: Pool) -> Measure:
    """The law of the pool's images, scored on those of another."""
    dim = pool.image[0] * pool.image[1] * pool.image[2]
    return Measure((dim,), pool.draw, held_out=held_out.draw_once, image=pool.image)


def partners(
    pool: Pool, degrade: Degrade
) -> Callable[[int, torch.Generator], tuple[Tensor, dict[str, Tensor]]]:
    """Draws test images, with what they were made from as ``partner``, those of the pool's first
    half first.
    """

    def draw(n: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        import torch

        y = torch.cat([half.draw_once(n, generator) for half in pool.halves()])[:n]
        return degrade(y, generator), {"partner": y}

    return draw
