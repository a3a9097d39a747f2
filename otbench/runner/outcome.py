"""What an exception in a worker says of its run: the status, and one line for the user."""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from typing import Any

from otbench.errors import DivergedError, InvalidOutputError, MissingError
from otbench.scoring.verdict import Verdict
from otbench.sources import package_of
from otbench.statuses import Phase, Status


RUNNER = Path(__file__).parent.resolve()

# The words of torch, JAX, the CUDA libraries and Triton; the first also of torch on the host.
OUT_OF_MEMORY = re.compile(
    r"can't allocate memory|RESOURCE_EXHAUSTED|CUDA out of memory|CUDA error: out of memory"
    r"|CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation|_STATUS_ALLOC_FAILED"
    r"|\[CUDA\]: out of memory|OutOfMemoryError"
)
NO_ROOM = re.compile(OUT_OF_MEMORY.pattern + r"|CU\w+_STATUS_NOT_INITIALIZED")  # for a handle

OF_SOLVER = (DivergedError, InvalidOutputError)  # whoever found it


def failure(
    error: BaseException, setting: str, phase: Phase, task: Path, solver: Path
) -> tuple[Status, str, dict[str, Any]]:
    """Status, message and further columns of a run that ended with this exception in a phase.
    What is missing is said before a fit begins; from then on it is an error.

    Args:
        error: the exception.
        setting: of the task.
        phase: that it was raised in.
        task: its file, of which the message names a line where the phase is the task's own.
        solver: its file, likewise.
    """
    status, message = status_of(error), describe(error, task if phase.of_task else solver)
    if status is Status.MISSING and phase not in (Phase.IMPORT, Phase.BUILD):
        status, message = Status.ERROR, f"missing in phase {phase}: {message}"
    columns: dict[str, Any] = {"phase": phase}
    if phase.of_task and status is not Status.MISSING and not isinstance(error, OF_SOLVER):
        return Status.BROKEN, f"{message}, in phase {phase}", columns
    if status is Status.DIVERGED and setting == "map":
        columns["verdict"] = Verdict.DIVERGED
    return status, message, columns


def status_of(error: BaseException) -> Status:
    """The status that an exception in a worker stands for."""
    if isinstance(error, MissingError):
        return Status.MISSING
    if isinstance(error, DivergedError):
        return Status.DIVERGED
    words = f"{type(error).__name__}: {error}"
    if isinstance(error, MemoryError) or OUT_OF_MEMORY.search(words):
        return Status.OOM
    return Status.ERROR


def describe(error: BaseException, file: Path) -> str:
    """One line: kind of the error, its text, and the last line of a file that it came through, or
    the first of the file's package, or of what is not the runner.
    """
    if isinstance(error, (MissingError, *OF_SOLVER)):
        return str(error)
    text = str(error).strip().splitlines()
    kind = "called sys.exit" if isinstance(error, SystemExit) else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    file, package = file.resolve(), package_of(file.resolve())
    paths = [Path(frame.filename).resolve() for frame in frames]
    nearer = (
        [i for i, path in enumerate(paths) if path == file][-1:],
        [i for i, path in enumerate(paths) if package and path.is_relative_to(package)],
        [i for i, path in enumerate(paths) if path.parent != RUNNER],
    )
    at = next((found[0] for found in nearer if found), None)
    place = "" if at is None else f" ({paths[at].name}:{frames[at].lineno})"
    return f"{kind}: {text[0] if text else 'no message'}"[:500] + place
