"""The trained networks that FID and LPIPS are defined by, with weights from a data folder; nothing
is downloaded.

Inception is that of the TensorFlow graph of 2015, in the weights that pytorch-fid and
torch-fidelity publish; VGG16 is torchvision's, under the linear layers of LPIPS that come with
torchmetrics. The packages are those of ``pip install 'otmapbench[images]'``.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from otbench.data.catalogue import INCEPTION, VGG
from otbench.data.files import checksum, find
from otbench.errors import MissingError


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

BATCH = 64  # images that a network is given at a time
SMALLEST = 64  # pixels along a side that LPIPS is given: it was learnt on patches of so many


def inception_features(images: Tensor) -> Tensor:
    """``(n, 2048)`` of images ``(n, 1 or 3, height, width)``, their pixels rounded to bytes.

    Raises:
        MissingError: the weights or a package are absent, or not those expected.
    """
    import torch

    weights = _weights(INCEPTION)
    with _packages():
        from torchmetrics.image.fid import NoTrainInceptionV3  # pyright: ignore[reportMissingImports]

        network = NoTrainInceptionV3("inception-v3-compat", ["2048"], str(weights))
    network = network.to(images.device)
    rounded = ((_rgb(images) + 1) * 127.5).round().to(torch.uint8)
    with torch.no_grad():
        return torch.cat([network(part) for part in rounded.split(BATCH)])


def perceptual_distance(x: Tensor, y: Tensor) -> float:
    """Mean LPIPS of images ``(n, 1 or 3, height, width)`` and others; small ones are enlarged.

    Raises:
        MissingError: the weights or a package are absent, or not those expected.
    """
    import torch

    weights = _weights(VGG)
    with _packages(), _hub(weights):
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity  # pyright: ignore[reportMissingImports]

        network = LearnedPerceptualImagePatchSimilarity("vgg")
    network = network.to(x.device)
    factor = SMALLEST / min(x.shape[-2:])
    for parts in zip(*(_rgb(images).float().split(BATCH) for images in (x, y)), strict=True):
        if factor > 1:
            parts = [
                torch.nn.functional.interpolate(
                    part, scale_factor=factor, mode="bilinear", align_corners=False
                )
                for part in parts
            ]
        with torch.no_grad():
            network.update(*parts)
    return float(network.compute())


def _rgb(images: Tensor) -> Tensor:
    """Three channels, pixels from -1 to 1."""
    return images.clamp(-1, 1).expand(-1, 3, -1, -1)


def _weights(relative: str) -> Path:
    """The file, whose name ends in the beginning of its checksum."""
    # No folders: what is said here is published with the rows.
    remedy = "`otbench data list weights` says where it comes from"
    try:
        path = find(relative)
    except MissingError:
        raise MissingError(f"no data file {relative}: {remedy}") from None
    expected = path.stem.rpartition("-")[2]
    if not checksum(path).startswith(expected):
        raise MissingError(
            f"{relative} is not the file expected (its SHA-256 does not begin with {expected}): "
            f"{remedy}"
        )
    return path


@contextlib.contextmanager
def _packages() -> Iterator[None]:
    """Say what is wrong where torchmetrics, torch-fidelity or torchvision cannot be used, as a
    torchvision made for another torch.
    """
    try:
        yield
    except (ImportError, OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        remedy = "pip install 'otmapbench[images]', with the torchvision that goes with this torch"
        raise MissingError(
            f"torchmetrics cannot load the network ({type(error).__name__}: {reason}); remedy: "
            f"{remedy}"
        ) from error


@contextlib.contextmanager
def _hub(weights: Path) -> Iterator[None]:
    """Make torchvision find the weights where it would put what it downloads."""
    import torch

    before = torch.hub.get_dir()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "checkpoints", weights.name)
        place.parent.mkdir()
        place.symlink_to(weights.resolve())
        torch.hub.set_dir(folder)
        try:
            yield
        finally:
            torch.hub.set_dir(before)
