"""The command line, as a user meets it."""

from __future__ import annotations

import ast
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from otbench.cli.options import memory
from otbench.cli.options import seconds as read_seconds
from tests.conftest import HOSTILE, rows
from tests.synthetic import row, write


ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "-t", "gausian"], "unknown task 'gausian'; did you mean 'gaussian'?"),
        (["run", "-s", "idntity"], "unknown solver 'idntity'; did you mean 'identity'?"),
        (["run", "--suite", "quik"], "unknown suite 'quik'; did you mean 'quick'?"),
        (["run", "-t", "gaussian[dim=two]"], "parameter 'dim' of gaussian must be int, got 'two'"),
        (["run", "--timeout", "soon"], "'soon' is not a time such as 90s, 10m or 2h"),
        (["run", "--memory", "lots"], "'lots' is not a size such as 500MiB or 8GiB"),
        (["run", "--seeds", "0"], "'0' is no number of seeds, and no range A:B of them"),
        (["run", "--seeds", "5:3"], "'5:3' is no number of seeds"),
        (["run", "--seeds", "1:2:3"], "'1:2:3' is no number of seeds"),
        (["run", "--seeds", "9" * 30], "is no number of seeds, and no range A:B of them, up to 1"),
        (["run", "--seeds", "0:2000000"], "is no number of seeds"),
        (["run", "--jobs", "9" * 12], "is not a whole number from 1 to 1000000"),
        (["run", "--device", "gpu"], "'gpu' is no device: choose auto, cpu, cuda, or cuda:N for"),
        (["run", "--timeout", "9" * 400], "is not a time such as 90s, 10m or 2h"),
        (["run", "--memory", "9" * 400 + "GiB"], "is not a size such as 500MiB or 8GiB"),
        (["run", "-t", "gaussian[dim=0]", "-s", "linear"], "dim must be at least 1, got 0"),
        (["run", "-s", "pot-sinkhorn[eps=1e400]"], "eps must be finite"),
        (["run", "--plugins", "absent.py"], "no such Python file or folder"),
        (["leaderboard", "nowhere"], "no results folder nowhere"),
        (["compare", "nowhere", "nowhere"], "no results folder nowhere"),
        (["compare", "a", "b", "--factor", "1"], "'1' is not a number above 1"),
        (["check", "idntity"], "unknown solver 'idntity'"),
        (["new", "solver", "My Solver", "--cost", "any"], "not kebab-case"),
        (["new", "solver", "identity", "--cost", "any"], "is named 'identity' already"),
        (["new", "solver", "my-solver"], "say which cost the method is for: --cost with one of"),
    ],
)
def test_bad_input_is_one_clear_line(otbench_here, arguments, words):
    done = otbench_here(*arguments)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("otbench")


def test_bad_input_ends_a_process_with_status_2(otbench):
    for arguments in (["run", "-t", "gausian"], ["run", "--seeds", "0"]):  # by us, by argparse
        done = otbench(*arguments)
        assert done.returncode == 2 and "Traceback" not in done.stderr
        assert done.stderr.strip().splitlines()[-1].startswith("otbench")


def test_a_range_of_seeds_and_how_settings_were_chosen(otbench_here, tmp_path):
    solvers = ["linear", "scipy-assignment[n=32]"]
    done = otbench_here("run", "-t", "gaussian[dim=1]", "-s", *solvers, "--seeds", "1000:1002")
    assert done.returncode == 0, done.stderr
    found = rows(tmp_path)
    assert {(row["solver"], row["seed"]) for row in found} == {
        (solver, seed) for solver in ("linear", "scipy-assignment") for seed in (1000, 1001)
    }
    assert all(("info_tuning" in row) == (row["solver"] == "scipy-assignment") for row in found)


@pytest.mark.skipif(
    "CUDA_VISIBLE_DEVICES" in os.environ or Path("/dev/nvidia0").exists(),
    reason="a GPU may be here",
)
def test_cuda_without_a_gpu_is_refused(otbench):
    done = otbench("run", "-t", "gaussian[dim=1]", "-s", "identity", "--device", "cuda")
    assert done.returncode == 2 and "torch sees no CUDA device" in done.stderr


def test_list_describes_everything_and_stays_light():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    heavy = "[m for m in ('torch', 'jax', 'ot', 'pandas', 'numpy') if m in sys.modules]"
    code = f"import sys; from otbench.cli.main import main; main(['list']); print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stdout.strip().endswith("[]"), done.stdout[-500:]
    for name in (
        "gaussian[dim=2",
        "mix3tomix10",
        "pot-emd[n=1024",
        "identity  (trivial)",
        "smoke 6",
        "l2_uvp (%, lower is better)",
    ):
        assert name in done.stdout
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    subprocess.run([sys.executable, "-c", "import torch"])
    with_torch = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert spent < 0.5 * (
        with_torch.ru_utime + with_torch.ru_stime - after.ru_utime - after.ru_stime
    )


