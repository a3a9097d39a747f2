"""What a GPU is to show: the suites gpu-* name what is there, and `tests/perf/gpu.sh` runs all of
its parts, on a CPU at tiny sizes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from otbench.registry import registry
from otbench.runner.devices import find_device
from otbench.runner.plan import suites
from tests.conftest import rows


ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "tests" / "perf" / "gpu.sh"
SUITES = [name for name in suites() if name.startswith("gpu-")]


def call(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHON": sys.executable}
    command = [str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300)


def test_the_script_runs_every_suite_and_the_suites_are_there():
    named = [word for word in SCRIPT.read_text().split() if word in SUITES]
    assert sorted(set(named)) == sorted(SUITES) and len(SUITES) == 5


@pytest.mark.parametrize("name", SUITES)
def test_what_a_suite_selects_can_be_built(name):
    suite = suites()[name]
    for kind, texts in (("task", suite.tasks), ("solver", suite.solvers)):
        for text in texts:
            for selection in registry(kind).select(text):  # type: ignore[arg-type]
                selection.build()
    assert suite.together in (1, suite.seeds)  # all seeds are one stack


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--bugdet", 5), "unknown option --bugdet"),
        (("--budget", "9m"), "--budget 9m: give whole seconds"),
        pytest.param(
            (),
            "no GPU to run on: --device cuda: torch sees no CUDA device here",
            marks=pytest.mark.skipif(find_device("auto") != "cpu", reason="there is a GPU"),
        ),
    ],
)
def test_what_it_cannot_run_it_says_in_one_line(arguments, said, tmp_path):
    done = call(*arguments, cwd=tmp_path)
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_rehearsal_runs_all_parts_and_prints_a_table_last(tmp_path):
    done = call("out", "--rehearse", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    parts = (tmp_path / "out" / "parts.txt").read_text()
    names = ["tests", "step-max-min", "step-critic", "gpu-rehearsal"]
    assert [line.split(":")[0] for line in parts.splitlines()] == names
    assert parts.count(": done, ") == 4
    assert {row["solver"] for row in rows(tmp_path / "out" / "results")} == {"identity", "otm"}
    table = (tmp_path / "out" / "table.txt").read_text()
    assert done.stdout.endswith(table)
    for said in ("1 skipped" if find_device("auto") == "cpu" else "passed", "in a stack of 2"):
        assert said in table
    assert "| identity °" in table


def test_the_interpreter_may_be_given_from_the_folder_one_is_in(tmp_path):
    (tmp_path / "python").symlink_to("/bin/echo")
    env = {**os.environ, "PYTHON": "./python"}
    command = [str(SCRIPT), "out", "--rehearse", "--budget", "40"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and "tests/perf/step.py --device cpu" in done.stdout


def test_what_no_time_is_left_for_is_not_begun(tmp_path):
    done = call("out", "--rehearse", "--budget", 5, cwd=tmp_path)
    assert "tests: not begun, no time was left" in done.stdout
    assert (tmp_path / "out" / "parts.txt").read_text().count("not begun") == 4
