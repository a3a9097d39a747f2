"""When learning pays: training and inference of the solvers of amortized tasks, and the number of
pairs at which one overtakes another.

A solver that takes ``train`` seconds before it answers and ``infer`` for each pair overtakes one
that takes ``train'`` and ``infer'`` after

    N* = (train - train') / (infer' - infer)

pairs; where it is slower by the pair it is ahead until then, or never. Errors stand beside, for a
solver that is faster and wrong has won nothing. What a compiler takes at the first pair counts as
training. Two solvers are compared on the seeds that both ran.
"""

# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportIndexIssue=false
# pyright: reportReturnType=false
# (pandas' own annotations join all that an operation may return, so that they fit almost nothing)

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from otbench.errors import UserError, nearest
from otbench.report.quantities import FIT, INFER, accuracy_of, number, quantity
from otbench.report.selected import by_setup, left_out, other_code, select, timed_alone
from otbench.report.stats import mean_interval
from otbench.report.tables import DASH, Format, Table, render


if TYPE_CHECKING:
    import pandas as pd

    from otbench.store import Results

ERRORS = (
    "cost_gap",
    "plan_rmse",
    "plan_tv",
    "marginal_l1",
    "iters_to_tol",
    "iters_from_zero",
)  # shown beside the accuracy of the task, where measured

NOTES = (
    "Errors: mean over the seeds ± half the width of its 95 % interval. Times: medians "
    "over the seeds; training is the first "
    "fit, or the median of repeats where it is short, and what the first pair takes longer than "
    "the others.",
    "N*: held-out pairs after which the solver of the row, its training included, has taken less "
    "time than that of the column, on the seeds that both ran; 0: from the "
    "first pair on; until N: it is ahead up to there, for it is slower by the pair; never: it is "
    "slower in both.",
    "° trivial baseline.",
)


def amortization(
    results: Results,
    tasks: Sequence[str] | None = None,
    against: Sequence[str] | None = None,
    format: Format = "md",
) -> str:
    """Training, inference, errors and break-even counts of the runs on amortized tasks.

    Args:
        results: as `otbench.load` gives them.
        tasks: names or labels of tasks; by default all.
        against: labels of the solvers that break-even counts are against; by default those that are
            not trivial and do not learn.
        format: ``md``, ``csv`` (tidy, one line per task and solver), ``html`` or ``latex``
            (booktabs).

    Raises:
        UserError: an unknown task, solver or format, or no run on an amortized task.
    """
    import pandas as pd

    recorded = select(results.runs, tasks)
    runs = amortized(timed_alone(recorded))
    if runs.empty:
        raise UserError(
            "no run here succeeded on an amortized task, alone on its GPU; `otbench leaderboard` "
            "shows how runs ended"
        )
    known = set(runs.solver_label)
    for name in against or ():
        if name not in known:
            raise UserError(
                f"no runs of solver {name!r}{nearest(name, known)}; recorded: "
                f"{', '.join(sorted(known))}"
            )
    tables, frames = [], []
    for setup, of_setup in by_setup(runs, time=True):
        for task, group in of_setup.groupby("task_label", sort=False):
            summary = summarize(group, against)
            frames.append(summary.assign(task_label=task, setup=setup))
            tables.append(_table(summary, group, f"{task} on {setup}"))
    notes = [*NOTES, *left_out(amortized(recorded)), *other_code(results.runs, runs)]
    return render(format, tables, notes, lambda: pd.concat(frames))


def amortized(runs: pd.DataFrame) -> pd.DataFrame:
    """The successful runs that were timed by the pair."""
    return runs[(runs.status == "ok") & runs[INFER].notna()] if INFER in runs else runs.iloc[:0]


