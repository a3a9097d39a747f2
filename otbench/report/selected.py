"""The runs that a report is made of: selected by task, split where they must not be averaged."""

# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportIndexIssue=false
# pyright: reportReturnType=false
# (pandas' own annotations join all that an operation may return, so that they fit almost nothing)

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from otbench.code_hashes import Code
from otbench.errors import UserError, nearest
from otbench.job import SCHEMA
from otbench.registry import registry
from otbench.report.quantities import FIT, is_time
from otbench.statuses import Phase, Status


if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


RULESETS = ("default", "preset", "tuned", "set")


def select(runs: pd.DataFrame, tasks: Sequence[str] | None) -> pd.DataFrame:
    """The runs `of_tasks` without those that are `superseded`, sorted by task and seed, with the
    column `FIT` added.

    Raises:
        UserError: there are no runs, or none on a task of that name.
    """
    runs = of_tasks(runs, tasks)
    runs = charged(runs[~superseded(runs)])
    runs = runs.sort_values(
        ["task_label", "solver_label", "seed"],
        key=lambda column: column.map(_natural),
        kind="stable",
    )
    warm, cold = (runs[column].astype(float) for column in ("fit_warm_s", "fit_cold_s"))
    return runs.assign(**{FIT: warm.fillna(cold)})


def of_tasks(runs: pd.DataFrame, tasks: Sequence[str] | None) -> pd.DataFrame:
    """The runs on these tasks, names or labels; None: all.

    Raises:
        UserError: there are no runs, or none on a task of that name (with the nearest match).
    """
    if runs.empty:
        raise UserError("no runs recorded there: name a folder that `otbench run --results` wrote")
    if isinstance(tasks, str):
        tasks = [tasks]
    known = list(dict.fromkeys([*runs.task_label, *runs.task]))
    for name in tasks or ():
        if name not in known:
            raise UserError(
                f"no runs on task {name!r}{nearest(name, known)}; recorded: "
                f"{', '.join(dict.fromkeys(runs.task_label))}"
            )
    return runs[runs.task.isin(tasks) | runs.task_label.isin(tasks)] if tasks else runs


def of_ruleset(runs: pd.DataFrame, ruleset: str | None) -> pd.DataFrame:
    """The runs whose parameters were chosen by this rule, beside trivial rows and controls, which
    have none to choose; None: all. Rows that do not say are taken by their label.

    Raises:
        UserError: an unknown rule, or no solver here follows it.
    """
    if ruleset is None:
        return runs
    if ruleset not in RULESETS:
        raise UserError(f"unknown ruleset {ruleset!r}: choose {', '.join(RULESETS)}")
    label = runs.solver_label.astype(str)
    told = label.str.contains("[", regex=False).map({False: "default", True: "set"})
    told = told.where(~label.str.fullmatch(r"[^\[]+\[preset=[^,\]]+\]"), "preset")
    rule = runs.ruleset.astype(object).where(runs.ruleset.notna(), told)
    follows = rule.astype(str).str.split(" ").str[0] == ruleset
    ranked = ~(runs.trivial.eq(True) | runs.control.eq(True))
    if not (follows & ranked).any():
        has = ", ".join(sorted(set(rule[ranked].astype(str)))) or "none"
        raise UserError(f"no solver here is {ruleset}; recorded: {has}")
    return runs[follows | ~ranked]


def superseded(runs: pd.DataFrame) -> pd.Series:
    """Booleans: the row of a task and a solver, by their labels, is of older code or of other
    defaults than the newest one. Averaged with it, two solvers would stand under one label.
    """
    columns = ["task_params", "task_hash", "solver_params", "solver_hash"]
    first, *others = (runs[name].astype(object).fillna("").astype(str) for name in columns)
    source = first.str.cat(others, sep="\n")
    together = ["task_label", "solver_label", "device", "dtype"]
    when = runs.assign(source=source).sort_values("when", kind="stable")
    newest = when.groupby(together).source.transform("last").reindex(runs.index)
    return source != newest


