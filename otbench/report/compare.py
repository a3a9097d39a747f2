"""Compare two sets of results, run by run: did accuracy, time or memory get worse?

Runs are paired by key (the same task, solver, parameters, seed, device and dtype). For each task,
solver and quantity the seeds give log ratios log(new / base), whose mean is the log of the
geometric mean ratio. It is a regression if that ratio exceeds ``factor`` and Student's one-sided
paired test says "worse" at 5 % after Holm's correction over all tests of that quantity (accuracy at
equal seeds is nearly exact and must not pay for the noise of times), so that comparing equals
seldom raises a false alarm. Since few seeds cannot carry many corrections, each solver is also
tested over all its tasks at once (one mean log ratio per task). A run that was ok and now fails is
always a regression. One seed cannot be tested. Times are called only where both sides were
measured in turn, on one machine and under like load, see `otbench.report.comparable`.

What a ratio is made of (lower is better, never negative):

    better lower
    value, and value + target_noise for ``target_gap``, so that near zero it is not noise that is
        compared
    better one       |value - 1|
    better higher    1 - value where the unit is 1 (cosines), else 1 / value

each plus a tolerance, so that rounding errors (a UVP of 1e-10 against 1e-13 %) are no ratio of a
million: `TOLERANCE` of its unit, or `RELATIVE` times the worst value any solver has on that task in
the base, whichever is larger.
"""

# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportIndexIssue=false
# pyright: reportReturnType=false
# (pandas' own annotations join all that an operation may return, so that they fit almost nothing)

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otbench.errors import UserError
from otbench.metrics import METRICS
from otbench.report import comparable, stats
from otbench.report.quantities import FIT, Quantity, measured, quantity
from otbench.report.selected import by_name, has_failed, select
from otbench.report.tables import plain_table
from otbench.store import load


if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

TOLERANCE = {
    "%": 1e-4,
    "s": 1e-4,
    "µs per point": 1e-2,
    "ms per pair": 1e-1,
    "MiB": 8.0,
}  # by unit; any other: 1e-6
RELATIVE = 1e-4
COSTS = (FIT, "push_us_per_point", "infer_ms_per_pair", "host_peak_mib", "device_peak_mib")
ALPHA = 0.05
ALL = "(all tasks)"
REFUSED = "not comparable"


@dataclass(frozen=True)
class Comparison:
    """What changed.

    Attributes:
        changes: one row per task, solver and quantity: ``task_label, solver_label, quantity, n,
            ratio, low, high, p, verdict, reason``. ``p`` is Holm-adjusted, empty if untested;
            ``verdict`` is ``regression``, ``unsure`` (above the factor, not significant),
            ``untested`` (above the factor, one seed), ``improved``, ``same``, or of times ``not
            comparable``, with the reason.
        statuses: one row per run that was ok on one side only: ``task_label, solver_label, seed,
            base, new, message``.
        notes: what was not compared and why.
        paired: number of runs on both sides.
        factor: the ratio from which worse counts.
    """

    changes: pd.DataFrame
    statuses: pd.DataFrame
    notes: tuple[str, ...]
    paired: int
    factor: float

    @property
    def refused(self) -> pd.DataFrame:
        """The times among ``changes`` that are not comparable."""
        return self.changes[self.changes.verdict == REFUSED]

    @property
    def regressions(self) -> list[str]:
        """One line per regression; empty if there is none."""
        worse = self.changes[self.changes.verdict == "regression"]
        lines = [
            f"{r.quantity} of {r.solver_label} on {r.task_label}: x {r.ratio:.2f}"
            for r in worse.itertuples()
        ]
        failed = self.statuses[(self.statuses.base == "ok") & has_failed(self.statuses.new)]
        return lines + [
            f"{r.solver_label} on {r.task_label}, seed {r.seed}: ok -> {r.new}"
            for r in failed.itertuples()
        ]


