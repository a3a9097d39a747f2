"""Whether data files are whole: checksums, and archives read to the end."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from otbench.data.archives import decode, in_threads, is_picture, open_archive
from otbench.data.catalogue import DATASETS, File
from otbench.data.files import checksum
from otbench.errors import MissingError


def verify(names: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """State (``absent``, or what `check` says), path and reason of each file of the data sets, one
    after another.
    """
    for name in names:
        for file in DATASETS[name].files:
            found = file.found()
            if not found:
                yield "absent", file.path, ""
            for path in found:
                state, reason = state_of(file, path)
                yield state, str(path), reason


def state_of(file: File, path: Path) -> tuple[str, str]:
    """What `check` says of a file that was found; an alternative has no checksum."""
    return check(path, file.checksum if path.name == Path(file.path).name else None)


def check(path: Path, expected: str | None) -> tuple[str, str]:
    """``ok``, ``truncated``, ``unreadable`` or ``wrong checksum``, and the reason.

    Args:
        path: a file; archives of which no checksum is known are read to the end and their pictures
            decoded, as are those of a folder.
        expected: its checksum, as in `File`.
    """
    algorithm, _, digest = (expected or "").partition(":")
    if expected and checksum(path, algorithm) == digest:
        return "ok", ""
    try:
        damaged = _damage(path)
    except EOFError as error:
        return "truncated", str(error)
    except MissingError as error:
        with open(path, "rb") as file:
            begins_well = b"PK\3\4".startswith(file.read(4))
        return (
            ("truncated", "the archive ends early") if begins_well else ("unreadable", str(error))
        )
    except (OSError, zlib.error) as error:
        return "unreadable", str(error)
    if damaged:
        return "unreadable", damaged[0] + (f", and {len(damaged) - 1} more" if damaged[1:] else "")
    return ("wrong checksum", f"its {algorithm} is not {digest}") if expected else ("ok", "")


def _damage(path: Path) -> list[str]:
    """Read an archive or a folder to the end; what is wrong with which file in it."""
    if path.suffix == ".gz":
        with gzip.open(path) as stream:
            while stream.read(2**20):
                pass
    elif path.is_dir() or path.suffix in (".zip", ".npz", ".pt"):
        return _damaged_entries(path)
    return []


def _damaged_entries(place: Path) -> list[str]:
    """What is wrong with which file of an archive or folder."""
    with open_archive(place) as (names, read):

        def wrong(name: str) -> str | None:
            try:
                content = read(name)
                if is_picture(name):
                    decode(content)
            except Exception as error:  # whatever zipfile, zlib and Pillow make of damage
                reason = str(error).split("\n")[0]
                return f"{name}: {reason}"
            return None

        return [text for text in in_threads(wrong, names) if text is not None]
