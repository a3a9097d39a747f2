"""The store: one folder per invocation, provenance first, then one appended and fsynced JSON line
per run; and `load`, which reads it.

    <results>/<UTC time>-<suite>-<4 hex digits>/
        provenance.json     written before the first run (see `otbench.runner.provenance`)
        rows.jsonl          one line per run, `COLUMNS` below logs/<key>.txt      what a failed run
        printed (with --keep: every run) outputs/<key>.npz   with --keep: test points, T(x), T*(x),
        a target sample, paths; of plans the heaviest entries
    <results>/fits/<key>.pt with --save-fits: the state of a fit that has not ended, for whichever
    invocation goes on with it

A line is written by one ``write`` and fsynced before the next run is reported. The writer holds a
lock on its rows for as long as it lives, so another process can tell a torn last line (writer dead)
from a line being written.
"""

from __future__ import annotations

import fcntl
import json
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otbench.errors import UserError


if TYPE_CHECKING:
    import pandas as pd

ROWS = "rows.jsonl"
PROVENANCE = "provenance.json"

COLUMNS: Mapping[str, str] = {
    "key": "hash of task, solver, their parameters, seed, device and dtype: what the run is",
    "task": "task name",
    "task_label": "task with the parameters that differ from their defaults, as it is selected on the command line",
    "task_params": "all parameters of the task, as JSON",
    "solver": "solver name",
    "solver_label": "solver with the parameters that differ from their defaults",
    "solver_params": "all parameters of the solver, as JSON",
    "trivial": "true for the rows that a real method must beat",
    "learns": "true for solvers that learn from training pairs before they answer; absent from rows older than that",
    "seed": "the seed all random streams of the run are spawned from",
    "device": "cpu or cuda",
    "dtype": "floating point type of the problem's tensors",
    "tf32": "whether TF32 matrix products were allowed (CUDA)",
    "threads": "CPU threads the run was given",
    "machine": "CPU, number of cores and GPU it ran on; times of different machines are never put together",
    "status": "ok, skipped, missing, diverged, error, timeout, oom or crashed",
    "verdict": "map setting: ok, spurious, unconverged, diverged or inaccurate, see `otbench.scoring.verdict`",
    "no_map": "map setting: why the map is not scored point by point, where no optimal map exists or it is not unique",
    "message": "one line saying why the status is not ok, and the remedy",
    "import_s": "seconds importing the solver's packages, before any clock",
    "problem_s": "seconds building the problem and drawing its test points",
    "fit_cold_s": "seconds of the first fit (discrete setting: until the plan is there), compilation included, scoring excluded",
    "fit_warm_s": "median seconds of up to three more fits, where the first took under five seconds; else empty",
    "resumed": "how often the fit was interrupted and went on from where it was saved (`otbench run --save-fits`); "
    "the seconds before that count, peak memory is that of the last attempt",
    "together": "how many seeds were solved as one with this one, where that was asked for (`otbench run --together`)",
    "fit_together_s": "seconds in which all of these seeds together were solved, scoring excluded; none of them has a fit time of its own",
    "push_cold_s": "seconds of the first push of the test points",
    "push_us_per_point": "microseconds per test point of a push, median of up to three repeats where the first took under five seconds",
    "infer_cold_ms": "amortized setting: milliseconds of the first held-out pair, compilation included",
    "infer_ms_per_pair": "amortized setting: milliseconds per held-out pair, median over pairs",
    "score_s": "seconds of scoring, off the clock",
    "host_peak_mib": "peak resident memory during fit and push above that before the fit, MiB (not of seeds solved together)",
    "device_peak_mib": "peak device memory by the frameworks' own allocators, MiB; empty on CPU",
    "task_hash": "SHA-256 prefix of the task's source file, and of the user's own data files",
    "solver_hash": "SHA-256 prefix of the solver's source files: its class, the bases, the package in otbench that they share",
    "batch": "the invocation's folder name",
    "when": "end of the run, ISO 8601 UTC",
    "metric_*": "metrics, see `otbench list metrics`",
    "info_*": "what the solver reports of itself, units in the names; and by the name of a metric why it could not be taken",
    "curve": "checkpoints: a list of {step, seconds, <metric>: value}; seconds of solver time (in frames: the table `curves`)",
}


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
            (self.path / "logs" / f"{key}.txt").write_text(text, errors="replace")

    def output_path(self, key: str) -> Path:
        """Where the raw output of a run is kept."""
        return (self.path / "outputs" / f"{key}.npz").absolute()

    def close(self) -> None:
        """Let go of the lock."""
        os.close(self._fd)


