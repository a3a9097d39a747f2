"""Metrics of images: likeness to what each was made from, likeness to the input, and distance of
the law of the outputs to the target.

None says all: a map that averages scores well against partners and badly against the law, one that
invents does the opposite.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from otbench.metrics.declare import metric
from otbench.metrics.distances import frechet_distance


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

RANGE = 2  # from black to white
LEAST = RANGE**2 * 1e-10  # squared error of the pixels that counts as none, 100 dB
SSIM_IMAGES = 512  # the first
SSIM_WINDOW = 7  # pixels along a side


@metric(unit="dB", better="higher", worst=0.0, curve=True)
def psnr_db(mapped_images: Tensor, partner_images: Tensor) -> float:
    """Peak signal-to-noise ratio of T(x) to what x was made from, -10 log10(mean squared error /
    4), mean over images (Milne et al. 2022).

    Pixels have a range of 2; values beyond it are taken as they are. It is 100 dB at most.
    """
    error = (mapped_images - partner_images).double().flatten(1).square().mean(1)
    return float(-10 * (error.clamp(min=LEAST) / RANGE**2).log10().mean())


@metric(unit="dB", better=None)
def psnr_input_db(start_images: Tensor, partner_images: Tensor) -> float:
    """`psnr_db` of x itself, what a map that does nothing scores."""
    return psnr_db(start_images, partner_images)


@metric(unit="1", better="higher", worst=-1.0)
def ssim(mapped_images: Tensor, partner_images: Tensor) -> float:
    """Structural similarity of T(x) to what x was made from, mean over at most 512 images (Wang et
    al. 2004); 1 where they are equal.

    As scikit-image computes it, in windows of 7 x 7 pixels and each channel by itself, with a range
    of 2; values beyond the range are taken as they are. Not defined for images of fewer pixels
    along a side.
    """
    import numpy as np
    from skimage.metrics import structural_similarity

    if min(mapped_images.shape[-2:]) < SSIM_WINDOW:
        return math.nan
    pairs = zip(
        *(
            images[:SSIM_IMAGES].double().cpu().numpy()
            for images in (mapped_images, partner_images)
        ),
        strict=True,
    )
    values = [
        structural_similarity(a, b, win_size=SSIM_WINDOW, data_range=RANGE, channel_axis=0)
        for a, b in pairs
    ]
    return float(np.mean(values))


@metric(unit="1", better=None)
def ssim_input(start_images: Tensor, partner_images: Tensor) -> float:
    """`ssim` of x itself, what a map that does nothing scores."""
    return ssim(start_images, partner_images)


@metric(unit="cost", better=None, curve=True)
def transport_cost(image_costs: Tensor) -> float:
    """E c(x, T(x)) of images, how much a map changes; of maps that reach the target as well, the
    one of less cost is better.
    """
    return float(image_costs.double().mean())


@metric(unit="1", better="lower")
def frechet_scattering(scattering_mapped: Tensor, scattering_target: Tensor) -> float:
    """Frechet distance of the outputs to target images, between Gaussians fitted to 32 scattering
    features: FID without a trained network.

    The target's total variance is about 1 (see `otbench.scoring.features.scattering`). The images
    are others than the outputs were made from.
    """
    return frechet_distance(scattering_mapped, scattering_target)


@metric(unit="1", better=None)
def frechet_scattering_floor(scattering_fresh: Tensor, scattering_target: Tensor) -> float:
    """The floor of `frechet_scattering`: the same between two sets of target images of the same
    size that have none in common.
    """
    return frechet_distance(scattering_fresh, scattering_target)


@metric(unit="1", better=None)
def frechet_scattering_input(scattering_start: Tensor, scattering_target: Tensor) -> float:
    """`frechet_scattering` of x itself, what a map that does nothing scores."""
    return frechet_distance(scattering_start, scattering_target)


@metric(unit="1", better="lower")
def scattering_defect(
    scattering_mapped: Tensor, scattering_fresh: Tensor, scattering_target: Tensor
) -> float:
    """Verdict: `frechet_scattering` less its floor, a share of the target's variance in features
    that see noise and blur.
    """
    return frechet_scattering(scattering_mapped, scattering_target) - frechet_scattering_floor(
        scattering_fresh, scattering_target
    )


@metric(unit="1", better=None)
def scattering_visible(scattering_fresh: Tensor, scattering_target: Tensor) -> float:
    """Verdict: the scattering defect that sampling alone may show, the floor once more: floors of
    one size differ by less.
    """
    return frechet_scattering_floor(scattering_fresh, scattering_target)


@metric(unit="1", better="lower")
def fid(inception_mapped: Tensor, inception_target: Tensor) -> float:
    """Frechet distance of the outputs to target images in the 2,048 features of Inception (Heusel
    et al. 2017); needs its weights.

    Pixels are rounded to bytes; grey images have three equal channels. It is high for few images,
    as `fid_floor` is: published values, of 10,000 images or more, are not to be compared with it.
    """
    return frechet_distance(inception_mapped, inception_target)


@metric(unit="1", better=None)
def fid_floor(inception_fresh: Tensor, inception_target: Tensor) -> float:
    """The floor of `fid`: the same between two sets of target images of the same size that have
    none in common.
    """
    return frechet_distance(inception_fresh, inception_target)


@metric(unit="1", better=None)
def lpips(perceptual_distance: float) -> float:
    """Perceptual distance of x and T(x) in the features of VGG, mean over at most 512 images (Zhang
    et al. 2018); needs its weights.

    In place of the transport cost (Choi et al. 2025): of maps that reach the target as well, the
    one that changes less is better. Pixels are clipped to their range, grey images have three equal
    channels, images of fewer than 64 pixels along a side are enlarged to that.
    """
    return perceptual_distance
