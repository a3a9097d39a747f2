"""Image generation: noise to images.

The source is N(0, I), the target the law of images. The noise is an image itself of few pixels,
``latent`` along a side, which bicubic interpolation Q enlarges: transport costs ||Q(z) - y||^2, and
the source, embedded, lies in a subspace (Rout, Korotin & Burnaev 2022, who take 8 x 8 in three
channels to 32 x 32 and 64 x 64; digits are in three equal channels there, ``channels = 3``). With
``latent = 0`` it has as many pixels as the images, cost ||x - y|| or its square (Milne, Bilocq &
Nachman 2022).

Nothing is known of the optimal map; scored is the distance of the outputs to images that were kept
from training, beside the same between two sets of images (``frechet_scattering``, ``fid``), and the
transport cost. A few good images, repeated, are seen by both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from otbench import COSTS, MapProblem, Measure, Task, Truth
from otbench.data.images import Data, files
from otbench.data.pools import check_sizes, clean, split


if TYPE_CHECKING:
    import numpy as np
    import torch

    Tensor = torch.Tensor


LARGEST = 4096  # dimension whose covariance is written out


@dataclass(frozen=True)
class ImageGeneration(Task):
    """Noise and images.

    Attributes:
        data: the images.
        latent: pixels along a side of the noise that is enlarged; 0 for noise of the size of the
            images.
        side: pixels along a side of the images; 0 takes those of the data.
        channels: 3 repeats grey images, and makes noise, in three channels; 0 takes those of the
            data.
        test: images to score on, at most.
        cost: between images; noise that is enlarged goes with ``sqeuclidean`` only.
    """

    name: ClassVar[str] = "image-generation"
    needs: ClassVar[tuple[str, ...]] = ("sklearn", "PIL")
    data: Data = "digits"
    latent: int = 0
    side: int = 0
    channels: Literal[0, 3] = 0
    test: int = 4000
    cost: Literal["sqeuclidean", "euclidean"] = "sqeuclidean"

    def __post_init__(self) -> None:
        """Check the parameters."""
        check_sizes(self.side, self.test, widest=256, least=16)
        if self.latent != 0 and not 2 <= self.latent <= 64:
            raise ValueError(f"latent must be from 2 to 64, or 0, got {self.latent}")
        if self.latent and self.cost != "sqeuclidean":
            raise ValueError(
                f"cost must be sqeuclidean where the noise is enlarged, got {self.cost!r}: or give "
                "latent=0"
            )

    @property
    def files(self) -> tuple[str, ...]:
        """The archives of images."""
        return files(self.data)

    def problem(self, rng: np.random.Generator, *, device: str, dtype: torch.dtype) -> MapProblem:
        """All images to learn from are the target; ``rng`` decides which are scored on where there
        are more than ``test``.

        Raises:
            MissingError: a data file is absent or damaged.
        """
        import numpy as np
        import torch

        a, b, c = split(self.data, self.side, self.test, rng, device, dtype)
        if self.channels:
            copies = self.channels // a.image[0]
            a, b, c = (replace(pool, copies=copies) for pool in (a, b, c))
        learnt = replace(a, rows=np.concatenate([a.rows, b.rows]))
        channels, side, _ = learnt.image
        noise = channels, self.latent or side, self.latent or side
        dim = noise[0] * noise[1] * noise[2]

        def draw(n: int, generator: torch.Generator) -> Tensor:
            return torch.randn(n, dim, generator=generator, device=generator.device, dtype=dtype)

        def enlarge(z: Tensor) -> Tensor:
            return torch.nn.functional.interpolate(
                z.unflatten(1, noise), (side, side), mode="bicubic"
            ).flatten(1)

        mean = torch.zeros(dim, device=device, dtype=dtype)
        cov = torch.eye(dim, device=device, dtype=dtype) if dim <= LARGEST else None
        source = Measure((dim,), draw, mean, cov, float(dim), image=noise)
        cost = COSTS[self.cost].embedded(enlarge) if self.latent else COSTS[self.cost]
        return MapProblem(source, clean(learnt, c), cost, Truth("none", no_map="is not known"))
