"""Images of digits, clothes and faces: scikit-learn's digits, MNIST, Fashion-MNIST and CelebA.

What lies in archives is decoded once, into a file of the user's cache folder that is then
memory-mapped. Of faces any of these is read, the first that is found in a data folder: the official
archive ``celeba/img_align_celeba.zip``, the same unpacked, the first 10,000 faces at half size, or
any other ``celeba/*.zip`` of aligned faces.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import io
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Literal, TypeVar

from otbench.data.files import find, folders, present
from otbench.errors import MissingError


if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image as Picture

    T = TypeVar("T")
    R = TypeVar("R")

Digits = Literal["mnist", "digits"]
Data = Literal["digits", "mnist", "fashion-mnist", "celeba"]

MNIST = {
    "train": ("mnist/train-images-idx3-ubyte.gz", "mnist/train-labels-idx1-ubyte.gz"),
    "test": ("mnist/t10k-images-idx3-ubyte.gz", "mnist/t10k-labels-idx1-ubyte.gz"),
}
LEARNT = 1000  # of scikit-learn's images, the first, are for training in `digits`
LEARNT_OF_ALL = 1500  # the same in `load`

HALF_SIZE = "celeba/celeba_half_89x109_first10000.zip"
FACES = ("celeba/img_align_celeba.zip", "celeba/img_align_celeba", HALF_SIZE, "celeba/*.zip")
ATTRIBUTES = ("celeba/list_attr_celeba.txt", "celeba/list_attr_celeba.zip")
PARTITION = "celeba/list_eval_partition.txt"

SIDES = {
    "digits": 8,
    "mnist": 28,
    "fashion-mnist": 28,
    "celeba": 64,
}  # pixels along an axis; faces are resized to so many

DECODING = 1  # count up where the same archive is to give other pixels: what is cached is then decoded again
THREADS = 8  # at most, for decoding
AT_A_TIME = 256  # pictures of a thread


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
        return _load_faces(side)
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
    return (HALF_SIZE if place is None else f"celeba/{place.name}",)


def digits(data: Digits, part: Literal["train", "test"]) -> tuple[np.ndarray, np.ndarray]:
    """Images ``(n, side, side)`` with values from 0, and labels ``(n,)``; of scikit-learn's the
    first 1,000 are for training.

    Raises:
        MissingError: a file is absent, or is no such archive.
    """
    if data == "mnist":
        images, labels = (read_idx(file) for file in MNIST[part])
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


def faces() -> list[Path]:
    """Every archive or folder of aligned faces that is here; the first is read."""
    listed = (
        path for folder in folders() for pattern in FACES for path in sorted(folder.glob(pattern))
    )
    return [path for path in dict.fromkeys(listed) if f"celeba/{path.name}" not in ATTRIBUTES]


def face_attribute(name: str) -> np.ndarray:
    """Which faces have an attribute, such as ``Male`` or ``Smiling``: ``(n,)`` booleans in the
    order of ``load("celeba")``.

    Raises:
        MissingError: the attributes, or the faces, are absent, damaged or not of each other.
        ValueError: there is no such attribute.
    """
    import numpy as np

    place = _face_place()
    path = next(iter(present(ATTRIBUTES)), None)
    if path is None:
        raise MissingError(
            f"no {ATTRIBUTES[0]} beside {place}: put it there (`otbench data fetch celeba` says where it is from)"
        )
    if path.suffix == ".zip":
        with entries(path) as (listed, read):
            inside = next(
                (entry for entry in listed if Path(entry).name == Path(ATTRIBUTES[0]).name), ""
            )
            content = _read(path, inside, read)
    else:
        content = path.read_bytes()
    _, header, *lines = [*content.decode(errors="replace").splitlines(), "", ""]
    known = header.split()
    if known and name not in known:
        raise ValueError(f"attribute must be one of {', '.join(known)}, got {name!r}")
    names = [Path(face).name for face in _names(place)]
    signs = dict.fromkeys(names, "")
    for line in lines:
        face, _, rest = line.partition(" ")
        if face in signs and len(row := rest.split()) == len(known):
            signs[face] = row[known.index(name)]
    without = next((face for face in names if signs[face] not in ("1", "-1")), None)
    if without is not None:
        raise MissingError(
            f"{path} has no attributes of {without}, which is in {place}: put the whole official list there"
        )
    return np.array([signs[face] == "1" for face in names])


@contextmanager
def entries(place: Path) -> Iterator[tuple[list[str], Callable[[str], bytes]]]:
    """The files in a zip archive or a folder, by name, and what reads one of them, in any thread.

    Raises:
        MissingError: it is no whole archive.
    """
    if place.is_dir():
        yield (
            sorted(path.name for path in place.iterdir() if path.is_file()),
            lambda name: (place / name).read_bytes(),
        )
        return
    try:
        archive = zipfile.ZipFile(place)
    except (zipfile.BadZipFile, EOFError, ValueError, OSError) as error:
        raise MissingError(
            f"{place} is cut off, or no zip archive ({error}): put the whole original there"
        ) from error
    lock = (
        Lock()
    )  # archives are not to be read by several threads at once before Python 3.11.9 and 3.12.3

    def read(name: str) -> bytes:
        with lock:
            return archive.read(name)

    with archive:
        yield sorted(name for name in archive.namelist() if not name.endswith("/")), read


def is_picture(name: str) -> bool:
    """Whether a file of an archive is a picture, by its name."""
    return name.endswith(".jpg") and not name.startswith("__MACOSX/")


def decoded(content: bytes) -> Picture:
    """The picture in the content of a file. Raises whatever Pillow makes of damaged content."""
    from PIL import Image

    picture = Image.open(io.BytesIO(content))
    picture.load()
    return picture


def each(function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """``function`` of every item, in order, from several threads: for what reads archives and
    decodes pictures.
    """
    parts = [items[i : i + AT_A_TIME] for i in range(0, len(items), AT_A_TIME)]
    with ThreadPoolExecutor(min(THREADS, len(os.sched_getaffinity(0)))) as pool:
        for results in pool.map(lambda part: [function(item) for item in part], parts):
            yield from results


def _load_idx(data: str, side: int) -> Images:
    import numpy as np

    parts = ("train", "t10k")
    images = [_idx(data, part, "images-idx3") for part in parts]

    def write(path: Path) -> None:
        arrays = [read_idx(file) for file in images]
        shapes = {array.shape[1:] for array in arrays}
        if len(shapes) > 1 or len(size := shapes.pop()) != 2 or size[0] != size[1]:
            raise MissingError(
                f"{find(images[0]).parent} holds no square images of one size: put the original files there"
            )
        originals = [image for array in arrays for image in array]
        with _new_array(path, (len(originals), 1, side, side)) as pixels:

            def put(i: int) -> None:
                pixels[i, 0] = _resized(originals[i], side)

            for _ in each(put, range(len(originals))):
                pass

    pixels = np.load(
        _cached(f"{data}-{side}", ".npy", [find(file) for file in images], write), mmap_mode="r"
    )
    labels = [read_idx(_idx(data, part, "labels-idx1")) for part in parts]
    if (number := sum(map(len, labels))) != len(pixels):
        raise MissingError(
            f"{find(images[0]).parent} holds {number} labels of {len(pixels)} images: put the original files there"
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


def _load_faces(side: int) -> Images:
    import numpy as np

    place = _face_place()
    names = _names(place)

    def write(path: Path) -> None:
        with entries(place) as (_, read), _new_array(path, (len(names), 3, side, side)) as pixels:
            first = _face(place, names[0], read)

            def put(i: int) -> None:
                face = _face(place, names[i], read)
                if face.size != first.size:
                    sizes = " and ".join(
                        "{} x {}".format(*picture.size) for picture in (first, face)
                    )
                    raise MissingError(
                        f"{place}: {names[0]} and {names[i]} are of different sizes, {sizes}: put aligned faces there"
                    )
                pixels[i] = _cropped(face, side)

            for _ in each(put, range(len(names))):
                pass

    pixels = np.load(_cached(f"celeba-{side}", ".npy", [place], write), mmap_mode="r")
    return Images(pixels, 255, _learnt(names), None)


def _face_place() -> Path:
    place = next(iter(faces()), None)
    if place is None:
        where = " or ".join(str(folder / "celeba") for folder in folders())
        raise MissingError(
            f"no CelebA faces: put img_align_celeba.zip into {where} (`otbench data fetch celeba` says where it is from)"
        )
    return place


def _names(place: Path) -> list[str]:
    """Names of the faces, in order, without opening the archive where it is known."""

    def write(path: Path) -> None:
        with entries(place) as (listed, _):
            names = [name for name in listed if is_picture(name)]
        if not names:
            raise MissingError(f"{place} holds no pictures (*.jpg): put aligned faces there")
        path.write_text("\n".join(names))

    return _cached("celeba-names", ".txt", [place], write).read_text().split("\n")


def _learnt(names: Sequence[str]) -> int:
    """How many faces, the first, are for training."""
    paths = present([PARTITION])
    lines = paths[0].read_text().splitlines() if paths else []
    tests = {line.split()[0] for line in lines if line.endswith(" 2")}
    first = next((i for i, name in enumerate(names) if Path(name).name in tests), 0)
    return first or len(names) - len(names) // 10


def _face(place: Path, name: str, read: Callable[[str], bytes]) -> Picture:
    """A face as it is stored, of the proportions that aligned faces have."""
    content = _read(place, name, read)
    try:
        face = decoded(content)
    except Exception as error:  # whatever Pillow makes of damaged content
        raise _damaged(place, name, error) from error
    width, height = face.size
    if abs(width * 218 - height * 178) > 178:  # more than the rounding of a side
        raise MissingError(
            f"{place}: {name} is {width} x {height}, not of the proportions 178 x 218: put aligned faces there"
        )
    return face


def _read(place: Path, name: str, read: Callable[[str], bytes]) -> bytes:
    try:
        return read(name)
    except Exception as error:  # whatever zipfile and its decompressors make of damaged content
        raise _damaged(place, name, error) from error


def _damaged(place: Path, name: str, error: Exception) -> MissingError:
    reason = str(error).split("\n")[0]
    return MissingError(
        f"{place}: {name} is damaged ({reason}): put the original there; `otbench data verify celeba` says what else is"
    )


def _cropped(face: Picture, side: int) -> np.ndarray:
    """The customary square around the face, 140 of 178 pixels wide, resized: ``(3, side, side)``
    bytes.
    """
    import numpy as np
    from PIL import Image

    square = face.width * 70 // 89
    left, upper = (face.width - square) // 2, (face.height - square) // 2
    cut = face.convert("RGB").crop((left, upper, left + square, upper + square))
    return np.asarray(cut.resize((side, side), Image.Resampling.BILINEAR)).transpose(2, 0, 1)


def _cached(name: str, suffix: str, sources: Sequence[Path], write: Callable[[Path], None]) -> Path:
    """The file that ``write`` makes of the sources, from the cache folder: made once, by one
    process, and again where a source changed.
    """
    states = [
        (str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in sources
    ]
    folder = folders()[-1] / "decoded"
    path = (
        folder
        / f"{name}-{hashlib.sha256(repr((DECODING, states)).encode()).hexdigest()[:16]}{suffix}"
    )
    if path.exists():
        return path
    part = path.with_name(path.name + ".part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "lock", "w") as lock:
            fcntl.flock(
                lock, fcntl.LOCK_EX
            )  # another process may be decoding the same; a killed one lets go
            try:
                if not path.exists():
                    write(part)
                    part.replace(path)
            finally:
                part.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise MissingError(
            f"cannot keep decoded images in {folder} ({reason}): set XDG_CACHE_HOME to a folder with room"
        ) from error
    return path


@contextmanager
def _new_array(path: Path, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """An array of bytes that is written straight to a file."""
    import numpy as np

    array = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    with open(path, "r+b") as file:
        os.posix_fallocate(
            file.fileno(), 0, path.stat().st_size
        )  # a full disk is an error here, and would kill the process later
    yield array
    array.flush()