class DamagedError(Exception):
    """The file of a saved fit cannot be read."""


class SavedFits:
    """The states of fits that have not ended, a file for each key."""

    def __init__(self, results: Path) -> None:
        self.folder = (results / "fits").absolute()

    def path(self, key: str) -> Path:
        """Of one state."""
        return self.folder / f"{key}.pt"

    def keys(self) -> set[str]:
        """Of all that are there."""
        return {path.stem for path in self.folder.glob("*.pt")}

    def forget(self, key: str) -> None:
        """Remove a state, and what a killed worker left of a later one."""
        for path in self.folder.glob(f"{key}.*"):
            if path.suffix != ".old":  # of other code, or damaged: not this fit's to remove
                path.unlink(missing_ok=True)


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write the state of a fit, whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    import torch

    unfinished = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(unfinished, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except RuntimeError as error:  # torch raises its own where the system's says what is wrong
        raise error.__context__ if isinstance(error.__context__, OSError) else error from None
    finally:
        unfinished.unlink(missing_ok=True)


def read_state(path: Path) -> dict[str, Any] | None:
    """The state of a fit as it was written, each tensor on its device; None where there is none.

    Raises:
        DamagedError: it cannot be read, or is not what was written.
    """
    import torch

    if not path.exists():
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # checksums, which torch does not look at
        state = None if damaged else torch.load(path, weights_only=True)
    except (OSError, MemoryError, torch.OutOfMemoryError):
        raise  # says nothing of the file
    except Exception as error:  # of many kinds, as the damage has it
        raise DamagedError from error
    if state is None:
        raise DamagedError
    return state


@dataclass(frozen=True)
class Results:
    """Tidy frames of one or more results folders.

    Attributes:
        runs: one row per run, columns as in `COLUMNS` (the last recorded run of a key).
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
        UserError: another line cannot be read.
    """
    data = (folder / ROWS).read_bytes()
    lines = data[: data.rfind(b"\n") + 1].splitlines()
    for number, line in enumerate(lines, 1):
        try:
            yield json.loads(line)
        except ValueError as error:
            raise UserError(
                f"{folder / ROWS}:{number} is not JSON ({error}): mend or delete that line"
            ) from None


def latest_rows(*dirs: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    """The last recorded row of every key at or below ``dirs``."""
    rows: dict[str, dict[str, Any]] = {}
    for folder in folders(*dirs):
        for row in read_rows(folder):
            if row["key"] not in rows or row["when"] >= rows[row["key"]]["when"]:
                rows[row["key"]] = row
    return rows


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
        UserError: a folder does not exist, or a line is not JSON.
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
    fixed = [name for name in COLUMNS if not name.endswith("*") and name != "curve"]
    runs = pd.DataFrame(
        [{name: value for name, value in row.items() if name != "curve"} for row in rows]
    )
    runs = runs.reindex(columns=fixed + sorted(name for name in runs.columns if name not in fixed))
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
                f"cannot write results to {self.path}: {error.strerror}; free space or name another folder with --results "
                "(every run recorded so far is safe, the same command goes on from there)"
            ) from error


def _write_durably(path: Path, text: str) -> None:
    with open(path, "w") as file:
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
