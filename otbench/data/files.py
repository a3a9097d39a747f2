"""Real data files: found in the folder that ``OTBENCH_DATA`` names, else in the cache folder of the
user.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from otbench.errors import MissingError


def folders() -> list[Path]:
    """The folders that are searched, in order: ``$OTBENCH_DATA`` where set, then ``otbench`` in
    ``$XDG_CACHE_HOME`` or ``~/.cache``.
    """
    named = os.environ.get("OTBENCH_DATA")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "otbench")
    return [folder.expanduser() for folder in ([Path(named)] if named else []) + [cache]]


def find(relative: str, expected: str | None = None) -> Path:
    """The path of a data file.

    Args:
        relative: its path inside a data folder, as ``w2_benchmark/frozen_D2.npz``.
        expected: its checksum, ``sha256:...`` or ``md5:...``, where it must be this very file.

    Raises:
        MissingError: the file is in none of `folders`, or is not the one expected.
    """
    searched = folders()
    path = next((folder / relative for folder in searched if (folder / relative).is_file()), None)
    if path is None:
        places = " and ".join(map(str, searched))
        raise MissingError(
            f"no data file {relative} in {places}: put it there, or set OTBENCH_DATA to the folder "
            "that holds it"
        )
    algorithm, _, digest = (expected or "").partition(":")
    if expected and (found := checksum(path, algorithm)) != digest:
        raise MissingError(
            f"{path} is not the file expected ({algorithm} {found[:12]}..., not "
            f"{digest[:12]}...): put the original there"
        )
    return path


def present(relatives: Iterable[str]) -> list[Path]:
    """Those of the data files that are here."""
    return [
        folder / relative
        for relative in relatives
        for folder in folders()
        if (folder / relative).is_file()
    ]


def checksum(path: str | Path, algorithm: str = "sha256") -> str:
    """SHA-256 of a file, or another hash, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
