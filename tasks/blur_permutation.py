"""Blur permutation: images matched to the same images blurred, in random order, cost ||x - y||^2.

The sources are n distinct images x_i, of shape (channels, side, side) with pixels in [-1, 1]; the
targets are y_j = B x_order(j); all weights are 1 / n. The blur is the heat flow on the pixel grid
with reflecting borders for the time sigma^2 / 2, which is B = K (x) K for each channel, with

    K = U diag(exp(-sigma^2 lambda_k / 2)) U^T,    lambda_k = 2 - 2 cos(pi k / side),
    U the orthonormal cosine basis (DCT-II).

B is symmetric and positive definite, so x -> B x is the gradient of a strictly convex quadratic:
matching each image with its own blur is optimal (Brenier 1991) and, the images being distinct, the
only optimal plan. That is exact, up to the rounding of the points, for 60,000 images in 784
dimensions, where no linear program answers. The cost is that of the points as they stand.

A wider blur is harder. The blur nearest to an image is its own for 97 % of the 1,797 digits with
sigma 1 and for 6 % with sigma 2. The rest is to be won by matching all at once.

``digits`` comes with scikit-learn: 1,797 of 8 x 8 pixels. ``mnist`` is read from the official
files, training images first: 70,000 of 28 x 28. ``celeba`` is the first 10,000 aligned faces,
cropped and resized to 3 x 32 x 32; where several archives of them are here, `otbench.data.images`
says which is read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from otbench import SQEUCLIDEAN, DiscreteProblem, Task, Truth
from otbench.data import images


if TYPE_CHECKING:
    import numpy as np
    import torch

    Tensor = torch.Tensor

SIZES: Mapping[str, int] = {"digits": 1797, "mnist": 70_000, "celeba": 10_000}
WHITE: Mapping[str, int] = {
    "digits": 16,
    "mnist": 255,
    "celeba": 255,
}  # the greatest pixel value, which becomes 1; 0 becomes -1
MNIST_TRAIN = 60_000  # images in the first of its two archives
FACE_SIDE = 32
DENSE = 4096  # largest n whose plan is a dense matrix
CHUNK = 4096  # images blurred at a time


@dataclass(frozen=True)
class BlurPermutation(Task):
    """Images and their blurs in random order.

    Attributes:
        data: ``digits``, ``mnist`` or ``celeba``.
        n: number of images, the first distinct ones.
        sigma: standard deviation of the blur in pixels.
    """

    name: ClassVar[str] = "blur-permutation"
    setting: ClassVar[str] = "discrete"
    needs: ClassVar[tuple[str, ...]] = ("sklearn", "PIL")
    data: Literal["digits", "mnist", "celeba"] = "digits"
    n: int = 1797
    sigma: float = 1.0

    def __post_init__(self) -> None:
        """Check the parameters."""
        if self.data not in SIZES:
            raise ValueError(f"data must be digits, mnist or celeba, got {self.data!r}")
        if not 1 <= self.n <= SIZES[self.data]:
            raise ValueError(
                f"n must be from 1 to {SIZES[self.data]} for {self.data}, got {self.n}"
            )
        if not 0 < self.sigma <= 10:
            raise ValueError(
                f"sigma must be positive and at most 10, got {self.sigma}: rounding makes a wider "
                "blur singular"
            )

    @property
    def files(self) -> tuple[str, ...]:
        """The archives of images that are read."""
        if self.data != "mnist":
            return images.files(self.data)
        train, _, test, _ = images.files("mnist")
        return (train, test) if self.n > MNIST_TRAIN else (train,)

    def problem(
        self, rng: np.random.Generator, *, device: str, dtype: torch.dtype
    ) -> DiscreteProblem:
        """Load and blur the images; ``rng`` draws the order of the blurred ones.

        Raises:
            MissingError: a data file is absent.
            ValueError: it holds fewer than ``n`` distinct images.
        """
        import torch

        stored = self._distinct()
        x = torch.as_tensor(stored).to(device, dtype).mul_(2 / WHITE[self.data]).sub_(1)
        order = torch.as_tensor(rng.permutation(self.n), device=device)
        kernel = _kernel(stored.shape[-1], self.sigma).to(device)

        def blur(part: Tensor) -> Tensor:
            return (kernel @ part.double() @ kernel).to(dtype)

        parts = order.split(CHUNK)
        y = torch.cat([blur(x[part]) for part in parts])
        moved = sum(
            float(SQEUCLIDEAN.pairwise(x[part].double(), z.double()).sum())
            for part, z in zip(parts, y.split(CHUNK), strict=True)
        )
        weights = x.new_full((self.n,), 1 / self.n)
        matches = torch.stack([order, torch.arange(self.n, device=device)])
        plan = torch.sparse_coo_tensor(
            matches, weights, (self.n, self.n), check_invariants=True
        ).coalesce()
        truth = Truth("brenier", moved / self.n, plan=plan if self.n > DENSE else plan.to_dense())
        return DiscreteProblem(x, weights, y, weights, SQEUCLIDEAN, truth)

    def _distinct(self) -> np.ndarray:
        """The first ``n`` distinct images as they are stored, ``(n, channels, side, side)`` of
        bytes.
        """
        import numpy as np

        distinct: dict[bytes, np.ndarray] = {}
        for image in self._images():
            distinct.setdefault(image.tobytes(), image)
            if len(distinct) == self.n:
                return np.stack(list(distinct.values()))
        raise ValueError(
            f"n must be at most {len(distinct)}, the number of distinct images of {self.data}, got "
            f"{self.n}"
        )

    def _images(self) -> Iterator[np.ndarray]:
        """All of them, ``(channels, side, side)``, of MNIST those in the files that ``n`` needs."""
        if self.data == "mnist":
            for file in self.files:
                yield from images.read_idx(file)[:, None]
        else:
            yield from images.load(self.data, FACE_SIDE if self.data == "celeba" else 0).pixels


def _kernel(side: int, sigma: float) -> Tensor:
    """K, the heat kernel of a row of ``side`` pixels with reflecting borders, symmetric, in
    float64.
    """
    import torch

    frequencies = torch.arange(side, dtype=torch.float64)[:, None] * (math.pi / side)
    basis = (frequencies * (torch.arange(side) + 0.5)).cos()
    basis /= basis.norm(dim=1, keepdim=True)
    return basis.T @ ((-(sigma**2) * (1 - frequencies.cos())).exp() * basis)
