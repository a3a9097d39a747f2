"""Batch normalisation of stacked convolutional networks: by the batch in training, by fixed
statistics afterwards, so that a map acts point by point (Ioffe & Szegedy 2015).

No running averages are kept. What takes the place of the batch's statistics, once weights are
fixed, is measured on fresh batches with these very weights (as Wu & Johnson 2021 advise), averaged
weights included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otbench.methods.neural.networks import Layer


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor
    Moments = tuple[Tensor, Tensor]  # mean and variance of each channel, (stack * channels,)

LEAST_VARIANCE = 1e-5  # added to a variance that is divided by, torch's default


@dataclass
class BatchNorm:
    """The normalisations of one pass through a network, to be called in the order of its layers.

    Attributes:
        fixed: mean and variance for each layer; none takes those of the batch.
        seen: where the mean and variance of the batch are kept, layer by layer.
    """

    fixed: Iterator[Moments] | None = None
    seen: list[Moments] | None = None

    def __call__(self, x: Tensor, affine: Layer) -> Tensor:
        """Images ``(n, stack * channels, h, w)`` of mean 0 and variance 1 in each channel, times
        gains and plus biases ``(stack, channels)``.
        """
        import torch
        from torch.nn.functional import batch_norm

        gain, bias = (part.flatten() for part in affine)
        if self.seen is not None:
            variance, mean = torch.var_mean(x.detach().to(gain.dtype), (0, 2, 3), correction=0)
            self.seen.append((mean, variance))
        mean, variance = (None, None) if self.fixed is None else next(self.fixed)
        return batch_norm(x, mean, variance, gain, bias, self.fixed is None, 0.0, LEAST_VARIANCE)


def statistics(
    run: Callable[[Tensor, BatchNorm], Tensor], batches: Iterable[Tensor]
) -> Sequence[Moments]:
    """Mean and variance that each layer has over several batches, each batch normalised by its own.

    Args:
        run: a pass through the network, of a batch ``(stack, n, inputs)``.
        batches: fresh ones, of equal size, as large as those of the training.
    """
    import torch

    passes: list[list[Moments]] = []
    with torch.no_grad():
        for batch in batches:
            passes.append([])
            run(batch, BatchNorm(seen=passes[-1]))
    found = []
    for layer in zip(*passes, strict=True):
        means, variances = (torch.stack(parts) for parts in zip(*layer, strict=True))
        found.append((means.mean(0), variances.mean(0) + means.var(0, correction=0)))
    return found
