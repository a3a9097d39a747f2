"""Tables of verdicts: how often each solver was right, deceived or not done, and the
spurious-solution rate with its interval.

Verdicts are passed anew from the metrics of the rows, so that a table at another threshold is as
good as the recorded one.
"""

# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportIndexIssue=false
# pyright: reportReturnType=false
# (pandas' own annotations join all that an operation may return, so that they fit almost nothing)

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from otbench.errors import UserError
from otbench.report.selected import by_setup, has_failed, other_code, select
from otbench.report.stats import wilson_interval
from otbench.report.tables import DASH, Format, Table, render
from otbench.scoring.verdict import SADDLE_TAU, TAU, Verdict, converged, judge
from otbench.statuses import Status


if TYPE_CHECKING:
    import pandas as pd

    from otbench.store import Results

NEARBY = (0.5, 1.0, 2.0)  # of a threshold: where the spurious rate is looked at too
COUNTS = [*map(str, Verdict), "failed"]

NOTES = {
    **{verdict.value: f"{verdict}: {verdict.meaning}." for verdict in Verdict},
    "failed": (
        "failed: ended by a limit or an error, without a verdict; counted in runs, not in the "
        "spurious rate. Broken runs, which ended in the task's own work, are in neither."
    ),
    "failures": (
        "failure rate: share of the runs that are not ok, whatever they are else [95 % Wilson "
        "interval]. It hangs on no saddle."
    ),
    "rate": (
        "spurious rate: share of the runs with a verdict that are spurious [95 % Wilson interval]; "
        "not said of solvers without a potential."
    ),
    "range": (
        "at other thresholds: the least and the largest spurious rate where either threshold, or "
        "both, are halved or doubled; where they are far apart, the rate is of the threshold."
    ),
    "conditional": (
        "of converged: share that is spurious of the runs whose saddle residuals are small, "
        "whatever their verdict: ill-posedness apart from failures of the optimiser."
    ),
    "alarms": (
        "alarms: spurious runs whose marginal is right, only the cost is wrong. No exact saddle is "
        "like this, so doubt the estimates (optimal cost, c-transform) before the solver."
    ),
}


def verdicts(
    results: Results,
    tasks: Sequence[str] | None = None,
    tau: float = TAU,
    saddle_tau: float = SADDLE_TAU,
    format: Format = "md",
) -> str:
    """Count the verdicts of ``results`` by task and solver.

    Args:
        results: as `otbench.load` gives them.
        tasks: names or labels of tasks; by default all.
        tau: threshold of the marginal defects; that of the cost keeps its default.
        saddle_tau: threshold of the saddle residuals, as a share of those of an untrained solver.
        format: ``md``, ``csv`` (tidy, one line per task and solver), ``html`` or ``latex``
            (booktabs).

    Raises:
        UserError: an unknown task or format, or no run that has a verdict.
    """
    import pandas as pd

    chosen = select(results.runs, tasks)
    runs = judged(chosen, tau, saddle_tau)
    if runs.empty:
        raise UserError(
            "no run here has a verdict: verdicts are about maps; `otbench leaderboard` shows "
            "plans, and how runs ended"
        )
    nearby = ((tau * by, saddle_tau * saddle_by) for by, saddle_by in product(NEARBY, repeat=2))
    others = list(judged_at(chosen, nearby))
    summaries = {
        setup: _with_range(
            summarize(group), [summarize(of[of.index.isin(group.index)]) for of in others]
        )
        for setup, group in by_setup(runs, time=False)
    }
    alarms = any(summary.alarms.any() for summary in summaries.values())
    tables = [
        _table(summary, f"Verdicts at thresholds {tau:g} and {saddle_tau:g}, on {setup}", alarms)
        for setup, summary in summaries.items()
    ]
    thresholds = (
        f"A marginal defect counts above {tau:g}, a cost defect above {TAU:g}, either above what "
        "sampling alone may show. A saddle is near optimal where its residuals are at most "
        f"{saddle_tau:g} of what an untrained solver leaves."
    )
    notes = [note for name, note in NOTES.items() if name != "alarms" or alarms]
    return render(
        format,
        tables,
        [thresholds, *notes, *other_code(results.runs, runs)],
        lambda: pd.concat(summaries.values()).assign(tau=tau, saddle_tau=saddle_tau),
    )


def judged(runs: pd.DataFrame, tau: float = TAU, saddle_tau: float = SADDLE_TAU) -> pd.DataFrame:
    """The runs on tasks that have verdicts, without those that never began.

    ``verdict`` is passed anew at these thresholds, None for a failed run; ``converged`` is None
    where a run has no saddle; ``alarm`` says that a run is called spurious for its cost alone.
    """
    return next(judged_at(runs, [(tau, saddle_tau)]))


