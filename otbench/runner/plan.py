"""From suites and selections to the runs to be done: expand grids, key each run, drop what is
already recorded.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import tomllib
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from otbench.data.files import checksum
from otbench.errors import UserError, nearest
from otbench.registry import Selection, registry
from otbench.statuses import Status


Rerun = Literal["missing", "failed", "changed", "all"]

CUT_SHORT = (Status.TIMEOUT, Status.OOM, Status.CRASHED)  # ends with which a saved fit may go on


@dataclass(frozen=True)
class Suite:
    """A named, versioned choice of tasks, solvers and seeds."""

    name: str
    version: int
    description: str
    tasks: tuple[str, ...]
    solvers: tuple[str, ...]
    seeds: int
    together: int = 1


@dataclass(frozen=True)
class RunSpec:
    """One run to be: what it is (which its key hashes) and the code it will run with (which it does
    not).
    """

    task: Selection
    solver: Selection
    seed: int
    device: str
    dtype: str
    task_hash: str
    plugins: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Hash of the plain values that say what the run is."""
        plain = [
            self.task.entry.name,
            self.task.params_json,
            self.solver.entry.name,
            self.solver.params_json,
        ]
        return hashlib.sha256(
            json.dumps([*plain, self.seed, self.device, self.dtype]).encode()
        ).hexdigest()[:16]

    @property
    def problem_key(self) -> str:
        """Hash of the values that decide the problem and its test points: runs that differ in the
        solver alone share it.
        """
        plain = [self.task.entry.name, self.task.params_json, self.seed, self.device, self.dtype]
        return hashlib.sha256(json.dumps(plain).encode()).hexdigest()[:16]

    @property
    def label(self) -> str:
        """What a person is told is running."""
        return f"{self.task.label} x {self.solver.label} seed {self.seed}"

    @property
    def needs(self) -> tuple[str, ...]:
        """Import names of everything the run needs."""
        return tuple(
            dict.fromkeys(("torch", *self.task.entry.cls.needs, *self.solver.entry.cls.needs))
        )

    def identity(self) -> dict[str, Any]:
        """The columns of the row that are known before the run."""
        return {
            "key": self.key,
            "task": self.task.entry.name,
            "task_label": self.task.label,
            "task_params": self.task.params_json,
            "solver": self.solver.entry.name,
            "solver_label": self.solver.label,
            "solver_params": self.solver.params_json,
            "trivial": self.solver.entry.cls.trivial,
            "learns": self.solver.entry.cls.learns,
            "seed": self.seed,
            "device": self.device,
            "dtype": self.dtype,
            "task_hash": self.task_hash,
            "solver_hash": self.solver.entry.source_hash,
        }

    def setup(self) -> dict[str, Any]:
        """What the worker is told whatever the seed (members are added by `job`, cores and threads
        by `otbench.runner.local`).
        """
        return {
            "task": self.task.entry.name,
            "task_params": dict(self.task.params),
            "solver": self.solver.entry.name,
            "solver_params": dict(self.solver.params),
            "device": self.device,
            "dtype": self.dtype,
            "plugins": list(self.plugins),
        }


@dataclass(frozen=True)
class Saving:
    """How fits are saved.

    Attributes:
        path: file of a key.
        every_s: least seconds between two saves.
        where: columns of the row that say where the run is made; a fit may go on elsewhere.
    """

    path: Callable[[str], Path]
    every_s: float
    where: Mapping[str, Any]

    def of(self, run: RunSpec) -> dict[str, Any]:
        """What the worker is told; ``made_by`` must be the same for a saved fit to go on."""
        identity = run.identity()
        made_by = {name: identity[name] for name in ("task_hash", "solver_hash", "device", "dtype")}
        return {
            "path": str(self.path(run.key)),
            "every_s": self.every_s,
            "made_by": made_by,
            "where": dict(self.where),
        }


def job(
    runs: Sequence[RunSpec],
    keep: Callable[[str], Path] | None = None,
    shared: str | None = None,
    saving: Saving | None = None,
) -> dict[str, Any]:
    """What a worker is told: one run, or several that differ in their seeds alone.

    Args:
        runs: to be done.
        keep: file to keep the raw output of a key in.
        shared: folder for what the runs on one problem share.
        saving: of the fit, where it is not that of several seeds as one.
    """
    members = [
        {
            "seed": run.seed,
            "output": str(keep(run.key)) if keep else None,
            "floors": f"{shared}/{run.problem_key}.json" if shared else None,
            "saving": saving.of(run) if saving and len(runs) == 1 else None,
        }
        for run in runs
    ]
    return {**runs[0].setup(), "members": members}


