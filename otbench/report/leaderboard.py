"""Leaderboards: for each metric one matrix of solvers by tasks, ranks as intervals, failures in
their cells, trivial rows marked.
"""

# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportIndexIssue=false
# pyright: reportReturnType=false
# (pandas' own annotations join all that an operation may return, so that they fit almost nothing)

from __future__ import annotations

import math
from collections.abc import Sequence
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any

from otbench.errors import UserError
from otbench.report import published as published_numbers
from otbench.report import stats
from otbench.report.quantities import ACCURACY, FIT, Quantity, accuracy_of, number, quantity
from otbench.report.selected import (
    by_setup,
    has_failed,
    left_out,
    of_ruleset,
    other_code,
    select,
    timed_alone,
)
from otbench.report.tables import DASH, Format, Table, render
from otbench.selection import parse_selection
from otbench.statuses import NOT_CONVERGED, UNDECIDED, Status


if TYPE_CHECKING:
    import pandas as pd

    from otbench.store import Results

NOTES = {
    "seeds": (
        "Cells: mean over the seeds ± half the width of its 95 % interval, or [its ends] where it "
        "lies askew: Student's, from four positive numbers on that of a log-normal mean."
    ),
    "rank": (
        "rank: mean over the tasks and seeds that all ranked solvers ran [95 % bootstrap interval "
        "over both]; neighbours with one letter are statistically tied (paired test on all tasks "
        "and seeds, Holm's correction). Without a rank: too few of the tasks, a single seed, or a "
        "control."
    ),
    "failed": (
        "A failed run is named in its cell; the cell's mean is over the runs that succeeded, but "
        "in the rank a failed run stands behind the worst run of its task."
    ),
    "trivial": "° trivial baseline: a method that does not beat it has not worked.",
    "cold": "† first fit, compilation included (a fit of over five seconds is not repeated).",
    "n/a": "n/a: the run succeeded, but the number is not defined for it.",
    "uneven": (
        "n=2 of 5: the mean of two seeds, of five that were run on the task. Two solvers are "
        "compared on the seeds that both ran: there no other has a better mean than one in bold."
    ),
    "short": (
        "not converged: runs that succeeded, but whose plan or potentials are not to the solver's "
        "own tolerance (columns `stopped`, `marginal_error`, `duality_gap`)."
    ),
}
ASKEW = 1.5  # of an interval whose ends are shown: the upper part over the lower
OTHER = "‡"  # of other settings than the published row of the same name
TOGETHER = (
    "together: seeds that were solved as one (`--together`) have no time of their own; the whole "
    "took"
)


def leaderboard(
    results: Results,
    metrics: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    format: Format = "md",
    published: bool = False,
    ruleset: str | None = None,
) -> str:
    """Rank the solvers of ``results``.

    Args:
        results: as `otbench.load` gives them.
        metrics: metrics, or numeric columns of the rows (``fit_s`` is ``fit_warm_s`` where
            measured, else ``fit_cold_s``). By default the first of `ACCURACY` that each task has,
            then ``infer_ms_per_pair`` and ``fit_s``.
        tasks: names or labels of tasks; by default all.
        format: ``md``, ``csv`` (long and tidy, one line per cell), ``html`` or ``latex``
            (booktabs).
        published: add rows of published numbers, never ranked.
        ruleset: one of `selected.RULESETS`, by which the parameters of the solvers were chosen.

    Raises:
        UserError: an unknown metric, task, ruleset or format, or nothing measured.
    """
    if isinstance(metrics, str):
        metrics = [metrics]
    runs = timed_alone(of_ruleset(select(results.runs, tasks), ruleset))
    views = [(quantity(name, runs), runs) for name in metrics] if metrics else _default_views(runs)
    tables: list[Table] = []
    notes: dict[str, None] = {}
    cells, summaries = [], []
    for wanted, shown in views:
        for setup, group in by_setup(shown, wanted.is_time):
            summary = summarize(group, wanted)
            if not summary.empty:
                summaries.append(summary)
                extra = published_numbers.beside(group, wanted.name, show=published)
                ranked = ranks(summary)
                cells.append(_tidy(summary, ranked, extra, group, wanted))
                tables.append(_table(_shown(summary), ranked, extra, wanted, setup))
                notes.update(dict.fromkeys(_notes(summary, extra, wanted)))
        if wanted.is_time:
            notes.update(dict.fromkeys(left_out(shown)))
    if not tables:
        raise UserError(
            "no successful run here has any of these numbers; leave out the metric to see how the "
            "runs ended"
        )
    import pandas as pd

    shown = {task for summary in summaries for task in summary.task_label}
    of_shown = runs[runs.task_label.isin(shown)]
    ends = [*_without_map(of_shown), *_endings(summaries), *other_code(results.runs, of_shown)]
    return render(format, tables, [*notes, *ends], lambda: pd.concat(cells))


