"""Arrays of problems whose points are images: the mapped points as images, and features that they
and images of the target are compared in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from otbench.errors import MissingError
from otbench.scoring.features.networks import inception_features, perceptual_distance
from otbench.scoring.features.scattering import Scattering


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

FRECHET_IMAGES = 2048  # on either side of a Frechet distance, at most
REFERENCE_IMAGES = 512  # of the target, that the scattering features are fixed by
PERCEPTUAL_IMAGES = 512  # that are compared with their inputs


@dataclass(frozen=True)
class TargetImages:
    """Images of the target in the features that mapped images are compared in.

    Attributes:
        features: the scattering features.
        arrays: of target images, and of test points; they do not depend on the solver.
        notes: why a metric could not be taken, by its name.
    """

    features: Scattering
    arrays: dict[str, Any]
    notes: dict[str, str]

    @classmethod
    def of(cls, start: Tensor, target: Tensor, fresh: Tensor, reference: Tensor) -> TargetImages:
        """From images ``(n, channels, height, width)``.

        Args:
            start: test points.
            target: to compare mapped images with.
            fresh: others, as many.
            reference: fix the scattering features.
        """
        import torch

        features, notes = Scattering.of(reference), {}
        arrays = {
            "scattering_start": features(start[: len(target)]),
            "scattering_target": features(target),
            "scattering_fresh": features(fresh),
        }
        try:
            both = inception_features(torch.cat([target, fresh]))
            arrays["inception_target"], arrays["inception_fresh"] = both.chunk(2)
        except MissingError as error:
            notes["fid"] = str(error)
        return cls(features, arrays, notes)

    def compared(self, start: Tensor, mapped: Tensor) -> tuple[dict[str, Any], dict[str, str]]:
        """Arrays of the mapped images of all test points, and notes as those above."""
        notes, first = {}, mapped[: len(self.arrays["scattering_target"])]
        arrays: dict[str, Any] = {"scattering_mapped": self.features(first)}
        if "inception_target" in self.arrays:
            arrays["inception_mapped"] = inception_features(first)
        try:
            few = slice(PERCEPTUAL_IMAGES)
            arrays["perceptual_distance"] = perceptual_distance(start[few], mapped[few])
        except MissingError as error:
            notes["lpips"] = str(error)
        return arrays, notes
