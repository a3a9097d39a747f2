"""Several seeds solved as one: the rows are those of single runs, failures stay with their seed,
ends of the process are told of all.
"""

from __future__ import annotations

import json

import pytest

from otbench.errors import UserError
from otbench.runner import plan
from tests.conftest import rows


BATCHED = '''
"""A batched solver with faults."""

import os
import sys
import time
from dataclasses import dataclass
from typing import ClassVar

from otbench import DivergedError, Solver, Transport


@dataclass(frozen=True)
class Batched(Solver):
    """Shifts by its seed."""

    name: ClassVar[str] = "batched"
    batched: ClassVar[bool] = True
    fault: str = "none"

    def fit(self, problem, run):
        """One at a time."""
        return Transport(push=lambda x: x + 1)

    def fit_together(self, problems, runs):
        """All at once."""
        if self.fault == "die":
            os._exit(3)
        if self.fault == "sleep":
            time.sleep(60)
        if self.fault == "raise":
            raise ValueError("no stack")
        outcomes = [self.fit(problem, run) for problem, run in zip(problems, runs)]
        if self.fault == "diverge":
            outcomes[1] = DivergedError("lost")
        if self.fault == "nan":
            outcomes[1] = Transport(push=lambda x: x / 0)
            for run, outcome in zip(runs, outcomes):
                run.checkpoint(1, outcome)
        if self.fault == "nan on the way":
            runs[1].checkpoint(1, Transport(push=lambda x: x / 0))
        if self.fault == "until mended" and not os.path.exists(__file__ + ".mended"):
            outcomes[1] = DivergedError("lost")
        if self.fault == "no push":
            outcomes[1] = Transport()
        if self.fault == "exit":
            outcomes[1] = Transport(push=lambda x: sys.exit("enough"))
        if self.fault == "push dies":
            outcomes[1] = Transport(push=lambda x: os._exit(4))
        return outcomes[:-1] if self.fault == "too few" else outcomes
'''


@pytest.fixture
def plugin(tmp_path):
    path = tmp_path / "batched.py"
    path.write_text(BATCHED)
    return path


@pytest.mark.slow
def test_rows_of_seeds_solved_together_are_those_of_single_runs(otbench_here, tmp_path):
    grid = (
        "run",
        "-t",
        "gaussian[dim=1]",
        "-s",
        "otp[steps=40,width=16]",
        "mm-r[steps=20,width=16]",
        "--seeds",
        3,
        "--dtype",
        "float64",
        "--jobs",
        2,
    )
    otbench_here(*grid, "--results", "alone")
    otbench_here(*grid, "--together", 2, "--results", "together")
    alone, together = (
        {(row["solver"], row["seed"]): row for row in rows(tmp_path / name)}
        for name in ("alone", "together")
    )
    assert alone.keys() == together.keys() and len(alone) == 6
    for key, row in together.items():
        single = alone[key]
        assert row["key"] == single["key"] and row["verdict"] == single["verdict"]
        assert row["metric_l2_uvp"] == pytest.approx(single["metric_l2_uvp"], rel=1e-6)
        assert row["metric_saddle_value"] == pytest.approx(single["metric_saddle_value"], rel=1e-6)
        assert [point["step"] for point in row["curve"]] == [
            point["step"] for point in single["curve"]
        ]
        assert ("fit_cold_s" in row) == ("host_peak_mib" in row) != ("fit_together_s" in row)
    # of three seeds two are solved as one, and one is left
    assert sorted(row.get("together", 1) for row in together.values()) == [1, 1, 2, 2, 2, 2]


ENDS = {
    "none": (["ok", "ok", "ok"], ""),
    "diverge": (["diverged", "ok", "ok"], "lost"),
    "nan": (["diverged", "ok", "ok"], "not finite"),
    "nan on the way": (["diverged", "ok", "ok"], "not finite"),
    "no push": (["error", "ok", "ok"], "without push"),
    "exit": (["error", "ok", "ok"], "called sys.exit: enough"),
    "raise": (["error"] * 3, "no stack"),
    "too few": (["error", "ok", "ok"], "shorter"),
    "die": (["crashed"] * 3, "exited with status 3"),
    "push dies": (["crashed", "crashed", "ok"], "exited with status 4"),
    "sleep": (["timeout"] * 3, "killed after 18 s for 3 seeds together"),
}


