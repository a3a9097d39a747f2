"""The sentence that a run on one's own data ends with."""

from __future__ import annotations

import pandas as pd

from otbench.report.recommendation import recommendations
from otbench.store import Results


def results(*rows: tuple[str, int, str, str, float, float]) -> Results:
    names = ["solver_label", "seed", "status", "verdict", "metric_target_gap", "fit_warm_s"]
    runs = pd.DataFrame(rows, columns=names).assign(
        task="samples", task_label="samples[a,b]", control=False, fit_cold_s=9.0, gpu_runs=None
    )
    runs["verdict"] = runs.verdict.replace("", None)
    return Results(runs, pd.DataFrame(), pd.DataFrame())


def several(solver: str, gaps: list[float], fit_s: float, verdict: str = "ok"):
    return [(solver, seed, "ok", verdict, gap, fit_s) for seed, gap in enumerate(gaps)]


def test_the_best_those_within_error_and_the_fastest_of_them() -> None:
    found = recommendations(
        results(
            *several("exact", [0.10, 0.12, 0.11], 3.0),
            *several("close", [0.11, 0.12, 0.105], 0.2),
            *several("worse", [0.30, 0.33, 0.31], 0.1),
            *several("wrong", [0.01, 0.01, 0.01], 0.1, "inaccurate"),
        )
    )
    assert found == [
        "samples[a,b]: lowest target_gap: exact; within error of it: close; fastest of them: "
        "close (0.200 s)"
    ]


def test_a_solver_that_failed_once_does_not_work() -> None:
    rows = several("exact", [0.1, 0.1], 1.0)
    failing = [("lucky", 0, "ok", "ok", 0.05, 1.0), ("lucky", 1, "crashed", "", float("nan"), 1.0)]
    (found,) = recommendations(results(*rows, *failing))
    assert found == "samples[a,b]: lowest target_gap: exact; fit 1.00 s"


def test_where_none_works_it_says_so_and_why() -> None:
    rows = several("flat", [1.0, 1.0], 1.0, "inaccurate")
    crashed = [("broken", seed, "crashed", "", float("nan"), 1.0) for seed in (0, 1)]
    (found,) = recommendations(results(*rows, *crashed))
    assert found == "samples[a,b]: no solver works (flat inaccurate; broken crashed)"


def test_one_seed_knows_no_error() -> None:
    rows = [*several("a", [0.1], 1.0), *several("b", [0.2], 0.1)]
    (found,) = recommendations(results(*rows))
    assert "lowest target_gap: a (one seed: no error is known)" in found


def test_other_tasks_have_no_recommendation() -> None:
    found = results(*several("a", [0.1, 0.2], 1.0))
    other = found.runs.assign(task="gaussian")
    assert recommendations(Results(other, found.metrics, found.curves)) == []
