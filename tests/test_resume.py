"""Fits that are saved, interrupted and resumed: the same result, an honest clock, and nothing is
resumed that should not be.
"""

# pyright: reportMissingImports=false
# (otbench.solvers is joined to the package at run time, see otbench/__init__.py)

from __future__ import annotations

import io
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from otbench import FitContext, Transport
from otbench.errors import UserError
from otbench.job import Result, Row
from otbench.methods.neural.networks import MLP, Weights
from otbench.methods.neural.sampling import Stream
from otbench.methods.neural.training import Player
from otbench.registry import registry
from otbench.runner import plan
from otbench.runner.devices import find_device
from otbench.runner.saving import DamagedError, SavedFits, check_plain, read_state, write_state
from tests.conftest import rows
from tests.test_runner import launch


pytestmark = pytest.mark.usefixtures("one_thread")


# --- solvers


class InterruptedFitError(Exception):
    """A fit was cut short."""


class Disk:
    """Keeps what a fit saves as the runner does, and interrupts it after so many saves."""

    def __init__(self, saves: int, device: str = "cpu") -> None:
        self.saves, self.device, self.data = saves, device, b""
        self.steps: list[int] = []

    def save(self, state: Callable[[], Any]) -> None:
        file, kept = io.BytesIO(), state()
        check_plain(kept)
        torch.save(kept, file)
        self.data, self.saves = file.getvalue(), self.saves - 1
        if self.saves == 0:
            raise InterruptedFitError

    def restore(self) -> Any:
        return torch.load(io.BytesIO(self.data), weights_only=True) if self.data else None

    def run(self) -> FitContext:
        generator = torch.Generator(self.device).manual_seed(5)
        return FitContext(
            self.device,
            torch.float32,
            3,
            generator,
            lambda step, _: self.steps.append(step),
            self.save,
            self.restore,
        )


FITS = {
    "otm[steps=24,width=8]": "gaussian[dim=2]",
    "otm[steps=12,form=convex,start=linear]": "gaussian[dim=2]",
    "otp[steps=24,width=8,accumulate=2]": "gaussian[dim=2]",
    # More than a chunk of each stream.
    "otp[steps=150,width=8,batch=1000,map_updates=1]": "gaussian[dim=2]",
    "otm-s[steps=24,width=8]": "gaussian[dim=2]",
    "mm-r[steps=12]": "gaussian[dim=2]",
    "enot[steps=24,batch=64]": "gaussian[dim=2]",
    "not-weak[steps=24,width=8]": "gaussian[dim=2]",
    "uotm[steps=24,width=8]": "gaussian[dim=2]",
    "otm-gp[steps=24,width=8]": "gaussian[dim=2]",
    "diotm[steps=24,width=8]": "gaussian[dim=2]",
    "ttc-ray[steps=24,width=8]": "sphere-denoising[dim=3]",
    "ttc[critics=6,steps=10,width=8,pool=100]": "sphere-denoising[dim=3]",
    "ttc[critics=5,steps=10,width=8,pool=100,moves=2,ema=0.9]": "sphere-denoising[dim=3]",
    "ttc[critics=5,steps=9,width=8,pool=99,estimate=training,theta=0.9]": "sphere-denoising[dim=3]",
    "ttc-semidual[steps=24,width=8,pool=500,candidates=50]": "sphere-denoising[dim=3]",
    "wgan-gp[steps=24,width=8,accumulate=3]": "sphere-denoising[dim=3]",
    "sn-gan[steps=24,width=8]": "sphere-denoising[dim=3]",
    "adversarial-regularizer[steps=24,width=8]": "sphere-denoising[dim=3]",
}


def fit(text: str, disk: Disk) -> Transport:
    task = registry("task").select(FITS[text])[0].build()
    problem = task.problem(np.random.default_rng(0), device=disk.device, dtype=torch.float32)
    return registry("solver").select(text)[0].build().fit(problem, disk.run())


