"""The results store: one folder per invocation, with its provenance and one JSON line per run.

    <results>/<UTC time>-<suite>-<4 hex digits>/
        provenance.json     written before the first run (see `otbench.runner.provenance`)
        rows.jsonl          one line per run, `otbench.job.Row`
        logs/<key>.txt      what a failed run printed (with --keep: every run)
        outputs/<key>.npz   with --keep: raw outputs (see `otbench.runner.outputs`)
    <results>/fits/<key>.pt with --save-fits: the state of a fit that has not ended

A line is written by one ``write`` and fsynced before the next run is reported. The writer holds a
lock on its rows for as long as it lives, so another process can tell a torn last line (writer dead)
from a line being written.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otbench.errors import UserError
from otbench.job import COLUMNS as COLUMNS
from otbench.job import FIXED
from otbench.rows import fault, writable


if TYPE_CHECKING:
    import pandas as pd

ROWS = "rows.jsonl"
PROVENANCE = "provenance.json"


class RunFolder:
    """The writing end: the folder of one invocation.

    Raises:
        UserError: the folder cannot be made or written (read-only, disk full).
    """

    def __init__(self, results: Path, label: str, provenance: Mapping[str, Any]) -> None:
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        self.path = results / f"{stamp}-{label}-{os.urandom(2).hex()}"
        with _clear_errors(self.path):
            self.path.mkdir(parents=True)
            _write_durably(self.path / PROVENANCE, json.dumps(provenance, indent=1) + "\n")
            self._fd = os.open(self.path / ROWS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            _sync_folder(self.path)

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one row, durably. A line that does not fit on the disk is taken back whole."""
        line = (json.dumps(row, allow_nan=False) + "\n").encode()
        with _clear_errors(self.path):
            before = os.fstat(self._fd).st_size
            try:
                while line:
                    line = line[os.write(self._fd, line) :]
                os.fsync(self._fd)
            except OSError:
                if os.fstat(self._fd).st_size > before:
                    os.ftruncate(self._fd, before)
                raise

    def save_log(self, key: str, text: str) -> None:
        """Keep what a run printed."""
        with _clear_errors(self.path):
            (self.path / "logs").mkdir(exist_ok=True)
            (self.path / "logs" / f"{key}.txt").write_text(text, encoding="utf-8", errors="replace")

    @property
    def outputs(self) -> Path:
        """The folder that raw outputs are kept in, ``<key>.npz``."""
        return (self.path / "outputs").absolute()

    def close(self) -> None:
        """Let go of the lock."""
        os.close(self._fd)


@dataclass(frozen=True)
class Results:
    """Tidy frames of one or more results folders.

    Attributes:
        runs: one row per run, columns as in `otbench.job.COLUMNS` (the last recorded run of a key).
        metrics: long, ``key, metric, value``.
        curves: long, ``key, step, seconds, metric, value``; seconds of solver time.
    """

    runs: pd.DataFrame
    metrics: pd.DataFrame
    curves: pd.DataFrame

    def restricted(self, keys: Iterable[str]) -> Results:
        """The same frames with these runs only."""
        wanted = list(keys)
        return Results(
            *(
                frame.loc[frame["key"].isin(wanted), :]
                for frame in (self.runs, self.metrics, self.curves)
            )
        )


def folders(*dirs: str | os.PathLike[str]) -> list[Path]:
    """Every run folder at or below ``dirs``, oldest first.

    Raises:
        UserError: a folder does not exist.
    """
    found = set()
    for directory in map(Path, dirs):
        if not directory.is_dir():
            raise UserError(
                f"no results folder {directory}: name one that `otbench run --results` wrote"
            )
        found |= {rows.parent for rows in directory.rglob(ROWS)}
    return sorted(found, key=lambda folder: folder.name)


def read_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """The rows of one run folder. A torn last line (its writer was killed) is passed over.

    Raises:
        UserError: another line cannot be read, or is no row.
    """
    path = folder / ROWS
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; make it readable") from None
    lines = data[: data.rfind(b"\n") + 1].splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{path}:{number} is not JSON ({error}): mend or delete that line"
            ) from None
        if wrong := fault(row):
            raise UserError(f"{path}:{number} {wrong}: mend or delete that line")
        # Halves of characters, as in paths that are no UTF-8, which no table holds.
        yield _whole(row) if b"\\ud" in line else row


def _whole(value: Any) -> Any:
    """A value with backslashes for halves of characters in its texts."""
    if isinstance(value, str):
        return writable(value)
    if isinstance(value, dict):
        return {_whole(name): _whole(inner) for name, inner in value.items()}
    return [_whole(inner) for inner in value] if isinstance(value, list) else value


def latest_rows(*dirs: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    """The last recorded row of every key at or below ``dirs``."""
    rows: dict[str, dict[str, Any]] = {}
    for folder in folders(*dirs):
        for row in read_rows(folder):
            if row["key"] not in rows or row["when"] >= rows[row["key"]]["when"]:
                rows[row["key"]] = row
    return rows


def kept_outputs(*dirs: str | os.PathLike[str]) -> dict[tuple[str, str], Path]:
    """The raw outputs that runs kept at or below ``dirs``, by batch and key."""
    return {
        (folder.name, path.stem): path
        for folder in folders(*dirs)
        for path in (folder / "outputs").glob("*.npz")
    }


def repair(results: Path) -> list[Path]:
    """Cut off the torn last lines that killed invocations left; the files mended. Files still being
    written are let be.
    """
    mended = []
    for folder in folders(results) if results.is_dir() else []:
        path = folder / ROWS
        if path.stat().st_size == 0 or _ends_in_newline(path) or not os.access(path, os.W_OK):
            continue
        with open(path, "r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            data = file.read()
            file.truncate(data.rfind(b"\n") + 1)
            mended.append(path)
    return mended


def load(*dirs: str | os.PathLike[str]) -> Results:
    """Read results folders into tidy frames.

    Args:
        dirs: folders that ``otbench run --results`` wrote, or single run folders; searched all the
            way down.

    Raises:
        UserError: a folder does not exist, or a line is no row.
    """
    import pandas as pd

    rows = list(latest_rows(*dirs).values())
    curves = [
        {
            "key": row["key"],
            "step": point["step"],
            "seconds": point["seconds"],
            "metric": name,
            "value": value,
        }
        for row in rows
        for point in row.get("curve") or []
        for name, value in point.items()
        if name not in ("step", "seconds")
    ]
    metrics = [
        {"key": row["key"], "metric": name.removeprefix("metric_"), "value": value}
        for row in rows
        for name, value in row.items()
        if name.startswith("metric_")
    ]
    runs = pd.DataFrame(
        [{"schema": 1} | {name: v for name, v in row.items() if name != "curve"} for row in rows]
    )
    further = sorted(set(runs.columns) - set(FIXED))
    runs = runs.reindex(columns=[*FIXED, *further])
    return Results(
        runs=runs,
        metrics=pd.DataFrame(metrics, columns=["key", "metric", "value"]),
        curves=pd.DataFrame(curves, columns=["key", "step", "seconds", "metric", "value"]),
    )


class _clear_errors:
    """Turn the operating system's errors about a path into one line for the user."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise UserError(
                f"cannot write results to {self.path}: {error.strerror}; free space or name "
                "another folder with --results "
                "(every run recorded so far is safe, the same command goes on from there)"
            ) from error


def _write_durably(path: Path, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    for folder in (path, path.parent):
        fd = os.open(folder, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)


def _ends_in_newline(path: Path) -> bool:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
