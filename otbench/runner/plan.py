"""From suites and selections to the runs to be done: expand grids, key each run, drop what is
already recorded.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from otbench.code_hashes import Code
from otbench.errors import UserError, nearest
from otbench.job import DEVICES, DTYPES, Row, RunSpec
from otbench.registry import Selection, registry
from otbench.runner.tuned import Tuned
from otbench.statuses import UNDECIDED, Status


Rerun = Literal["missing", "failed", "changed", "all"]

EDITED = "edited"  # the hash of code that was not the same from the plan to the row

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


@cache
def suites() -> dict[str, Suite]:
    """Every suite of ``suites.toml``."""
    raw = tomllib.loads(files("otbench").joinpath("suites.toml").read_text(encoding="utf-8"))
    lists = ("tasks", "solvers")
    frozen: dict[str, dict[str, Any]] = {
        name: {key: tuple(value) if key in lists else value for key, value in body.items()}
        for name, body in raw.items()
    }
    return {name: Suite(name, **body) for name, body in frozen.items()}


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


def check_setting(device: str, dtype: str, seeds: Sequence[int] | None) -> None:
    """Refuse a device, a type or seeds that no run can have.

    Raises:
        UserError: naming it and what it may be.
    """
    for name, given, known in (("device", device, DEVICES), ("dtype", dtype, DTYPES)):
        if given not in known:
            raise UserError(f"unknown {name} {given!r}: choose {', '.join(known)}")
    if seeds is None:
        return
    wrong = [seed for seed in seeds if type(seed) is not int or seed < 0]
    if not len(seeds):
        wrong = ["none"]
    elif not wrong and len(set(seeds)) < len(seeds):
        wrong = ["one twice"]
    if wrong:
        raise UserError(f"seeds are different whole numbers from 0 on, got {wrong[0]!r}")


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
    seeds: Iterable[int],
    device: str,
    dtype: str,
    tuned: Sequence[Tuned] = (),
) -> list[RunSpec]:
    """The grid, shuffled (always the same way) so that a drifting machine touches all solvers
    alike.

    Args:
        tasks: of the grid.
        solvers: of the grid.
        seeds: of the grid.
        device: of all runs.
        dtype: of all problems.
        tuned: settings that each of these solvers is run with beside, on its task.
    """
    seeds, code = tuple(seeds), Code()
    pairs = [(task, solver) for task in tasks for solver in solvers]
    pairs += [
        (task, found.selection(solver.entry))
        for found in tuned
        for task in tasks
        for solver in {solver.entry.name: solver for solver in solvers}.values()
        if found.task == task.label and found.solver == solver.entry.name
    ]
    runs = [
        replace(spec(task, solver, 0, device, dtype, code), seed=seed)
        for task, solver in pairs
        for seed in seeds
    ]
    random.Random(0).shuffle(runs)
    return runs


def spec(
    task: Selection, solver: Selection, seed: int, device: str, dtype: str, code: Code
) -> RunSpec:
    """One run."""
    return RunSpec(
        task=task.entry.name,
        task_label=task.label,
        task_params=task.params_json,
        solver=solver.entry.name,
        solver_label=solver.label,
        solver_params=solver.params_json,
        ruleset=solver.ruleset,
        trivial=solver.entry.cls.trivial,
        learns=solver.entry.cls.learns,
        control=solver.entry.cls.control,
        seed=seed,
        device=device,
        dtype=dtype,
        **code.of(task, solver),
    )


def as_it_ran(spec: RunSpec, plugins: tuple[str, ...]) -> RunSpec:
    """The run with the hashes of its code; `EDITED` where one is not what was planned, so that the
    row is stale from the beginning.
    """
    code = Code()
    now = {
        "task_hash": code.recorded("task", spec.task, spec.task_params, plugins),
        "solver_hash": code.recorded("solver", spec.solver, spec.solver_params, plugins),
    }
    with suppress(SyntaxError, OSError):  # half an edit, or a file is gone
        now["scoring_hash"] = code.scoring
    edited = (name for name, planned in spec.code.items() if now.get(name) != planned)
    return replace(spec, **dict.fromkeys(edited, EDITED))


def grouped(
    runs: Iterable[RunSpec], together: int, plugins: tuple[str, ...] = ()
) -> list[tuple[RunSpec, ...]]:
    """The runs in groups of up to ``together`` seeds, where a solver solves several as one, in the
    order of their first.
    """
    solvers = registry("solver", plugins).entries
    groups: list[list[RunSpec]] = []
    open_groups: dict[tuple[str, ...], list[RunSpec]] = {}
    for run in runs:
        name = (run.task, run.task_params, run.solver, run.solver_params)
        group = open_groups.get(name)
        if group is None or len(group) == together or not solvers[run.solver].cls.batched:
            group = open_groups[name] = []
            groups.append(group)
        group.append(run)
    return [tuple(group) for group in groups]


def pending(
    runs: Iterable[RunSpec],
    recorded: Mapping[str, Row],
    rerun: Rerun,
    saved: Container[str] = (),
    unkept: Container[str] = (),
) -> list[RunSpec]:
    """The runs still to be done. One that ended ``missing`` is always tried again, its remedy may
    have been applied; so is one that ended ``broken``, which says nothing of its solver.

    Args:
        runs: the plan.
        recorded: the last row of each key.
        rerun: ``missing`` does what was never recorded; ``changed`` (the default of the command)
            also what other code of the task, the solver or the scoring recorded, or other data of
            the user's own; ``failed`` also what failed; ``all`` everything.
        saved: keys whose fits were saved: those of them that were cut short always go on.
        unkept: keys that are recorded without what is to be kept of them.
    """

    def wanted(run: RunSpec) -> bool:
        row = recorded.get(run.key)
        if rerun == "all" or row is None or row.status in UNDECIDED or run.key in unkept:
            return True
        if run.key in saved and row.status in CUT_SHORT:
            return True
        if rerun == "failed" and Status(row.status).failed:
            return True
        stale = any(getattr(row, name) != value for name, value in run.code.items())
        return rerun in ("changed", "failed") and stale

    return [run for run in runs if wanted(run)]
