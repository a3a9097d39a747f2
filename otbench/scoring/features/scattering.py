"""Features of images that need no trained network: a scattering transform (Mallat 2012; Bruna &
Mallat 2013).

With Morlet wavelets psi_j of four orientations, at scales 2^j from one pixel to a quarter of the
side, the coefficients of an image x are means over each quarter of it: of x itself, of |x * psi_j|,
and of ||x * psi_j| * psi_k| for k > j. A small shift hardly shows in them; noise, blur and another
texture do. Beyond its borders an image goes on as in a mirror; colours are taken as luma and
chroma.

Each coefficient counts in units of its standard deviation over a reference sample, and those of one
order, 0 to 2, together as much as those of another: the reference has the variance 1. The features
are the coordinates on its 32 leading principal axes, so few that the covariance of some hundred
images is known well.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

AXES = 32
ORIENTATIONS = 4
WIDTH, FREQUENCY = 0.8, 3 * math.pi / 4  # of the finest wavelet: sd in pixels, radians per pixel
LUMA = 0.299, 0.587, 0.114
LEAST = 1e-4  # of the largest standard deviation: counts as one where a coefficient is constant
PIXELS = 2**18  # of the images that are transformed at a time


@dataclass(frozen=True)
class Scattering:
    """The features, as a reference sample fixes them; ``(k,)`` and ``(k, at most 32)`` for ``k``
    coefficients.
    """

    mean: Tensor = field(repr=False)
    scale: Tensor = field(repr=False)
    axes: Tensor = field(repr=False)

    @classmethod
    def of(cls, reference: Tensor) -> Scattering:
        """From images ``(n, channels, height, width)``."""
        import torch

        orders = scattered(reference)
        found = torch.cat(orders, 1)
        mean, std = found.mean(0), found.std(0, correction=0)
        shares = torch.cat(
            [std.new_full((order.shape[1],), order.shape[1] * len(orders)) for order in orders]
        )
        scale = std.clamp(min=LEAST * float(std.max())) * shares.sqrt()
        standard = (found - mean) / scale
        _, vectors = torch.linalg.eigh(standard @ standard.T)
        axes = standard.T @ vectors[:, -min(AXES, len(found) - 1, found.shape[1]) :]
        return cls(mean, scale, axes / axes.norm(dim=0))

    def __call__(self, images: Tensor) -> Tensor:
        """``(n, at most 32)``, in float64."""
        import torch

        return (torch.cat(scattered(images), 1) - self.mean) / self.scale @ self.axes


def scattered(images: Tensor) -> list[Tensor]:
    """Coefficients of the orders 0, 1 and 2 of images ``(n, channels, height, width)``, ``(n,
    number)`` each in float64.
    """
    import torch

    if images.shape[1] == 3:
        luma = (images * images.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
        images = torch.cat([luma, images[:, ::2] - luma], 1)
    parts = [_orders(part) for part in images.split(max(1, PIXELS // images[0].numel()))]
    return [torch.cat(of_parts).double() for of_parts in zip(*parts, strict=True)]


def _orders(images: Tensor) -> list[Tensor]:
    import torch

    scales = max(1, round(math.log2(min(images.shape[-2:]))) - 1)
    mirrored = torch.cat([images, images.flip(-1)], -1)
    mirrored = torch.cat([mirrored, mirrored.flip(-2)], -2)
    first, second = [], []
    for j, modulus in _moduli(mirrored, 0, range(scales)):
        first.append(_means(modulus))
        second += [_means(again) for _, again in _moduli(modulus, j, range(j + 1, scales))]
    return [torch.cat(order, 1) for order in ([_means(mirrored)], first, second) if order]


def _moduli(signal: Tensor, octave: int, scales: range) -> Iterator[tuple[int, Tensor]]:
    """|signal * psi_j| in four orientations, ``(..., 4, height, width)``, for each scale j.

    A signal of octave k is one sampled every 2^k pixels. Where the size allows, the result is of
    octave j, and computed at octave j - 1 from the low frequencies alone.
    """
    import torch

    spectrum = torch.fft.fft2(signal)
    for j in scales:
        while octave < j - 1 and _halves(spectrum):
            spectrum, octave = _low(_low(spectrum, -1), -2), octave + 1
        wavelets = _wavelets(*spectrum.shape[-2:], j - octave).to(spectrum.device, spectrum.dtype)
        filtered = spectrum[..., None, :, :] * wavelets
        if octave < j and _halves(filtered):
            filtered = _folded(_folded(filtered, -1), -2)
        yield j, torch.fft.ifft2(filtered).abs()


def _halves(mirrored: Tensor) -> bool:
    """Whether half as many samples still have the image as a whole number of them."""
    return mirrored.shape[-1] % 4 == mirrored.shape[-2] % 4 == 0


def _low(spectrum: Tensor, dim: int) -> Tensor:
    """Spectrum of the signal without its upper octave, sampled half as often."""
    import torch

    low, _, _, negative = spectrum.chunk(4, dim)
    return torch.cat([low, negative], dim) / 2


def _folded(spectrum: Tensor, dim: int) -> Tensor:
    """Spectrum of every other sample."""
    lower, upper = spectrum.chunk(2, dim)
    return (lower + upper) / 2


@functools.cache
def _wavelets(height: int, width: int, scale: int) -> Tensor:
    """Spectra ``(4, height, width)`` of the Morlet wavelets at the scale 2^``scale`` samples; each
    has the mean zero.
    """
    import torch

    sigma, frequency = WIDTH * 2**scale, FREQUENCY / 2**scale

    def gaussian(towards: float, size: int) -> Tensor:
        """Centred at a frequency along one axis; with its aliases."""
        frequencies = 2 * math.pi * torch.fft.fftfreq(size, dtype=torch.float64)
        aliases = [frequencies - towards + 2 * math.pi * turn for turn in (-1, 0, 1)]
        return torch.stack([(-((sigma * alias) ** 2) / 2).exp() for alias in aliases]).sum(0)

    low = torch.outer(gaussian(0, height), gaussian(0, width))
    spectra = []
    for k in range(ORIENTATIONS):
        angle = math.pi * k / ORIENTATIONS
        wave = torch.outer(
            gaussian(frequency * math.sin(angle), height),
            gaussian(frequency * math.cos(angle), width),
        )
        spectra.append(wave - wave[0, 0] / low[0, 0] * low)
    return torch.stack(spectra)


def _means(mirrored: Tensor) -> Tensor:
    """Means ``(n, number)`` over the quarters of images ``(n, ..., 2 height, 2 width)`` and their
    mirror images.
    """
    import torch

    height, width = (size // 2 for size in mirrored.shape[-2:])
    images = mirrored[..., :height, :width].flatten(1, -3)
    return torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)
