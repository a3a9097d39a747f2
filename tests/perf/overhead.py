"""What a run costs beside its work: the wall time of a grid of runs that do nothing, and where it
goes.

    python tests/perf/overhead.py [--runs 200] [--jobs 2] [--rounds 3] [--benchopt EXECUTABLE]

Each run is a discrete problem of 4 x 4 points with the product plan. With ``--benchopt`` the same
grid (same problem, same plan, same metric, one evaluation per run, no plots) is run by benchopt
too, in alternation, and the ratio of medians is printed. benchopt runs in reused processes (no
isolation) and, without ``--cache``, keeps nothing on disk before the end; with it each run is kept
as it ends.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path


PLUGIN = '''
"""A problem and a solver that take no time."""

from dataclasses import dataclass
from typing import ClassVar

from otbench import SQEUCLIDEAN, DiscreteProblem, Solver, Task, Transport, Truth


@dataclass(frozen=True)
class Nothing(Task):
    """Four points."""

    name: ClassVar[str] = "nothing"
    setting: ClassVar[str] = "discrete"

    def problem(self, rng, *, device, dtype):
        """Drawn from rng."""
        import torch

        x = torch.as_tensor(rng.standard_normal((4, 2)), device=device, dtype=dtype)
        a = x.new_full((4,), 0.25)
        return DiscreteProblem(x, a, x + 1, a, SQEUCLIDEAN, Truth("closed_form", 2.0))


@dataclass(frozen=True)
class Product(Solver):
    """The product of the marginals."""

    name: ClassVar[str] = "product"
    trivial: ClassVar[bool] = True
    variant: int = 0

    def fit(self, problem, run):
        """Nothing to fit."""
        return Transport(plan=lambda pair: pair.a[:, None] * pair.b)
'''

BENCHOPT = {
    "objective.py": """
from benchopt import BaseObjective
import numpy as np


class Objective(BaseObjective):
    name = "nothing"
    url = "https://example.org"
    min_benchopt_version = "1.5"
    sampling_strategy = "run_once"

    def set_data(self, x, y):
        self.x, self.y, self.a = x, y, np.full(len(x), 1 / len(x))

    def get_objective(self):
        return dict(a=self.a, b=self.a)

    def evaluate_result(self, plan):
        cost = ((self.x[:, None] - self.y) ** 2).sum(2)
        marginal = abs(plan.sum(1) - self.a).sum() + abs(plan.sum(0) - self.a).sum()
        return dict(value=float((plan * cost).sum() / 2 - 1), marginal_l1=float(marginal))

    def get_one_result(self):
        return dict(plan=np.full((4, 4), 1 / 16))
""",
    "datasets/nothing.py": """
from benchopt import BaseDataset
import numpy as np


class Dataset(BaseDataset):
    name = "nothing"

    def get_data(self):
        x = np.random.default_rng(self.get_seed(use_repetition=True)).standard_normal((4, 2))
        return dict(x=x, y=x + 1)
""",
    "solvers/product.py": """
from benchopt import BaseSolver


class Solver(BaseSolver):
    name = "product"
    parameters = {"variant": [0, 1]}

    def set_objective(self, a, b):
        self.a, self.b = a, b

    def run(self, _):
        self.plan = self.a[:, None] * self.b

    def get_result(self):
        return dict(plan=self.plan)
