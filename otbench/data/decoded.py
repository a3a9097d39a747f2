"""Decoded images in the user's cache folder: made once, then memory-mapped."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from otbench.data.files import folders
from otbench.errors import MissingError


if TYPE_CHECKING:
    import numpy as np


# Count up where the same archive is to give other pixels: what is cached is then decoded again.
DECODING = 1


def cached(name: str, suffix: str, sources: Sequence[Path], write: Callable[[Path], None]) -> Path:
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
            # Another process may be decoding the same; a killed one lets go.
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                if not path.exists():
                    write(part)
                    part.replace(path)
            finally:
                part.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise MissingError(
            f"cannot keep decoded images in {folder} ({reason}): set XDG_CACHE_HOME to a folder "
            "with room"
        ) from error
    return path


@contextmanager
def new_array(path: Path, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """An array of bytes that is written straight to a file."""
    import numpy as np

    array = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    with open(path, "r+b") as file:
        # A full disk is an error here, and would kill the process later.
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    yield array
    array.flush()
