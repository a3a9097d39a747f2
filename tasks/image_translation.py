"""Image translation without pairs: images of one class to images of another.

The source is the law of one class, the target that of another: a digit and another digit, or faces
of men and of women by CelebA's attribute. Training images of the two are different images by their
classes; test images are kept from both. Nothing is known of the optimal map: what a solver keeps of
an image is its transport cost, whether it arrives is the distance of its outputs to the target
(``frechet_scattering``, ``fid``).

As in the experiments of Milne, Bilocq & Nachman 2022 (photographs to paintings) and Choi, Choi &
Kwon 2025.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from otbench import COSTS, MapProblem, Task, Truth
from otbench.data import catalogue
from otbench.data.faces import face_attribute
from otbench.data.images import Data, files, load
from otbench.data.pools import Pool, check_sizes, clean, split


if TYPE_CHECKING:
    import numpy as np
    import torch

FACES = {"male": True, "female": False}


@dataclass(frozen=True)
class ImageTranslation(Task):
    """Images of two classes.

    Attributes:
        data: the images.
        source, target: classes: digits (of Fashion-MNIST the numbers of its classes), or for faces
            ``male`` and ``female``.
        side: pixels along a side; 0 takes those of the data.
        test: images to score on of both together, at most.
        cost: between images.
    """

    name: ClassVar[str] = "image-translation"
    needs: ClassVar[tuple[str, ...]] = ("sklearn", "PIL")
    data: Data = "digits"
    source: str = "2"
    target: str = "3"
    side: int = 0
    test: int = 10_000
    cost: Literal["sqeuclidean", "euclidean"] = "sqeuclidean"

    def __post_init__(self) -> None:
        """Check the parameters."""
        classes = tuple(FACES) if self.data == "celeba" else tuple(map(str, range(10)))
        for field in ("source", "target"):
            if getattr(self, field) not in classes:
                raise ValueError(
                    f"{field} must be one of {', '.join(classes)} for {self.data}, got "
                    f"{getattr(self, field)!r}"
                )
        if self.source == self.target:
            raise ValueError(
                f"target must be another class than source, got {self.target!r} for both"
            )
        check_sizes(self.side, self.test, widest=256, least=200)

    @property
    def files(self) -> tuple[str, ...]:
        """The archives of images, and of faces the attributes."""
        if self.data != "celeba":
            return files(self.data)
        attributes = catalogue.file(catalogue.FACE_ATTRIBUTES)
        return (*files(self.data), attributes.path, *attributes.alternatives)

    def problem(self, rng: np.random.Generator, *, device: str, dtype: torch.dtype) -> MapProblem:
        """Share out the images as ``rng`` decides.

        Raises:
            MissingError: a data file is absent or damaged.
        """
        a, b, c = split(self.data, self.side, self.test, rng, device, dtype)
        source, target = self._classes()

        def law(half: Pool, kept: np.ndarray):
            return clean(half.of(kept), c.of(kept))

        truth = Truth("none", no_map="is not known")
        return MapProblem(law(a, source), law(b, target), COSTS[self.cost], truth)

    def _classes(self) -> tuple[np.ndarray, np.ndarray]:
        """Which images are of the source's class and which of the target's, ``(n,)`` each."""
        if self.data == "celeba":
            male = face_attribute("Male")
            return male == FACES[self.source], male == FACES[self.target]
        labels = load(self.data, self.side).labels
        assert labels is not None, "digits have labels"
        return labels == int(self.source), labels == int(self.target)
