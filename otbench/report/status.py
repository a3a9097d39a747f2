"""Which recorded rows are of other code than today's, and what it costs to do them again."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# (pandas' own annotations join all that an operation may return, so that they fit almost nothing)

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from otbench.job import SCHEMA
from otbench.report.selected import is_stale, select
from otbench.report.tables import Format, Table, render


if TYPE_CHECKING:
    import pandas as pd

    from otbench.store import Results

SECONDS = ("problem_s", "fit_cold_s", "push_cold_s", "score_s")
REPEATS = 3  # of a short fit
NOTE = (
    "seconds: of the rows to be done again, as they were recorded: problem, fit and its repeats, "
    "push, scoring. `otbench run` with the same tasks, solvers and seeds does them again."
)


def status(results: Results, tasks: Sequence[str] | None = None, format: Format = "md") -> str:
    """List by task and solver the rows that are not of today's code, and the seconds to renew them.

    Args:
        results: as `otbench.load` gives them.
        tasks: names or labels of tasks; by default all.
        format: ``md``, ``csv`` (one line per task and solver), ``html`` or ``latex``.

    Raises:
        UserError: an unknown task or format, or no rows.
    """
    runs = select(results.runs, tasks)
    summary = summarize(runs)
    other = summary[summary.stale > 0]
    rows = [
        [r.task_label, r.solver_label, str(r.rows), str(r.stale), r.because, f"{r.seconds:.1f}"]
        for r in other.itertuples()
    ]
    title = (
        f"{summary.stale.sum()} of {len(runs)} rows are not of today's code, "
        f"{summary.seconds.sum():.0f} s to renew"
    )
    head = ["task", "solver", "rows", "stale", "other code of", "seconds"]
    return render(format, [Table(title, head, rows)], [NOTE], lambda: summary)


def summarize(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per task and solver: rows, those that are stale and why, seconds to renew them."""
    import pandas as pd

    causes = is_stale(runs).assign(schema=runs.schema < SCHEMA)
    seconds = runs[list(SECONDS)].astype(float).sum(axis=1)
    seconds += REPEATS * runs.fit_warm_s.astype(float).fillna(0)
    stale = causes.any(axis=1)
    runs = runs.assign(stale=stale, seconds=seconds.where(stale, 0.0))
    records = []
    for names, group in runs.groupby(["task_label", "solver_label"], sort=False):
        task, solver = names  # type: ignore[misc]
        of_group = causes.loc[group.index].any()
        records.append(
            {
                "task_label": task,
                "solver_label": solver,
                "rows": len(group),
                "stale": int(group.stale.sum()),
                "because": ", ".join(of_group.index[of_group]),
                "seconds": float(group.seconds.sum()),
            }
        )
    return pd.DataFrame(records)
