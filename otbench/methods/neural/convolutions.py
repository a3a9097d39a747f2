"""Stacked convolutional networks, for points that are images laid out as vectors.

They are called as those of `otbench.methods.neural.networks` are: weights ``(stack, ...)`` and
points ``(stack, n, d)``. The members of a stack are groups of one convolution. None normalises over
a batch: the output for an image would depend on the others.

On a GPU they compute in bfloat16 with channels last, where asked for; weights, losses and what is
returned stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from otbench.methods.neural.networks import Layer, layers_of


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

COORDINATES = 2**20  # of the images that go through a network at a time, where nothing is trained
SLOPE = 0.2  # of the leaky ReLUs on the left, as in the networks of Rout et al. 2022
WIDEST = 256  # channels, that of all layers there
# Factor of the initial weights of a last layer, so that a residual map begins near the identity.
SHRUNK = 0.1

Image = tuple[int, int, int]


@dataclass(frozen=True)
class UNet:
    """Convolutions down to small images and up again, with additive skips, as the restoring
    networks of Rout et al. 2022.

    Attributes:
        image: ``(channels, height, width)`` of what goes in.
        channels: of what comes out.
        width: channels of the first hidden layer; they double with each halving, up to `WIDEST`.
        levels: how many times the image is halved.
        random: coordinates of random input after those of the image.
        mixed: compute in bfloat16 on a GPU.
    """

    image: Image
    channels: int
    width: int
    levels: int
    random: int = 0
    mixed: bool = False

    @property
    def rates(self) -> list[float]:
        """All the same."""
        return [1.0] * (4 * self.levels + 4 + (self.random > 0))

    def initial(self, generator: torch.Generator, dtype: torch.dtype) -> list[Tensor]:
        """Normal, of the variance that keeps that of the activations; the last layer smaller."""
        widths = _widths(self.width, self.levels)
        down = list(pairwise(widths))
        sizes = [
            (self.image[0], self.width),
            *down,
            *((o, i) for i, o in reversed(down)),
            (self.width, self.channels),
        ]
        layers = [_convolution(i, o, generator, dtype) for i, o in sizes]
        layers[-1].matrix.mul_(SHRUNK)
        of_random = (
            [_normal((self.random, self.width), self.random, generator, dtype)]
            if self.random
            else []
        )
        return [*(tensor for layer in layers for tensor in layer), *of_random]

    def __call__(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        """``(stack, n, inputs) -> (stack, n, channels * height * width)``."""
        return _in_chunks(partial(self._images, weights), x)

    def _images(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        from torch.nn.functional import interpolate, leaky_relu, relu

        layers = layers_of(weights[:-1] if self.random else weights)
        first, down, up, last = (
            layers[0],
            layers[1 : self.levels + 1],
            layers[self.levels + 1 : -1],
            layers[-1],
        )
        with _precision(x, self.mixed):
            h = _convolve(_spread(x[..., : math.prod(self.image)], self.image), first)
            if self.random:
                of_random = x[..., math.prod(self.image) :] @ weights[-1]
                h = h + of_random.transpose(0, 1).flatten(1)[:, :, None, None].to(h.dtype)
            h = leaky_relu(h, SLOPE)
            skips = []
            for layer in down:
                skips.append(h)
                h = _halve(leaky_relu(_convolve(h, layer), SLOPE))
            for layer, skip in zip(up, reversed(skips), strict=True):
                h = relu(_convolve(interpolate(h, skip.shape[-2:]), layer)) + skip
            return _gather(_convolve(h, last), len(x), x.dtype)


@dataclass(frozen=True)
class ResidualCritic:
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
        widths = _widths(self.width, self.levels)
        layers = [_convolution(self.image[0], self.width, generator, dtype)]
        for i, o in pairwise(widths):
            inner = _convolution(i, i, generator, dtype)
            outer = _convolution(i, o, generator, dtype)
            outer.matrix.mul_(1 / self.levels**0.5)
            layers += [inner, outer, _convolution(i, o, generator, dtype, 1)]
        features = widths[-1] * math.prod(_smallest(self.image, self.levels))
        last = _normal((features, 1), features, generator, dtype)
        return [*(tensor for layer in layers for tensor in layer), last, last.new_zeros(1, 1)]

    def __call__(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        """Values ``(stack, n, d) -> (stack, n, 1)``."""
        return _in_chunks(partial(self._values, weights), x)

    def _values(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        from torch.nn.functional import leaky_relu

        first, *blocks, last = layers_of(weights)
        with _precision(x, self.mixed):
            h = _convolve(_spread(x, self.image), first)
            for inner, outer, shortcut in zip(blocks[::3], blocks[1::3], blocks[2::3], strict=True):
                hidden = leaky_relu(_convolve(leaky_relu(h, SLOPE), inner), SLOPE)
                h = _convolve(_halve(h), shortcut) + _halve(_convolve(hidden, outer))
            features = _gather(leaky_relu(h, SLOPE), len(x), x.dtype)
        return last(features)

    def gradient(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        """Gradients ``(stack, n, d) -> (stack, n, d)``."""
        return _in_chunks(partial(self._gradients, weights), x)

    def _gradients(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        import torch

        training = torch.is_grad_enabled()
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(self._values(weights, x).sum(), x, create_graph=training)[0]


def _in_chunks(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Of points ``(stack, n, d)``: some at a time where nothing is trained, whose activations would
    fill the memory all at once.
    """
    import torch

    if torch.is_grad_enabled():
        return function(x)
    return torch.cat([function(part) for part in x.split(max(1, COORDINATES // x.shape[2]), 1)], 1)


def _smallest(image: Image, levels: int) -> tuple[int, int]:
    """Height and width after so many times."""
    height, width = image[1:]
    for _ in range(levels):
        height, width = -(-height // 2), -(-width // 2)
    return height, width


def _widths(width: int, levels: int) -> list[int]:
    """Channels of the layers from one halving to the next."""
    return [min(width * 2**k, max(width, WIDEST)) for k in range(levels + 1)]


def _convolution(
    inputs: int, outputs: int, generator: torch.Generator, dtype: torch.dtype, size: int = 3
) -> Layer:
    """Weights ``(outputs, inputs, size, size)`` and biases ``(outputs,)`` of one member."""
    matrix = _normal((outputs, inputs, size, size), inputs * size**2 / 2, generator, dtype)
    return Layer(matrix, matrix.new_zeros(outputs))


def _normal(
    shape: tuple[int, ...], inverse_variance: float, generator: torch.Generator, dtype: torch.dtype
) -> Tensor:
    import torch

    return (
        torch.randn(shape, generator=generator, device=generator.device, dtype=dtype)
        / inverse_variance**0.5
    )


def _convolve(x: Tensor, layer: Layer) -> Tensor:
    """Images ``(n, stack * inputs, h, w) -> (n, stack * outputs, h, w)``."""
    from torch.nn.functional import conv2d

    return conv2d(
        x,
        layer.matrix.flatten(0, 1),
        layer.bias.flatten(),
        padding=layer.matrix.shape[-1] // 2,
        groups=len(layer.matrix),
    )


def _halve(x: Tensor) -> Tensor:
    """The mean of two by two pixels, of fewer at the border of an odd side."""
    from torch.nn.functional import avg_pool2d

    return avg_pool2d(x, 2, ceil_mode=True)


def _spread(x: Tensor, image: Image) -> Tensor:
    """Points ``(stack, n, d)`` as images ``(n, stack * channels, h, w)``."""
    import torch

    images = x.unflatten(2, image).transpose(0, 1).flatten(1, 2)
    return images.contiguous(memory_format=torch.channels_last) if x.is_cuda else images


def _gather(images: Tensor, stack: int, dtype: torch.dtype) -> Tensor:
    """Images ``(n, stack * channels, h, w)`` as points ``(stack, n, d)``; undoes `_spread`."""
    return images.unflatten(1, (stack, -1)).transpose(0, 1).flatten(2).to(dtype)


def _precision(x: Tensor, mixed: bool) -> torch.autocast:
    import torch

    return torch.autocast(x.device.type, torch.bfloat16, enabled=mixed and x.is_cuda)