def summarize(runs: pd.DataFrame, wanted: Quantity) -> pd.DataFrame:
    """One row per solver and task: mean and interval over the successful runs, counts, and the
    losses by seed with failures imputed.

    Tasks on which the quantity does not exist (some run succeeded, none has it) are left out,
    unless their seeds were solved together: the time is that of the whole then, and of no run.
    """
    import numpy as np
    import pandas as pd

    runs = runs.assign(
        value=pd.to_numeric(runs[wanted.column]).where(runs.status == "ok"),
        failed=has_failed(runs.status),
    )
    runs["whole_s"] = (
        (runs.fit_together_s / runs.together)
        .where((runs.status == "ok") & (wanted.name == FIT))
        .astype(float)
    )
    some = runs.groupby("task_label").value.transform("count") > 0
    together = runs.groupby("task_label").whole_s.transform("count") > 0
    succeeded = runs.groupby("task_label").status.transform(lambda status: (status == "ok").any())
    runs["failed"] &= some | ~together  # nothing is worse than a time that there is not
    runs = runs[some | together | ~succeeded.astype(bool)]
    records = []
    for task, on_task in runs.groupby("task_label", sort=False):
        losses = stats.impute(wanted.loss(on_task.value), on_task.failed, wanted.worst)
        ran = on_task.failed | on_task.value.notna() | on_task.whole_s.notna()
        for solver, group in on_task.assign(loss=losses).groupby("solver_label", sort=False):
            values = group.value.dropna().to_numpy(float)
            low, high = stats.mean_interval(values, wanted.positive) or (np.nan, np.nan)
            cold = wanted.name == FIT and bool(
                group.loc[group.value.notna(), "fit_warm_s"].isna().any()
            )
            records.append(
                {
                    "task_label": task,
                    "solver_label": solver,
                    "trivial": bool(group.trivial.iloc[0]),
                    "control": group.control.iloc[0] is True,
                    "mean": values.mean() if values.size else np.nan,
                    "low": low,
                    "high": high,
                    "n_ok": int((group.status == "ok").sum()),
                    "n_values": values.size,
                    "n_short": int(group.stopped[group.status == "ok"].isin(NOT_CONVERGED).sum()),
                    "n_runs": len(group),
                    "n_seeds": on_task.seed[ran].nunique(),
                    "counts": dict(group.status.value_counts()),
                    "message": next(
                        (str(m) for m in group.loc[group.status != "ok", "message"].dropna()), ""
                    ),
                    "losses": dict(zip(group.seed, group.loss, strict=True)),
                    "cold": cold,
                    "n_together": int(group.whole_s.notna().sum()),
                    "together_s": float(group.whole_s.mean()),  # per seed
                }
            )
    return pd.DataFrame(records)