def judged_at(
    runs: pd.DataFrame, thresholds: Iterable[tuple[float, float]]
) -> Iterator[pd.DataFrame]:
    """`judged` at each of several pairs of thresholds."""
    import pandas as pd

    names = [name for name in runs.columns if name.startswith("metric_")]
    scores = [_scores(run) for run in runs[names].to_dict("records")]
    began = has_failed(runs.status) | (runs.status == Status.BROKEN)
    for tau, saddle_tau in thresholds:
        # A run that diverged has nothing to be judged by.
        passed = [
            judge(s, tau, saddle_tau) or (Verdict.DIVERGED if was == Verdict.DIVERGED else None)
            for s, was in zip(scores, runs.verdict, strict=True)
        ]
        alarm = [
            v == Verdict.SPURIOUS
            and judge({**s, "cost_defect": 0.0}, tau, saddle_tau) == Verdict.OK
            for v, s in zip(passed, scores, strict=True)
        ]
        done = [converged(s, saddle_tau) for s in scores]
        values = {"verdict": passed, "converged": done, "alarm": alarm}
        columns = {name: pd.Series(of, runs.index, dtype=object) for name, of in values.items()}
        verdict = columns["verdict"].notna()
        of_maps = verdict.groupby(runs.task_label).transform("any")
        yield runs.assign(**columns)[of_maps & (verdict | began)]


def summarize(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per task and solver of `judged` runs of one setup: the counts, the spurious rate and
    that among converged runs.
    """
    import pandas as pd

    records = []
    for (task, solver), group in runs.groupby(["task_label", "solver_label"], sort=False):
        counts = {verdict.value: int((group.verdict == verdict).sum()) for verdict in Verdict}
        n, saddles = int(group.verdict.notna().sum()), int(group.converged.notna().sum())
        done = int(group.converged.fillna(False).astype(bool).sum())
        failures = dict(group.status[group.verdict.isna()].value_counts())
        decided = len(group) - int((group.status == Status.BROKEN).sum())
        records.append(
            {
                "task_label": task,
                "solver_label": solver,
                "runs": decided,
                **_rate("failure_rate", decided - counts["ok"], decided),
                **counts,
                "failed": decided - n,
                "failures": "; ".join(
                    f"{Status(status)} {count}" for status, count in failures.items()
                ),
                **_rate("spurious_rate", counts["spurious"], n if saddles else 0),
                "saddles": saddles,
                "converged": done,
                **_rate("conditional_rate", counts["spurious"], done),
                "alarms": int(group.alarm.sum()),
                "device": group["device"].iloc[0],
                "dtype": group["dtype"].iloc[0],
            }
        )
    return pd.DataFrame(records)


def _with_range(summary: pd.DataFrame, others: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The summary with the least and the largest spurious rate of it and those at other
    thresholds.
    """
    import pandas as pd

    keys = ["task_label", "solver_label"]
    rates = pd.concat([of.set_index(keys).spurious_rate for of in others], axis=1)
    of_rates = {"spurious_rate_least": rates.min(axis=1), "spurious_rate_most": rates.max(axis=1)}
    return summary.join(pd.DataFrame(of_rates), on=keys)


def _scores(run: Mapping[str, Any]) -> dict[str, float]:
    """Metrics by name; of rows of an older scoring the defects of today, as far as they are known:
    that of the map from its error, that of the cost from the ratio of costs.
    """
    scores = {
        name.removeprefix("metric_"): float(value)
        for name, value in run.items()
        if value is not None and not math.isnan(value)
    }
    if "l2_uvp" in scores:
        scores.setdefault("map_defect", scores["l2_uvp"] / 100)
    if "cost_ratio" in scores and scores.get("cost_defect"):
        defect = abs(scores["cost_ratio"] - 1)
        scores["cost_visible"] = scores.get("cost_visible", 0.0) * defect / scores["cost_defect"]
        scores["cost_defect"] = defect
    return scores


def _rate(name: str, successes: int, n: int) -> dict[str, float]:
    """The rate and the ends of its interval, not a number where there are no trials."""
    low, high = wilson_interval(successes, n) if n else (math.nan, math.nan)
    return {name: successes / n if n else math.nan, f"{name}_low": low, f"{name}_high": high}


def _table(summary: pd.DataFrame, title: str, alarms: bool) -> Table:
    head = [
        "task",
        "solver",
        "runs",
        "failure rate",
        *COUNTS,
        "spurious rate",
        "at other thresholds",
        "of converged",
        *(["alarms"] if alarms else []),
    ]
    rows = []
    for row in summary.to_dict("records"):
        judged = row["runs"] - row["failed"]
        counts = [
            str(row["runs"]),
            _percent(row, "failure_rate", row["runs"]),
            *(str(row[verdict.value]) for verdict in Verdict),
            row["failures"] or "0",
        ]
        rates = [
            _percent(row, "spurious_rate", judged),
            _range(row),
            _percent(row, "conditional_rate", row["converged"]),
        ]
        rows.append(
            [
                row["task_label"],
                row["solver_label"],
                *counts,
                *rates,
                *([str(row["alarms"])] if alarms else []),
            ]
        )
    return Table(title, head, rows)


def _percent(row: Mapping[str, Any], name: str, n: int) -> str:
    """Such as ``83 % [44-97] of 6``."""
    if math.isnan(row[name]):
        return DASH
    rate, low, high = (100 * row[key] for key in (name, f"{name}_low", f"{name}_high"))
    return f"{rate:.0f} % [{low:.0f}{DASH}{high:.0f}] of {n}"


def _range(row: Mapping[str, Any]) -> str:
    """Such as ``0-95 %``."""
    least, most = 100 * row["spurious_rate_least"], 100 * row["spurious_rate_most"]
    return DASH if math.isnan(least) else f"{least:.0f}{DASH}{most:.0f} %"
