"""The catalogue of data sets: what they are and on which terms, their files and checksums."""

from __future__ import annotations

import contextlib
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from itertools import chain
from pathlib import Path

from otbench.data.files import find, folders
from otbench.errors import MissingError, UserError, nearest


# Files that are not named by their path alone where they are read.
FACES = "celeba/img_align_celeba.zip"
FACES_HALF_SIZE = "celeba/celeba_half_89x109_first10000.zip"
FACE_ATTRIBUTES = "celeba/list_attr_celeba.txt"
FACE_PARTITION = "celeba/list_eval_partition.txt"
INCEPTION = "weights/pt_inception-2015-12-05-6726825d.pth"
VGG = "weights/vgg16-397923af.pth"


@dataclass(frozen=True)
class File:
    """One file of a data set.

    Attributes:
        path: inside a data folder.
        checksum: of the official file, ``sha256:...`` or ``md5:...``; None where there is no one
            such file.
        url: where it is downloaded from; None where it must be got by hand.
        alternatives: patterns of other files and folders that will do in its place.
        excluded: what matches a pattern and will not do.
    """

    path: str
    checksum: str | None = None
    url: str | None = None
    alternatives: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()

    def found(self) -> list[Path]:
        """All that is here of it and of its alternatives, in the order of the folders searched."""
        patterns = (self.path, *self.alternatives)
        refused = {folder / path for folder in folders() for path in self.excluded}
        places = [sorted(folder.glob(pattern)) for folder in folders() for pattern in patterns]
        return [path for path in dict.fromkeys(chain(*places)) if path not in refused]


@dataclass(frozen=True)
class Dataset:
    """A set of files with one source and one licence.

    Attributes:
        what: it is, in a line.
        terms: of use, in a sentence.
        source: the page of its authors.
        files: that tasks read.
        by_hand: how to get the files that have no URL.
    """

    what: str
    terms: str
    source: str
    files: tuple[File, ...]
    by_hand: str = ""

    def where(self) -> str:
        """The data folders that its files are in, and how many of them."""
        found = [path for file in self.files for path in file.found()[:1]]
        if not found:
            return "absent"
        places = [
            folder for folder in folders() if any(path.is_relative_to(folder) for path in found)
        ]
        whole = len(found) == len(self.files)
        part = "" if whole else f"{len(found)} of {len(self.files)} files in "
        return part + " and ".join(map(str, places))


def _read() -> Iterator[tuple[str, Dataset]]:
    text = files("otbench.data").joinpath("catalogue.toml").read_text()
    for name, body in tomllib.loads(text).items():
        listed = tuple(
            File(
                file["path"],
                file.get("checksum"),
                file.get("url"),
                tuple(file.get("alternatives", ())),
                tuple(file.get("excluded", ())),
            )
            for file in body.pop("files")
        )
        yield name, Dataset(files=listed, **body)


DATASETS: dict[str, Dataset] = dict(_read())


def file(path: str) -> File:
    """The file of this path in any data set; one without a checksum where none lists it."""
    listed = (file for dataset in DATASETS.values() for file in dataset.files)
    return next((file for file in listed if file.path == path), File(path))


def find_checked(path: str) -> Path:
    """Where a data file is, once its checksum is that of the catalogue.

    Raises:
        MissingError: it is in no data folder, or is not the file expected.
    """
    return find(path, file(path).checksum)


@contextlib.contextmanager
def fetch_named(paths: Iterable[str]) -> Iterator[None]:
    """Name the command that fetches these files, or says how to get them, in a `MissingError` that
    is raised in the block: of those that are absent, if any are.
    """
    try:
        yield
    except MissingError as error:
        listed = list(paths)
        wanted = {path for path in listed if not file(path).found()} or set(listed)
        names = [
            name
            for name, dataset in DATASETS.items()
            if wanted & {file.path for file in dataset.files}
        ]
        if not names or "otbench data fetch" in str(error):
            raise
        does = "fetches it" if all(file(path).url for path in wanted) else "says how to get it"
        command = f"otbench data fetch {' '.join(names)}"
        raise MissingError(f"{error}; `{command}` {does}") from error


def named(names: Iterable[str]) -> list[str]:
    """These names of data sets, all of them where none is given.

    Raises:
        UserError: one is unknown.
    """
    names = list(dict.fromkeys(names))
    for name in names:
        if name not in DATASETS:
            raise UserError(
                f"unknown data set {name!r}{nearest(name, DATASETS)} (`otbench data list` shows "
                "them)"
            )
    return names or list(DATASETS)
