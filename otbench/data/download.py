"""Downloading data sets: the terms first, going on where a download broke off, and nothing in place
before its checksum is right.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otbench.data.catalogue import DATASETS, Dataset, File
from otbench.data.files import folders
from otbench.errors import UserError


if TYPE_CHECKING:
    import requests

CHUNK = 2**16  # bytes written at a time
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
            f"{name}: {dataset.what}\n  Terms: {dataset.terms}\n  From:  {dataset.source}\n  To:    {folder}",
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
    return bool(found) and (file.url is None or file.state(found[0])[0] == "ok")


def _refuse_by_hand(name: str, dataset: Dataset, wanted: Iterable[File], folder: Path) -> None:
    places = [str(folder / file.path) for file in wanted if file.url is None]
    if places:
        raise UserError(
            f"{name} must be got by hand, from {dataset.source} ({dataset.terms.rstrip('.')}): {dataset.by_hand}; "
            f"put {'it' if len(places) == 1 else 'them'} there: {', '.join(places)}"
        )


def _accepted(name: str) -> bool:
    if not sys.stdin.isatty():
        raise UserError(
            f"the terms of {name} must be accepted: read them and give --accept-terms, or call this from a terminal"
        )
    try:
        return input("Do you accept these terms? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _download(file: File, folder: Path) -> None:
    """Raises UserError."""
    import pooch
    import requests
    import urllib3

    assert file.url is not None, "what must be got by hand was refused before"
    path = folder / file.path
    shadow = next(iter(file.found()), path)
    if shadow != path and folder not in folders()[:1]:
        raise UserError(
            f"{shadow} is damaged, cannot be replaced and is searched first: remove it, or set OTBENCH_DATA to another folder"
        )
    pooch.get_logger().setLevel("WARNING")
    try:
        download = Resuming(path.with_name(path.name + ".part"))
        pooch.retrieve(file.url, file.checksum, path.name, path.parent, downloader=download)  # type: ignore[arg-type]
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise UserError(
            f"{file.url}: {_reason(error)}: the same command goes on where this one stopped"
        ) from error
    except ValueError as error:  # pooch, of the checksum
        raise UserError(
            f"{file.url} is not the file expected, by its checksum: it was not kept; try again, or get it by hand"
        ) from error
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({_reason(error)}): set OTBENCH_DATA to a folder with room"
        ) from error
    except KeyboardInterrupt:
        print(
            "otbench: interrupted: the same command goes on where this one stopped", file=sys.stderr
        )
        raise


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).split("\n")[0]


@dataclass(frozen=True)
class Resuming:
    """A downloader for pooch that keeps in ``part`` what has come, and asks for the rest only."""

    part: Path

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        """Download all of ``url``, and move it to ``output_file``; ``pooch``, which is then to
        check it, is not used.

        Raises:
            requests.RequestException: the server cannot be reached, or refuses.
            urllib3.exceptions.HTTPError: the connection broke.
        """
        import requests

        have = self.part.stat().st_size if self.part.exists() else 0
        headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
            begin, total = _span(response, have)
            if begin in (0, have) and response.status_code != 416:
                self._write(response, begin, total)
        if begin not in (0, have):  # what is here is of another file
            self.part.unlink()
            return self(url, output_file, pooch)
        if total is not None and (came := self.part.stat().st_size) != total:
            raise requests.ConnectionError(f"{came} of {total} bytes came")
        self.part.replace(output_file)

    def _write(self, response: requests.Response, begin: int, total: int | None) -> None:
        from tqdm import tqdm

        with (
            open(self.part, "ab" if begin else "wb") as file,
            tqdm(
                total=total,
                initial=begin,
                unit="B",
                unit_scale=True,
                desc=f"  {self.part.stem}",
                disable=None,
            ) as bar,
        ):
            for chunk in response.raw.stream(CHUNK, decode_content=False):
                bar.update(file.write(chunk))


def _span(response: requests.Response, have: int) -> tuple[int, int | None]:
    """Where in the file an answer begins, and how long the file is where that is known, to a
    request for what follows ``have`` bytes.

    An answer that nothing follows (416) begins at the end of the file; one that makes no sense at
    -1.

    Raises:
        requests.RequestException: it is a refusal.
    """
    if not have or response.status_code not in (206, 416):
        response.raise_for_status()
        length = response.headers.get("Content-Length")
        return 0, int(length) if length else None
    span = re.fullmatch(
        r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", "")
    )
    total = int(span[2]) if span and span[2] != "*" else None
    if span and span[1]:
        return int(span[1]), total
    return -1 if total is None else total, total