@pytest.mark.slow
def test_what_ends_one_seed_or_all_is_told(otbench_here, tmp_path, plugin):
    solvers = [f"batched[fault={fault}]" for fault in ENDS]
    grid = (
        "-t",
        "gaussian[dim=1]",
        "-s",
        *solvers,
        "--seeds",
        3,
        "--together",
        3,
        "--jobs",
        2,
        "--plugins",
        plugin,
    )
    otbench_here("run", *grid, "--timeout", "6s", "--results", "out")
    recorded = rows(tmp_path / "out")
    for fault, (statuses, words) in ENDS.items():
        # runs are shuffled, so which seed is the second of the stack is not said
        of_fault = [row for row in recorded if json.loads(row["solver_params"])["fault"] == fault]
        assert sorted(row["status"] for row in of_fault) == statuses, fault
        assert all(words in row["message"] for row in of_fault if row["status"] != "ok"), fault
        assert [row["verdict"] for row in of_fault if row["status"] == "diverged"] == [
            "diverged"
        ] * statuses.count("diverged")


def test_a_seed_that_failed_among_others_is_done_again_alone(otbench_here, tmp_path, plugin):
    grid = (
        "-t",
        "gaussian[dim=1]",
        "-s",
        "batched[fault=until mended]",
        "--seeds",
        3,
        "--together",
        3,
        "--jobs",
        2,
        "--plugins",
        plugin,
        "--results",
        "out",
    )
    assert "1 diverged" in otbench_here("run", *grid).stdout
    (tmp_path / "batched.py.mended").touch()
    again = otbench_here("run", *grid, "--rerun", "failed")
    assert "2 already recorded under out, 1 to do" in again.stdout
    recorded = rows(tmp_path / "out")
    assert (
        len(recorded) == 4
        and len({row["key"] for row in recorded}) == 3
        and recorded[-1]["status"] == "ok"
    )
    assert "3 already recorded under out, 0 to do" in otbench_here("run", *grid).stdout


def test_seeds_that_a_solver_does_not_take_are_skipped_together(otbench_here, tmp_path):
    otbench_here(
        "run",
        "-t",
        "point-clouds[n=20,m=20]",
        "-s",
        "otm",
        "--seeds",
        2,
        "--together",
        2,
        "--jobs",
        2,
        "--results",
        "out",
    )
    assert [(row["status"], row["message"]) for row in rows(tmp_path / "out")] == [
        ("skipped", "takes map problems only")
    ] * 2


def test_a_time_that_only_the_whole_has_is_named_as_such(otbench_here, plugin):
    otbench_here(
        "run",
        "-t",
        "gaussian[dim=1]",
        "-s",
        "batched",
        "--seeds",
        2,
        "--together",
        2,
        "--jobs",
        2,
        "--plugins",
        plugin,
        "--results",
        "out",
    )
    board = otbench_here("leaderboard", "out", "--metric", "fit_s")
    assert (
        board.returncode == 0
        and "\N{EN DASH} together" in board.stdout
        and "the whole took" in board.stdout
    )


def test_groups_are_of_one_task_and_one_batched_solver():
    tasks = plan.select("task", ["gaussian", "petals"], ())
    solvers = plan.select("solver", ["otm", "identity"], ())
    groups = plan.grouped(plan.expand(tasks, solvers, range(5), "cpu", "float32"), 2)
    assert sorted(len(group) for group in groups) == [1] * 12 + [2] * 4
    for group in groups:
        assert len({(run.task, run.solver) for run in group}) == 1
        assert len(group) == 1 or group[0].solver == "otm"
    assert sum(map(len, groups)) == 20


def test_a_preset_is_a_set_of_values_under_a_name():
    (paper,) = plan.select("solver", ["otm[preset=paper]"], ())
    # the notebooks for points of the plane (Rout et al. 2022); none of it follows when the defaults
    # are tuned
    settings = {
        "map_updates": 16,
        "batch": 400,
        "lr": 1e-3,
        "lr_potential": 1e-3,
        "beta1": 0.5,
        "beta2": 0.99,
        "width": 128,
        "depth": 3,
    }
    assert (
        dict(paper.params).items() >= {**settings, "decay": "none", "ema": 0.0, "pull": 0.0}.items()
        and paper.label == "otm[preset=paper]"
    )
    (longer,) = plan.select("solver", ["otm[steps=7,preset=paper]"], ())
    assert longer.label == "otm[preset=paper,steps=7]" and plan.select(
        "solver", [longer.label], ()
    ) == [longer]
    both = plan.select("solver", ["otm[preset=[cpu,paper]]"], ())
    assert [selection.label for selection in both] == ["otm", "otm[preset=paper]"]
    with pytest.raises(
        UserError,
        match=r"unknown preset 'papr' of otm; did you mean 'paper'\?; it has cpu, paper, ",
    ):
        plan.select("solver", ["otm[preset=papr]"], ())
