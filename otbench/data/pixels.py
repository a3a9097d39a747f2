"""Images as measures: pixels are points, their brightness or darkness is mass.

Pixels of an image ``(h, w)`` are at the centres of squares of side 1 / max(h, w), the lower left
corner of the image at the origin, so that its longer side is the interval [0, 1].
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from otbench.errors import UserError


if TYPE_CHECKING:
    import numpy as np

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
KINDS = ("image", "dark-image")
ALPHA = ("LA", "PA", "RGBA", "La", "RGBa")  # modes of pictures with transparent pixels
DEEP = ("I", "F")  # modes, after the first letter, with more than 8 bits of grey


def read_picture(path: Path, dark: bool) -> np.ndarray:
    """The mass of each pixel of a picture, ``(h, w)`` in float64: its brightness (luma) or, where
    that is asked for, how much it lacks of white; nothing where it is transparent.

    Raises:
        UserError: there are several in the file.
    """
    import numpy as np
    from PIL import Image, ImageOps

    with Image.open(path) as opened:
        if (several := getattr(opened, "n_frames", 1)) > 1:
            raise UserError(f"{path}: holds {several} pictures: save the one that is meant")
        picture = ImageOps.exif_transpose(opened)  # as it is shown
        if picture.mode[:1] in DEEP:
            grey = np.asarray(picture, np.float64)
            white = 2.0**16 - 1 if picture.mode != "F" else grey.max()
            return white - grey if dark else grey
        seen = picture.convert("RGBA") if "transparency" in picture.info else picture
        opaque = np.ones(seen.size[::-1])
        if seen.mode in ALPHA:
            opaque = np.asarray(seen.convert("RGBA").getchannel("A"), np.float64) / 255
        grey = np.asarray(seen.convert("RGB").convert("L"), np.float64)
    return (255 - grey if dark else grey) * opaque


def as_cloud(path: Path, image: np.ndarray, dark: bool) -> tuple[np.ndarray, np.ndarray]:
    """Points ``(n, 2)``, horizontally and upwards, and masses ``(n,)`` of the pixels of an image
    ``(h, w)`` that have any, row by row from the top.

    Args:
        path: of the file, for messages.
        image: values of the pixels, not negative where they are mass themselves.
        dark: whether mass is what a value lacks of the greatest one.

    Raises:
        UserError: no image of one channel, a value that is not finite or that is negative, or no
            pixel with mass.
    """
    import numpy as np

    if image.ndim != 2:
        raise UserError(
            f"{path}: holds an array of shape {image.shape}: an image is (height, width), of one "
            "channel"
        )
    if image.dtype.kind not in "biuf":
        raise UserError(f"{path}: holds values of type {image.dtype}: write real numbers")
    mass = image.astype(np.float64)
    if not np.isfinite(mass).all() or mass.min(initial=0) < 0:
        raise UserError(f"{path}: has pixels that are negative or not finite: mass is neither")
    if dark:
        mass = mass.max(initial=0) - mass
    rows, columns = np.nonzero(mass)
    if not len(rows):
        raise UserError(
            f"{path}: no pixel has mass: --as image takes it where the image is bright, --as "
            "dark-image where it is dark"
            if mass.size
            else f"{path}: has no pixels: give another"
        )
    height, width = mass.shape
    side = max(height, width)
    points = np.stack([columns + 0.5, height - rows - 0.5], 1) / side
    return points, mass[rows, columns]
