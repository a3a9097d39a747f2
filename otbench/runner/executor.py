"""What an executor is: it takes jobs and tells what happens to them.

`otbench.runner.local` runs them on this machine. Another kind is one file with a class of this
form, and its line in `EXECUTORS`.
"""

from __future__ import annotations

import importlib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from otbench.errors import UserError, nearest
from otbench.job import Gpu, Job, Result


EXECUTORS: Mapping[str, str] = {"local": "otbench.runner.local:Local"}


@dataclass(frozen=True)
class Limits:
    """What a run may take. Seeds solved together have the seconds of all of them, and share bytes.

    Attributes:
        seconds: of the solver: its fit, its push and their repeats.
        bytes: of its process and all that it started, while the solver works.
        task_seconds: of the task's own work, building the problem and scoring; imports have a limit
            of their own beside both.
        task_bytes: that the task's own work may take above ``bytes``.
    """

    seconds: float = 600.0
    bytes: int = 8 * 2**30
    task_seconds: float = 3600.0
    task_bytes: int = 8 * 2**30


@dataclass(frozen=True)
class Started:
    """A job began; ``job`` is its place in the sequence."""

    job: int


@dataclass(frozen=True)
class Finished:
    """A run ended: its job, its place in the job, how, and the end of what it printed."""

    job: int
    member: int
    result: Result
    log: str


Event = Started | Finished


class Executor(Protocol):
    """Runs jobs in processes of their own, within limits.

    Attributes:
        slots: jobs at a time.
        threads: CPU threads of one worker.
    """

    slots: int
    threads: int

    def __init__(self, slots: int, limits: Limits, gpus: Sequence[Gpu] = ()) -> None:
        """At most ``slots`` jobs at a time, each run within ``limits`` and each job on one of the
        GPUs, where there are any.
        """
        ...

    def execute(self, jobs: Sequence[Job]) -> Generator[Event, None, None]:
        """Run every job, yield what happens: for each of its runs one `Finished`, whatever the
        solver does. Closing the iterator ends what is running. A job may be `Started` twice: where
        it lacks GPU memory beside others it is done again alone.

        Raises:
            UserError: workers cannot be started.
        """
        ...


def executor(name: str, slots: int, limits: Limits, gpus: Sequence[Gpu] = ()) -> Executor:
    """The executor of this name.

    Raises:
        UserError: there is none.
    """
    if name not in EXECUTORS:
        raise UserError(f"unknown executor {name!r}{nearest(name, EXECUTORS)}")
    module, _, cls = EXECUTORS[name].partition(":")
    return getattr(importlib.import_module(module), cls)(slots, limits, gpus)
