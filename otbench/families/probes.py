"""Probes of tasks without an optimal map: where the points lie that one x is sent to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor


@dataclass(frozen=True)
class Branches:
    """The optimal plan sends x to either of two images with probability one half.

    Attributes:
        images: ``images(x)`` is ``(2, n, *target shape)``.
    """

    images: Callable[[Tensor], Tensor]
    several: ClassVar[Mapping[str, str]] = {"branch_draws": "branch_position"}

    def measure(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Position of y on the line that joins the images of x, which are at -1 and 1, and squared
        distance from it; both ``(n,)``.
        """
        lower, upper = self.images(x).flatten(2)
        half, from_middle = (upper - lower) / 2, y.flatten(1) - (upper + lower) / 2
        position = (from_middle * half).sum(1) / half.square().sum(1)
        rest = (from_middle - position[:, None] * half).square().sum(1)
        return {"branch_position": position, "branch_rest": rest}


@dataclass(frozen=True)
class Circle:
    """The optimal plan sends each x to a whole circle of images, uniformly.

    Attributes:
        place: ``place(x, y)``, ``(n, 2)``, is that of an image y of x in the plane of the circle,
            which is the unit circle there.
    """

    place: Callable[[Tensor, Tensor], Tensor]
    several: ClassVar[Mapping[str, str]] = {"circle_draws": "circle_places"}

    def measure(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The places of y."""
        return {"circle_places": self.place(x, y)}
