"""Random streams and samples that scores are taken on: how many points, fresh target samples, and
the floors of the distances between them.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from otbench.problem import MapProblem, Measure


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor


class Sizes(NamedTuple):
    """Of how many points the scores are, at most.

    Attributes:
        test: points that are pushed and scored against the true map.
        checkpoint: of them, at a checkpoint.
        gradient: of them, where gradients of potentials are taken.
        saddle: of them, where the saddle's residuals are measured.
        pool: target points among which the c-transform is sought first.
        drawn: points that several draws of the plan are taken of.
    """

    test: int
    checkpoint: int
    gradient: int
    saddle: int
    pool: int
    drawn: int


# Vectors are tested as the official W2 benchmark does; a push of images is that of a convolutional
# network.
VECTORS = Sizes(test=16384, checkpoint=16384, gradient=4096, saddle=2048, pool=4096, drawn=256)
IMAGES = Sizes(test=4096, checkpoint=512, gradient=512, saddle=512, pool=1024, drawn=64)
COORDINATES = 2**27  # most coordinates of one sample: of long points, fewer are drawn


class Stream(IntEnum):
    """Random streams beside the test stream, each by what it is added to the seed as."""

    FLOORS = 1
    NOISE = 2
    FLOW = 4
    IMAGES = 5
    REFERENCE_IMAGES = 6
    TRIVIAL = 7
    ORDER = 8
    SLICES = 9

    def seed(self, test: torch.Generator) -> int:
        """Its seed, beside that of the test stream."""
        return test.initial_seed() + self

    def generator(self, test: torch.Generator) -> torch.Generator:
        """The stream from its beginning."""
        import torch

        return torch.Generator(test.device).manual_seed(self.seed(test))


def at_most(points: int, problem: MapProblem) -> int:
    """Fewer points where one of them is an image, or long."""
    if problem.target.image is not None:
        points = min(points, IMAGES.test)
    return max(1, min(points, COORDINATES // max(problem.source.dim, problem.target.dim)))


def two_samples(target: Measure, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two samples of at most ``n`` points each, without a point in common where the measure is a
    finite sample.
    """
    points = target.sample_test(2 * n, generator)
    half = len(points) // 2
    return points[:half], points[half : 2 * half]


def fresh_floors(
    target: Measure,
    n: int,
    pairs: int,
    stream: torch.Generator,
    distance: Callable[[Tensor, Tensor], Tensor | float],
) -> Tensor:
    """Distances between the samples of pairs of fresh samples of ``n`` points, ``(pairs, ...)``."""
    import torch

    samples = (two_samples(target, n, stream) for _ in range(pairs))
    return torch.stack([torch.as_tensor(distance(*s), dtype=torch.float64) for s in samples])


def read_or_computed(file: Path | None, compute: Callable[[], Tensor]) -> Tensor:
    """What ``compute`` gives, in float64, read from a file where some run has written it there."""
    import torch

    if file is not None and file.exists():
        return torch.tensor(json.loads(file.read_text()), dtype=torch.float64)
    found = compute()
    if file is not None:
        with contextlib.suppress(OSError):  # a saving of time, nothing more
            part = file.with_suffix(f".{os.getpid()}")
            part.write_text(json.dumps(found.tolist()))
            os.replace(part, file)
    return found