def test_the_scaffold_works_as_it_is_written(otbench, otbench_here, tmp_path):
    new = "new", "solver", "mean-shift", "--cost", "sqeuclidean"
    assert otbench_here(*new).returncode == 0
    path = tmp_path / "mean_shift.py"
    code_lines = [line for line in path.read_text().splitlines() if line.strip()]
    assert len(code_lines) <= 32
    assert ast.parse(path.read_text())
    checked = otbench("check", "mean-shift", "--plugins", path)
    assert checked.returncode == 0 and "keeps the contract" in checked.stdout, checked.stdout
    refused = "sphere-denoising[dim=3]: is for the cost sqeuclidean, not euclidean"
    assert refused in checked.stdout and "alike" not in checked.stdout
    done = otbench_here(
        "run",
        "-t",
        "gaussian[dim=1]",
        "-s",
        "mean-shift",
        "identity",
        "--seeds",
        2,
        "--plugins",
        path,
        "--results",
        "out",
    )
    assert "mean-shift" in done.stdout.split("l2_uvp")[-1]
    assert otbench_here(*new).returncode == 2  # nothing is overwritten


def test_check_says_in_words_what_is_wrong(otbench):
    done = otbench("check", "hostile[act=wrong_shape]", "--plugins", HOSTILE)
    assert (
        done.returncode == 1
        and "WRONG    gaussian: push returned shape (64, 1), expected (64, 2): make it so"
        in done.stdout
    )
    crashed = otbench("check", "hostile[act=segfault]", "--plugins", HOSTILE)
    assert crashed.returncode == 1 and "crashed: died of SIGSEGV" in crashed.stdout


def test_the_smoke_suite_end_to_end(otbench_here, tmp_path):
    """``.ci/run`` has run the suite before and says where; else it is run here."""
    if recorded_before := os.environ.get("OTBENCH_SMOKE_RESULTS"):
        shutil.copytree(recorded_before, tmp_path / "out")
    else:
        done = otbench_here("run", "--suite", "smoke", "--jobs", 2, "--results", "out", "--keep")
        assert done.returncode == 0, done.stderr
    recorded = rows(tmp_path / "out")
    assert {row["status"] for row in recorded} == {"ok", "skipped"}, [
        r["message"] for r in recorded
    ]
    assert len(recorded) == 90
    assert not (tmp_path / "out" / "figures").exists()
    for table in (
        otbench_here("leaderboard", "out"),
        otbench_here("leaderboard", "out", "--format", "csv", "--metric", "l2_uvp"),
    ):
        assert table.returncode == 0 and "pot-emd" in table.stdout
    exported = otbench_here("export", "out", "--out", "tables")
    assert (tmp_path / "tables" / "runs.parquet").exists() and exported.returncode == 0
    drawn = otbench_here("plot", "out", "--out", "figures")
    assert drawn.returncode == 0 and len(list((tmp_path / "figures").glob("*.png"))) >= 2, (
        drawn.stderr
    )
    same = otbench_here("compare", "out", "out")
    assert same.returncode == 0, same.stdout
    again = otbench_here("run", "--suite", "smoke", "--results", "out")
    assert "0 to do" in again.stdout and "pot-emd" in again.stdout


@pytest.mark.parametrize("interleaved", [True, False])
def test_compare_finds_a_regression_of_times_measured_in_turn(otbench_here, tmp_path, interleaved):
    for second, act in enumerate((1.0, 3.0)):
        rows = [
            row("t", "s", seed, metric_l2_uvp=1.0, fit_cold_s=act * (1 + seed / 100))
            | {"machine": "m", "load": 0.0, "when": "2026-01-02T00:00:00+00:00"}
            | {"began": f"2026-01-01T00:{seed}{second}:00+00:00"}
            for seed in range(5)
        ]
        if not interleaved:
            rows = [{**r, "began": f"2026-01-01T0{second}:00:00+00:00"} for r in rows]
        write(tmp_path / ("base", "new")[second], rows)
    done = otbench_here("compare", "base", "new")
    assert done.returncode == interleaved and "fit_s" in done.stdout
    assert ("measure both sides in turn" in done.stdout) != interleaved
    assert otbench_here("compare", "new", "base").returncode == 0
    required = otbench_here("compare", "new", "base", "--require-times").returncode
    assert required == (0 if interleaved else 2)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400)]
)
def test_times(text, seconds):
    assert read_seconds(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"), [("8GiB", 8 * 2**30), ("500MB", 500_000_000), ("2G", 2**31), ("1024", 1024)]
)
def test_sizes(text, size):
    assert memory(text) == size