def _shown(summary: pd.DataFrame) -> pd.DataFrame:
    """Without the solvers that take none of the tasks, if others do."""
    skipped = (
        summary.counts.map(lambda counts: set(counts) == {Status.SKIPPED})
        .groupby(summary.solver_label)
        .transform("all")
    )
    return summary if skipped.all() else summary[~skipped.astype(bool)]


def ranks(summary: pd.DataFrame) -> pd.DataFrame:
    """Columns ``rank, low, high, tied`` and ``covered`` (tasks that it ran) by solver, best first;
    ties by name. Not a number for a solver that is not ranked, see `stats.ranking`; controls are
    not.
    """
    import numpy as np
    import pandas as pd

    controls = set(summary.solver_label[summary.control])
    solvers = sorted(summary.solver_label.unique())
    losses = []
    for _, group in summary.groupby("task_label"):
        by_seed = _by_seed(group)
        by_seed.loc[by_seed.index.isin(controls)] = np.nan
        losses.append(by_seed.reindex(solvers).to_numpy(float))
    found = stats.ranking(losses)
    covered = np.stack([~np.isnan(task).all(1) for task in losses]).sum(0)
    columns = {"rank": found.mean, "low": found.low, "high": found.high, "tied": found.tied}
    table = pd.DataFrame({**columns, "covered": covered}, index=solvers)
    return table.iloc[found.order].assign(of=len(losses), single=not found.tasks.any())


def _by_seed(summary: pd.DataFrame) -> pd.DataFrame:
    """The losses on one task, solvers by seeds."""
    import pandas as pd

    return pd.DataFrame(dict(zip(summary.solver_label, summary.losses, strict=True))).T


def _default_views(runs: pd.DataFrame) -> list[tuple[Quantity, pd.DataFrame]]:
    """Each task's own measure of accuracy, one matrix per measure; then the time, which shows what
    never succeeded too.
    """
    judged = runs.task_label.map(
        {task: accuracy_of(group) for task, group in runs.groupby("task_label")}
    )
    views = [
        (quantity(name, runs), runs[judged == name]) for name in ACCURACY if (judged == name).any()
    ]
    inferred = runs[runs.groupby("task_label").infer_ms_per_pair.transform("count") > 0]
    if not inferred.empty:
        views.append((quantity("infer_ms_per_pair", runs), inferred))
    return [*views, (Quantity(FIT, FIT, "s", "lower"), runs)]


def _table(
    summary: pd.DataFrame, ranked: pd.DataFrame, extra: pd.DataFrame, wanted: Quantity, setup: str
) -> Table:
    tasks = list(summary.task_label.unique())
    ranked = ranked[ranked.index.isin(summary.solver_label)]
    cells = {(row.solver_label, row.task_label): row for row in summary.itertuples()}
    best = set()
    for task, group in summary[summary.n_values > 0].groupby("task_label"):
        by_seed = _by_seed(group)
        unbeaten = by_seed.index[stats.unbeaten(by_seed.to_numpy(float))]
        best |= {(solver, task) for solver in unbeaten}
    trivial = set(summary.solver_label[summary.trivial])
    others = _other_settings(summary, extra)
    least, most = int(summary.n_runs.min()), int(summary.n_runs.max())
    seeds = f"{least} seed{'s' * (least > 1)}" if least == most else f"{least} to {most} seeds"
    table = Table(f"{wanted.title}, {seeds} on {setup}", ["rank", "solver", *tasks])
    order = ranked.index if wanted.better else sorted(ranked.index)
    for i, solver in enumerate(order):
        texts = [_text(cells[solver, task]) if (solver, task) in cells else "" for task in tasks]
        table.rows.append(
            [
                _rank(ranked.loc[solver]) if wanted.better else "",
                solver + " °" * (solver in trivial) + f" {OTHER}" * (solver in others),
                *texts,
            ]
        )
        table.best |= {
            (i, j + 2) for j, task in enumerate(tasks) if wanted.better and (solver, task) in best
        }
    for (solver, tag, _), group in extra.groupby(["solver", "tag", "source"], sort=False):
        values = dict(zip(group.task_label, group.value, strict=True))
        texts = [
            ""
            if task not in values
            else "no value"
            if math.isnan(values[task])
            else f"{values[task]:.4g}"
            for task in tasks
        ]
        table.rows.append(["", f"{solver} [{tag}]", *texts])
    return table


