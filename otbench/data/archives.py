"""Archives and folders of pictures: their files by name, read and decoded in several threads."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

from otbench.errors import MissingError


if TYPE_CHECKING:
    from PIL.Image import Image as Picture

T = TypeVar("T")
R = TypeVar("R")


THREADS = 8  # at most, for decoding
AT_A_TIME = 256  # pictures of a thread


@contextmanager
def open_archive(place: Path) -> Iterator[tuple[list[str], Callable[[str], bytes]]]:
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
    # Several threads must not read an archive at once before Python 3.11.9 and 3.12.3.
    lock = Lock()

    def read(name: str) -> bytes:
        with lock:
            return archive.read(name)

    with archive:
        yield sorted(name for name in archive.namelist() if not name.endswith("/")), read


def is_picture(name: str) -> bool:
    """Whether a file of an archive is a picture, by its name."""
    return name.endswith(".jpg") and not name.startswith("__MACOSX/")


def decode(content: bytes) -> Picture:
    """The picture in the content of a file. Raises whatever Pillow makes of damaged content."""
    from PIL import Image

    picture = Image.open(io.BytesIO(content))
    picture.load()
    return picture


def in_threads(function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """``function`` of every item, in order, from several threads: for what reads archives and
    decodes pictures.
    """
    parts = [items[i : i + AT_A_TIME] for i in range(0, len(items), AT_A_TIME)]
    with ThreadPoolExecutor(min(THREADS, len(os.sched_getaffinity(0)))) as pool:
        for results in pool.map(lambda part: [function(item) for item in part], parts):
            yield from results