def charged(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs, those that broke while they were scored as crashed where a run of another solver on
    the same problem was scored: then it was not the task that failed.
    """
    problem = ["task_label", "task_hash", "seed", "device", "dtype"]
    scored = runs[runs.status == Status.OK].set_index(problem).index
    broken = (runs.status == Status.BROKEN) & (runs.phase == Phase.SCORE)
    blamed = broken & runs.set_index(problem).index.isin(scored)
    return runs.assign(status=runs.status.where(~blamed, Status.CRASHED.value))


def timed_alone(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs, without the times of those that shared their GPU with others."""
    times = [name for name in runs if is_time(str(name)) and not str(name).startswith("metric_")]
    return runs.assign(**{time: runs[time].where(~shared_gpu(runs)) for time in times})


def shared_gpu(runs: pd.DataFrame) -> pd.Series:
    """Booleans: other runs were on the GPU of the run. Older rows do not say."""
    return runs.gpu_runs.astype(float) > 1


def left_out(runs: pd.DataFrame) -> list[str]:
    """A note on the times that `timed_alone` leaves out; nothing where there are none."""
    shared = runs[shared_gpu(runs) & (runs.status == Status.OK)]
    if shared.empty:
        return []
    return [
        f"times left out of {len(shared)} runs that shared their GPU with others (column "
        f"`gpu_runs`): {by_name(shared)}"
    ]


def by_setup(runs: pd.DataFrame, time: bool) -> Iterator[tuple[str, pd.DataFrame]]:
    """Split runs that must not be averaged: by device and dtype and, for times, by machine and
    number of threads; each with its name.
    """
    columns = ["device", "dtype", *(["threads", "machine"] if time else [])]
    # A run whose worker never said where it is goes with the others of its batch.
    of_batch = runs.groupby("batch")[["threads", "machine"]].transform("first")
    threads, machine = runs.threads.astype(float), runs.machine
    runs = runs.assign(
        threads=threads.fillna(of_batch.threads.astype(float)).fillna(0).astype(int),
        machine=machine.where(machine.notna(), of_batch.machine).where(
            machine.notna() | of_batch.machine.notna(), ""
        ),
    )
    for (device, dtype, *more), group in runs.groupby(columns, sort=True):
        threads = f", {more[0]} thread{'s' * int(more[0] != 1)}" if more and more[0] else ""
        machine = f" ({more[1]})" if more and more[1] else ""
        yield f"{device}{machine}{threads}, {dtype}", group


def has_failed(status: pd.Series) -> np.ndarray:
    """``(n,)`` booleans: the run counts against its solver."""
    return status.map(lambda value: Status(value).failed).to_numpy(bool)


def _natural(value: str | int) -> tuple:
    """Sorts ``dim=4`` before ``dim=16``."""
    return tuple(
        (int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", str(value))
    )


def by_name(runs: pd.DataFrame) -> str:
    """How many runs there are of each solver and task, such as ``otm on petals (3)``."""
    names = (runs.solver_label + " on " + runs.task_label).value_counts()
    return ", ".join(f"{name} ({n})" for name, n in names.items())


def other_code(recorded: pd.DataFrame, runs: pd.DataFrame) -> list[str]:
    """Notes on rows of other code than the newest or today's; nothing where there are none.

    Args:
        recorded: all rows.
        runs: those that are shown.
    """
    of_shown = recorded[recorded.task_label.isin(set(runs.task_label))]
    older, notes = of_shown[superseded(of_shown)], []
    if len(older):
        names = by_name(older)
        notes.append(f"not shown, of older code or other defaults than the newest: {names}")
    today = runs[runs.schema == SCHEMA]
    if other := int(is_stale(today).any(axis=1).sum()):
        notes.append(
            f"{other} of {len(runs)} rows are of other code than today's: `otbench status` says "
            "which, and what it costs to do them again"
        )
    if old := int((runs.schema < SCHEMA).sum()):
        notes.append(
            f"{old} of {len(runs)} rows are of an older schema than {SCHEMA}, this version's: how "
            "they were scored cannot be told from their hashes"
        )
    scored = runs.scoring_hash.dropna().value_counts()
    if len(scored) > 1:
        counts = ", ".join(f"{count} by {name}" for name, count in scored.items())
        notes.append(f"these rows were scored by different code ({counts}): do them again")
    return notes


def is_stale(runs: pd.DataFrame) -> pd.DataFrame:
    """Booleans ``task, solver, scoring``: that hash of the row is not what the code has now. A task
    or solver that is not registered here cannot be told.
    """
    import pandas as pd

    stale = pd.DataFrame(False, index=runs.index, columns=["task", "solver", "scoring"])
    if runs.empty:
        return stale
    code = Code()
    stale["scoring"] = runs.scoring_hash.notna() & (runs.scoring_hash != code.scoring)
    for kind in ("task", "solver"):
        known = registry(kind).entries
        for (name, params), group in runs.groupby([kind, f"{kind}_params"]):
            if name in known:
                now = code.recorded(kind, str(name), str(params))
                stale.loc[group.index, kind] = group[f"{kind}_hash"] != now
    return stale