@pytest.mark.parametrize("text", FITS)
def test_a_resumed_fit_ends_as_the_uninterrupted_one_bit_for_bit(text):
    whole, broken = Disk(-1), Disk(2)
    expected = fit(text, whole)
    with pytest.raises(InterruptedFitError):
        fit(text, broken)
    broken.saves = 1  # interrupted again as soon as it saves
    with pytest.raises(InterruptedFitError):
        fit(text, broken)
    broken.saves = -1
    resumed = fit(text, broken)
    assert broken.steps == whole.steps  # no checkpoint is lost, none is offered twice
    x = torch.randn(
        50, 3 if "sphere" in FITS[text] else 2, generator=torch.Generator().manual_seed(1)
    )
    for name in ("push", "potential", "target_potential"):
        one, other = getattr(expected, name), getattr(resumed, name)
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one(x), other(x))
    assert resumed.info == expected.info and resumed.sigma == expected.sigma


@pytest.mark.skipif(find_device("auto") == "cpu", reason="torch sees no CUDA device here")
@pytest.mark.parametrize("text", FITS)
def test_a_fit_on_the_gpu_goes_on(text):
    whole, broken = Disk(-1, "cuda"), Disk(2, "cuda")
    expected = fit(text, whole)
    with pytest.raises(InterruptedFitError):
        fit(text, broken)
    resumed, x = (
        fit(text, broken),
        torch.randn(50, 3 if "sphere" in FITS[text] else 2, device="cuda"),
    )
    assert expected.push is not None and resumed.push is not None and broken.steps == whole.steps
    torch.testing.assert_close(
        resumed.push(x), expected.push(x), rtol=1e-2, atol=1e-2
    )  # sums on a GPU are not of one order


@pytest.mark.parametrize(
    "text", ["otp[steps=24,width=8,accumulate=2]", "ttc[critics=6,steps=10,width=8,pool=100]"]
)
def test_a_fit_that_was_saved_at_its_end_has_nothing_left_to_do(text):
    whole = Disk(-1)
    expected, saves = fit(text, whole), -1 - whole.saves
    broken = Disk(saves)
    with pytest.raises(InterruptedFitError):
        fit(text, broken)
    resumed, x = fit(text, broken), torch.randn(9, 3 if "sphere" in FITS[text] else 2)
    assert expected.push is not None and resumed.push is not None
    assert torch.equal(resumed.push(x), expected.push(x)) and broken.steps == whole.steps


def test_a_state_is_asked_for_only_where_saving_is_due():
    def never() -> None:
        raise AssertionError

    generator = torch.Generator()
    FitContext("cpu", torch.float32, 0, generator).save(never)
    FitContext("cpu", torch.float32, 0, generator, on_save=lambda state: None).save(never)
    assert FitContext("cpu", torch.float32, 0, generator).restored() is None


