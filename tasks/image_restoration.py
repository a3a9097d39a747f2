"""Image restoration without pairs: degraded images, clean images, none of which is the other's.

The source is the law of degraded images D(y), the target that of clean ones; a map between them is
sought from samples alone. The parts of the data that the two are known by have no image in common,
nor has what is scored on (`otbench.data.pools`). With pixels from -1 to 1:

* ``denoise``: D(y) = y + sigma xi, xi ~ N(0, I), not clipped. PSNR of the input is -20 log10(sigma
  / 2): 16.5 dB at 0.3 (Rout, Korotin & Burnaev 2022), 20 dB at 0.2 (Milne, Bilocq & Nachman 2022),
  14 dB at 0.4.
* ``colorize``: the luma 0.299 R + 0.587 G + 0.114 B in all three channels (Rout et al.).
* ``inpaint``: the right half grey (Rout et al.).
* ``deblur``: convolution with a Gaussian of standard deviation 2 cut off at 5 x 5 pixels, borders
  reflected (Milne et al.).

The optimal map is not known and need not be the way back: to send each image to that which it was
made from is not the cheapest transport in general. So there are two scores, against each other:
fidelity to the hidden partner of each test image (``psnr_db``, ``ssim``) and distance of the law of
the outputs to that of clean images (``frechet_scattering``, ``fid``). A map that averages wins the
first and loses the second; one that invents plausible images does the opposite.

Images with a degraded part that is the same for all, or grey, lie in a subspace: there a saddle may
be spurious (Choi, Choi & Kwon 2025).

``digits`` comes with scikit-learn: 1,797 images of 8 x 8 pixels, 297 of them to score on.
``mnist``, ``fashion-mnist`` and ``celeba`` are read from their files (`otbench data list`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from otbench import COSTS, MapProblem, Task, Truth
from otbench.data.images import Data, files
from otbench.data.pools import check_sizes, clean, degraded, partners, split


if TYPE_CHECKING:
    import numpy as np
    import torch

    from otbench.data.pools import Degrade

    Tensor = torch.Tensor
    Image = tuple[int, int, int]

SIGMA = 0.3
LUMA = 0.299, 0.587, 0.114
BLUR, RADIUS = 2.0, 2  # standard deviation in pixels, and where the kernel of 5 x 5 ends


@dataclass(frozen=True)
class ImageRestoration(Task):
    """Degraded and clean images.

    Attributes:
        data: the images.
        degradation: ``denoise``, ``colorize`` (images in colour only), ``inpaint`` or ``deblur``.
        sigma: standard deviation of the noise, for ``denoise``.
        side: pixels along a side; 0 takes those of the data.
        test: images to score on, at most.
        cost: between images; that of OTM is ``sqeuclidean``, that of TTC ``euclidean``.
    """

    name: ClassVar[str] = "image-restoration"
    needs: ClassVar[tuple[str, ...]] = ("sklearn", "PIL")
    data: Data = "digits"
    degradation: Literal["denoise", "colorize", "inpaint", "deblur"] = "denoise"
    sigma: float = SIGMA
    side: int = 0
    test: int = 2000
    cost: Literal["sqeuclidean", "euclidean"] = "sqeuclidean"

    def __post_init__(self) -> None:
        """Check the parameters."""
        if not 0 < self.sigma <= 10:
            raise ValueError(f"sigma must be positive and at most 10, got {self.sigma}")
        if self.degradation != "denoise" and self.sigma != SIGMA:
            raise ValueError(
                f"sigma must be left at {SIGMA} with degradation={self.degradation}, which has no "
                f"noise, got {self.sigma}"
            )
        check_sizes(self.side, self.test, widest=256, least=16)
        if self.degradation == "colorize" and self.data != "celeba":
            raise ValueError(
                f"degradation must not be colorize for {self.data}, whose images are grey"
            )

    @property
    def files(self) -> tuple[str, ...]:
        """The archives of images."""
        return files(self.data)

    def problem(self, rng: np.random.Generator, *, device: str, dtype: torch.dtype) -> MapProblem:
        """Share out the images as ``rng`` decides.

        Raises:
            MissingError: a data file is absent or damaged.
        """
        a, b, c = split(self.data, self.side, self.test, rng, device, dtype)
        degrade = self._degradation(a.image)
        target = clean(b, c.halves()[1])
        truth = Truth(
            "none",
            no_map="is not known: the partner of an image need not be its optimal image",
            test_points=partners(c, degrade),
        )
        return MapProblem(degraded(a, degrade, target.shape), target, COSTS[self.cost], truth)

    def _degradation(self, image: Image) -> Degrade:
        """For images of this shape laid out as vectors."""
        import torch

        if self.degradation == "denoise":
            return lambda y, generator: (
                y
                + self.sigma
                * torch.randn(y.shape, generator=generator, device=y.device, dtype=y.dtype)
            )
        part = {"colorize": _grey, "inpaint": _without_right_half, "deblur": _blurred}[
            self.degradation
        ]
        return lambda y, generator: part(y.unflatten(1, image)).flatten(1)


def _grey(images: Tensor) -> Tensor:
    luma = (images * images.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
    return luma.expand_as(images)


def _without_right_half(images: Tensor) -> Tensor:
    images = images.clone()
    images[..., images.shape[-1] // 2 :] = 0
    return images


def _blurred(images: Tensor) -> Tensor:
    import torch
    from torch.nn.functional import conv2d, pad

    places = torch.arange(-RADIUS, RADIUS + 1, device=images.device, dtype=images.dtype)
    line = (-(places**2) / (2 * BLUR**2)).exp()
    line /= line.sum()
    kernel = torch.outer(line, line).expand(images.shape[1], 1, -1, -1)
    return conv2d(pad(images, [RADIUS] * 4, mode="reflect"), kernel, groups=images.shape[1])
