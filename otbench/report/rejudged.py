"""Recorded verdicts against those that the same numbers get today."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# (pandas' own annotations join all that an operation may return, so that they fit almost nothing)

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from otbench.errors import UserError
from otbench.report.selected import of_tasks
from otbench.report.tables import Format, Table, render
from otbench.report.verdicts import judged
from otbench.scoring.verdict import Verdict


if TYPE_CHECKING:
    import pandas as pd

    from otbench.store import Results

LARGE_UVP = 25.0  # percent: a map that is this wrong is not ok


def rejudged(results: Results, tasks: Sequence[str] | None = None, format: Format = "md") -> str:
    """Count by task the runs of each recorded verdict and each that is passed today, of all rows,
    also those of older code.

    Args:
        results: as `otbench.load` gives them.
        tasks: names or labels of tasks; by default all.
        format: ``md``, ``csv``, ``html`` or ``latex`` (booktabs).

    Raises:
        UserError: an unknown task or format, or no row with a verdict.
    """
    runs = of_tasks(results.runs, tasks)
    recorded = runs.verdict
    runs = judged(runs).assign(recorded=recorded)
    runs = runs[runs.recorded.notna() & runs.verdict.notna()]
    if runs.empty:
        raise UserError("no row here has a verdict: verdicts are about maps")
    counts = (
        runs.assign(today=runs.verdict.astype(str))
        .groupby(["task_label", "recorded", "today"])
        .size()
        .rename("runs")
        .reset_index()
    )
    turned = counts[counts.recorded != counts.today]
    rows = [[row.task_label, row.recorded, row.today, str(row.runs)] for row in turned.itertuples()]
    table = Table("Verdicts that changed", ["task", "recorded", "today", "runs"], rows)
    return render(format, [table], [_summary(runs, counts), *_large(runs)], lambda: counts)


def _summary(runs: pd.DataFrame, counts: pd.DataFrame) -> str:
    changed = int(counts.runs[counts.recorded != counts.today].sum())
    lost = int(((runs.recorded == Verdict.OK) & (runs.verdict != Verdict.OK)).sum())
    won = int(((runs.recorded != Verdict.OK) & (runs.verdict == Verdict.OK)).sum())
    was = int((runs.recorded == Verdict.OK).sum())
    return (
        f"{changed} of {len(runs)} rows with a verdict have another one today; of {was} that were "
        f"ok {lost} are not, and {won} that were not are. Rows lack the defects that were not "
        "measured when they were made."
    )


def _large(runs: pd.DataFrame) -> list[str]:
    if "metric_l2_uvp" not in runs:
        return []
    large = runs.metric_l2_uvp > LARGE_UVP
    was, now = (int((large & (of == Verdict.OK)).sum()) for of in (runs.recorded, runs.verdict))
    return [f"ok with an L2-UVP above {LARGE_UVP:g} %: {was} then, {now} today."]
