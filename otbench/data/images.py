"""Images of digits, clothes and faces: scikit-learn's digits, MNIST, Fashion-MNIST and CelebA.

What lies in archives is decoded once, into a file of the user's cache folder that is then
memory-mapped.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from otbench.data.archives import in_threads
from otbench.data.catalogue import FACES_HALF_SIZE
from otbench.data.decoded import cached, new_array
from otbench.data.faces import faces, load_faces
from otbench.data.files import find
from otbench.errors import MissingError


if TYPE_CHECKING:
    import numpy as np

Digits = Literal["mnist", "digits"]
Data = Literal["digits", "mnist", "fashion-mnist", "celeba"]

LEARNT = 1000  # of scikit-learn's images, the first, are for training in `digits`
LEARNT_OF_ALL = 1500  # the same in `load`
# Pixels along an axis; faces are resized to so many.
SIDES = {"digits": 8, "mnist": 28, "fashion-mnist": 28, "celeba": 64}


@dataclass(frozen=True)
class Images:
    """A set of images.

    Attributes:
        pixels: ``(n, channels, side, side)`` bytes from 0, black, to ``white``; memory-mapped
            read-only where they come from an archive.
        white: the pixel value of white.
        learnt: the first so many are for training, the others for scoring.
        labels: ``(n,)``, the classes 0 to 9; None for faces.
    """

    pixels: np.ndarray
    white: int
    learnt: int
    labels: np.ndarray | None


def load(data: Data, side: int = 0) -> Images:
    """The images, resized to ``side`` pixels along an axis; 0 takes those of `SIDES`.

    For scoring are the official test images; of scikit-learn's digits those after the first 1,500;
    of faces those from the first that the official partition has for testing, or the last tenth
    where it has none of them.

    Raises:
        MissingError: a file is absent or damaged, or the cache folder cannot be written.
    """
    side = side or SIDES[data]
    if data == "celeba":
        pixels, learnt = load_faces(side)
        return Images(pixels, 255, learnt, None)
    if data != "digits":
        return _load_idx(data, side)
    import numpy as np
    from sklearn.datasets import load_digits

    loaded = load_digits()
    images = loaded.images.astype(np.uint8)  # type: ignore[union-attr]
    pixels = np.stack([_resized(image, side) for image in images])[:, None]
    return Images(pixels, 16, LEARNT_OF_ALL, loaded.target)  # type: ignore[union-attr]


def files(data: Data) -> tuple[str, ...]:
    """The data files that `load` reads, relative to the data folder: of faces what is found, the
    half-size archive where nothing is.
    """
    if data == "digits":
        return ()
    if data != "celeba":
        return tuple(
            _idx(data, part, kind)
            for part in ("train", "t10k")
            for kind in ("images-idx3", "labels-idx1")
        )
    place = next(iter(faces()), None)
    return (FACES_HALF_SIZE if place is None else f"celeba/{place.name}",)


def digits(data: Digits, part: Literal["train", "test"]) -> tuple[np.ndarray, np.ndarray]:
    """Images ``(n, side, side)`` with values from 0, and labels ``(n,)``; of scikit-learn's the
    first 1,000 are for training.

    Raises:
        MissingError: a file is absent, or is no such archive.
    """
    if data == "mnist":
        paths = files(data)
        images, labels = map(read_idx, paths[:2] if part == "train" else paths[2:])
        return images, labels
    loaded = load("digits")
    assert loaded.labels is not None, "digits have labels"
    kept = slice(None, LEARNT) if part == "train" else slice(LEARNT, None)
    return loaded.pixels[kept, 0], loaded.labels[kept]


def read_idx(relative: str) -> np.ndarray:
    """The array of a gzipped IDX file of bytes: a header that ends in its dimensions, big-endian,
    then the bytes.

    Raises:
        MissingError: the file is absent, or is no such archive.
    """
    import numpy as np

    path = find(relative)
    try:
        with gzip.open(path) as stream:
            content = stream.read()
        shape = np.frombuffer(content, ">i4", content[3], offset=4)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)
    except (OSError, EOFError, ValueError, IndexError) as error:
        raise MissingError(
            f"{path} is not a gzipped IDX file of bytes ({error}): put the original there"
        ) from error


def _load_idx(data: str, side: int) -> Images:
    import numpy as np

    parts = ("train", "t10k")
    images = [_idx(data, part, "images-idx3") for part in parts]

    def write(path: Path) -> None:
        arrays = [read_idx(file) for file in images]
        shapes = {array.shape[1:] for array in arrays}
        if len(shapes) > 1 or len(size := shapes.pop()) != 2 or size[0] != size[1]:
            raise MissingError(
                f"{find(images[0]).parent} holds no square images of one size: put the original "
                "files there"
            )
        originals = [image for array in arrays for image in array]
        with new_array(path, (len(originals), 1, side, side)) as pixels:

            def put(i: int) -> None:
                pixels[i, 0] = _resized(originals[i], side)

            for _ in in_threads(put, range(len(originals))):
                pass

    pixels = np.load(
        cached(f"{data}-{side}", ".npy", [find(file) for file in images], write), mmap_mode="r"
    )
    labels = [read_idx(_idx(data, part, "labels-idx1")) for part in parts]
    if (number := sum(map(len, labels))) != len(pixels):
        raise MissingError(
            f"{find(images[0]).parent} holds {number} labels of {len(pixels)} images: put the "
            "original files there"
        )
    return Images(pixels, 255, len(labels[0]), np.concatenate(labels))


def _idx(data: str, part: str, kind: str) -> str:
    return f"{data}/{part}-{kind}-ubyte.gz"


def _resized(image: np.ndarray, side: int) -> np.ndarray:
    """A grey image of bytes, averaged where it shrinks."""
    import numpy as np
    from PIL import Image

    if side == len(image):
        return image
    how = Image.Resampling.BOX if side < len(image) else Image.Resampling.BILINEAR
    resized = np.asarray(Image.fromarray(image.astype(np.float32)).resize((side, side), how))
    return np.rint(resized).astype(np.uint8)