def compare(base: Path, new: Path, factor: float = 1.25) -> Comparison:
    """Compare the runs of two results folders.

    Args:
        base: the folder to compare to.
        new: the folder in question.
        factor: the ratio new / base from which a change counts, above 1.

    Raises:
        UserError: a folder does not exist, no run stands on both sides, or the factor is not above
            1.
    """
    import numpy as np
    import pandas as pd

    if not factor > 1:
        raise UserError(f"the factor must be above 1, got {factor:g}")
    sides = [_named(select(load(folder).runs, None)) for folder in (base, new)]
    common = sides[0].index.intersection(sides[1].index)
    if common.empty:
        raise UserError(
            "no run stands on both sides: the same tasks, solvers, parameters, seeds, device and "
            "dtype are needed"
        )
    old, now = (side.loc[common] for side in sides)
    notes = []
    for name, side in zip(("base", "new"), sides, strict=True):
        alone = side.loc[side.index.difference(common)]
        if len(alone):
            notes.append(f"{len(alone)} runs only in {name}: {by_name(alone)}")
    for name in ("task", "solver"):
        pairs = zip(old[f"{name}_label"], old[f"{name}_params"], now[f"{name}_params"], strict=True)
        notes += dict.fromkeys(
            f"{name} {label} has other parameters: {_differing(*params)}"
            for label, *params in pairs
            if params[0] != params[1]
        )
    if (old.schema != now.schema).any():
        notes.append("some rows are of different schemas: what code they are of cannot be compared")
    alike = old.schema == now.schema
    for name in ("task", "solver"):
        was, column = old[f"{name}_hash"], now[f"{name}_hash"]
        other = alike & was.notna() & (was != column)
        if changed := sorted(set(old[name][other])):
            notes.append(f"the source of {name} {', '.join(changed)} differs between the two sides")
    if (alike & old.scoring_hash.notna() & (old.scoring_hash != now.scoring_hash)).any():
        notes.append("the source of the scoring differs between the two sides")
    together = old.together.notna() | now.together.notna()
    if together.any():
        notes.append(
            f"times and memory of {together.sum()} runs whose seeds were solved together with "
            "others not compared"
        )

    ok = (old.status == "ok") & (now.status == "ok")
    apart = ok & ~together
    obstacles = comparable.obstacles(old[apart], now[apart])
    rows = []
    for wanted in _quantities(old):
        logs = _log_ratios(old[ok], now[ok], wanted)[(wanted.is_metric | apart)[ok]].dropna()
        names = old.loc[logs.index, ["solver_label", "task_label"]]
        if wanted.is_time:
            names["reason"] = obstacles[logs.index]
            refused = names[names.reason != ""]
            rows += [
                _row(task, solver, wanted.name, logs[group.index].to_numpy(float), reason)
                for (solver, task, reason), group in refused.groupby(list(names))
            ]
            logs = logs.drop(refused.index)
        for solver, of_solver in logs.groupby(names.solver_label):
            groups = {
                task: group.to_numpy(float) for task, group in of_solver.groupby(names.task_label)
            }
            if len(groups) > 1:
                groups = {ALL: np.array([values.mean() for values in groups.values()]), **groups}
            rows += [
                _row(task, str(solver), wanted.name, values) for task, values in groups.items()
            ]
    columns = ["task_label", "solver_label", "quantity", "n", "ratio", "low", "high", "p", "reason"]
    changes = pd.DataFrame(rows, columns=columns)
    changes["p"] = changes.p.astype(float)
    for _, tested in changes[changes.p.notna()].groupby("quantity"):
        changes.loc[tested.index, "p"] = stats.holm(tested.p)
    changes["verdict"] = [_verdict(row, factor) for row in changes.itertuples()]

    flipped = old[(old.status == "ok") != (now.status == "ok")].index
    statuses = old.loc[flipped, ["task_label", "solver_label", "seed"]].assign(
        base=old.status[flipped], new=now.status[flipped], message=now.message[flipped]
    )
    return Comparison(changes, statuses.reset_index(drop=True), tuple(notes), len(common), factor)


def render(comparison: Comparison) -> str:
    """A table of what changed and a line with the verdict."""
    changes, factor = comparison.changes, comparison.factor
    order = {name: i for i, name in enumerate(("regression", "unsure", "untested", "improved"))}
    shown = changes[changes.verdict.isin(list(order))].sort_values(
        "verdict", key=lambda v: v.map(order), kind="stable"
    )
    lines = [["verdict", "quantity", "solver", "task", "new/base", "95 % interval", "n", "p"]]
    for r in shown.itertuples():
        interval = "" if math.isnan(r.low) else f"{r.low:.2f} to {r.high:.2f}"
        p = "" if math.isnan(r.p) else f"{r.p:.1g}"
        lines.append(
            [
                r.verdict,
                r.quantity,
                r.solver_label,
                r.task_label,
                f"{r.ratio:.2f}",
                interval,
                str(r.n),
                p,
            ]
        )
    parts = [plain_table(lines)] if len(lines) > 1 else []
    statuses = [
        f"seed {r.seed} of {r.solver_label} on {r.task_label}: {r.base} -> {r.new}"
        for r in comparison.statuses.itertuples()
    ]
    parts += ["\n".join(statuses)] if statuses else []
    parts += ["\n".join(f"note: {note}" for note in comparison.notes)] if comparison.notes else []
    refused = comparison.refused
    parts += ["\n".join(_refusals(refused, factor))] if len(refused) else []
    same, tested = int((changes.verdict == "same").sum()), int(changes.p.notna().sum())
    found = len(comparison.regressions)
    verdict = f"{found} regression{'s' * (found != 1)}" if found else "no regression"
    but = (
        (" of what was compared", f", {len(refused)} times {REFUSED}") if len(refused) else ("", "")
    )
    parts.append(
        f"{verdict}{but[0]}: {comparison.paired} runs on both sides, {len(changes)} quantities, "
        f"{tested} tested (worse by x {factor:g}, p < {ALPHA} after Holm), {same} the same{but[1]}"
    )
    return "\n\n".join(parts) + "\n"


