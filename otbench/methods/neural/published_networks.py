"""Networks of the image experiments of OTM (Rout et al. 2022) and TTC (Milne et al. 2022), layer by
layer as in their official code, with torch's initial weights.

The `otbench.methods.neural.convolutions.UNet` with ``norm`` and ``published`` is OTM's map for
restoration; the others are here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple

from otbench.methods.neural.convolutions import (
    SLOPE,
    Image,
    ImageCritic,
    ImageMap,
    convolve,
    gather,
    halve,
    halve_overlapping,
    precision,
    smallest,
    spread,
    uniform,
    uniform_convolution,
    unit_affine,
)
from otbench.methods.neural.networks import Layer, layers_of
from otbench.methods.neural.normalisation import LEAST_VARIANCE, BatchNorm


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

FIRST_SIDE = 4  # pixels along a side of the images that a decoder begins with
DEVIATION = 0.02  # of the initial gains of an instance normalisation around one
TtcNetwork = Literal["infogan", "ar-convnet", "sndcgan"]


@dataclass(frozen=True)
class Decoder(ImageMap):
    """From a vector to an image, twice as large from layer to layer: OTM's map for generation.

    Attributes:
        inputs: coordinates of the vector.
        channels: of the image.
        width: units of the first layer; the others have twice as many channels, the first two
            that double the image four times.
        levels: how many times the images are doubled, from 4 x 4.
        norm: normalise over the batch after each layer but the last, as there.
        mixed: compute in bfloat16 on a GPU.
    """

    inputs: int
    channels: int
    width: int
    levels: int
    norm: bool = False
    mixed: bool = False

    @property
    def rates(self) -> list[float]:
        """All the same."""
        return [1.0] * (2 * (self.levels + 3) + 2 * (self.levels + 2) * self.norm)

    @property
    def side(self) -> int:
        """Pixels along a side of the image."""
        return FIRST_SIDE * 2**self.levels

    @property
    def outputs(self) -> int:
        """Coordinates of an image."""
        return self.channels * self.side**2

    def initial(self, generator: torch.Generator, dtype: torch.dtype) -> list[Tensor]:
        """Those of torch; gains one."""
        widths = [n * self.width for n in (2, 4, 4, *[2] * self.levels)][: self.levels + 1]
        wide = widths[0]
        dense = uniform_convolution(self.inputs, self.width, generator, dtype, 1)
        fan = wide * FIRST_SIDE**2  # as torch counts it for a transposed convolution
        spreading = Layer(
            uniform((self.width, wide, FIRST_SIDE, FIRST_SIDE), fan, generator, dtype),
            uniform((wide,), fan, generator, dtype),
        )
        layers = [dense, spreading]
        layers += [uniform_convolution(i, o, generator, dtype) for i, o in pairwise(widths)]
        layers.append(uniform_convolution(widths[-1], self.channels, generator, dtype))
        if self.norm:
            layers += [unit_affine(n, dense.bias) for n in (self.width, *widths)]
        return [tensor for layer in layers for tensor in layer]

    def run(self, weights: Sequence[Tensor], x: Tensor, normalise: BatchNorm) -> Tensor:
        """As of `ImageMap`."""
        from torch.nn.functional import conv_transpose2d, leaky_relu

        layers = layers_of(weights)
        convolutions = self.levels + 3
        norms = iter(layers[convolutions:])
        dense, spreading, *up, last = layers[:convolutions]

        def activated(h: Tensor) -> Tensor:
            return leaky_relu(normalise(h, next(norms)) if self.norm else h, SLOPE)

        with precision(x, self.mixed):
            h = activated(convolve(spread(x, (self.inputs, 1, 1)), dense))
            matrix, bias = spreading.matrix.flatten(0, 1), spreading.bias.flatten()
            h = activated(conv_transpose2d(h, matrix, bias, groups=len(x)))
            for layer in up:
                h = activated(convolve(_double(h, len(x)), layer))
            return gather(convolve(h, last), len(x), x.dtype).tanh()


def _double(x: Tensor, stack: int) -> Tensor:
    """Images twice as large. As torch orders what it shuffles, each pixel becomes four of different
    channels, and not four copies as where the layer was first taken from.
    """
    from torch.nn.functional import pixel_shuffle

    return pixel_shuffle(x.unflatten(1, (stack, -1)).repeat(1, 1, 4, 1, 1), 2).flatten(1, 2)


class Convolution(NamedTuple):
    """A convolution before a leaky ReLU: channels, pixels along a side of the kernel, stride."""

    channels: int
    size: int
    stride: int


@dataclass(frozen=True)
class PlainCritic(ImageCritic):
    """Convolutions with leaky ReLUs, then linear layers, nothing beside.

    Attributes:
        image: ``(channels, height, width)``.
        convolutions: in their order.
        hidden: units of the linear layers before the last.
        leak: slope of the leaky ReLUs on the left.
        pooled: images are halved after each convolution, by means over three by three pixels.
        mixed: compute in bfloat16 on a GPU.
    """

    image: Image
    convolutions: tuple[Convolution, ...]
    hidden: tuple[int, ...] = ()
    leak: float = SLOPE
    pooled: bool = False
    mixed: bool = False

    @property
    def rates(self) -> list[float]:
        """All the same."""
        return [1.0] * 2 * (len(self.convolutions) + len(self.hidden) + 1)

    @property
    def features(self) -> int:
        """Inputs of the first linear layer."""
        sides = list(self.image[1:])
        for _, size, stride in self.convolutions:
            sides = [(side + 2 * ((size - 1) // 2) - size) // stride + 1 for side in sides]
            if self.pooled:
                sides = [(side - 1) // 2 + 1 for side in sides]
        return self.convolutions[-1].channels * math.prod(sides)

    def initial(self, generator: torch.Generator, dtype: torch.dtype) -> list[Tensor]:
        """Those of torch."""
        channels = [self.image[0], *(layer.channels for layer in self.convolutions)]
        layers = [
            uniform_convolution(i, layer.channels, generator, dtype, layer.size)
            for i, layer in zip(channels[:-1], self.convolutions, strict=True)
        ]
        layers += [
            Layer(uniform((i, o), i, generator, dtype), uniform((1, o), i, generator, dtype))
            for i, o in pairwise([self.features, *self.hidden, 1])
        ]
        return [tensor for layer in layers for tensor in layer]

    def values(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        """As of `ImageCritic`."""
        from torch.nn.functional import leaky_relu

        layers = iter(layers_of(weights))
        with precision(x, self.mixed):
            h = spread(x, self.image)
            for _, _, stride in self.convolutions:
                h = leaky_relu(convolve(h, next(layers), stride), self.leak)
                h = halve_overlapping(h) if self.pooled else h
            features = gather(h, len(x), x.dtype)
        *hidden, last = layers
        for layer in hidden:
            features = leaky_relu(layer(features), self.leak)
        return last(features)


def otm_critic(image: Image, width: int, levels: int, mixed: bool = False) -> PlainCritic:
    """The potential of OTM for restoration: layers of one width, the image halved after each."""
    layers = (Convolution(width, 3, 1),) * levels
    return PlainCritic(image, layers, pooled=True, mixed=mixed)


def ttc_critic(
    network: TtcNetwork, image: Image, width: int, leak: float, mixed: bool = False
) -> PlainCritic:
    """The critics of TTC, without normalisation.

    Args:
        network: ``infogan``, for generation (the discriminator of Chen et al. 2016 as in Lucic et
            al. 2018); ``ar-convnet``, for denoising (Lunz et al. 2018); ``sndcgan``, for
            translation, deblurring and large images (Kurach et al. 2019).
        image: ``(channels, height, width)``.
        width: channels of the first convolution; 64 there, 16 of ``ar-convnet``.
        leak: slope of the leaky ReLUs on the left, 0.1 there.
        mixed: compute in bfloat16 on a GPU.
    """
    multiples: tuple[tuple[int, int, int], ...]
    hidden: tuple[int, ...]
    if network == "infogan":
        multiples, hidden = ((1, 4, 2), (2, 4, 2)), (1024,)
    elif network == "ar-convnet":
        multiples = ((1, 5, 1), (2, 5, 1), (2, 5, 2), (4, 5, 2), (4, 5, 2), (8, 5, 2))
        hidden = (256,)
    else:
        halving = ((2, 4, 2), (2, 3, 1), (4, 4, 2), (4, 3, 1), (8, 4, 2), (8, 3, 1))
        multiples, hidden = ((1, 3, 1), *halving), ()
    layers = tuple(Convolution(width * n, size, stride) for n, size, stride in multiples)
    return PlainCritic(image, layers, hidden, leak, mixed=mixed)


@dataclass(frozen=True)
class InstanceNormCritic(ImageCritic):
    """Residual blocks in which each image is normalised by itself (InstanceNorm++ of Song & Ermon
    2019), ReLUs: the potential of OTM for generation.

    Attributes:
        image: ``(channels, height, width)``.
        width: channels at both ends; they double from block to block up to the middle, and are
            halved again after it.
        levels: number of blocks, each of which halves the image.
        mixed: compute in bfloat16 on a GPU.
    """

    image: Image
    width: int
    levels: int
    mixed: bool = False

    @property
    def widths(self) -> list[int]:
        """Channels from one halving to the next."""
        return [self.width * 2 ** min(k, self.levels - k) for k in range(self.levels + 1)]

    @property
    def rates(self) -> list[float]:
        """All the same."""
        return [1.0] * (12 * self.levels + 4)

    def initial(self, generator: torch.Generator, dtype: torch.dtype) -> list[Tensor]:
        """Those of torch, gains near one."""
        import torch

        def norm(channels: int) -> list[Tensor]:
            gains = torch.randn(
                2, channels, generator=generator, device=generator.device, dtype=dtype
            )
            return [*(1 + DEVIATION * gains).unbind(), gains.new_zeros(channels)]

        tensors = [*uniform_convolution(self.image[0], self.width, generator, dtype)]
        for i, o in pairwise(self.widths):
            tensors += [*norm(i), *uniform_convolution(i, i, generator, dtype)]
            tensors += [*norm(i), *uniform_convolution(i, o, generator, dtype)]
            tensors += uniform_convolution(i, o, generator, dtype, 1)
        features = self.width * math.prod(smallest(self.image, self.levels))
        last = uniform((features, 1), features, generator, dtype)
        return [*tensors, last, uniform((1, 1), features, generator, dtype)]

    def values(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        """As of `ImageCritic`."""
        from torch.nn.functional import relu

        remaining = iter(weights)

        def convolved(h: Tensor) -> Tensor:
            return convolve(h, Layer(*islice(remaining, 2)))

        def normalised(h: Tensor) -> Tensor:
            return relu(_instance_norm(h, *islice(remaining, 3)))

        with precision(x, self.mixed):
            h = convolved(spread(x, self.image))
            for _ in range(self.levels):
                hidden = convolved(normalised(h))
                hidden = halve(convolved(normalised(hidden)))
                h = halve(convolved(h)) + hidden
            features = gather(h, len(x), x.dtype)
        return Layer(*remaining)(features)


def _instance_norm(x: Tensor, between: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    """Images ``(n, stack * channels, h, w)``, each channel of each normalised by its own mean and
    variance; the means, normalised over the channels, come back times gains of their own.
    """
    import torch

    h = x.unflatten(1, gain.shape).to(gain.dtype)
    variance, mean = torch.var_mean(h, (3, 4), correction=0, keepdim=True)
    spread_of_means, middle = torch.var_mean(mean, 2, keepdim=True)
    means = (mean - middle) / (spread_of_means + LEAST_VARIANCE).sqrt()
    h = (h - mean) / (variance + LEAST_VARIANCE).sqrt()
    between, gain, bias = (part[..., None, None] for part in (between, gain, bias))
    return (gain * (h + between * means) + bias).flatten(1, 2)