def _text(cell: Any) -> str:
    """What a cell says; ``cell`` is a row of `summarize`."""
    failures = {status: n for status, n in cell.counts.items() if Status(status).failed}
    if cell.n_values:
        besides = [f"n={cell.n_values} of {cell.n_seeds}"] * _is_short(cell)
        besides += [f"{n} {status}" for status, n in failures.items()]
        besides += [f"{cell.n_short} not converged"] * bool(cell.n_short)
        besides += [f"{cell.n_together} together"] * bool(cell.n_together)
        return (
            _with_interval(cell.mean, cell.low, cell.high)
            + " †" * cell.cold
            + (f" ({', '.join(besides)})" if besides else "")
        )
    if failures:
        return ", ".join(f"{status} {n}/{cell.n_runs}" for status, n in failures.items())
    if cell.n_together:
        return f"{DASH} together"
    undecided = [status for status in UNDECIDED if status in cell.counts]
    return "n/a" if cell.n_ok else undecided[0] if undecided else DASH


def _is_short(cell: Any) -> bool:
    """Whether a mean is over fewer seeds than the task has, for no reason that the cell gives."""
    failed = sum(n for status, n in cell.counts.items() if Status(status).failed)
    return bool(0 < cell.n_values < cell.n_seeds - failed - cell.n_together)


def _with_interval(mean: float, low: float, high: float) -> str:
    """``mean ± half``, or where the interval lies askew ``mean [low-high]``."""
    if high - mean > ASKEW * (mean - low):
        return f"{number(mean)} [{number(low)}{DASH}{number(high)}]"
    return number(mean, None if math.isnan(low) else (high - low) / 2)


def _rank(row: pd.Series) -> str:
    if math.isnan(row["rank"]):
        few = row.covered and row.covered < row.of and not row.single
        return DASH + (f" ({row.covered:.0f} of {row.of:.0f} tasks)" if few else "")
    letter = ascii_lowercase[min(int(row.tied), 25)]
    return f"{row['rank']:.2g} [{row.low:.2g}{DASH}{row.high:.2g}] {letter}"


def _notes(summary: pd.DataFrame, extra: pd.DataFrame, wanted: Quantity) -> list[str]:
    """The footnotes that this matrix needs."""
    texts = list(map(_text, summary.itertuples()))
    failed = summary.counts.map(lambda counts: any(Status(status).failed for status in counts))
    needs = {
        "seeds": summary.low.notna().any(),
        "rank": bool(wanted.better),
        "failed": failed.any(),
        "trivial": summary.trivial.any(),
        "cold": summary.cold.any(),
        "n/a": "n/a" in texts,
        "uneven": any(map(_is_short, summary.itertuples())),
        "short": summary.n_short.any(),
    }
    notes = [NOTES[name] for name, needed in needs.items() if needed]
    if summary.n_together.any():
        least, most = (
            number(seconds) for seconds in (summary.together_s.min(), summary.together_s.max())
        )
        notes.append(
            f"{TOGETHER} {least}" + (f" to {most}" if most != least else "") + " s per seed."
        )
    for (source, tag, note), group in extra.groupby(["source", "tag", "note"], sort=False):
        notes.append(
            f"[{tag}] {source}: {', '.join(dict.fromkeys(group.solver))}"
            + (f" ({note})" if note else "")
        )
    if others := _other_settings(summary, extra):
        notes.append(
            f"{OTHER} not the settings of the published row of its name: "
            + "; ".join(f"{solver} ({has} has them)" for solver, has in others.items())
            + "."
        )
    return notes