def _refusals(refused: pd.DataFrame, factor: float) -> Iterator[str]:
    """The times that look changed and are not comparable, how many there are in all, and what to
    do.
    """
    changed = refused[(refused.ratio > factor) | (refused.ratio < 1 / factor)]
    names = ["solver_label", "task_label", "reason"]
    for (solver, task, reason), group in changed.groupby(names, sort=False):
        ratios = ", ".join(f"{r.quantity} x {r.ratio:.2f}" for r in group.itertuples())
        yield f"{ratios} of {solver} on {task} {REFUSED}: {reason}"
    cells = refused.drop_duplicates(names)
    causes = ", ".join(f"{kind} ({n})" for kind, n in comparable.kinds(cells.reason).items())
    pairs = f"{len(cells)} pair{'s' * (len(cells) != 1)} of task and solver"
    yield f"times of {pairs} {REFUSED}: {causes}"
    yield comparable.HOW


def _quantities(runs: pd.DataFrame) -> Iterator[Quantity]:
    for name in measured(runs):
        if METRICS[name].better:
            yield quantity(name, runs)
    for name in COSTS:
        if runs[name].notna().any():
            yield quantity(name, runs)


def _named(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs by what they are called: a default that was changed does not unpair them."""
    names = ["task_label", "solver_label", "seed", "device", "dtype"]
    return runs.set_index(runs[names].astype(str).agg(" | ".join, axis=1))


def _differing(old: str, new: str) -> str:
    """Such as ``steps 100 -> 200``; of parameters as JSON."""
    was, now = json.loads(old), json.loads(new)
    return ", ".join(
        f"{name} {was.get(name)} -> {now.get(name)}"
        for name in {**was, **now}
        if was.get(name) != now.get(name)
    )


def _log_ratios(old: pd.DataFrame, now: pd.DataFrame, wanted: Quantity) -> pd.Series:
    """log(new / base) of each run, worse is positive; NaN where either side has no value."""
    import numpy as np
    import pandas as pd

    if wanted.column not in now:
        return pd.Series(np.nan, index=old.index)
    if wanted.name == FIT:  # warm against warm where both sides have it, else cold against cold
        warm = old.fit_warm_s.notna() & now.fit_warm_s.notna()
        before, after = (
            side.fit_warm_s.astype(float).where(warm, side.fit_cold_s) for side in (old, now)
        )
    else:
        before, after = (_positive(side, wanted) for side in (old, now))
    worst = before.where(np.isfinite(before)).groupby(old.task_label).transform("max").fillna(0)
    tolerance = np.maximum(
        TOLERANCE.get(wanted.unit, 1e-6), RELATIVE * worst if wanted.is_metric else 0
    )
    both_infinite = np.isinf(before) & np.isinf(after)
    return np.log((after + tolerance) / (before + tolerance)).mask(both_infinite, 0.0)


def _positive(runs: pd.DataFrame, wanted: Quantity) -> Any:
    """The values of the module's table, before the tolerance."""
    values = runs[wanted.column].astype(float)
    if wanted.name == "target_gap" and "metric_target_noise" in runs:
        values = values + runs.metric_target_noise.astype(float)
    if wanted.better == "higher":
        return (
            (1 - values).clip(lower=0)
            if METRICS[wanted.name].unit == "1"
            else 1 / values.clip(lower=1e-300)
        )
    return wanted.loss(values).clip(lower=0)


def _row(task: str, solver: str, name: str, logs: np.ndarray, reason: str = "") -> tuple:
    """Of what is not comparable there is a ratio, and no more."""
    low, high = (None if reason else stats.mean_interval(logs)) or (math.nan, math.nan)
    return (
        task,
        solver,
        name,
        len(logs),
        math.exp(logs.mean()),
        math.exp(low),
        math.exp(high),
        None if reason else stats.paired_test(logs),
        reason,
    )


def _verdict(row: Any, factor: float) -> str:
    if row.reason:
        return REFUSED
    if row.ratio > factor:
        return "untested" if math.isnan(row.p) else "regression" if row.p < ALPHA else "unsure"
    return "improved" if row.ratio < 1 / factor and row.high < 1 else "same"
