"""Whose time, memory and failures are whose: the solver's own, or the task's, which builds the
problem and scores.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

import otbench
from otbench.methods.discrete import solved
from otbench.methods.dual_bound import dual_bound
from otbench.problem import COSTS, DiscreteProblem, LazyTruth, Truth
from otbench.report.leaderboard import leaderboard
from otbench.runner.executor import Limits
from otbench.scoring.plans import score_plans
from otbench.statuses import Status
from tests import synthetic
from tests.conftest import HOSTILE


MIB = 2**20


def ended(
    folder: Path, tasks: Sequence[str], solvers: Sequence[str], limits: Limits, **options: Any
) -> dict[tuple[str, str], dict[str, Any]]:
    """The last row of every task and solver of the plugin, each in a process of its own."""
    found = otbench.run(
        tasks,
        solvers,
        [0],
        limits=limits,
        plugins=[str(HOSTILE)],
        results=folder,
        console=Console(file=io.StringIO()),
        **options,
    )
    rows = [row.dropna().to_dict() for _, row in found.runs.iterrows()]
    return {(row["task_label"], row["solver_label"]): row for row in rows}


def test_a_slow_task_does_not_eat_the_time_of_the_solver(tmp_path):
    slow = {
        ("build", "problem_s"): "laborious[act=sleep,seconds=2]",
        ("truth", "score_s"): "laborious[where=truth,act=sleep,seconds=2]",
    }
    solver = "hostile[act=plain_plan]"
    rows = ended(tmp_path, [*slow.values()], [solver], Limits(seconds=1), jobs=2)
    for (_, column), task in slow.items():
        row = rows[task, solver]
        assert row["status"] == "ok" and row[column] > 2 and row["fit_cold_s"] < 1
    short = Limits(seconds=60, task_seconds=0.5)
    rows = ended(tmp_path, [*slow.values()], [solver], short, jobs=2, rerun="all")
    for (where, _), task in slow.items():
        row, phase = rows[task, solver], {"build": "build", "truth": "score"}[where]
        assert (row["status"], row["phase"]) == ("broken", phase)
        assert row["message"].startswith(f"killed after 0.5 s, in phase {phase}")


def test_the_time_limit_names_the_phase_of_the_solver(tmp_path):
    sleepers = {
        ("laborious", "lazy_plan"): "fit",
        ("gaussian[dim=1]", "sleep_in_fit"): "fit",
        ("gaussian[dim=1]", "sleep_in_push"): "push",
        ("gaussian[dim=1]", "sleep_in_sample"): "push",
    }
    tasks = ["laborious", "gaussian[dim=1]"]
    solvers = {act: f"hostile[act={act},seconds=30]" for _, act in sleepers}
    rows = ended(tmp_path, tasks, [*solvers.values()], Limits(seconds=2), jobs=8)
    for (task, act), phase in sleepers.items():
        row = rows[task, solvers[act]]
        assert (row["status"], row["phase"]) == ("timeout", phase), act
        assert row["message"] == f"killed after 2 s, in phase {phase}; give more with --timeout"


def test_a_death_is_told_by_its_phase(tmp_path):
    ends = {
        ("laborious[act=die]", "plain_plan"): ("broken", "build"),
        ("laborious[where=truth,act=die]", "plain_plan"): ("broken", "score"),
        ("gaussian[dim=1]", "kill_self"): ("crashed", "fit"),
        ("gaussian[dim=1]", "die_in_push"): ("crashed", "push"),
        ("gaussian[dim=1]", "raise"): ("error", "fit"),
        ("gaussian[dim=1]", "wrong_shape"): ("error", "score"),
    }
    tasks = [*dict.fromkeys(task for task, _ in ends)]
    solvers = [*dict.fromkeys(f"hostile[act={act}]" for _, act in ends)]
    rows = ended(tmp_path, tasks, solvers, Limits())
    for (task, act), (status, phase) in ends.items():
        row = rows[task, f"hostile[act={act}]"]
        assert (row["status"], row["phase"]) == (status, phase), act
        if "SIGKILL" in row["message"]:
            assert row["message"].endswith(f"in phase {phase}")


def test_memory_of_a_truth_is_not_that_of_the_solver(tmp_path):
    task, solver = "laborious[where=truth,act=hoard]", "hostile[act=plain_plan]"
    (row,) = ended(tmp_path, [task], [solver], Limits(bytes=1000 * MIB)).values()
    assert row["status"] == "ok" and row["host_peak_mib"] < 100
    tight = Limits(bytes=1000 * MIB, task_bytes=0)
    (row,) = ended(tmp_path, [task], [solver], tight, rerun="all").values()
    assert (row["status"], row["phase"]) == ("broken", "score")
    assert "over the limit of 1000 MiB, in phase score" in row["message"]


def test_a_broken_run_counts_against_nobody(tmp_path):
    assert not Status.BROKEN.failed and Status.CRASHED.failed
    runs = [
        synthetic.row("t", "good", metric_l2_uvp=1.0),
        synthetic.row("t", "unlucky", status="broken"),
        synthetic.row("t", "bad", status="crashed"),
    ]
    lines = synthetic.lines(leaderboard(synthetic.write(tmp_path, runs), metrics=["l2_uvp"]))
    assert lines["unlucky"][-1] == "broken" and lines["bad"][-1] == "crashed 1/1"


def clouds(cost: str, n: int, m: int, dim: int = 3) -> DiscreteProblem:
    """Random clouds, some points without mass."""
    rng = np.random.default_rng(0)
    x, y = (torch.tensor(rng.standard_normal((k, dim))) for k in (n, m))
    a, b = (torch.tensor(rng.dirichlet(np.ones(k))) for k in (n, m))
    a[0], b[-1] = 0, 0
    ground = COSTS[cost]
    return DiscreteProblem(
        ground.project(x), a / a.sum(), ground.project(y), b / b.sum(), ground, Truth("none")
    )


def test_a_truth_is_solved_for_when_it_is_asked_for():
    asked = []

    def solve(pair: DiscreteProblem) -> Truth:
        asked.append(pair)
        return Truth("lp", 1.0, plan=pair.x)

    pair = clouds("sqeuclidean", 3, 3)
    pair = replace(pair, truth=LazyTruth("lp", solve, pair))
    kept = copy.deepcopy(pair)
    assert repr(pair) and pair.truth.certificate == "lp" and not asked
    pair.x.zero_()  # by a solver, in its own copy
    assert kept.truth.plan is kept.x and kept.truth.cost == 1.0 and kept.x.any()
    assert len(asked) == 1 and asked[0].x is kept.x


@pytest.mark.parametrize("cost", sorted(COSTS))
def test_the_bound_by_weak_duality_is_below_the_optimum_and_near(monkeypatch, cost):
    pair = clouds(cost, 300, 200)
    bound, optimum = dual_bound(pair), solved(pair).truth.cost
    assert optimum is not None and 0.96 * optimum < bound <= optimum * (1 + 1e-12)
    monkeypatch.setattr("otbench.metrics.plans.BLOCK", 3000)
    assert dual_bound(pair) == pytest.approx(bound, rel=1e-5)


def test_a_problem_too_large_to_solve_is_scored_by_a_bound_and_says_why(monkeypatch):
    known = otbench.solve("point-clouds[n=60,m=50]", "pot-sliced-plan").row
    monkeypatch.setattr("otbench.methods.discrete.SOLVED", 2999)
    row = otbench.solve("point-clouds[n=60,m=50]", "pot-sliced-plan").row
    assert row.status == "ok" and set(row.metrics) == {"marginal_l1", "cost_gap_bound"}
    assert row.metrics["marginal_l1"] == known.metrics["marginal_l1"]
    gap = known.metrics["cost_gap"]
    assert gap <= row.metrics["cost_gap_bound"] < 1.1 * gap + 0.05
    left_out = set(known.metrics) - {"marginal_l1"}
    assert left_out == {"cost_gap", "barycentric_uvp", "plan_rmse", "plan_tv"}
    for name in left_out:
        assert "60 x 50 costs are more than the 2999" in str(row.info[name])
    entropic = otbench.solve("supply-demand[supply=60,demand=60,eps=0.5]", "independent").row
    assert set(entropic.metrics) == {"marginal_l1"} and "entropic_gap" in entropic.info


@pytest.mark.parametrize("eps", [0.0, 0.5])
def test_scores_in_blocks_in_any_layout_are_those_of_the_whole_plan(monkeypatch, eps):
    pair = solved(replace(clouds("sqeuclidean", 40, 30), eps=eps))
    generator = torch.Generator().manual_seed(0)
    plan = torch.rand(40, 30, generator=generator, dtype=torch.float64)
    plan = torch.where(plan > 0.8, plan, 0.0)
    plan = 1.1 * plan / plan.sum()  # misses its marginals
    whole = score_plans([pair], [plan])
    sparse = score_plans([pair], [plan.to_sparse()])
    monkeypatch.setattr("otbench.metrics.plans.BLOCK", 7 * 30)
    assert len(whole) == (6 if eps else 5)
    for scores in (sparse, score_plans([pair], [plan]), score_plans([pair], [plan.to_sparse()])):
        assert scores == pytest.approx(whole, rel=1e-12)