def summarize(runs: pd.DataFrame, against: Sequence[str] | None = None) -> pd.DataFrame:
    """One row per solver of the runs on one task: times, errors, and ``break_even_<solver>``
    against each of the others.
    """
    import numpy as np
    import pandas as pd

    accuracy = accuracy_of(runs)
    errors = list(
        dict.fromkeys(name for name in (accuracy, *ERRORS) if name and f"metric_{name}" in runs)
    )
    compiling = (
        (runs["infer_cold_ms"] - runs[INFER]).clip(lower=0).fillna(0) / 1000
        if "infer_cold_ms" in runs
        else 0.0
    )
    runs = runs.assign(train_s=runs[FIT] + compiling)
    of_solver = dict(iter(runs.groupby("solver_label", sort=False)))
    records = []
    for solver, group in of_solver.items():
        learns = "learns" in group and group.learns.iloc[0] in (True,)  # absent from older rows
        record = {
            "solver_label": solver,
            "trivial": bool(group.trivial.iloc[0]),
            "learns": learns,
            "seeds": len(group),
            **_times(group),
        }
        for name in errors:
            values = group[f"metric_{name}"].dropna().to_numpy(float)
            low, high = mean_interval(values, positive=True) or (np.nan, np.nan)
            record |= {
                name: values.mean() if values.size else np.nan,
                f"{name}_low": low,
                f"{name}_high": high,
            }
        records.append(record)
    summary = pd.DataFrame(records).sort_values("infer_ms", kind="stable")
    for other in summary.to_dict("records"):
        chosen = (
            other["solver_label"] in against
            if against
            else not other["trivial"] and not other["learns"]
        )
        if chosen:
            name = other["solver_label"]
            summary[f"break_even_{name}"] = [
                break_even(of_solver[solver], of_solver[name]) if solver != name else math.nan
                for solver in summary.solver_label
            ]
    return summary


def _times(runs: pd.DataFrame) -> dict[str, float]:
    """Medians over the seeds."""
    return {"train_s": float(runs.train_s.median()), "infer_ms": float(runs[INFER].median())}


def break_even(runs: pd.DataFrame, others: pd.DataFrame) -> float:
    """N* of the runs of one solver against those of another, on the seeds that both ran; infinite
    where it is never ahead, -N where it is until N pairs, not a number without a common seed.
    """
    row, other = (
        _times(runs[runs.seed.isin(others.seed)]),
        _times(others[others.seed.isin(runs.seed)]),
    )
    if math.isnan(row["infer_ms"]):
        return math.nan
    saved_s, earlier_s = (
        (other["infer_ms"] - row["infer_ms"]) / 1000,
        other["train_s"] - row["train_s"],
    )
    if saved_s > 0:
        return max(0.0, -earlier_s) / saved_s
    return earlier_s / saved_s if saved_s < 0 < earlier_s else math.inf


def _table(summary: pd.DataFrame, runs: pd.DataFrame, title: str) -> Table:
    errors = [name for name in summary if f"{name}_low" in summary]
    against = [name for name in summary if str(name).startswith("break_even_")]
    units = {name: unit for name in errors if (unit := quantity(name, runs).unit) != "1"}
    named = [f"{name} ({units[name]})" if name in units else name for name in errors]
    uneven = summary.seeds.nunique() > 1
    head = [
        "solver",
        *["seeds"] * uneven,
        "training (s)",
        "ms per pair",
        *named,
        *(f"N* against {name.removeprefix('break_even_')}" for name in against),
    ]
    rows = []
    for row in summary.to_dict("records"):
        solver = row["solver_label"] + (" °" if row["trivial"] else "")
        cells = [number(row["train_s"]), number(row["infer_ms"])]
        for name in errors:
            half = (row[f"{name}_high"] - row[f"{name}_low"]) / 2
            cells.append(
                ""
                if math.isnan(row[name])
                else number(row[name], None if math.isnan(half) else half)
            )
        seeds = [str(row["seeds"])] * uneven
        rows.append([solver, *seeds, *cells, *(_count(row[name]) for name in against)])
    return Table(title, head, rows)


def _count(value: float) -> str:
    if math.isnan(value):
        return DASH
    if math.isinf(value):
        return "never"
    return f"until {math.floor(-value):,}" if value < 0 else f"{math.ceil(value):,}"
