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
from typing import Any

import psutil
import pytest

from otbench.job import Job, Row
from otbench.runner import plan
from otbench.runner.clock import LoadMeter, repeated, timed
from otbench.store import latest_rows
from tests.conftest import HOSTILE, call_otbench, rows


ROOT = Path(__file__).parent.parent
ACTS = {
    "refuse": ("skipped", "does not feel like it"),
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
HANGING = ("hang", "busy_hang", "ignore_sigterm", "checkpoint_then_hang")


def run_acts(
    folder: Path, *arguments: object, env: dict[str, str] | None = None
) -> tuple[str, dict[str, dict[str, Any]]]:
    """What a run of the command line printed, and its last row of every act, or solver."""
    command = ("run", "-t", "gaussian[dim=1]", "--plugins", HOSTILE, "--results", "out")
    done = call_otbench(*command, *arguments, cwd=folder, env=env)
    assert done.returncode == 0, done.stderr
    found = {
        json.loads(row["solver_params"]).get("act", row["solver"]): row
        for row in rows(folder / "out")
    }
    return done.stdout, found


def slow_package(folder: Path, seconds: float) -> dict[str, str]:
    """The environment in which the package of ``sleepy-import`` is found, and takes its time."""
    (folder / "otbench_sleepy_package.py").write_text(f"import time\ntime.sleep({seconds})\n")
    return {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of two seeds of solvers that behave, one run at a time."""
    folder = tmp_path_factory.mktemp("plain")
    acts = "hostile[act=[global_random,hold_memory,keep_memory,none]]"
    run_acts(folder, "-s", acts, "--seeds", 2)
    return folder / "out"


def test_hostile_solvers_end_as_what_they_are_and_leave_their_neighbours_alone(tmp_path):
    pids = tmp_path / "pids"
    printed, recorded = run_acts(
        tmp_path,
        *("-s", f"hostile[act=[{','.join(ACTS)}]]", f"hostile[act=fork_children,path='{pids}']"),
        *("identity", "--seeds", 1, "--jobs", 2, "--memory", "1500MiB", "--keep"),
    )
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
    assert "crashed" in printed  # shown in the leaderboard
    # Whatever a solver started is gone when its run ends.
    assert recorded["fork_children"]["status"] == "ok"
    daemons = [int(line) for line in pids.read_text().split()]
    assert len(daemons) >= 3
    assert not [pid for pid in daemons if psutil.pid_exists(pid)]


def test_what_hangs_is_killed_with_its_checkpoints_and_a_long_import_is_not(tmp_path):
    acts = ("hang", "busy_hang", "ignore_sigterm", "checkpoint_then_hang")
    printed, found = run_acts(
        tmp_path,
        *("-s", f"hostile[act=[{','.join(acts)}]]", "sleepy-import"),
        *("--seeds", 1, "--jobs", 5, "--timeout", "3s"),
        env=slow_package(tmp_path, 4),
    )
    assert found.pop("sleepy-import")["status"] == "ok"
    assert {act: row["status"] for act, row in found.items()} == dict.fromkeys(acts, "timeout")
    for row in found.values():
        assert "killed after 3 s" in row["message"] and "--timeout" in row["message"]
        assert "\n" not in row["message"]
    assert "timeout" in printed  # shown in the leaderboard
    (point,) = found["checkpoint_then_hang"]["curve"]
    assert point["l2_uvp"] > 0


def test_absent_things_and_broken_tasks_say_nothing_of_the_solver_and_are_tried_again(
    otbench, tmp_path
):
    call = (
        *("run", "-t", "no-data", "broken-task", "gaussian[dim=1]"),
        *("-s", "needs-absent", "identity", "--seeds", 1),
        *("--plugins", HOSTILE, "--results", "out"),
    )
    assert otbench(*call).returncode == 0
    found = {(row["task"], row["solver"]): row for row in rows(tmp_path / "out")}
    assert found["gaussian", "needs-absent"]["status"] == "missing"
    assert "pip install package_that_is_not_there" in found["gaussian", "needs-absent"]["message"]
    assert found["no-data", "identity"]["status"] == "missing"
    assert found["no-data", "identity"]["message"] == "no data file x.npz: put it there"
    broken = found["broken-task", "identity"]
    assert (broken["status"], broken["phase"]) == ("broken", "build")
    assert broken["message"].startswith("ZeroDivisionError: of the task (hostile.py:")
    assert broken["message"].endswith(", in phase build")
    fine = found["gaussian", "identity"]
    assert fine["status"] == "ok" and "phase" not in fine
    again = otbench(*call)
    assert "1 already recorded" in again.stdout and "5 to do" in again.stdout


def test_each_second_is_booked_where_it_was_spent(tmp_path):
    sleepers = [
        "hostile[act=sleep_in_fit,seconds=0.6]",
        "hostile[act=sleep_in_push,seconds=0.6]",
        "hostile[act=checkpoints,seconds=0.2]",
        "sleepy-import",
    ]
    call = ("-s", *sleepers, "--seeds", 1)
    _, found = run_acts(tmp_path, *call, env=slow_package(tmp_path, 2))
    fit, push, points, imported = (
        found[name] for name in ("sleep_in_fit", "sleep_in_push", "checkpoints", "sleepy-import")
    )
    assert fit["fit_cold_s"] == pytest.approx(0.6, abs=0.1) and fit["push_cold_s"] < 0.2
    assert push["push_cold_s"] == pytest.approx(0.6, abs=0.1) and push["fit_cold_s"] < 0.2
    assert push["push_us_per_point"] == pytest.approx(0.6e6 / 16384, rel=0.1)
    # All of them import torch beforehand; this one imports a package that takes 2 s more.
    assert (
        imported["import_s"] - fit["import_s"] == pytest.approx(2, abs=0.3)
        and imported["fit_cold_s"] < 0.2
    )
    # Checkpoints are scored with the clock stopped: three sleeps of 0.2 s, however long scoring
    # takes.
    assert points["fit_cold_s"] == pytest.approx(0.6, abs=0.15)
    assert [point["step"] for point in points["curve"]] == [0, 1, 2]
    assert [point["seconds"] for point in points["curve"]] == pytest.approx(
        [0.2, 0.4, 0.6], abs=0.1
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


def test_a_row_says_when_its_run_began_and_how_much_others_took(plain):
    for row in rows(plain):
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


def test_an_asynchronous_jax_solver_gets_its_true_time(tmp_path):
    """Its clock waits for what was not ready when the fit returned. All times compared are of one
    run, so that a busy machine stretches them alike.
    """
    call = ("-s", "async-jax", "--seeds", 1)
    _, found = run_acts(tmp_path, *call, env={"JAX_PLATFORMS": "cpu"})
    row = found["async-jax"]
    assert not row["info_ready"] and row["info_done_s"] > 0.2  # long enough to tell
    assert row["fit_cold_s"] > 0.5 * row["info_done_s"]
    assert row["push_cold_s"] < 0.5 * row["fit_cold_s"]  # nothing was left for the push


def test_every_stream_of_randomness_follows_the_seed(plain, tmp_path):
    run_acts(tmp_path, "-s", "hostile[act=global_random]", "--seeds", 2)
    one, two = (
        {row["seed"]: row["info_draws"] for row in rows(out) if "info_draws" in row}
        for out in (plain, tmp_path / "out")
    )
    assert one == two and one[0] != one[1]
    assert all(
        abs(row["info_alike"]) < 0.5 for row in rows(tmp_path / "out")
    )  # run.generator and torch's own are not one stream


def test_host_memory_is_what_the_solver_took(plain):
    peaks = [(json.loads(r["solver_params"])["act"], r["host_peak_mib"]) for r in rows(plain)]
    for act, peak in peaks:
        if act in ("hold_memory", "keep_memory"):
            # That of the transport is counted once, however often the fit is repeated.
            assert peak == pytest.approx(300, abs=40), act
        else:
            assert peak < 60, act
    assert {act for act, _ in peaks} >= {"hold_memory", "keep_memory", "none"}


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, Any]]:
    """Rows of solvers of plans, by task and act."""
    folder = tmp_path_factory.mktemp("plans")
    acts = "lazy_plan,lazy_first_plan,plain_plan,spoil_problem,negative_plan"
    tasks = ("point-clouds[n=9,m=9]", "weight-pairs[side=3,train=1,test=3]")
    call_otbench(
        *("run", "-t", *tasks, "-s", f"hostile[act=[{acts}],seconds=0.3]", "--seeds", 1),
        *("--plugins", HOSTILE, "--results", "out"),
        cwd=folder,
    )
    return {
        (row["task"], json.loads(row["solver_params"])["act"]): row for row in rows(folder / "out")
    }


def test_lazy_plans_are_timed(plans):
    always, first = (plans["point-clouds", act] for act in ("lazy_plan", "lazy_first_plan"))
    assert always["fit_cold_s"] == pytest.approx(0.3, abs=0.1) and always[
        "fit_warm_s"
    ] == pytest.approx(0.3, abs=0.1)
    assert first["fit_cold_s"] == pytest.approx(0.3, abs=0.1)
    always, first = (plans["weight-pairs", act] for act in ("lazy_plan", "lazy_first_plan"))
    assert always["infer_ms_per_pair"] == pytest.approx(300, abs=100)
    assert (
        first["infer_cold_ms"] == pytest.approx(300, abs=100) and first["infer_ms_per_pair"] < 100
    )


def test_plans_are_scored_on_the_problem_as_it_was_given(plans):
    plain, spoilt, negative = (
        plans["point-clouds", act] for act in ("plain_plan", "spoil_problem", "negative_plan")
    )
    assert spoilt["metric_cost_gap"] == plain["metric_cost_gap"] > 0
    assert negative["status"] == "error" and "negative entries" in negative["message"]


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


GRID = ("-t", "gaussian[dim=1]", "-s", "hostile[act=sleep_in_fit,seconds=0.2]", "--seeds", 4)


@pytest.mark.parametrize("rows_before", [1, pytest.param(2, marks=pytest.mark.slow)])
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
    assert len(after) == 4 and len({row["key"] for row in after}) == 4  # all there, none twice
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
    assert len(rows(tmp_path / "out")) == 4


def test_two_coordinators_on_one_folder(tmp_path):
    both = [launch(tmp_path, *GRID) for _ in range(2)]
    for process in both:
        process.communicate(timeout=120)
        assert process.returncode == 0
    folders = list((tmp_path / "out").iterdir())
    assert len(folders) == 2
    for folder in folders:
        assert (
            len(rows(folder)) == 4 and json.loads((folder / "provenance.json").read_text())["cpu"]
        )


def test_rerun(otbench, tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text(HOSTILE.read_text())
    call = (
        *("run", "-t", "gaussian[dim=1]", "-s", "hostile[act=[none,raise]]", "--seeds", 1),
        *("--plugins", plugin, "--results", "out"),
    )

    def planned(rerun: plan.Rerun) -> list[str]:
        """The acts that the same command does again."""
        tasks = plan.select("task", ["gaussian[dim=1]"], (str(plugin),))
        solvers = plan.select("solver", ["hostile[act=[none,raise]]"], (str(plugin),))
        runs = plan.expand(tasks, solvers, [0], "cpu", "float32")
        recorded = {k: Row.from_json(row) for k, row in latest_rows(tmp_path / "out").items()}
        return [json.loads(r.solver_params)["act"] for r in plan.pending(runs, recorded, rerun)]

    assert otbench(*call).returncode == 0
    assert len(rows(tmp_path / "out")) == 2
    assert planned("changed") == planned("missing") == []  # a failure is final too
    assert planned("failed") == ["raise"]
    assert planned("all") == ["none", "raise"]
    plugin.write_text(plugin.read_text() + "\nCHANGED = True\n")
    assert planned("missing") == []
    assert planned("changed") == ["none", "raise"]  # recorded by other code
    assert otbench(*call).returncode == 0
    assert len(rows(tmp_path / "out")) == 4


def test_provenance_is_there_before_the_first_row(plain):
    (folder,) = plain.iterdir()
    facts = json.loads((folder / "provenance.json").read_text())
    assert (
        facts["versions"]["torch"]
        and facts["command"][-2:] == ["--seeds", "2"]
        and facts["threads"] == len(os.sched_getaffinity(0))
    )
    assert (folder / "provenance.json").stat().st_mtime <= (folder / "rows.jsonl").stat().st_mtime
    if (ROOT / ".git").exists():
        head = subprocess.run(
            ["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        )
        assert facts["git_commit"] == head.stdout.strip()


def test_spawned_workers_give_the_same_row():
    """Where importing a framework opened a device, workers are spawned, not forked."""
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
