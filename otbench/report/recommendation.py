"""Which solver to take for one's own data: the sentence that ``otbench run`` ends with."""

# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportIndexIssue=false, reportReturnType=false
# (pandas' own annotations join all that an operation may return, so that they fit almost nothing)

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from otbench.report import stats
from otbench.report.quantities import accuracy_of, number, quantity
from otbench.report.selected import timed_alone
from otbench.scoring.verdict import Verdict
from otbench.statuses import Status


if TYPE_CHECKING:
    import pandas as pd

    from otbench.store import Results

OWN = ("samples", "clouds")
LEVEL = 0.05  # of the test that a solver is worse than the best


def recommendations(results: Results) -> list[str]:
    """A sentence for each task on the user's own files.

    A solver works on a task if all of its runs ended ok, and with the verdict ok where there is
    one. The best has the lowest mean loss over the seeds; others are within error where a paired
    test with Holm's correction does not find them worse.
    """
    runs = results.runs[results.runs.status != Status.SKIPPED]
    own = runs[runs.task.isin(OWN) & (runs.control != True)]  # noqa: E712  (or unknown)
    return [
        f"{task}: {_recommended(on_task)}"
        for task, on_task in own.groupby("task_label", sort=False)
    ]


def _recommended(runs: pd.DataFrame) -> str:
    right = (runs.status == Status.OK) & (runs.verdict.isna() | (runs.verdict == Verdict.OK))
    works = right.groupby(runs.solver_label).transform("all")
    if not works.any():
        return f"no solver works ({'; '.join(_why(runs))})"
    runs = runs[works.astype(bool)]
    name = accuracy_of(runs)
    if name is None:
        return "nothing says which solver is best: no accuracy could be measured"
    wanted = quantity(name, runs)
    losses = runs.assign(loss=wanted.loss(runs[wanted.column].astype(float)))
    by_seed = losses.pivot_table(index="solver_label", columns="seed", values="loss")
    best = by_seed.mean(axis=1).idxmin()
    near = _within_error(by_seed, best)
    few = "" if by_seed.shape[1] > 1 else " (one seed: no error is known)"
    also = f"; within error of it: {', '.join(near)}" if near else ""
    times = timed_alone(runs)
    fit_s = times.fit_warm_s.fillna(times.fit_cold_s)
    seconds = fit_s.groupby(runs.solver_label).mean()[[best, *near]].dropna()
    if seconds.empty:
        return f"lowest {name}: {best}{few}{also}; no run was alone on its GPU: no time is known"
    fastest = seconds.idxmin()
    took = f"{number(float(seconds[fastest]))} s"
    fast = f"fastest of them: {fastest} ({took})" if near else f"fit {took}"
    return f"lowest {name}: {best}{few}{also}; {fast}"


def _within_error(by_seed: pd.DataFrame, best: str) -> list[str]:
    """The other solvers that are not found worse than the best one, by solver and seed."""
    others = [solver for solver in by_seed.index if solver != best]
    pairs = [(by_seed.loc[solver] - by_seed.loc[best]).dropna().to_numpy() for solver in others]
    found = [stats.paired_test(differences) for differences in pairs]
    tested = [k for k, p in enumerate(found) if p is not None]
    p_values = dict(zip(tested, stats.holm([found[k] for k in tested]), strict=True))
    return [
        solver
        for k, solver in enumerate(others)
        if p_values.get(k, 0.0) >= LEVEL or not pairs[k].any()
    ]


def _why(runs: pd.DataFrame) -> Sequence[str]:
    """What became of each solver."""
    ended = runs.verdict.where(runs.status == Status.OK, runs.status)
    return [
        f"{solver} {', '.join(map(str, of_solver.unique()))}"
        for solver, of_solver in ended.groupby(runs.solver_label, sort=False)
    ]