def _without_map(runs: pd.DataFrame) -> list[str]:
    """One footnote on the tasks that have no map to score against, by reason."""
    reasons = {
        task: why
        for task, why in zip(runs.task_label, runs.no_map, strict=True)
        if isinstance(why, str) and why
    }
    tasks = [
        f"{', '.join(task for task, of_task in reasons.items() if of_task == why)} ({why})"
        for why in dict.fromkeys(reasons.values())
    ]
    return [f"map not identifiable, so no map error is scored: {'; '.join(tasks)}"] if tasks else []


def _endings(summaries: Sequence[pd.DataFrame]) -> list[str]:
    """One footnote for every other way than ``ok`` that runs ended, with its reason, solvers and
    tasks.
    """
    import pandas as pd

    silent = pd.concat(summaries).drop_duplicates(["solver_label", "task_label"])
    silent = silent.assign(
        how=silent.counts.map(
            lambda counts: " or ".join(status for status in counts if status != "ok")
        )
    )
    silent = silent[silent.how != ""]
    reasons = (
        silent.groupby(["solver_label", "how", "message"], sort=False)
        .task_label.agg(", ".join)
        .rename("tasks")
        .reset_index()
    )
    return [
        f"{DASH + ' ' if how == Status.SKIPPED else ''}{how}: {', '.join(group.solver_label)} on "
        f"{tasks}: {message}"
        for (how, message, tasks), group in reasons.groupby(["how", "message", "tasks"], sort=False)
    ]


def _other_settings(summary: pd.DataFrame, extra: pd.DataFrame) -> dict[str, str]:
    """Of the measured solvers that stand beside a published row of their name and have other
    settings: what has those of the row, or that nothing has. Trivial solvers have no settings.
    """
    found: dict[str, list[str]] = {}
    for solver, task in dict.fromkeys(zip(summary.solver_label, summary.task_label, strict=True)):
        beside = extra[(extra.task_label == task) & (extra.solver == parse_selection(solver)[0])]
        for label in beside.label:
            if label != solver and not summary.trivial[summary.solver_label == solver].any():
                found.setdefault(solver, []).append(label)
    return {
        solver: ", ".join(dict.fromkeys(filter(None, labels))) or "no preset"
        for solver, labels in found.items()
    }


def _tidy(
    summary: pd.DataFrame,
    ranked: pd.DataFrame,
    extra: pd.DataFrame,
    runs: pd.DataFrame,
    wanted: Quantity,
) -> pd.DataFrame:
    """Long form: one line per cell."""
    import pandas as pd

    statuses = [
        "; ".join(f"{status} {n}" for status, n in counts.items()) for counts in summary.counts
    ]
    device, dtype, threads = runs[["device", "dtype", "threads"]].iloc[0]
    if not wanted.better:
        ranked = ranked.assign(rank=math.nan, tied=-1)
    measured = summary.assign(
        statuses=statuses,
        source="measured",
        device=device,
        dtype=dtype,
        rank=summary.solver_label.map(ranked["rank"]),
        tied=summary.solver_label.map(ranked.tied),
    )
    if wanted.is_time:
        measured["threads"] = threads
    quoted = extra.assign(
        solver_label=extra.solver,
        mean=extra.value,
        statuses=extra.note,
        source=extra.tag + ": " + extra.source,
    )
    columns = [
        "task_label",
        "solver_label",
        "trivial",
        "metric",
        "unit",
        "mean",
        "low",
        "high",
        "rank",
        "tied",
        "n_ok",
        "n_runs",
        "n_seeds",
        "statuses",
    ]
    columns += ["source", "device", "dtype", "threads"]
    both = [
        frame.assign(metric=wanted.name, unit=wanted.unit).reindex(columns=columns)
        for frame in (measured, quoted)
        if len(frame)
    ]
    return pd.concat([frame.astype(object) for frame in both])