@cache
def suites() -> dict[str, Suite]:
    """Every suite of ``suites.toml``."""
    raw = tomllib.loads(files("otbench").joinpath("suites.toml").read_text())
    return {
        name: Suite(
            name,
            body["version"],
            body["description"],
            tuple(body["tasks"]),
            tuple(body["solvers"]),
            body["seeds"],
            body.get("together", 1),
        )
        for name, body in raw.items()
    }


def suite(name: str) -> Suite:
    """A suite by name.

    Raises:
        UserError: there is none of that name.
    """
    if name not in suites():
        raise UserError(
            f"unknown suite {name!r}{nearest(name, suites())}; `otbench list suites` names them all"
        )
    return suites()[name]


def select(
    kind: Literal["task", "solver"], texts: Iterable[str], plugins: tuple[str, ...]
) -> list[Selection]:
    """Everything that the texts select, without repeats.

    Raises:
        UserError: from the registry.
    """
    found = registry(kind, plugins)
    chosen = [selection for text in texts for selection in found.select(text)]
    return list(dict.fromkeys(chosen))


def expand(
    tasks: Sequence[Selection],
    solvers: Sequence[Selection],
    seeds: int,
    device: str,
    dtype: str,
    plugins: tuple[str, ...] = (),
) -> list[RunSpec]:
    """The grid, shuffled (always the same way) so that a drifting machine touches all solvers
    alike.
    """
    hashes = [task_hash(task) for task in tasks]
    runs = [
        RunSpec(task, solver, seed, device, dtype, of_task, plugins)
        for task, of_task in zip(tasks, hashes, strict=True)
        for solver in solvers
        for seed in range(seeds)
    ]
    random.Random(0).shuffle(runs)
    return runs


def task_hash(task: Selection) -> str:
    """SHA-256 prefix of what a task is made from: its source code, the names of its files and, of
    the user's own, their content.

    Of some data there are several archives, of more or of fewer images: which one was found is in
        the names.

    Raises:
        UserError: such a file cannot be read.
    """
    files = task.build().files
    if not files:
        return task.entry.source_hash
    try:
        parts = [
            task.entry.source_hash,
            *(checksum(path) if os.path.isabs(path) else path for path in files),
        ]
    except OSError as error:
        raise UserError(
            f"{error.filename}: {error.strerror}: make it readable, or name another file"
        ) from None
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:12]


def grouped(runs: Iterable[RunSpec], together: int) -> list[list[RunSpec]]:
    """The runs in groups of up to ``together`` seeds, where a solver solves several as one, in the
    order of their first.
    """
    groups: list[list[RunSpec]] = []
    open_groups: dict[tuple[Selection, Selection], list[RunSpec]] = {}
    for run in runs:
        group = open_groups.get((run.task, run.solver))
        if group is None or len(group) == together or not run.solver.entry.cls.batched:
            group = open_groups[run.task, run.solver] = []
            groups.append(group)
        group.append(run)
    return groups


def pending(
    runs: Iterable[RunSpec],
    recorded: Mapping[str, Mapping[str, Any]],
    rerun: Rerun,
    saved: Container[str] = (),
) -> list[RunSpec]:
    """The runs still to be done. One that ended ``missing`` is always tried again, its remedy may
    have been applied.

    Args:
        runs: the plan.
        recorded: the last row of each key.
        rerun: ``missing`` does what was never recorded; ``changed`` (the default of the command)
            also what was recorded with other source code of the task or the solver, or other data
            of the user's own; ``failed`` also what failed; ``all`` everything.
        saved: keys whose fits were saved: those of them that were cut short always go on.
    """

    def wanted(run: RunSpec) -> bool:
        row = recorded.get(run.key)
        if rerun == "all" or row is None or row["status"] == Status.MISSING:
            return True
        if run.key in saved and row["status"] in CUT_SHORT:
            return True
        if rerun == "failed" and Status(row["status"]).failed:
            return True
        hashes = (run.task_hash, run.solver.entry.source_hash)
        return rerun in ("changed", "failed") and (row["task_hash"], row["solver_hash"]) != hashes

    return [run for run in runs if wanted(run)]
