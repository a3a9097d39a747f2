"""Images bent by a known map: strokes and edges that match random kernels are drawn again, others
fade; cost ||x - y||^2.

Images x with a little noise go to T(x), the gradient of an explicit strongly convex potential made
of convolutions C_l with fixed random kernels:

    u(x) = a ||x||^2 / 2 + <b, x> + sum_l s_l sum log cosh(C_l x - t_l),
    T(x) = a x + b + sum_l s_l C_l^T tanh(C_l x - t_l).

The inner sum is over pixels and kernels, C_l^T is the transposed convolution. One layer sees 5 x 5
pixels, the other 9 x 9 at every second pixel. A unit stands at -1 until its kernel is found, by two
standard deviations, and then jumps to 1: T is far from linear. The constants keep the mean and the
variance of the images and give the identity the L2-UVP that is asked for, on noiseless images to
learn from; they are the same for all seeds.

A gradient of a convex function is optimal whatever the law of x, and the only optimum where the
potential is differentiable, as u is everywhere (Brenier 1991). The noise makes the source
absolutely continuous, and linear maps well posed: pixels at the border of MNIST never change.

The target is known by T of other images than the source, and what is scored on is kept from both
(`otbench.data.pools`). So T is the optimum between the laws that the images are drawn from, and a
solver that fits the samples more closely than that finds something else, above all on the 750
digits of either side.

Hard for plans between samples, which are few in so many dimensions, and for networks that smooth
the jumps. The jumps are what the linear map between the moments misses.

``digits`` comes with scikit-learn: 1,797 images of 8 x 8 pixels, 297 of them to score on.
``mnist``, ``fashion-mnist`` and ``celeba`` are read from their files (`otbench data list`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from otbench import SQEUCLIDEAN, MapProblem, Measure, Task, Truth
from otbench.data.images import Data, files
from otbench.data.pools import Pool, check_sizes, split


if TYPE_CHECKING:
    import numpy as np
    import torch

    Tensor = torch.Tensor

KERNELS = 4  # of a layer
LAYERS = ((5, 1, 1), (9, 2, 2))  # of each: pixels along a kernel, stride, how often it is smoothed
SEED = 0  # of the kernels
STEEPNESS = 4.0  # standard deviation of the argument of a tanh
THRESHOLD = 2.0  # standard deviations between its mean and its zero
CALIBRATION = 500  # images to learn from, the first, on which the constants are found
CHUNK = 1024  # images mapped at a time


@dataclass(frozen=True)
class BrenierImages(Task):
    """Images and their images under the gradient of a convex function of convolutions.

    Attributes:
        data: the images.
        uvp: L2-UVP of the identity in percent, from 1 to 40.
        sigma: standard deviation of the noise on images; pixels are from -1 to 1.
        side: pixels along a side; 0 takes those of the data.
        test: images to score on, at most.
    """

    name: ClassVar[str] = "brenier-images"
    needs: ClassVar[tuple[str, ...]] = ("sklearn", "PIL")
    data: Data = "digits"
    uvp: float = 20.0
    sigma: float = 0.05
    side: int = 0
    test: int = 2000

    def __post_init__(self) -> None:
        """Check the parameters."""
        if not 1 <= self.uvp <= 40:
            raise ValueError(f"uvp must be from 1 to 40, got {self.uvp}")
        if not 0 < self.sigma <= 1:
            raise ValueError(f"sigma must be positive and at most 1, got {self.sigma}")
        check_sizes(self.side, self.test, widest=256, least=16)

    @property
    def files(self) -> tuple[str, ...]:
        """The archives of images."""
        return files(self.data)

    def problem(self, rng: np.random.Generator, *, device: str, dtype: torch.dtype) -> MapProblem:
        """Share out the images as ``rng`` decides.

        Raises:
            MissingError: a data file is absent or damaged.
            ValueError: no convex potential of this form moves the images so far.
        """
        import numpy as np
        import torch

        a, b, c = split(self.data, self.side, self.test, rng, device, dtype)
        first = np.arange(min(CALIBRATION, len(a) + len(b)))
        known = replace(a, rows=first, device="cpu", dtype=torch.float64)
        images = known.take(torch.arange(len(known))).unflatten(1, a.image)
        potential = Potential.of(images, self.uvp / 100).to(device, dtype)

        def noisy(x: Tensor, generator: torch.Generator) -> Tensor:
            return x + self.sigma * torch.randn(
                x.shape, generator=generator, device=x.device, dtype=dtype
            )

        def push(x: Tensor) -> Tensor:
            with torch.no_grad():
                return torch.cat([potential.gradient(part) for part in x.split(CHUNK)])

        def law(pool: Pool, held_out: Pool) -> Measure:
            return Measure(
                (a.image[0] * a.image[1] * a.image[2],),
                lambda n, generator: noisy(pool.draw(n, generator), generator),
                held_out=lambda n, generator: noisy(held_out.draw_once(n, generator), generator),
                image=a.image,
            )

        def pushed(of: Measure) -> Measure:
            return replace(
                of,
                draw=lambda n, generator: push(of.sample(n, generator)),
                held_out=lambda n, generator: push(of.sample_test(n, generator)),
            )

        of_a, of_b = (law(pool, half) for pool, half in zip((a, b), c.halves(), strict=True))
        return MapProblem(of_a, pushed(of_b), SQEUCLIDEAN, Truth("brenier", map=push))


@dataclass(frozen=True)
class Layer:
    """The function sum log cosh(C x - t) of images, scaled.

    Attributes:
        kernels: ``(k, channels, size, size)`` of C, an odd size.
        offsets: ``(k,)``, -t.
        stride: of C.
        scale: of the function.
    """

    kernels: Tensor
    offsets: Tensor
    stride: int
    scale: float = 1.0

    def arguments(self, images: Tensor) -> Tensor:
        """C x - t, ``(n, k, height, width)`` over the strides."""
        from torch.nn.functional import conv2d

        padding = self.kernels.shape[-1] // 2
        return conv2d(images, self.kernels, self.offsets, self.stride, padding)

    def value(self, images: Tensor) -> Tensor:
        """``(n,)``; log cosh z = |z| + log(1 + exp(-2 |z|)) - log 2."""
        import torch

        z = self.arguments(images)
        return self.scale * (torch.logaddexp(z, -z) - math.log(2)).sum((1, 2, 3))

    def gradient(self, images: Tensor) -> Tensor:
        """Of the shape of the images."""
        from torch.nn.functional import conv_transpose2d

        padding = self.kernels.shape[-1] // 2
        left = (images.shape[-1] - 1) % self.stride
        units = self.scale * self.arguments(images).tanh()
        return conv_transpose2d(
            units, self.kernels, None, self.stride, padding, output_padding=left
        )


@dataclass(frozen=True)
class Potential:
    """The function u of images laid out as vectors ``(n, d)``, see the module's docstring.

    Attributes:
        convexity: a.
        shift: b, ``(channels, height, width)``.
        layers: the others.
    """

    convexity: float
    shift: Tensor
    layers: tuple[Layer, ...]

    @classmethod
    def of(cls, images: Tensor, moved: float) -> Potential:
        """That whose gradient T keeps the mean and the variance of the images and has E||T(x) -
        x||^2 = ``moved`` times the variance.

        Args:
            images: ``(n, channels, side, side)``, float64.
            moved: share of the variance.

        Raises:
            ValueError: its Hessian would not be positive.
        """
        import torch

        layers = _random_layers(images)
        parts = [layer.gradient(images) for layer in layers]
        scales = [float(part.var(0, correction=0).sum()) ** -0.5 for part in parts]
        bent = torch.stack([scale * part for scale, part in zip(scales, parts, strict=True)]).sum(0)
        mean, mean_bent = images.mean(0), bent.mean(0)
        variance = float(images.var(0, correction=0).sum())
        spread = float(bent.var(0, correction=0).sum()) ** 0.5
        overlap = float(((images - mean) * (bent - mean_bent)).sum()) / len(images)
        cosine = overlap / (spread * variance**0.5)
        # With T = a x + s bent + b, s in units that give both terms the variance of the images,
        # Cov(T, x) = a + s cosine = 1 - moved / 2 and Var T = a^2 + 2 a s cosine + s^2 = 1 are two
        # equations for a and s.
        s = ((1 - (1 - moved / 2) ** 2) / (1 - cosine**2)) ** 0.5
        convexity = 1 - moved / 2 - s * cosine
        if not convexity > 0:
            raise ValueError(
                f"uvp must be less than {100 * moved:g} for these images: no map of this form is "
                "the gradient of a convex function"
            )
        s *= variance**0.5 / spread
        return cls(
            convexity,
            (1 - convexity) * mean - s * mean_bent,
            tuple(
                replace(layer, scale=s * scale) for layer, scale in zip(layers, scales, strict=True)
            ),
        )

    def to(self, device: str, dtype: torch.dtype) -> Potential:
        """The same there."""
        layers = (
            replace(
                layer,
                kernels=layer.kernels.to(device, dtype),
                offsets=layer.offsets.to(device, dtype),
            )
            for layer in self.layers
        )
        return replace(self, shift=self.shift.to(device, dtype), layers=tuple(layers))

    def value(self, x: Tensor) -> Tensor:
        """u(x), ``(n,)``."""
        images = x.unflatten(1, self.shift.shape)
        quadratic = (images * (self.convexity / 2 * images + self.shift)).sum((1, 2, 3))
        return quadratic + sum(layer.value(images) for layer in self.layers)

    def gradient(self, x: Tensor) -> Tensor:
        """T(x), ``(n, d)``."""
        images = x.unflatten(1, self.shift.shape)
        bent = sum(layer.gradient(images) for layer in self.layers)
        return (self.convexity * images + self.shift + bent).flatten(1)


def _random_layers(images: Tensor) -> list[Layer]:
    """Layers of smoothed white noise, whose arguments have over these images, for each kernel, the
    mean -`THRESHOLD` and the standard deviation 1, both times `STEEPNESS`.
    """
    import numpy as np
    import torch
    from torch.nn.functional import conv2d

    rng = np.random.default_rng(SEED)
    channels = images.shape[1]
    line = images.new_tensor([1.0, 2.0, 1.0])
    smooth = torch.outer(line, line).expand(channels, 1, 3, 3)
    layers = []
    for size, stride, times in LAYERS:
        wide = size + 2 * times
        kernels = images.new_tensor(rng.standard_normal((KERNELS, channels, wide, wide)))
        for _ in range(times):
            kernels = conv2d(kernels, smooth, groups=channels)
        layer = Layer(kernels, images.new_zeros(KERNELS), stride)
        responses = layer.arguments(images)
        factor = STEEPNESS / responses.std((0, 2, 3))
        offsets = -factor * responses.mean((0, 2, 3)) - THRESHOLD * STEEPNESS
        layers.append(Layer(factor[:, None, None, None] * kernels, offsets, stride))
    return layers
