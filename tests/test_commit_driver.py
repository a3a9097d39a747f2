"""The driver that compares two commits: its verdicts on a small repository of benchmarks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


pytest.importorskip("asv")

DRIVER = Path(__file__).parent / "perf" / "compare_commits.py"

BENCHMARKS = """
import tiny


class Tiny:
    number, repeat, warmup_time = 1, 3, 0.0

    def time_work(self):
        tiny.work()

    def time_other(self):
        tiny.other()

    def track_error(self):
        return tiny.ERROR
"""

CODE = """
import time

ERROR = 1.0


def work():
    time.sleep(0.02)


def other():
    time.sleep(0.02)
"""


def git(repo: Path, *arguments: str) -> str:
    """Call git with an author that nobody is."""
    identity = ["-c", "user.name=tests", "-c", "user.email=tests@example.org"]
    return subprocess.run(
        ["git", "-C", str(repo), *identity, *arguments], check=True, capture_output=True, text=True
    ).stdout


def change(repo: Path, file: str, old: str, new: str) -> None:
    """Commit a change of one file."""
    text = (repo / file).read_text()
    assert old in text
    (repo / file).write_text(text.replace(old, new))
    git(repo, "commit", "--all", "--message", "change")


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A repository with one commit, tagged ``base``."""
    folder = tmp_path / "repo"
    (folder / "perf").mkdir(parents=True)
    (folder / "asv.conf.json").write_text(json.dumps({"project": "tiny", "benchmark_dir": "perf"}))
    (folder / "perf" / "__init__.py").write_text("")
    (folder / "perf" / "bench_tiny.py").write_text(BENCHMARKS)
    (folder / "tiny.py").write_text(CODE)
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--message", "start")
    git(folder, "tag", "base")
    return folder


def compare(repo: Path, base: str, new: str, rounds: int = 2) -> subprocess.CompletedProcess[str]:
    """Call the driver, and see that it left the repository as it was."""
    command = [
        sys.executable,
        str(DRIVER),
        base,
        new,
        "--rounds",
        str(rounds),
        "--factor",
        "1.5",
        "--repo",
        str(repo),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert len(git(repo, "worktree", "list").splitlines()) == 1
    assert git(repo, "status", "--porcelain") == ""
    return done


@pytest.mark.slow
def test_the_same_code_is_no_regression(repo):
    done = compare(repo, "base", "base")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no regression beyond 1.5" in done.stdout
    assert "bench_tiny.Tiny.time_work" in done.stdout


@pytest.mark.slow
def test_a_planted_slow_down_and_a_worse_tracked_value_are_named_and_nothing_else_is(repo):
    change(
        repo, "tiny.py", "def work():\n    time.sleep(0.02)", "def work():\n    time.sleep(0.06)"
    )
    change(repo, "tiny.py", "ERROR = 1.0", "ERROR = 2.0")
    done = compare(repo, "base", "HEAD")
    assert done.returncode == 1, done.stdout + done.stderr
    assert (
        done.stdout.splitlines()[-1]
        == "regression beyond 1.5: bench_tiny.Tiny.time_work, bench_tiny.Tiny.track_error"
    )
    assert (
        compare(repo, "HEAD", "base", rounds=1).returncode == 0
    )  # the other way round it is an improvement


@pytest.mark.slow
def test_a_benchmark_that_raises_breaks_the_comparison(repo):
    change(repo, "tiny.py", "def work():\n", "def work():\n    raise RuntimeError('planted')\n")
    done = compare(repo, "base", "HEAD", rounds=1)
    assert done.returncode == 2
    assert "benchmark bench_tiny.Tiny.time_work fails on HEAD" in done.stderr
    assert "planted" in done.stderr


@pytest.mark.slow
def test_a_benchmark_that_only_the_new_commit_can_run_is_shown_and_not_compared(repo):
    change(repo, "tiny.py", "def other()", "def another()")
    change(repo, "perf/bench_tiny.py", "tiny.other()", "tiny.another()")
    done = compare(repo, "base", "HEAD", rounds=1)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "time_other" in line]
    assert line.endswith("not compared")


def test_a_commit_that_does_not_exist_is_refused(repo):
    done = compare(repo, "base", "nowhere")
    assert done.returncode == 2
    assert "no commit 'nowhere'" in done.stderr


def test_code_from_elsewhere_is_not_measured(repo):
    change(repo, "asv.conf.json", '"tiny"', '"json"')
    done = compare(repo, "base", "HEAD")
    assert done.returncode == 2
    assert "json is imported from" in done.stderr
