"""Stacked convolutional networks, for points that are images laid out as vectors.

They are called as those of `otbench.methods.neural.networks` are: weights ``(stack, ...)`` and
points ``(stack, n, d)``. The members of a stack are groups of one convolution. Maps may normalise
over a batch, see `otbench.methods.neural.normalisation`; nothing else does: the output for an image
would depend on the others. Those of papers are in `otbench.methods.neural.published_networks`.

On a GPU they compute in bfloat16 with channels last, where asked for; weights, losses and what is
returned stay as they are.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from otbench.methods.neural.networks import Layer, layers_of
from otbench.methods.neural.normalisation import BatchNorm, statistics


if TYPE_CHECKING:
    import torch

    from otbench.methods.neural.normalisation import Moments

    Tensor = torch.Tensor

COORDINATES = 2**20  # of the images that go through a network at a time, where nothing is trained
SLOPE = 0.2  # of the leaky ReLUs on the left, as in the networks of Rout et al. 2022
WIDEST = 256  # channels, that of all layers there
# Factor of the initial weights of a last layer, so that a residual map begins near the identity.
SHRUNK = 0.1

Image = tuple[int, int, int]


class ImageMap(ABC):
    """Base of maps to images, which may normalise over a batch in training.

    Attributes:
        norm: they do.
    """

    norm: bool

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Coordinates of an image."""

    @abstractmethod
    def run(self, weights: Sequence[Tensor], x: Tensor, normalise: BatchNorm) -> Tensor:
        """``(stack, n, inputs) -> (stack, n, outputs)``."""

    def __call__(
        self, weights: Sequence[Tensor], x: Tensor, fixed: Sequence[Moments] | None = None
    ) -> Tensor:
        """``(stack, n, inputs) -> (stack, n, outputs)``.

        Args:
            weights: of the network.
            x: inputs.
            fixed: statistics to normalise by, as `statistics` gives them; by default those of the
                batch.
        """
        if self.norm and fixed is None:
            return self.run(weights, x, BatchNorm())
        return in_chunks(
            lambda part: self.run(weights, part, BatchNorm(iter(fixed or ()))), x, self.outputs
        )

    def statistics(self, weights: Sequence[Tensor], batches: Iterable[Tensor]) -> Sequence[Moments]:
        """Those of the layers over several batches."""
        return statistics(partial(self.run, weights), batches)


@dataclass(frozen=True)
class UNet(ImageMap):
    """Convolutions down to small images and up again, with additive skips, as the restoring
    networks of Rout et al. 2022.

    Attributes:
        image: ``(channels, height, width)`` of what goes in.
        channels: of what comes out.
        width: channels of the first hidden layer; they double with each halving, up to `WIDEST`.
        levels: how many times the image is halved.
        random: coordinates of random input after those of the image.
        mixed: compute in bfloat16 on a GPU.
        norm: normalise over the batch after the first convolution and on the way up, as there.
        published: the rest as there, too: means over three by three pixels where the image is
            halved, a tanh at the end, and the initial weights of torch.
    """

    image: Image
    channels: int
    width: int
    levels: int
    random: int = 0
    mixed: bool = False
    norm: bool = False
    published: bool = False

    @property
    def rates(self) -> list[float]:
        """All the same."""
        norms = 2 * (self.levels + 1) * self.norm
        return [1.0] * (4 * self.levels + 4 + norms + (self.random > 0))

    @property
    def outputs(self) -> int:
        """Coordinates of an image."""
        return self.channels * self.image[1] * self.image[2]

    def initial(self, generator: torch.Generator, dtype: torch.dtype) -> list[Tensor]:
        """Normal, of the variance that keeps that of the activations; the last layer smaller."""
        widths = channels_of(self.width, self.levels)
        down = list(pairwise(widths))
        sizes = [
            (self.image[0], self.width),
            *down,
            *((o, i) for i, o in reversed(down)),
            (self.width, self.channels),
        ]
        draw = uniform_convolution if self.published else normal_convolution
        layers = [draw(i, o, generator, dtype) for i, o in sizes]
        if not self.published:
            layers[-1].matrix.mul_(SHRUNK)
        if self.norm:
            layers += [
                unit_affine(o, layers[0].bias) for _, o in (sizes[0], *sizes[-1 - len(down) : -1])
            ]
        of_random = (
            [_normal((self.random, self.width), self.random, generator, dtype)]
            if self.random
            else []
        )
        return [*(tensor for layer in layers for tensor in layer), *of_random]

    def run(self, weights: Sequence[Tensor], x: Tensor, normalise: BatchNorm) -> Tensor:
        """As of `ImageMap`."""
        from torch.nn.functional import interpolate, leaky_relu, relu

        layers = layers_of(weights[:-1] if self.random else weights)
        convolutions = 2 * self.levels + 2
        layers, norms = layers[:convolutions], iter(layers[convolutions:])
        first, down, up, last = (
            layers[0],
            layers[1 : self.levels + 1],
            layers[self.levels + 1 : -1],
            layers[-1],
        )

        def normalised(h: Tensor) -> Tensor:
            return normalise(h, next(norms)) if self.norm else h

        shrink = halve_overlapping if self.published else halve
        with precision(x, self.mixed):
            h = convolve(spread(x[..., : math.prod(self.image)], self.image), first)
            if self.random:
                of_random = x[..., math.prod(self.image) :] @ weights[-1]
                h = h + of_random.transpose(0, 1).flatten(1)[:, :, None, None].to(h.dtype)
            h = leaky_relu(normalised(h), SLOPE)
            skips = []
            for layer in down:
                skips.append(h)
                h = shrink(leaky_relu(convolve(h, layer), SLOPE))
            for layer, skip in zip(up, reversed(skips), strict=True):
                h = relu(normalised(convolve(interpolate(h, skip.shape[-2:]), layer))) + skip
            images = gather(convolve(h, last), len(x), x.dtype)
        return images.tanh() if self.published else images


