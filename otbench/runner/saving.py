"""Saved fits (``otbench run --save-fits``): the state of a long fit is written as it goes, and the
same command goes on with a fit that was interrupted.
"""

from __future__ import annotations

import os
import pickle
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from otbench.errors import InvalidOutputError
from otbench.job import RunSpec, Saving
from otbench.runner.clock import Clock, MemoryMeter
from otbench.runner.measure import Measured
from otbench.solver import FitContext


class DamagedError(Exception):
    """The file of a saved fit cannot be read."""


class SavedFits:
    """The states of fits that have not ended: ``<folder>/<key>.pt``."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).absolute()

    def path(self, key: str) -> Path:
        """The file of a run."""
        return self.folder / f"{key}.pt"

    def keys(self) -> set[str]:
        """The runs whose states are there."""
        return {path.stem for path in self.folder.glob("*.pt")}

    def forget(self, key: str) -> None:
        """Remove a state, and what a killed worker left of a later one."""
        for path in self.folder.glob(f"{key}.*"):
            if path.suffix != ".old":  # of other code, or damaged: not this fit's to remove
                path.unlink(missing_ok=True)


class Saver:
    """Saves one fit and goes on with it, with clock and memory meter stopped.

    Args:
        spec: the run.
        saving: where and how often.
        place: the columns of the row that say where it is made; a fit may go on elsewhere.
        measured: of the run, saved beside the state.
        clock: of the fit.
        memory: of the fit.
    """

    def __init__(
        self,
        spec: RunSpec,
        saving: Saving,
        place: Mapping[str, Any],
        measured: Measured,
        clock: Clock,
        memory: MemoryMeter,
    ) -> None:
        self.path, self.every_s = SavedFits(saving.folder).path(spec.key), saving.every_s
        self.made_by = {
            "task_hash": spec.task_hash,
            "solver_hash": spec.solver_hash,
            "scoring_hash": spec.scoring_hash,  # of the curve
            "device": spec.device,
            "dtype": spec.dtype,
        }
        self.place, self.measured, self.clock, self.memory = dict(place), measured, clock, memory
        self.due = time.monotonic() + self.every_s
        self.resumed = 0

    def attach(self, context: FitContext) -> None:
        """Have the context of a fit save to and restore from here."""
        context.on_save, context.on_restore = self.save, self.restore

    def save(self, state: Callable[[], Any]) -> None:
        """Write the state where that is due.

        Raises:
            InvalidOutputError: the state could not be read back.
        """
        if time.monotonic() < self.due:
            return
        with self.clock.paused() as seconds:
            self.memory.pause()
            kept = {
                "made_by": self.made_by,
                "where": self.place,
                "resumed": self.resumed,
                "seconds": seconds,
                "message": self.measured.message,
                "curve": self.measured.curve,
                "state": state(),
            }
            check_plain(kept)
            try:
                write_state(self.path, kept)
            except OSError as error:
                self.measured.remark(f"fit not saved: {error.strerror}")
            self.memory.resume()
        self.due = time.monotonic() + self.every_s

    def restore(self) -> Any:
        """The state that was saved last, None where there is none to go on with."""
        with self.clock.paused():
            self.memory.pause()
            kept = self._read()
            self.memory.resume()
        if kept is None:
            return None
        self.measured.remark(kept["message"])
        if kept["where"] != self.place:
            self.measured.remark("begun elsewhere or with other threads: the seconds are of both")
        self.clock.seconds += kept["seconds"]
        self.clock.device_s = None
        self.resumed = kept["resumed"] + 1
        self.measured.columns["resumed"] = self.resumed
        self.measured.send({"event": "resumed", "resumed": self.resumed})
        for point in kept["curve"]:
            self.measured.checkpoint(point)
        return kept["state"]

    def _read(self) -> dict[str, Any] | None:
        try:
            kept = read_state(self.path)
        except DamagedError:
            return self._begin_anew("is damaged")
        if kept is not None and kept["made_by"] != self.made_by:
            names = self.made_by.items()
            other = ", ".join(name for name, v in names if kept["made_by"].get(name) != v)
            return self._begin_anew(f"is of another {other}")
        return kept

    def _begin_anew(self, why: str) -> None:
        self.measured.remark(f"begun anew: the saved fit {self.path.name}, kept as .old, {why}")
        os.replace(self.path, self.path.with_suffix(".old"))


def write_state(path: Path, state: Mapping[str, Any], pickle_module: Any = pickle) -> None:
    """Write the state of a fit, or what else torch saves, whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    import torch

    unfinished = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(unfinished, "wb") as file:
            torch.save(state, file, pickle_module=pickle_module)
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


def check_plain(state: object) -> None:
    """Check that a state can be read back without running code that it names.

    Raises:
        InvalidOutputError: it holds more than tensors, plain numbers and strings in containers.
    """
    import torch

    if type(state) is dict:
        state = [*state, *state.values()]
    if type(state) in (list, tuple):
        for part in cast(Sequence[object], state):
            check_plain(part)
    elif not isinstance(state, torch.Tensor) and type(state) not in (
        bool,
        int,
        float,
        str,
        type(None),
    ):
        raise InvalidOutputError(
            f"context.save was given {type(state).__name__}: make the state of tensors, plain "
            "numbers and strings in dicts, lists and tuples"
        )
