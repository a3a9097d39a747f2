"""Digit pairs: learn from transport between handwritten digits to answer new pairs at once.

A digit is a measure on the pixels of a square grid in [0, 1]^2, its grey values normalised. Asked
for is the entropic plan between two random digits, for the cost ||x - y||^2 (Amos et al. 2023;
Truong & Nguyen 2026):

    min <C, P> + eps KL(P | a b')    over P >= 0 with P 1 = a and P' 1 = b.

Training and held-out pairs are of different images; training pairs are not solved. The truth is
Sinkhorn's algorithm in float64, to a marginal error of 1e-9, on weights as rounded to the dtype
asked for.

The plan has 614,656 entries and most rows no mass; a predictor must beat a few iterations from
zero, which are cheap.

Held-out pairs may be of another kind than those learnt from: of another resolution (``test_side``),
turned (``rotation``), of the digits 0-4 or 5-9 only (``train_digits``, ``test_digits``).

``mnist`` is read from the official files: training pairs of the 60,000 training images, held-out
ones of the 10,000 test images. ``digits`` comes with scikit-learn: the first 1,000 of 1,797 images
of 8 x 8 pixels are those to learn from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from otbench import SQEUCLIDEAN, AmortizedProblem, DiscreteProblem, Task, Truth
from otbench.data.images import digits, files
from otbench.methods.discrete import certificate, solved


if TYPE_CHECKING:
    import numpy as np
    import torch

    Tensor = torch.Tensor

Group = Literal["all", "0-4", "5-9"]


@dataclass(frozen=True)
class DigitPairs(Task):
    """Pairs of handwritten digits.

    Attributes:
        data: ``mnist``, or ``digits``, which needs no file.
        eps: entropic regularisation in cost units; 0 asks for the linear program.
        train: training pairs.
        test: held-out pairs, the same for every ``train``.
        side: pixels along an axis; 0 takes those of the data, 28 or 8. Images are resized by
            averaging.
        test_side: the same of the held-out pairs; 0 takes ``side``.
        rotation: degrees by which the images of the held-out pairs are turned, clockwise or
            anticlockwise at random.
        train_digits, test_digits: of which the pairs are: ``all``, ``0-4`` or ``5-9``.
    """

    name: ClassVar[str] = "digit-pairs"
    setting: ClassVar[str] = "amortized"
    needs: ClassVar[tuple[str, ...]] = ("ot", "sklearn", "PIL")
    data: Literal["mnist", "digits"] = "mnist"
    eps: float = 0.01
    train: int = 50
    test: int = 40
    side: int = 0
    test_side: int = 0
    rotation: float = 0.0
    train_digits: Group = "all"
    test_digits: Group = "all"

    def __post_init__(self) -> None:
        """Check the parameters."""
        for field, least in (("train", 0), ("test", 1), ("eps", 0), ("rotation", 0)):
            if not getattr(self, field) >= least:
                raise ValueError(f"{field} must be at least {least}, got {getattr(self, field)}")
        for field in ("side", "test_side"):
            if getattr(self, field) != 0 and not 2 <= getattr(self, field) <= 64:
                raise ValueError(f"{field} must be from 2 to 64, or 0, got {getattr(self, field)}")

    @property
    def files(self) -> tuple[str, ...]:
        """The archives of images and of labels that are read."""
        return files(self.data)

    def problem(
        self, rng: np.random.Generator, *, device: str, dtype: torch.dtype
    ) -> AmortizedProblem:
        """Draw the pairs from ``rng``.

        Raises:
            MissingError: a data file is absent.
        """
        import torch

        streams = dict(
            zip(("train", "test"), rng.spawn(2), strict=True)
        )  # so that held-out pairs do not depend on the others

        def pairs(part: Literal["train", "test"], number: int) -> list[DiscreteProblem]:
            histograms = torch.as_tensor(
                self._histograms(streams[part], part, 2 * number), device=device, dtype=dtype
            )
            grid = _grid(round(histograms.shape[1] ** 0.5)).to(device, dtype)
            weights = zip(histograms[::2], histograms[1::2], strict=True)
            return [
                DiscreteProblem(grid, a, grid, b, SQEUCLIDEAN, Truth("none"), self.eps)
                for a, b in weights
            ]

        held_out = [solved(pair) for pair in pairs("test", self.test)]
        return AmortizedProblem(
            pairs("train", self.train), held_out, SQEUCLIDEAN, Truth(certificate(self.eps))
        )

    def _histograms(
        self, rng: np.random.Generator, part: Literal["train", "test"], number: int
    ) -> np.ndarray:
        """``(number, side^2)`` normalised images, drawn with replacement."""
        import numpy as np
        from PIL import Image

        images, labels = digits(self.data, part)
        side = (self.test_side if part == "test" else 0) or self.side or images.shape[1]
        group = self.test_digits if part == "test" else self.train_digits
        kept = np.flatnonzero({"all": labels >= 0, "0-4": labels < 5, "5-9": labels >= 5}[group])
        which, ways = rng.spawn(2)  # so that neither depends on how many of the other there are
        drawn = images[which.choice(kept, number)].astype(np.float32)
        turned = (
            ways.choice([-1, 1], number) * self.rotation if part == "test" else np.zeros(number)
        )
        resized = []
        for image, angle in zip(drawn, turned, strict=True):
            picture = Image.fromarray(image)
            picture = picture.rotate(angle, Image.Resampling.BILINEAR) if angle else picture
            resized.append(
                np.asarray(
                    picture.resize((side, side), Image.Resampling.BOX)
                    if side != len(image)
                    else picture
                )
            )
        flat = (
            np.stack(resized).reshape(number, -1).astype(np.float64)
            if number
            else np.zeros((0, side**2))
        )
        return flat / flat.sum(1, keepdims=True)


def _grid(side: int) -> Tensor:
    """``(side^2, 2)``: rows and columns of the pixels, from 0 to 1."""
    import torch

    places = torch.linspace(0, 1, side, dtype=torch.float64)
    return torch.cartesian_prod(places, places)