class ImageCritic(ABC):
    """Base of scalar networks of images."""

    @abstractmethod
    def values(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        """``(stack, n, d) -> (stack, n, 1)``."""

    def __call__(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        """Values ``(stack, n, d) -> (stack, n, 1)``."""
        return in_chunks(partial(self.values, weights), x)

    def gradient(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        """Gradients ``(stack, n, d) -> (stack, n, d)``."""
        return in_chunks(partial(self._gradients, weights), x)

    def _gradients(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        import torch

        training = torch.is_grad_enabled()
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(self.values(weights, x).sum(), x, create_graph=training)[0]


@dataclass(frozen=True)
class ResidualCritic(ImageCritic):
    """A scalar network of residual blocks, each of two convolutions and a halving, and a linear
    layer (Gulrajani et al. 2017).

    Attributes:
        image: ``(channels, height, width)``.
        width: channels of the first block, as of `UNet`.
        levels: number of blocks.
        mixed: compute in bfloat16 on a GPU.
    """

    image: Image
    width: int
    levels: int
    mixed: bool = False

    @property
    def rates(self) -> list[float]:
        """All the same."""
        return [1.0] * (6 * self.levels + 4)

    def initial(self, generator: torch.Generator, dtype: torch.dtype) -> list[Tensor]:
        """As of `UNet`; the blocks begin near their shortcuts."""
        widths = channels_of(self.width, self.levels)
        layers = [normal_convolution(self.image[0], self.width, generator, dtype)]
        for i, o in pairwise(widths):
            inner = normal_convolution(i, i, generator, dtype)
            outer = normal_convolution(i, o, generator, dtype)
            outer.matrix.mul_(1 / self.levels**0.5)
            layers += [inner, outer, normal_convolution(i, o, generator, dtype, 1)]
        features = widths[-1] * math.prod(smallest(self.image, self.levels))
        last = _normal((features, 1), features, generator, dtype)
        return [*(tensor for layer in layers for tensor in layer), last, last.new_zeros(1, 1)]

    def values(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        """As of `ImageCritic`."""
        from torch.nn.functional import leaky_relu

        first, *blocks, last = layers_of(weights)
        with precision(x, self.mixed):
            h = convolve(spread(x, self.image), first)
            for inner, outer, shortcut in zip(blocks[::3], blocks[1::3], blocks[2::3], strict=True):
                hidden = leaky_relu(convolve(leaky_relu(h, SLOPE), inner), SLOPE)
                h = convolve(halve(h), shortcut) + halve(convolve(hidden, outer))
            features = gather(leaky_relu(h, SLOPE), len(x), x.dtype)
        return last(features)


def in_chunks(function: Callable[[Tensor], Tensor], x: Tensor, outputs: int = 1) -> Tensor:
    """Of points ``(stack, n, d)``: some at a time where nothing is trained, whose activations would
    fill the memory all at once. ``outputs`` are coordinates of what is returned for a point.
    """
    import torch

    if torch.is_grad_enabled():
        return function(x)
    points = max(1, COORDINATES // max(x.shape[2], outputs))
    return torch.cat([function(part) for part in x.split(points, 1)], 1)


def smallest(image: Image, levels: int) -> tuple[int, int]:
    """Height and width after so many times."""
    height, width = image[1:]
    for _ in range(levels):
        height, width = -(-height // 2), -(-width // 2)
    return height, width


def channels_of(width: int, levels: int) -> list[int]:
    """Channels of the layers from one halving to the next."""
    return [min(width * 2**k, max(width, WIDEST)) for k in range(levels + 1)]


def normal_convolution(
    inputs: int, outputs: int, generator: torch.Generator, dtype: torch.dtype, size: int = 3
) -> Layer:
    """Weights ``(outputs, inputs, size, size)`` and biases ``(outputs,)`` of one member."""
    matrix = _normal((outputs, inputs, size, size), inputs * size**2 / 2, generator, dtype)
    return Layer(matrix, matrix.new_zeros(outputs))


def uniform_convolution(
    inputs: int, outputs: int, generator: torch.Generator, dtype: torch.dtype, size: int = 3
) -> Layer:
    """The same with the initial weights of torch, see `uniform`."""
    fan = inputs * size**2
    return Layer(
        uniform((outputs, inputs, size, size), fan, generator, dtype),
        uniform((outputs,), fan, generator, dtype),
    )


def unit_affine(channels: int, like: Tensor) -> Layer:
    """Gains of one and biases of zero, ``(channels,)`` each."""
    return Layer(like.new_ones(channels), like.new_zeros(channels))


def uniform(
    shape: tuple[int, ...], fan: int, generator: torch.Generator, dtype: torch.dtype
) -> Tensor:
    """Between -1 and 1 over the root of the inputs of a unit, as torch draws weights and biases of
    linear layers and convolutions.
    """
    import torch

    unit = torch.rand(shape, generator=generator, device=generator.device, dtype=dtype)
    return (2 * unit - 1) / fan**0.5


def _normal(
    shape: tuple[int, ...], inverse_variance: float, generator: torch.Generator, dtype: torch.dtype
) -> Tensor:
    import torch

    return (
        torch.randn(shape, generator=generator, device=generator.device, dtype=dtype)
        / inverse_variance**0.5
    )


def convolve(x: Tensor, layer: Layer, stride: int = 1) -> Tensor:
    """Images ``(n, stack * inputs, h, w) -> (n, stack * outputs, h / stride, w / stride)``."""
    from torch.nn.functional import conv2d

    return conv2d(
        x,
        layer.matrix.flatten(0, 1),
        layer.bias.flatten(),
        stride=stride,
        padding=(layer.matrix.shape[-1] - 1) // 2,
        groups=len(layer.matrix),
    )


def halve(x: Tensor) -> Tensor:
    """The mean of two by two pixels, of fewer at the border of an odd side."""
    from torch.nn.functional import avg_pool2d

    return avg_pool2d(x, 2, ceil_mode=True)


def halve_overlapping(x: Tensor) -> Tensor:
    """The mean of three by three pixels around every second, zeros beyond the border counted."""
    from torch.nn.functional import avg_pool2d

    return avg_pool2d(x, 3, stride=2, padding=1)


def spread(x: Tensor, image: Image) -> Tensor:
    """Points ``(stack, n, d)`` as images ``(n, stack * channels, h, w)``."""
    import torch

    images = x.unflatten(2, image).transpose(0, 1).flatten(1, 2)
    return images.contiguous(memory_format=torch.channels_last) if x.is_cuda else images


def gather(images: Tensor, stack: int, dtype: torch.dtype) -> Tensor:
    """Images ``(n, stack * channels, h, w)`` as points ``(stack, n, d)``; undoes `spread`."""
    return images.unflatten(1, (stack, -1)).transpose(0, 1).flatten(2).to(dtype)


def precision(x: Tensor, mixed: bool) -> torch.autocast:
    import torch

    return torch.autocast(x.device.type, torch.bfloat16, enabled=mixed and x.is_cuda)
