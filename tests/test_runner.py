"""The runner: isolation, limits, resuming, clocks. Every run here goes through the command line and
the fork server.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import psutil
import pytest

from otbench.runner.clock import LoadMeter, repeated, timed
from tests.conftest import HOSTILE, rows


ROOT = Path(__file__).parent.parent
ACTS = {
    "refuse": ("skipped", "does not feel like it"),
    "hang": ("timeout", "killed after 8 s"),
    "busy_hang": ("timeout", "killed after 8 s"),
    "ignore_sigterm": ("timeout", "--timeout"),
    "allocate": ("oom", "over the limit of 1500 MiB"),
    "children_hoard": ("oom", "--memory"),
    "segfault": ("crashed", "SIGSEGV"),
    "kill_self": ("crashed", "SIGKILL"),
    "kill_parent": ("crashed", "took the process that started it down"),
    "close_everything": ("crashed", "without a result"),
    "exit_hard": ("crashed", "exited with status 0 without a result"),
    "refuse_oddly": ("error", "supports returned True, expected None or the reason"),
    "allocate_at_once": ("oom", "allocate memory"),
    "close_stderr": ("error", "RuntimeError: nobody hears"),
    "exit": ("error", "called sys.exit: 3 (hostile.py:"),
    "raise": ("error", "RuntimeError: the method (hostile.py:"),
    "wrong_shape": ("error", "push returned shape (16384, 2), expected (16384, 1)"),
    "wrong_device": ("error", "push returned a tensor on meta, expected cpu"),
    "wrong_dtype": ("error", "push returned torch.float64, expected torch.float32"),
    "wrong_type": ("error", "push returned ndarray"),
    "no_push": ("error", "without push"),
    "no_transport": ("error", "expected an otbench.Transport"),
    "odd_info": ("ok", "info['history'] is list, no plain number: kept as text"),
    "nan_info": ("ok", "info['loss'] is nan: left out"),
    "forge": ("error", 'the worker sent a row that has status = "splendid", expected one of ok'),
    "forge_columns": ("error", "the worker sent a row that is none"),
    "nan_step": ("error", "checkpoint of step nan, expected a whole number"),
    "nan": ("diverged", "16384 of 16384 values"),
    "nan_training": ("diverged", "not finite at step 3"),
    "print_gigabyte": ("ok", ""),
    "print_events": ("ok", ""),
    "write_everywhere": ("ok", ""),
    "gradients": ("ok", ""),
    "none": ("ok", ""),
}


def test_hostile_solvers_end_as_what_they_are_and_leave_their_neighbours_alone(otbench, tmp_path):
    solver = f"hostile[act=[{','.join(ACTS)}]]"
    done = otbench(
        "run", "-t", "gaussian[dim=1]", "-s", solver, "identity", "--seeds", 1, "--jobs", 2,
        "--timeout", "8s", "--memory", "1500MiB", "--plugins", HOSTILE, "--results", "out",
        "--keep",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    recorded = {
        json.loads(row["solver_params"]).get("act", "identity"): row
        for row in rows(tmp_path / "out")
    }
    assert {act: recorded[act]["status"] for act in ACTS} == {
        act: status for act, (status, _) in ACTS.items()
    }
    for act, (_, words) in ACTS.items():
        assert words in recorded[act]["message"], act
        assert "\n" not in recorded[act]["message"]
    # The identity has one right score here, whoever runs beside it.
    right = recorded["identity"]["metric_l2_uvp"]
    for act in ("none", "print_events", "print_gigabyte", "write_everywhere"):
        assert recorded[act]["metric_l2_uvp"] == right
    log = next((tmp_path / "out").rglob(f"logs/{recorded['raise']['key']}.txt")).read_text()
    assert "Traceback" in log and "fell over" in log
    assert "timeout" in done.stdout and "crashed" in done.stdout  # shown in the leaderboard


def test_whatever_a_solver_started_is_gone_when_its_run_ends(otbench, tmp_path):
    pids = tmp_path / "pids"
    done = otbench(
        "run",
        "-t",
        "gaussian[dim=1]",
        "-s",
        f"hostile[act=fork_children,path='{pids}']",
        "--seeds",
        1,
        "--plugins",
        HOSTILE,
        "--results",
        "out",
    )
    assert [row["status"] for row in rows(tmp_path / "out")] == ["ok"], done.stdout
    daemons = [int(line) for line in pids.read_text().split()]
    assert len(daemons) >= 3
    assert not [pid for pid in daemons if psutil.pid_exists(pid)]


def test_absent_things_are_missing_with_the_remedy_and_tried_again(otbench, tmp_path):
    call = (
        "run",
        "-t",
        "no-data",
        "gaussian[dim=1]",
        "-s",
        "needs-absent",
        "identity",
        "--seeds",
        1,
        "--plugins",
        HOSTILE,
        "--results",
        "out",
    )
    assert otbench(*call).returncode == 0
    found = {(row["task"], row["solver"]): row for row in rows(tmp_path / "out")}
    assert found["gaussian", "needs-absent"]["status"] == "missing"
    assert "pip install package_that_is_not_there" in found["gaussian", "needs-absent"]["message"]
    assert found["no-data", "identity"]["message"] == "no data file x.npz: put it there"
    assert found["gaussian", "identity"]["status"] == "ok"
    again = otbench(*call)
    assert "1 already recorded" in again.stdout and "3 to do" in again.stdout


def test_a_broken_task_says_nothing_of_the_solver_and_is_tried_again(otbench, tmp_path):
    call = (
        "run",
        "-t",
        "broken-task",
        "gaussian[dim=1]",
        "-s",
        "identity",
        "--seeds",
        1,
        "--plugins",
        HOSTILE,
        "--results",
        "out",
    )
    assert otbench(*call).returncode == 0
    found = {row["task"]: row for row in rows(tmp_path / "out")}
    broken = found["broken-task"]
    assert (broken["status"], broken["phase"]) == ("broken", "build")
    assert broken["message"].startswith("ZeroDivisionError: of the task (hostile.py:")
    assert broken["message"].endswith(", in phase build")
    assert found["gaussian"]["status"] == "ok" and "phase" not in found["gaussian"]
    again = otbench(*call)
    assert "1 already recorded" in again.stdout and "1 to do" in again.stdout


def test_each_second_is_booked_where_it_was_spent(otbench, tmp_path):
    package = tmp_path / "site" / "otbench_sleepy_package.py"
    package.parent.mkdir()
    package.write_text("import time\ntime.sleep(1.5)\n")
    sleepers = [
        "hostile[act=sleep_in_fit,seconds=1.2]",
        "hostile[act=sleep_in_push,seconds=1.2]",
        "hostile[act=checkpoints,seconds=0.4]",
        "sleepy-import",
    ]
    otbench(
        "run",
        "-t",
        "gaussian[dim=1]",
        "-s",
        *sleepers,
        "--seeds",
        1,
        "--plugins",
        HOSTILE,
        "--results",
        "out",
        env={"PYTHONPATH": str(package.parent)},
    )
    found = {
        json.loads(row["solver_params"]).get("act", "import"): row for row in rows(tmp_path / "out")
    }
    fit, push, points, imported = (
        found[name] for name in ("sleep_in_fit", "sleep_in_push", "checkpoints", "import")
    )
    assert fit["fit_cold_s"] == pytest.approx(1.2, abs=0.1) and fit["push_cold_s"] < 0.2
    assert push["push_cold_s"] == pytest.approx(1.2, abs=0.1) and push["fit_cold_s"] < 0.2
    assert push["push_us_per_point"] == pytest.approx(1.2e6 / 16384, rel=0.1)
    # All of them import torch beforehand; this one imports a package that takes 1.5 s more.
    assert (
        imported["import_s"] - fit["import_s"] == pytest.approx(1.5, abs=0.3)
        and imported["fit_cold_s"] < 0.2
    )
    # Checkpoints are scored with the clock stopped: three sleeps of 0.4 s, however long scoring
    # takes.
    assert points["fit_cold_s"] == pytest.approx(1.2, abs=0.15)
    assert [point["step"] for point in points["curve"]] == [0, 1, 2]
    assert [point["seconds"] for point in points["curve"]] == pytest.approx(
        [0.4, 0.8, 1.2], abs=0.1
    )
    assert all("l2_uvp" in point for point in points["curve"])


def test_the_load_is_what_other_processes_take_of_the_cores():
    """Beside another process on the same core, and with work of its own, which is no load."""
    cores = os.sched_getaffinity(0)
    core = min(cores)
    script = f"import os\nos.sched_setaffinity(0, {{{core}}})\nwhile True: pass"
    other = subprocess.Popen([sys.executable, "-c", script])
    try:
        time.sleep(0.5)
        meter = LoadMeter([core])
        time.sleep(0.5)
        assert (meter.share() or 0) > 0.5
    finally:
        other.kill()
        other.wait()
    os.sched_setaffinity(0, {core})
    try:
        meter, began, worked = LoadMeter([core]), time.perf_counter(), time.process_time()
        while time.process_time() < worked + 0.5:
            pass
        own = 0.5 / (time.perf_counter() - began)
        assert (meter.share() or 0) < 1 - own + 0.1
    finally:
        os.sched_setaffinity(0, cores)
    assert LoadMeter([10**6]).share() is None


def test_a_row_says_when_its_run_began_and_how_much_others_took(otbench, tmp_path):
    otbench("run", "-t", "gaussian[dim=1]", "-s", "identity", "--seeds", 1, "--results", "out")
    (row,) = rows(tmp_path / "out")
    began, ended = (datetime.fromisoformat(row[name]) for name in ("began", "when"))
    assert 0 < (ended - began).total_seconds() < 60 and 0 <= row["load"] <= 1


def test_a_repeat_waits_for_what_it_returns():
    """JAX returns before it computes: its arrays are waited for as long as they are held."""
    import jax
    import jax.numpy as jnp

    @jax.jit
    def chain(a):
        return jax.lax.fori_loop(0, 20, lambda _, b: jnp.tanh(b @ a), a)

    start = jnp.full((800, 800), 1e-3)
    chain(start).block_until_ready()
    _, held = timed(lambda: chain(start).block_until_ready())
    again = repeated(chain, lambda: start, 0.0)
    assert again is not None and again[0] > held / 4  # what is let go of reads as 0.001


def test_an_asynchronous_jax_solver_gets_its_true_time(otbench, tmp_path):
    otbench(
        "run", "-t", "gaussian[dim=1]", "-s", "async-jax[size=800,wait=[false,true]]",
        "--seeds", 1, "--plugins", HOSTILE,
        "--results", "out",
        env={"JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    times = {False: [], True: []}
    for row in rows(tmp_path / "out"):
        times[json.loads(row["solver_params"])["wait"]].append(
            row.get("fit_warm_s") or row["fit_cold_s"]
        )
    blocking, asynchronous = min(times[True]), min(times[False])
    assert blocking > 0.2  # long enough to tell
    assert (
        0.5 < asynchronous / blocking < 2
    )  # a shared machine; returning early would read as 0.001


def test_checkpoints_survive_the_run(otbench, tmp_path):
    otbench(
        "run",
        "-t",
        "gaussian[dim=1]",
        "-s",
        "hostile[act=checkpoint_then_hang]",
        "--seeds",
        1,
        "--timeout",
        "3s",
        "--plugins",
        HOSTILE,
        "--results",
        "out",
    )
    (row,) = rows(tmp_path / "out")
    assert row["status"] == "timeout" and len(row["curve"]) == 1 and row["curve"][0]["l2_uvp"] > 0


def test_every_stream_of_randomness_follows_the_seed(otbench, tmp_path):
    for out in ("one", "two"):
        otbench(
            "run",
            "-t",
            "gaussian[dim=1]",
            "-s",
            "hostile[act=global_random]",
            "--seeds",
            2,
            "--plugins",
            HOSTILE,
            "--results",
            out,
        )
    one, two = (
        {row["seed"]: row["info_draws"] for row in rows(tmp_path / out)} for out in ("one", "two")
    )
    assert one == two and one[0] != one[1]
    assert all(
        abs(row["info_alike"]) < 0.5 for row in rows(tmp_path / "one")
    )  # run.generator and torch's own are not one stream


def test_host_memory_is_what_the_solver_took(otbench, tmp_path):
    acts = "hostile[act=[hold_memory,keep_memory,none]]"
    otbench(
        "run",
        "-t",
        "gaussian[dim=1]",
        "-s",
        acts,
        "--seeds",
        1,
        "--plugins",
        HOSTILE,
        "--results",
        "out",
    )
    peaks = {
        json.loads(row["solver_params"])["act"]: row["host_peak_mib"]
        for row in rows(tmp_path / "out")
    }
    assert peaks["hold_memory"] == pytest.approx(300, abs=40) and peaks["none"] < 60
    assert peaks["keep_memory"] == pytest.approx(
        300, abs=40
    )  # held by the transport, counted once however often the fit is repeated


def test_lazy_plans_are_timed(otbench, tmp_path):
    acts = "hostile[act=[lazy_plan,lazy_first_plan],seconds=0.5]"
    small = ("point-clouds[n=9,m=9]", "weight-pairs[side=3,train=1,test=3]")
    otbench("run", "-t", *small, "-s", acts, "--seeds", 1, "--plugins", HOSTILE, "--results", "out")
    found = {
        (row["task"], json.loads(row["solver_params"])["act"]): row
        for row in rows(tmp_path / "out")
    }
    always, first = (found["point-clouds", act] for act in ("lazy_plan", "lazy_first_plan"))
    assert always["fit_cold_s"] == pytest.approx(0.5, abs=0.1) and always[
        "fit_warm_s"
    ] == pytest.approx(0.5, abs=0.1)
    assert first["fit_cold_s"] == pytest.approx(0.5, abs=0.1)
    always, first = (found["weight-pairs", act] for act in ("lazy_plan", "lazy_first_plan"))
    assert always["infer_ms_per_pair"] == pytest.approx(500, abs=100)
    assert (
        first["infer_cold_ms"] == pytest.approx(500, abs=100) and first["infer_ms_per_pair"] < 100
    )


def test_plans_are_scored_on_the_problem_as_it_was_given(otbench, tmp_path):
    acts = "hostile[act=[plain_plan,spoil_problem,negative_plan]]"
    otbench(
        "run",
        "-t",
        "point-clouds[n=9,m=9]",
        "-s",
        acts,
        "--seeds",
        1,
        "--plugins",
        HOSTILE,
        "--results",
        "out",
    )
    found = {json.loads(row["solver_params"])["act"]: row for row in rows(tmp_path / "out")}
    assert found["spoil_problem"]["metric_cost_gap"] == found["plain_plan"]["metric_cost_gap"] > 0
    assert (
        found["negative_plan"]["status"] == "error"
        and "negative entries" in found["negative_plan"]["message"]
    )


def test_a_full_disk_while_keeping_is_said_and_costs_no_score(tmp_path):
    command = [
        sys.executable,
        "-m",
        "otbench",
        "run",
        "-t",
        "gaussian[dim=1]",
        "-s",
        "identity",
        "--seeds",
        "1",
        "--keep",
        "--results",
        "out",
    ]
    limited = ["bash", "-c", 'ulimit -f 100; trap "" XFSZ; exec "$@"', "bash", *command]
    done = subprocess.run(limited, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    (row,) = rows(tmp_path / "out")
    assert (
        row["status"] == "ok"
        and row["metric_l2_uvp"] > 0
        and "raw output not kept: File too large" in row["message"]
    )
    assert "raw output not kept" in done.stdout and not list(tmp_path.rglob("*.npz")) + list(
        tmp_path.rglob("*.part")
    )


def test_imports_do_not_count_against_the_time_limit(otbench, tmp_path):
    package = tmp_path / "site" / "otbench_sleepy_package.py"
    package.parent.mkdir()
    package.write_text("import time\ntime.sleep(4)\n")
    call = (
        "run",
        "-t",
        "gaussian[dim=1]",
        "-s",
        "sleepy-import",
        "--seeds",
        1,
        "--timeout",
        "3s",
        "--plugins",
        HOSTILE,
        "--results",
        "out",
    )
    otbench(*call, env={"PYTHONPATH": str(package.parent)})
    assert [row["status"] for row in rows(tmp_path / "out")] == ["ok"]


def launch(tmp_path: Path, *arguments: object) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "otbench",
        "run",
        "--plugins",
        HOSTILE,
        "--results",
        "out",
        *arguments,
    ]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}

    # A process in the background, as of xdist, ignores Ctrl-C, and so would its children: a handler
    # is not inherited.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(list(map(str, command)), cwd=tmp_path, **pipes)
    finally:
        signal.signal(signal.SIGINT, before)


def wait_for_rows(results: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while len(rows(results)) < count:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)


GRID = ("-t", "gaussian[dim=1]", "-s", "hostile[act=sleep_in_fit,seconds=0.4]", "--seeds", 6)


@pytest.mark.parametrize("rows_before", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_killed_coordinator_loses_only_what_was_in_flight(otbench, tmp_path, rows_before):
    process = launch(tmp_path, *GRID)
    wait_for_rows(tmp_path / "out", rows_before, process)
    descendants = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    _, alive = psutil.wait_procs(descendants, timeout=10)
    assert not alive  # workers and fork server died with it
    before = {row["key"]: row["when"] for row in rows(tmp_path / "out")}
    assert len(before) >= rows_before
    # A line torn by the kill is repaired.
    (file,) = (tmp_path / "out").rglob("rows.jsonl")
    with open(file, "a") as torn:
        torn.write('{"key": "half a li')
    done = otbench("run", "--plugins", HOSTILE, "--results", "out", *GRID)
    assert done.returncode == 0 and "repaired" in done.stdout
    after = rows(tmp_path / "out")
    assert len(after) == 6 and len({row["key"] for row in after}) == 6  # all there, none twice
    assert all(row["when"] == before[row["key"]] for row in after if row["key"] in before)


def test_ctrl_c_ends_cleanly_and_the_same_command_resumes(otbench, tmp_path):
    process = launch(tmp_path, *GRID)
    wait_for_rows(tmp_path / "out", 2, process)
    descendants = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 130 and "the same command does the rest" in output
    assert "Traceback" not in output + errors
    assert not psutil.wait_procs(descendants, timeout=10)[1]
    recorded = len(rows(tmp_path / "out"))
    done = otbench("run", "--plugins", HOSTILE, "--results", "out", *GRID)
    assert f"{recorded} already recorded" in done.stdout
    assert len(rows(tmp_path / "out")) == 6


def test_two_coordinators_on_one_folder(tmp_path):
    both = [launch(tmp_path, *GRID) for _ in range(2)]
    for process in both:
        process.communicate(timeout=120)
        assert process.returncode == 0
    folders = list((tmp_path / "out").iterdir())
    assert len(folders) == 2
    for folder in folders:
        assert (
            len(rows(folder)) == 6 and json.loads((folder / "provenance.json").read_text())["cpu"]
        )


def test_rerun(otbench, tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text(HOSTILE.read_text())
    call = (
        "run",
        "-t",
        "gaussian[dim=1]",
        "-s",
        "hostile[act=[none,raise]]",
        "--seeds",
        1,
        "--plugins",
        plugin,
        "--results",
        "out",
    )

    def repeated(*more: str) -> int:
        before = len(rows(tmp_path / "out")) if (tmp_path / "out").exists() else 0
        assert otbench(*call, *more).returncode == 0
        return len(rows(tmp_path / "out")) - before

    assert repeated() == 2
    assert repeated() == 0  # a failure is final too
    assert repeated("--rerun", "failed") == 1
    assert repeated("--rerun", "all") == 2
    plugin.write_text(plugin.read_text() + "\nCHANGED = True\n")
    assert repeated("--rerun", "missing") == 0
    assert repeated() == 2  # recorded by other code


def test_provenance_is_there_before_the_first_row(otbench, tmp_path):
    otbench("run", "-t", "gaussian[dim=1]", "-s", "identity", "--seeds", 1, "--results", "out")
    (folder,) = (tmp_path / "out").iterdir()
    facts = json.loads((folder / "provenance.json").read_text())
    assert (
        facts["versions"]["torch"]
        and facts["command"][-2:] == ["--results", "out"]
        and facts["threads"] == len(os.sched_getaffinity(0))
    )
    assert (folder / "provenance.json").stat().st_mtime <= (folder / "rows.jsonl").stat().st_mtime
    if (ROOT / ".git").exists():
        head = subprocess.run(
            ["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        )
        assert facts["git_commit"] == head.stdout.strip()


def test_spawned_workers_give_the_same_row(tmp_path):
    """Where importing a framework opened a device, workers are spawned, not forked."""
    from otbench.job import Job
    from otbench.runner import plan
    from otbench.runner.executor import Limits
    from otbench.runner.local import Server

    spec = plan.expand(
        plan.select("task", ["gaussian[dim=1]"], ()),
        plan.select("solver", ["identity"], ()),
        [0],
        "cpu",
        "float32",
    )[0]
    results = {}
    for spawn in (False, True):
        with Server(Limits(60, 2**33), 1) as server:
            server.start([], [])
            server.spawn = spawn
            server.start_worker(0, 0, Job((spec,), cpus=(0,)))
            finished = []
            while not finished:
                server.step()
                finished = list(server.drain())
        results[spawn] = finished[0].result
    assert results[True].status == "ok"
    assert results[True].metrics["l2_uvp"] == results[False].metrics["l2_uvp"]
    assert results[True].measured["threads"] == 1 and results[True].measured["machine"]
    assert 0 <= results[True].measured["load"] <= 1
    assert "gpu_runs" not in results[False].measured
