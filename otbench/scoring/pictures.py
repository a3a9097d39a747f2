"""The arrays that metrics of images are functions of, beside those of `otbench.scoring.maps`.
Images are ``(n, channels, height, width)``.

* ``pictures`` T(x), or draws from a stochastic plan, and their ``picture_costs`` c(x, T(x));
  ``start_pictures`` the test points, where they have the target's shape; ``partner_pictures`` what
  they were made from;
* ``scattering_target`` and ``scattering_fresh`` of two sets of target images without one in common,
  ``scattering_pushed`` and ``scattering_start`` of as many images of the first test points, and of
  these themselves: features ``(n, 32)``;
* ``inception_target``, ``inception_fresh``, ``inception_pushed`` likewise, ``(n, 2048)``;
  ``perceptual_distance`` of x and T(x).
"""

from __future__ import annotations

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


class ImageScoring:
    """Scores of a problem whose target is images.

    Args:
        shape: ``(channels, height, width)`` of a target image.
        start: ``(n, d)`` test points in the target's space.
        partner: ``(n, d)`` what each was made from, where that is known.

    Attributes:
        notes: why a metric of images could not be taken, by its name.
    """

    def __init__(self, shape: tuple[int, int, int], start: Tensor, partner: Tensor | None) -> None:
        self.shape, self.start, self.partner = shape, start, partner
        self.notes: dict[str, str] = {}

    def known(self, target: Tensor, fresh: Tensor, reference: Tensor) -> dict[str, Any]:
        """What does not depend on the solver.

        Args:
            target: ``(n, d)`` images to compare the push-forward with.
            fresh: ``(n, d)`` others.
            reference: ``(m, d)`` images that fix the scattering features.
        """
        import torch

        start, target, fresh, reference = map(
            self._pictures, (self.start, target, fresh, reference)
        )
        self.features, self.images = Scattering.of(reference), len(target)
        arrays: dict[str, Any] = {
            "start_pictures": start,
            "scattering_start": self.features(start[: self.images]),
            "scattering_target": self.features(target),
            "scattering_fresh": self.features(fresh),
        }
        try:
            arrays["inception_target"], arrays["inception_fresh"] = inception_features(
                torch.cat([target, fresh])
            ).chunk(2)
        except MissingError as error:
            self.notes["fid"] = str(error)
        return arrays

    def arrays(self, images: Tensor, costs: Tensor) -> dict[str, Any]:
        """Of the images ``(n, d)`` of all test points and their costs ``(n,)``; after `known`."""
        pictures = self._pictures(images)
        arrays = {
            **self.curve_arrays(images, costs),
            "scattering_pushed": self.features(pictures[: self.images]),
        }
        if "fid" not in self.notes:
            arrays["inception_pushed"] = inception_features(pictures[: self.images])
        try:
            compared = slice(PERCEPTUAL_IMAGES)
            arrays["perceptual_distance"] = perceptual_distance(
                self._pictures(self.start[compared]), pictures[compared]
            )
        except MissingError as error:
            self.notes["lpips"] = str(error)
        return arrays

    def curve_arrays(self, images: Tensor, costs: Tensor) -> dict[str, Any]:
        """Of the images of the first test points, and their costs."""
        arrays = {"pictures": self._pictures(images), "picture_costs": costs}
        if self.partner is not None:
            arrays["partner_pictures"] = self._pictures(self.partner[: len(images)])
        return arrays

    def _pictures(self, points: Tensor) -> Tensor:
        return points.unflatten(1, self.shape)
