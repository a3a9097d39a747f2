"""Images of handwritten digits with their labels: the official MNIST files, and those that come with scikit-learn."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Literal

from otbench.data import find
from otbench.errors import MissingError


if TYPE_CHECKING:
    import numpy as np

Digits = Literal["mnist", "digits"]

MNIST = {
    "train": ("mnist/train-images-idx3-ubyte.gz", "mnist/train-labels-idx1-ubyte.gz"),
    "test": ("mnist/t10k-images-idx3-ubyte.gz", "mnist/t10k-labels-idx1-ubyte.gz"),
}
LEARNT = 1000  # of scikit-learn's images, the first, are for training


def digits(data: Digits, part: Literal["train", "test"]) -> tuple[np.ndarray, np.ndarray]:
    """Images ``(n, side, side)`` with values from 0, and labels ``(n,)``; of scikit-learn's the first 1,000 are for training.

    Raises:
        MissingError: a file is absent, or is no such archive.
    """
    if data == "mnist":
        images, labels = (read_idx(file) for file in MNIST[part])
        return images, labels
    from sklearn.datasets import load_digits

    loaded = load_digits()
    kept = slice(None, LEARNT) if part == "train" else slice(LEARNT, None)
    return loaded.images[kept], loaded.target[kept]  # type: ignore[union-attr]


def read_idx(relative: str) -> np.ndarray:
    """The array of a gzipped IDX file of bytes: a header that ends in its dimensions, big-endian, then the bytes.

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
        raise MissingError(f"{path} is not a gzipped IDX file of bytes ({error}): put the original there") from error
