"""Downloading data sets: the terms first, and nothing in place before its checksum is right."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from otbench.data.catalogue import DATASETS, Dataset, File
from otbench.data.files import folders
from otbench.data.verify import state_of
from otbench.errors import UserError


TIMEOUT_S = 30.0  # without a byte


def fetch(names: Iterable[str], accept_terms: bool) -> bool:
    """Download what is absent or wrong of the data sets, into the first data folder that can be
    written; whether all terms were accepted.

    Args:
        names: of `DATASETS`.
        accept_terms: do not ask.

    Raises:
        UserError: a file must be got by hand; the terms cannot be asked about; a download failed.
    """
    folder = _destination()
    accepted = True
    for name in names:
        dataset = DATASETS[name]
        wanted = [file for file in dataset.files if not _have(file)]
        if not wanted:
            print(f"{name}: every file is here (`otbench data verify {name}` reads them)")
            continue
        _refuse_by_hand(name, dataset, wanted, folder)
        print(
            f"{name}: {dataset.what}\n  Terms: {dataset.terms}\n  From:  {dataset.source}\n  To:   "
            f" {folder}",
            flush=True,
        )
        if not (accept_terms or _accepted(name)):
            print(f"{name}: not fetched")
            accepted = False
            continue
        for file in wanted:
            _download(file, folder)
            print(f"  {file.path} is right", flush=True)
    return accepted


def _destination() -> Path:
    *named, cache = folders()
    return next(
        (
            folder
            for folder in named
            if os.access(next(p for p in (folder, *folder.parents) if p.exists()), os.W_OK)
        ),
        cache,
    )


def _have(file: File) -> bool:
    """Whether the file is here; one that can be downloaded again must be right, too."""
    found = file.found()[:1]
    return bool(found) and (file.url is None or state_of(file, found[0])[0] == "ok")


def _refuse_by_hand(name: str, dataset: Dataset, wanted: Iterable[File], folder: Path) -> None:
    places = [str(folder / file.path) for file in wanted if file.url is None]
    if places:
        raise UserError(
            f"{name} must be got by hand, from {dataset.source} ({dataset.terms.rstrip('.')}): "
            f"{dataset.by_hand}; "
            f"put {'it' if len(places) == 1 else 'them'} there: {', '.join(places)}"
        )


def _accepted(name: str) -> bool:
    if not sys.stdin.isatty():
        raise UserError(
            f"the terms of {name} must be accepted: read them and give --accept-terms, or call "
            "this from a terminal"
        )
    try:
        return input("Do you accept these terms? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _download(file: File, folder: Path) -> None:
    """Download one file, in place only once its checksum is right.

    Raises:
        UserError: it cannot be downloaded or written, or is not the file expected.
    """
    import pooch
    import requests
    import urllib3

    assert file.url is not None, "what must be got by hand was refused before"
    path = folder / file.path
    shadow = next(iter(file.found()), path)
    if shadow != path and folder not in folders()[:1]:
        raise UserError(
            f"{shadow} is damaged, cannot be replaced and is searched first: remove it, or set "
            "OTBENCH_DATA to another folder"
        )
    pooch.get_logger().setLevel("WARNING")
    get = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=TIMEOUT_S)
    try:
        pooch.retrieve(file.url, file.checksum, path.name, path.parent, downloader=get)  # type: ignore[arg-type]
        path.chmod(0o666 & ~_umask())  # pooch leaves what only its owner can read
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise UserError(
            f"{file.url}: {_reason(error)}: nothing was kept, give the same command again"
        ) from error
    except ValueError as error:  # pooch, of the checksum
        raise UserError(
            f"{file.url} is not the file expected, by its checksum: it was not kept; try again, or "
            "get it by hand"
        ) from error
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({_reason(error)}): set OTBENCH_DATA to a folder with room"
        ) from error


def _umask() -> int:
    """The permissions that new files of this process are denied."""
    os.umask(denied := os.umask(0o077))
    return denied


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).split("\n")[0]
