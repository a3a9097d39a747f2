"""Faces of CelebA and their attributes.

Any of these is read, the first that is found in a data folder: the official archive
``celeba/img_align_celeba.zip``, the same unpacked, the first 10,000 faces at half size, or any
other ``celeba/*.zip`` of aligned faces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from otbench.data import catalogue
from otbench.data.archives import decode, in_threads, is_picture, open_archive
from otbench.data.catalogue import FACE_ATTRIBUTES, FACE_PARTITION, FACES
from otbench.data.decoded import cached, new_array
from otbench.data.files import folders, present
from otbench.errors import MissingError


if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image as Picture


def faces() -> list[Path]:
    """Every archive or folder of aligned faces that is here; the first is read."""
    return catalogue.file(FACES).found()


def face_attribute(name: str) -> np.ndarray:
    """Which faces have an attribute, such as ``Male`` or ``Smiling``: ``(n,)`` booleans in the
    order of ``load("celeba")``.

    Raises:
        MissingError: the attributes, or the faces, are absent, damaged or not of each other.
        ValueError: there is no such attribute.
    """
    import numpy as np

    place = _place()
    path = next(iter(catalogue.file(FACE_ATTRIBUTES).found()), None)
    if path is None:
        raise MissingError(
            f"no {FACE_ATTRIBUTES} beside {place}: put it there (`otbench data fetch celeba` says "
            "where it is from)"
        )
    if path.suffix == ".zip":
        with open_archive(path) as (listed, read):
            inside = next(
                (entry for entry in listed if Path(entry).name == Path(FACE_ATTRIBUTES).name), ""
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
            f"{path} has no attributes of {without}, which is in {place}: put the whole official "
            "list there"
        )
    return np.array([signs[face] == "1" for face in names])


def load_faces(side: int) -> tuple[np.ndarray, int]:
    """Faces ``(n, 3, side, side)`` as bytes, memory-mapped, and how many, the first, are for
    training.

    Raises:
        MissingError: they are absent or damaged, or the cache folder cannot be written.
    """
    import numpy as np

    place = _place()
    names = _names(place)

    def write(path: Path) -> None:
        with (
            open_archive(place) as (_, read),
            new_array(path, (len(names), 3, side, side)) as pixels,
        ):
            first = _face(place, names[0], read)

            def put(i: int) -> None:
                face = _face(place, names[i], read)
                if face.size != first.size:
                    sizes = " and ".join(
                        "{} x {}".format(*picture.size) for picture in (first, face)
                    )
                    raise MissingError(
                        f"{place}: {names[0]} and {names[i]} are of different sizes, {sizes}: put "
                        "aligned faces there"
                    )
                pixels[i] = _cropped(face, side)

            for _ in in_threads(put, range(len(names))):
                pass

    pixels = np.load(cached(f"celeba-{side}", ".npy", [place], write), mmap_mode="r")
    return pixels, _learnt(names)


def _place() -> Path:
    place = next(iter(faces()), None)
    if place is None:
        where = " or ".join(str(folder / "celeba") for folder in folders())
        raise MissingError(
            f"no CelebA faces: put img_align_celeba.zip into {where} (`otbench data fetch celeba` "
            "says where it is from)"
        )
    return place


def _names(place: Path) -> list[str]:
    """Names of the faces, in order, without opening the archive where it is known."""

    def write(path: Path) -> None:
        with open_archive(place) as (listed, _):
            names = [name for name in listed if is_picture(name)]
        if not names:
            raise MissingError(f"{place} holds no pictures (*.jpg): put aligned faces there")
        path.write_text("\n".join(names))

    return cached("celeba-names", ".txt", [place], write).read_text().split("\n")


def _learnt(names: Sequence[str]) -> int:
    """How many faces, the first, are for training."""
    paths = present([FACE_PARTITION])
    lines = paths[0].read_text().splitlines() if paths else []
    tests = {line.split()[0] for line in lines if line.endswith(" 2")}
    first = next((i for i, name in enumerate(names) if Path(name).name in tests), 0)
    return first or len(names) - len(names) // 10


def _face(place: Path, name: str, read: Callable[[str], bytes]) -> Picture:
    """A face as it is stored, of the proportions that aligned faces have."""
    content = _read(place, name, read)
    try:
        face = decode(content)
    except Exception as error:  # whatever Pillow makes of damaged content
        raise _damaged(place, name, error) from error
    width, height = face.size
    if abs(width * 218 - height * 178) > 178:  # more than the rounding of a side
        raise MissingError(
            f"{place}: {name} is {width} x {height}, not of the proportions 178 x 218: put aligned "
            "faces there"
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
        f"{place}: {name} is damaged ({reason}): put the original there; `otbench data verify "
        "celeba` says what else is"
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