""",
}


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--runs", type=int, default=200, help="runs per grid, an even number")
    options.add_argument("--jobs", type=int, default=2)
    options.add_argument("--rounds", type=int, default=3, help="grids run by each suite")
    options.add_argument("--benchopt", metavar="EXECUTABLE", help="the benchopt to compare with")
    options.add_argument(
        "--cache",
        action="store_true",
        help="let benchopt keep each run on disk, as it does by default",
    )
    chosen = options.parse_args()
    seeds = chosen.runs // 2
    walls: dict[str, list[float]] = {"otbench": []} | ({"benchopt": []} if chosen.benchopt else {})
    phases: list[dict[str, float]] = []
    for _ in range(chosen.rounds):
        wall, where = otbench_seconds(seeds, chosen.jobs)
        walls["otbench"].append(wall)
        phases.append(where)
        if chosen.benchopt:
            walls["benchopt"].append(
                benchopt_seconds(chosen.benchopt, seeds, chosen.jobs, chosen.cache)
            )

    print(
        f"{2 * seeds} runs, {chosen.jobs} jobs, {chosen.rounds} rounds; wall seconds of the whole "
        "command\n"
    )
    for name, seconds in walls.items():
        median = statistics.median(seconds)
        print(
            f"{name:10} {median:7.2f} s, {1e3 * median / (2 * seeds):7.1f} ms per run   "
            f"({', '.join(f'{s:.2f}' for s in seconds)})"
        )
    if chosen.benchopt:
        print(
            "\notbench / benchopt: "
            f"{statistics.median(walls['otbench']) / statistics.median(walls['benchopt']):.2f}"
        )
    print("\nwhere otbench's time goes (medians over the rounds)")
    for name in phases[0]:
        print(f"  {name:58} {statistics.median(phase[name] for phase in phases):9.4f} s")


def otbench_seconds(seeds: int, jobs: int) -> tuple[float, dict[str, float]]:
    """Wall seconds of the grid, and where they go."""
    with tempfile.TemporaryDirectory() as folder:
        plugin = Path(folder, "nothing.py")
        plugin.write_text(PLUGIN)
        command = [
            sys.executable,
            "-m",
            "otbench",
            "run",
            "-t",
            "nothing",
            "-s",
            "product[variant=[0,1]]",
            "--device",
            "cpu",
        ]
        command += [
            "--seeds",
            str(seeds),
            "--jobs",
            str(jobs),
            "--plugins",
            str(plugin),
            "--results",
            f"{folder}/runs",
        ]
        began, wall = time.time(), seconds_of(command, {})
        (file,) = Path(folder, "runs").rglob("rows.jsonl")
        rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(rows) == 2 * seeds and all(row["status"] == "ok" for row in rows), (
        "a trivial run failed"
    )
    ends = [datetime.fromisoformat(row["when"]).timestamp() for row in rows]
    slot = (ends[-1] - ends[0]) / (len(rows) - 1) * jobs
    inside = {
        name: statistics.median(row[name] for row in rows)
        for name in ("problem_s", "fit_cold_s", "score_s")
    }
    return wall, {
        "before the first row: start, fork server, imports, one run": ends[0] - began,
        "between the first row and the last": ends[-1] - ends[0],
        "after the last row: leaderboard, end": began + wall - ends[-1],
        "one run, in its slot": slot,
        "  of which building the problem": inside["problem_s"],
        "  of which first fit": inside["fit_cold_s"],
        "  of which scoring": inside["score_s"],
        "  of which the rest: fork, repeats, result, clean-up, fsync": slot - sum(inside.values()),
    }


def benchopt_seconds(executable: str, seeds: int, jobs: int, cache: bool) -> float:
    """Wall seconds of the same grid under benchopt."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in BENCHOPT.items():
            Path(folder, name).parent.mkdir(exist_ok=True)
            Path(folder, name).write_text(text)
        command = [
            executable,
            "run",
            folder,
            "-r",
            str(seeds),
            "-n",
            "1",
            "-j",
            str(jobs),
            "--no-plot",
            "--no-html",
            "--no-display",
        ]
        command += ["--output", f"{folder}/result.parquet", *([] if cache else ["--no-cache"])]
        wall = seconds_of(command, {"HOME": folder})
        assert Path(folder, "result.parquet").is_file(), "benchopt wrote no result"
    return wall


def seconds_of(command: list[str], extra: Mapping[str, str]) -> float:
    """Wall seconds of a command that must succeed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **extra}
    began = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: exit status {done.returncode}\n{done.stderr}{done.stdout}")
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
