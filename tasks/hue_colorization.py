"""Hue colorization: grey digits are to become coloured ones, of a hue that nothing determines; the
right plan is known.

With the grey values g in [0, 1]^p of an image, the source is x = v g in all three channels, the
digit in grey; the target is the digit in the colour v (1, 1, 1) + r (cos h e1 + sin h e2), its hue
h uniform on the circle and independent of g. The axes e1, e2 are orthonormal and orthogonal to
grey, so that a coloured image projects on its own grey one, and no grey image is nearer. So the
potentials

    f(x) = 0 and g(y) = the squared distance of y to grey images = ||y||^2 - 3 ||mean of its
        channels||^2

(f minus infinity off the grey images, where there is no source) prove that to keep the digit and
draw the hue at random is optimal, W2^2 = r^2 E||g||^2, and the only optimal plan: x is the
projection of y. No map exists, the images of x lie on a circle. Pixels are from -1 to 1 here, which
makes the cost four-fold.

The source lies in a subspace of a third of the dimension. Against g every map to one hue looks
optimal: the spurious solution of max-min solvers without noise (Choi, Choi & Kwon 2025, who colour
images so), on real data. Scored is the law of the hues of all outputs and given one x.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from otbench import SQEUCLIDEAN, MapProblem, Measure, Task, Truth
from otbench.data.images import files
from otbench.data.pools import Pool, check_sizes, split
from otbench.families.probes import Circle


if TYPE_CHECKING:
    import numpy as np
    import torch

    Tensor = torch.Tensor

CHUNK = 4096  # images whose cost is computed at a time
GREY = 1e-5  # by which the channels of a grey image may differ, rounded
VALUE, CHROMA = 0.6, 0.45  # v and r: all channels stay between 0 and 1
AXES = ((2 / 6**0.5, -1 / 6**0.5, -1 / 6**0.5), (0.0, 1 / 2**0.5, -1 / 2**0.5))  # e1 and e2


@dataclass(frozen=True)
class HueColorization(Task):
    """Grey and coloured images of digits.

    Attributes:
        data: the digits, or the garments of Fashion-MNIST.
        side: pixels along a side; 0 takes those of the data.
        test: images to score on, at most.
    """

    name: ClassVar[str] = "hue-colorization"
    needs: ClassVar[tuple[str, ...]] = ("sklearn", "PIL")
    data: Literal["digits", "mnist", "fashion-mnist"] = "digits"
    side: int = 0
    test: int = 2000

    def __post_init__(self) -> None:
        """Check the parameters."""
        check_sizes(self.side, self.test, widest=64, least=200)

    @property
    def files(self) -> tuple[str, ...]:
        """The archives of images."""
        return files(self.data)

    def problem(self, rng: np.random.Generator, *, device: str, dtype: torch.dtype) -> MapProblem:
        """Share out the images as ``rng`` decides.

        Raises:
            MissingError: a data file is absent or damaged.
        """
        import torch

        a, b, c = split(self.data, self.side, self.test, rng, device, dtype)
        image = (3, *a.image[1:])
        axes = torch.tensor(AXES, device=device, dtype=dtype)

        def grey(values: Tensor) -> Tensor:
            """``(n, p)`` values from -1 to 1 of grey images, as images."""
            g = (values + 1) / 2
            return (2 * VALUE * g - 1).repeat(1, 3)

        def colour(x: Tensor, hues: Tensor) -> Tensor:
            """Grey images in these hues, ``(n,)``."""
            g = (x + 1).unflatten(1, (3, -1)).mean(1) / VALUE  # 2 g
            direction = torch.stack([hues.cos(), hues.sin()], 1) @ axes
            return x + CHROMA * (direction[:, :, None] * g[:, None]).flatten(1)

        def uniform(n: int, generator: torch.Generator) -> Tensor:
            return (
                2
                * math.pi
                * torch.rand(n, generator=generator, device=generator.device, dtype=dtype)
            )

        def coloured(values: Tensor, generator: torch.Generator) -> Tensor:
            return colour(grey(values), uniform(len(values), generator))

        def law(
            pool: Pool, held_out: Pool, make: Callable[[Tensor, torch.Generator], Tensor]
        ) -> Measure:
            return Measure(
                (3 * image[1] * image[2],),
                lambda n, generator: make(pool.draw(n, generator), generator),
                held_out=lambda n, generator: make(held_out.draw_once(n, generator), generator),
                image=image,
            )

        def fork(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            x = grey(a.draw(n, generator))
            return x, colour(x, uniform(n, generator))

        def chroma(x: Tensor, y: Tensor) -> Tensor:
            """Coordinates of the chroma of y in units of that of an image of x, weighted by grey
            value: ``(n, 2)``.
            """
            g = (x + 1).unflatten(1, (3, -1)).mean(1) / VALUE
            along = torch.einsum("ac,ncp,np->na", axes, y.unflatten(1, (3, -1)), g)
            return along / (CHROMA * g.square().sum(1, keepdim=True))

        def source_potential(x: Tensor) -> Tensor:
            channels = x.unflatten(1, (3, -1))
            off = (channels - channels.mean(1, keepdim=True)).abs().amax((1, 2))
            return torch.zeros_like(off).masked_fill(off > GREY, -torch.inf)

        def target_potential(y: Tensor) -> Tensor:
            z = (y + 1).unflatten(1, (3, -1))
            return z.square().sum((1, 2)) - 3 * z.mean(1).square().sum(1)

        costs = torch.cat(
            [
                CHROMA**2 * (a.take(rows).double() + 1).square().sum(1)
                for rows in torch.arange(len(a)).split(CHUNK)
            ]
        )
        first, second = c.halves()
        truth = Truth(
            "dual_certificate",
            float(costs.mean()),
            cost_error=float(costs.std()) / len(a) ** 0.5,
            no_map="does not exist: each image has a circle of images",
            pairs=fork,
            potential=source_potential,
            target_potential=target_potential,
            probes=(Circle(chroma),),
            spurious=lambda x: colour(x, torch.zeros_like(x[:, 0])),
        )
        return MapProblem(
            law(a, first, lambda values, _: grey(values)),
            law(b, second, coloured),
            SQEUCLIDEAN,
            truth,
        )