def test_micro_batches_are_one_batch():
    network, points = MLP(2, 1, 8, 2, "silu"), torch.randn(1, 40, 2, dtype=torch.float64)

    def player(parts: int, **settings: Any) -> Player:
        weights = Weights.draw(network, [torch.Generator().manual_seed(0)], torch.float64)
        batches = Stream([lambda n, generator: points[0]], [torch.Generator()], 40)
        batches.batches = list(points.split(40 // parts, 1))
        return Player(
            weights,
            [lambda: network(weights.tensors, batches.next()).square().mean((1, 2))],
            0.1,
            **settings,
        )

    whole, parts = player(1), player(4, accumulate=4)
    for one in (whole, parts):
        one.play()
    assert whole.weights.flat.grad is not None and parts.weights.flat.grad is not None
    torch.testing.assert_close(
        parts.weights.flat.grad, whole.weights.flat.grad, rtol=1e-12, atol=1e-14
    )
    torch.testing.assert_close(parts.weights.flat, whole.weights.flat)
    for name in ("otm", "ttc-ray"):
        with pytest.raises(UserError, match="accumulate must be positive, got 0"):
            registry("solver").select(f"{name}[accumulate=0]")[0].build()


# --- files


def test_any_damage_of_a_file_is_noticed(tmp_path):
    path, state = (
        tmp_path / "fits" / "key.pt",
        {"weights": torch.randn(500), "text": "abc" * 9, "steps": [1, 2.5, None, (True, "x")]},
    )
    assert read_state(path) is None
    write_state(path, state)
    assert list(path.parent.iterdir()) == [path]
    data, draw, noticed = path.read_bytes(), random.Random(0), 0
    for _ in range(200):
        at = draw.randrange(len(data))
        path.write_bytes(data[:at] + bytes([data[at] ^ draw.randrange(1, 256)]) + data[at + 1 :])
        try:
            kept = read_state(path)
        except DamagedError:
            noticed += 1
            continue
        assert (
            kept is not None
            and torch.equal(kept.pop("weights"), state["weights"])
            and kept == {k: state[k] for k in kept}
        )
    assert noticed > 100
    for size in (0, 10, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(DamagedError):
            read_state(path)


def test_runs_that_were_cut_short_go_on_where_they_were_saved():
    select = plan.select
    run = plan.expand(
        select("task", ["gaussian"], ()), select("solver", ["identity"], ()), [0], "cpu", "float32"
    )[0]
    for status, again in {
        "ok": False,
        "error": False,
        "diverged": False,
        "timeout": True,
        "oom": True,
        "crashed": True,
    }.items():
        row = Row.of(run, Result(status), "", "")
        for rerun in ("missing", "changed"):
            assert bool(plan.pending([run], {run.key: row}, rerun, {run.key})) == again
            assert not plan.pending([run], {run.key: row}, rerun, {"another"})


# --- runs


PATIENT = '''
"""A solver that takes its time, once."""

import time
from dataclasses import dataclass
from typing import ClassVar

from otbench import Solver, Transport

FITS = []


@dataclass(frozen=True)
class Patient(Solver):
    """Sleeps, step by step."""

    name: ClassVar[str] = "patient"
    batched: ClassVar[bool] = True
    steps: int = 14
    fault: str = "none"

    def fit(self, problem, run):
        """Draw a number per step; repeats of the fit do not sleep."""
        import numpy as np
        import torch

        FITS.append(run)
        done, total, state = 0, torch.zeros(2), run.restored()
        assert len(FITS) == 1 or state is None
        if state is not None:
            done, total = state["done"], state["total"]
        size = 200_000 if self.fault == "large" else 2
        kind = np.float64 if self.fault == "numpy" else float
        for step in range(done + 1, self.steps + 1):
            time.sleep(0.1 if len(FITS) == 1 else 0.0)
            total = total + torch.randn(2, generator=run.generator)
            run.checkpoint(step, Transport(push=lambda x, shift=total: x + shift))
            state = {"done": step, "total": total, "size": torch.zeros(size), "kind": kind(1.0)}
            run.save(lambda state=state: state)
        info = {"draws": float(total.sum()), "steps_here": self.steps - done}
        return Transport(push=lambda x: x + total, info=info)

    def fit_together(self, problems, runs):
        """One after the other."""
        return [self.fit(problem, run) for problem, run in zip(problems, runs)]
'''


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "patient.py"
    path.write_text(PATIENT)
    return path


def alive(results: Path) -> list[Path]:
    return sorted(path for path in (results / "fits").glob("*") if path.suffix != ".old")


@pytest.mark.slow
def test_a_fit_goes_on_after_a_timeout_and_its_clock_too(otbench, tmp_path, plugin):
    call = ("run", "-t", "gaussian[dim=2]", "--seeds", 1, "--jobs", 2, "--plugins", plugin, "-s")
    saved = ("patient[steps=24]", "--save-fits", "0.3s", "--results", "out")
    assert otbench(*call, *saved, "--timeout", "1.7s").returncode == 0
    (first,) = rows(tmp_path / "out")
    assert first["status"] == "timeout" and "resumed" not in first
    (file,) = (tmp_path / "out" / "fits").glob("*.pt")  # beside it, one that the kill cut short
    assert file.name == f"{first['key']}.pt"
    kept = read_state(file)
    assert kept is not None and 0.3 < kept["seconds"] < 1.7
    assert [point["step"] for point in kept["curve"]] == list(
        range(1, kept["state"]["solver"]["done"] + 1)
    )
    again = otbench(*call, *saved, "--timeout", "60s")
    assert "1 of them begun before" in again.stdout
    ended = rows(tmp_path / "out")[-1]
    assert ended["status"] == "ok" and ended["resumed"] == 1 and ended["message"] == ""
    assert ended["info_steps_here"] == 24 - kept["state"]["solver"]["done"] < 24
    # All steps count once: 24 of 0.1 s, whatever was lost between the last save and the end of the
    # first attempt.
    assert ended["fit_cold_s"] == pytest.approx(2.4, abs=0.4)
    assert [point["step"] for point in ended["curve"]] == list(range(1, 25))
    seconds = [point["seconds"] for point in ended["curve"]]
    assert seconds == sorted(seconds) and seconds[: len(kept["curve"])] == [
        point["seconds"] for point in kept["curve"]
    ]
    assert not alive(tmp_path / "out")

    otbench(*call, "patient[steps=24]", "--results", "whole")
    (whole,) = rows(tmp_path / "whole")
    same = [name for name in whole if name.startswith("metric_")]
    assert same and {name: ended[name] for name in same} == {name: whole[name] for name in same}
    assert (
        ended["info_draws"] == whole["info_draws"]
        and ended["fit_warm_s"] < 0.5
        and whole["fit_warm_s"] < 0.5
    )
    unclocked = [
        [
            {name: value for name, value in point.items() if name != "seconds"}
            for point in row["curve"]
        ]
        for row in (ended, whole)
    ]
    assert unclocked[0] == unclocked[1]


@pytest.mark.slow
def test_what_cannot_go_on_begins_anew(otbench, tmp_path, plugin):
    call = (
        "run",
        "-t",
        "gaussian[dim=2]",
        "--seeds",
        1,
        "--plugins",
        plugin,
        "--results",
        "out",
        "--save-fits",
        "0.2s",
        "--jobs",
        4,
    )
    faults = "patient[fault=[kept,damaged,elsewhere,other code]]"
    otbench(*call, "-s", faults, "--timeout", "1s")
    cut = {
        row["solver_label"]: row["key"]
        for row in rows(tmp_path / "out")
        if row["status"] == "timeout"
    }
    files = {
        fault: tmp_path / "out" / "fits" / f"{key}.pt"
        for fault in ("kept", "damaged", "elsewhere", "other code")
        for label, key in cut.items()
        if fault in label
    }
    assert SavedFits(tmp_path / "out" / "fits").keys() == set(cut.values()) and len(files) == 4
    data = files["damaged"].read_bytes()
    files["damaged"].write_bytes(data[: len(data) // 2])
    kept = read_state(files["other code"])
    assert kept is not None
    elsewhere = read_state(files["elsewhere"])
    assert elsewhere is not None
    write_state(
        files["elsewhere"],
        {**elsewhere, "where": {**elsewhere["where"], "machine": "the one that was lost"}},
    )
    write_state(
        files["other code"], {**kept, "made_by": {**kept["made_by"], "solver_hash": "older"}}
    )

    otbench(*call, "-s", faults, "patient[steps=13,fault=kept]", "--keep")
    ended = {row["key"]: row for row in rows(tmp_path / "out") if row["status"] == "ok"}
    found = {fault: ended[file.stem] for fault, file in files.items()}
    assert len(ended) == 5 and not alive(tmp_path / "out")
    assert (
        found["kept"]["resumed"] == 1
        and found["kept"]["info_steps_here"] < 14
        and found["kept"]["message"] == ""
    )
    assert (
        found["elsewhere"]["resumed"] == 1
        and "the seconds are of both" in found["elsewhere"]["message"]
    )
    (changed,) = (
        row for key, row in ended.items() if key not in cut.values()
    )  # other parameters are another fit
    for row, steps in ((found["damaged"], 14), (found["other code"], 14), (changed, 13)):
        assert (
            "resumed" not in row and row["info_steps_here"] == steps and len(row["curve"]) == steps
        )
    for fault, words in (("damaged", "is damaged"), ("other code", "is of another solver_hash")):
        assert (
            found[fault]["message"]
            == f"begun anew: the saved fit {files[fault].name}, kept as .old, {words}"
        )
        assert files[fault].with_suffix(".old").exists()


def test_seeds_solved_as_one_are_not_saved_and_states_are_plain(otbench, tmp_path, plugin):
    call = (
        "run",
        "-t",
        "gaussian[dim=2]",
        "-s",
        "patient[steps=5,fault=numpy]",
        "--plugins",
        plugin,
        "--save-fits",
        "0.1s",
        "--results",
        "out",
    )
    otbench(*call, "--seeds", 3, "--together", 2, "--jobs", 2)
    *together, alone = sorted(rows(tmp_path / "out"), key=lambda row: row["status"] == "error")
    assert [(row["status"], row["together"]) for row in together] == [("ok", 2)] * 2
    assert (
        alone["status"] == "error"
        and "context.save was given float64: make the state of tensors" in alone["message"]
    )
    assert not alive(tmp_path / "out")


def test_a_full_disk_is_said_and_costs_no_result(tmp_path, plugin):
    solver = [
        "-t",
        "gaussian[dim=2]",
        "-s",
        "patient[fault=large]",
        "--seeds",
        "1",
        "--jobs",
        "2",
        "--plugins",
        str(plugin),
    ]
    command = [
        sys.executable,
        "-m",
        "otbench",
        "run",
        *solver,
        "--save-fits",
        "0.3s",
        "--results",
        "out",
    ]
    limited = ["bash", "-c", 'ulimit -f 100; trap "" XFSZ; exec "$@"', "bash", *command]
    subprocess.run(limited, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    (row,) = rows(tmp_path / "out")
    assert row["status"] == "ok" and row["message"] == "fit not saved: File too large"
    assert not alive(tmp_path / "out")


@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_same_row(otbench, tmp_path):
    training = "otp[steps=300,width=16,depth=2]"
    call = (
        "-t",
        "gaussian[dim=2]",
        "-s",
        training,
        "--seeds",
        1,
        "--save-fits",
        "0.2s",
        "--jobs",
        2,
    )  # one thread: others compute too
    process = launch(tmp_path, *call)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "out" / "fits").glob("*.pt")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    descendants = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    psutil.wait_procs(descendants, timeout=10)
    assert not rows(tmp_path / "out")
    (file,) = (tmp_path / "out" / "fits").glob("*.pt")
    kept = read_state(file)
    assert kept is not None and kept["seconds"] > 0.2

    otbench("run", *call, "--results", "out")
    otbench("run", *call, "--results", "whole")
    (resumed,), (whole,) = rows(tmp_path / "out"), rows(tmp_path / "whole")
    assert (
        resumed["status"] == whole["status"] == "ok"
        and resumed["resumed"] == 1
        and "resumed" not in whole
    )
    assert (
        resumed["fit_cold_s"] > kept["seconds"]
        and 0.4 < resumed["fit_cold_s"] / whole["fit_cold_s"] < 2.5
    )
    same = [name for name in whole if name.startswith(("metric_", "info_"))] + ["verdict"]
    assert {name: resumed[name] for name in same} == {name: whole[name] for name in same}
    assert [point["step"] for point in resumed["curve"]] == [
        point["step"] for point in whole["curve"]
    ]
    assert not alive(tmp_path / "out") and SavedFits(tmp_path / "out" / "fits").keys() == set()


@pytest.mark.slow
def test_keep_does_again_what_was_recorded_without_outputs(otbench, tmp_path):
    call = ("run", "-t", "gaussian[dim=1]", "-s", "linear", "identity", "--seeds", 1)

    def outputs() -> set[str]:
        return {path.stem for path in tmp_path.rglob("outputs/*.npz")}

    otbench(*call, "--results", "out")
    left = otbench(*call, "--results", "out", "--keep", "--rerun", "missing")
    assert "0 to do" in left.stdout and not outputs()
    assert "2 recorded without the raw output that --keep keeps, left so by" in left.stdout
    done = otbench(*call, "--results", "out", "--keep")
    assert "2 recorded without the raw output that --keep keeps, done again" in done.stdout
    assert outputs() == {row["key"] for row in rows(tmp_path / "out")}
    assert "0 to do" in otbench(*call, "--results", "out", "--keep").stdout
    next(tmp_path.rglob("outputs/*.npz")).unlink()
    assert "1 to do" in otbench(*call, "--results", "out", "--keep").stdout
