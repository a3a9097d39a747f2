"""The runner on GPUs, without one: nvidia-smi and CUDA's events are stood in for."""

from __future__ import annotations

import ctypes
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

import otbench
from otbench.errors import UserError
from otbench.job import Gpu, Job
from otbench.report.amortization import amortization
from otbench.report.compare import compare
from otbench.report.figures import accuracy_curves, plot
from otbench.report.leaderboard import leaderboard
from otbench.report.recommendation import recommendations
from otbench.report.styles import styles
from otbench.runner import clock, devices, fit, forkserver, plan
from otbench.runner.clock import Clock, repeated
from otbench.runner.devices import defaults, find_devices, installed, sm_clock_mhz, visible
from otbench.runner.executor import Finished, Limits, Started, executor
from otbench.runner.outcome import NO_ROOM, status_of
from otbench.runner.run import Options, run
from otbench.statuses import Status
from tests.conftest import rows
from tests.synthetic import lines, uvp, write


PLUGIN = str(Path(__file__).parent / "hostile" / "gpu.py")
FACTS = ", 570.86.15, 1980 MHz, 700.00 W\n"
TWO = (
    "GPU-aaaa-1, NVIDIA H200" + FACTS + "GPU-bbbb-2, NVIDIA H200" + FACTS,
    "GPU 0: NVIDIA H200 (UUID: GPU-aaaa-1)\nGPU 1: NVIDIA H200 (UUID: GPU-bbbb-2)\n",
)
MIXED = (
    "GPU-aaaa-1, NVIDIA T4" + FACTS + "GPU-bbbb-2, NVIDIA H200" + FACTS,
    "GPU 0: NVIDIA T4 (UUID: GPU-aaaa-1)\nGPU 1: NVIDIA H200 (UUID: GPU-bbbb-2)\n",
)
DIVIDED = (
    TWO[0],
    "GPU 0: NVIDIA H200 (UUID: GPU-aaaa-1)\n"
    "  MIG 1g.18gb     Device  0: (UUID: MIG-cccc-1)\n"
    "  MIG 3g.71gb     Device  1: (UUID: MIG-dddd-2)\n"
    "GPU 1: NVIDIA H200 (UUID: GPU-bbbb-2)\n",
)
SMI = """#!/bin/sh
here=$(dirname "$0")
case "$*" in
-L) cat "$here/list" ;;
--query-gpu=uuid*) cat "$here/query" ;;
--query-gpu=clocks.sm*--id=GPU-aaaa-1) echo 1755 ;;
--query-gpu=clocks.sm*) echo "[N/A]" ;;
*) exit 2 ;;
esac
"""


@pytest.fixture
def smi(tmp_path, monkeypatch):
    """Puts an nvidia-smi on the path that tells of these GPUs."""
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", *devices.JAX_MEMORY):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(devices, "_torch_has_cuda", lambda: True)

    def put(told: tuple[str, str]) -> None:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        (folder / "query").write_text(told[0])
        (folder / "list").write_text(told[1])
        (folder / "nvidia-smi").write_text(SMI)
        (folder / "nvidia-smi").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
        installed.cache_clear()

    yield put
    installed.cache_clear()


@pytest.mark.parametrize(
    ("told", "named", "found"),
    [
        (TWO, None, ["GPU-aaaa-1", "GPU-bbbb-2"]),
        (TWO, "", []),
        (TWO, "1", ["1"]),
        (TWO, "1, 0", ["1", "0"]),
        (TWO, "GPU-bb", ["GPU-bbbb-2"]),
        (TWO, "GPU-", []),  # of two
        (TWO, "0,-1,1", ["0"]),  # what comes after one that is not there is hidden
        (TWO, "0,2,1", ["0"]),
        (DIVIDED, None, ["MIG-cccc-1", "MIG-dddd-2", "GPU-bbbb-2"]),
        (DIVIDED, "MIG-dddd-2,GPU-bbbb-2", ["MIG-dddd-2", "GPU-bbbb-2"]),
        (DIVIDED, "GPU-aaaa-1,GPU-bbbb-2", ["GPU-aaaa-1", "GPU-bbbb-2"]),
        (DIVIDED, "MIG-dddd-2,1", ["MIG-dddd-2", "1"]),
        (MIXED, "GPU-bbbb-2", ["GPU-bbbb-2"]),
    ],
)
def test_the_gpus_are_those_that_cuda_may_use(smi, monkeypatch, told, named, found):
    smi(told)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert [gpu.visible for gpu in visible()] == found


def test_what_is_told_of_a_gpu_and_of_a_part_of_one(smi, monkeypatch):
    smi(DIVIDED)
    small, large, whole = visible()
    assert (small.name, large.name) == ("NVIDIA H200 MIG 1g.18gb", "NVIDIA H200 MIG 3g.71gb")
    assert small.card == large.card == "GPU-aaaa-1" and whole.name == "NVIDIA H200"
    assert (whole.driver, whole.max_clock, whole.power_limit) == (
        "570.86.15",
        "1980 MHz",
        "700.00 W",
    )
    assert sm_clock_mhz(large) == 1755 and sm_clock_mhz(whole) is None
    for named in ("0", "GPU-aaaa-1"):  # CUDA gives the first part
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
        assert visible() == (replace(small, visible=named),)


def test_numbers_of_gpus_of_several_kinds_are_clear_or_refused(smi, monkeypatch):
    smi(MIXED)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with pytest.raises(UserError, match="set CUDA_DEVICE_ORDER=PCI_BUS_ID, or name them by"):
        visible()
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert [gpu.name for gpu in visible()] == ["NVIDIA H200"]


def test_one_gpu_is_chosen_by_its_number_among_those_visible(smi, monkeypatch):
    smi(TWO)
    assert [gpu.visible for gpu in find_devices("cuda:1")[1]] == ["GPU-bbbb-2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    assert [gpu.visible for gpu in find_devices("cuda:1")[1]] == ["0"]
    with pytest.raises(UserError) as caught:
        find_devices("cuda:2")
    assert str(caught.value) == (
        "--device cuda:2: there is no such GPU, choose among cuda:0 (NVIDIA H200), "
        "cuda:1 (NVIDIA H200)"
    )
    assert find_devices("cpu") == ("cpu", ())
    assert find_devices("auto")[0] == "cuda" and len(find_devices("auto")[1]) == 2
    smi(("", ""))
    with pytest.raises(UserError, match="lists none of the GPUs that torch sees"):
        find_devices("cuda")
    monkeypatch.setattr(devices, "_torch_has_cuda", lambda: False)
    assert find_devices("auto") == ("cpu", ())
    for wrong in ("cuda:", "cuda:x", "cuda:-1", "cuda:12345", "gpu"):
        with pytest.raises(UserError, match="unknown device"):
            Options(device=wrong)


def test_jax_takes_no_memory_in_advance_unless_the_user_says_so(monkeypatch):
    for name in (*devices.JAX_MEMORY, "JAX_PLATFORMS", "PYTORCH_NVML_BASED_CUDA_CHECK"):
        monkeypatch.delenv(name, raising=False)
    assert defaults("cuda")["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    assert defaults("cpu") == {"JAX_PLATFORMS": "cpu"}
    for name in devices.JAX_MEMORY:
        with monkeypatch.context() as patch:
            patch.setenv(name, "0.5")
            assert not set(defaults("cuda")) & set(devices.JAX_MEMORY)


@pytest.mark.parametrize(("result", "opened"), [(0, True), (201, True), (3, False)])
def test_a_driver_opened_before_the_fork_is_seen(monkeypatch, result, opened):
    """As by torch.cuda.is_available() in a plugin: a forked worker could not choose its GPU."""
    assert forkserver.cuda_is_open() is torch.cuda.is_initialized()
    driver = SimpleNamespace(cuCtxGetDevice=lambda _: result)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: driver)
    assert forkserver.cuda_is_open() is opened


def jobs(tmp_path, *acts: str, together: int = 1) -> list[Job]:
    """A job for each act, of so many seeds."""
    texts = [f"on-gpu[act={act},path='{tmp_path / act}']" for act in acts]
    return [
        Job(
            tuple(
                plan.expand(
                    plan.select("task", ["gaussian[dim=1]"], (PLUGIN,)),
                    plan.select("solver", [text], (PLUGIN,)),
                    range(together),
                    "cpu",  # torch's here; the runner looks at the GPUs it was given
                    "float32",
                )
            ),
            (PLUGIN,),
        )
        for text in texts
    ]


def test_runs_have_a_gpu_each_and_those_crowded_out_are_done_again_alone(smi, tmp_path):
    smi(TWO)
    gpus = [
        Gpu("GPU-a", "GPU-aaaa-1", "NVIDIA H200", "570.86.15"),
        Gpu("1", "GPU-bbbb-2", "NVIDIA H200", "570.86.15"),
        Gpu("MIG-c", "GPU-bbbb-2", "NVIDIA H200 MIG 1g.18gb", "570.86.15"),
    ]
    of_one = jobs(tmp_path, "tell", "crowded", "short", "abort")
    # Slots 0 to 4 have the GPUs a, 1, c, a, 1.
    planned = [of_one[0], of_one[1], *jobs(tmp_path, "stack", together=2), *of_one[2:]]
    events = list(executor("local", 5, Limits(60, 2**33), gpus).execute(planned))
    begun = [event.job for event in events if isinstance(event, Started)]
    assert begun[:5] == [0, 1, 2, 3, 4] and sorted(begun[5:]) == [1, 3, 4]
    ended = [event for event in events if isinstance(event, Finished)]
    assert len(ended) == 6
    found = {(event.job, event.member): event.result for event in ended}
    shared = {place: result.measured["gpu_runs"] for place, result in found.items()}
    assert shared == {(0, 0): 2, (1, 0): 1, (2, 0): 1, (2, 1): 1, (3, 0): 1, (4, 0): 1}
    # Alone there is no room for it either.
    assert found[3, 0].status == Status.OOM and "CUDA out of memory" in found[3, 0].message
    told = {place: result for place, result in found.items() if place != (3, 0)}
    assert {result.status for result in told.values()} == {"ok"}
    assert told[0, 0].info["cuda_visible_devices"] == "GPU-a"
    assert {told[2, k].info["cuda_visible_devices"] for k in (0, 1)} == {"MIG-c"}
    assert told[2, 0].measured["machine"].endswith(", NVIDIA H200 MIG 1g.18gb")
    assert told[0, 0].measured["driver"] == "570.86.15"
    assert told[0, 0].measured["gpu_clock_mhz"] == 1755
    assert told[2, 0].measured["gpu_clock_mhz"] is None
    assert told[0, 0].measured["fit_device_s"] is None  # torch opened no CUDA here


def test_the_command_on_two_gpus(smi, tmp_path, monkeypatch):
    """Torch here cannot use them, so that the runs fail; where and how they were made is told."""
    smi(TWO)
    console = Console(file=open(tmp_path / "said", "w"), width=200)  # noqa: SIM115
    options = Options(
        tasks=["gaussian[dim=1]"],
        solvers=["identity"],
        seeds=[0, 1],
        device="cuda",
        results=tmp_path / "out",
    )
    planned = run(options, console)
    assert len(planned.keys) == 2
    found = rows(tmp_path / "out")
    assert {(row["gpu_runs"], row["device"]) for row in found} == {(1, "cuda")}
    assert all(row["machine"].endswith("NVIDIA H200") for row in found)
    (path,) = (tmp_path / "out").rglob("provenance.json")
    facts = json.loads(path.read_text())
    assert facts["jobs"] == 2 and facts["gpu"] == "NVIDIA H200"
    assert [gpu["visible"] for gpu in facts["gpus"]] == ["GPU-aaaa-1", "GPU-bbbb-2"]
    assert facts["gpus"][0]["power_limit"] == "700.00 W"
    assert facts["environment"]["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    # Another GPU of the same kind does not make another run.
    again = run(replace(options, device="cuda:1", jobs=3), console)
    assert again.keys == planned.keys and len(rows(tmp_path / "out")) == 2
    console.file.close()
    said = (tmp_path / "said").read_text()
    assert "on 2 x NVIDIA H200\n" in said and "2 already recorded" in said
    assert "on 1 x NVIDIA H200: 3 runs at a time share it, so that no report shows" in said


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronous"),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1073741824 bytes."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        RuntimeError("CUDA_ERROR_OUT_OF_MEMORY: out of memory"),
    ],
)
def test_what_the_frameworks_say_of_full_memory_is_oom(error):
    assert status_of(error) is Status.OOM and NO_ROOM.search(str(error))
    assert status_of(RuntimeError("the kernel may have run out of memory")) is Status.ERROR


class Cuda:
    """torch.cuda with a clock of its own: each event is ``tick`` milliseconds after the last."""

    def __init__(self, tick: float) -> None:
        self.tick, self.now, self.calls = tick, 0.0, []

    def Event(self, enable_timing: bool) -> SimpleNamespace:
        """An event."""
        assert enable_timing
        event = SimpleNamespace(at=0.0)
        event.elapsed_time = lambda end: end.at - event.at

        def record() -> None:
            self.now += self.tick
            event.at = self.now
            self.calls.append("record")

        event.record = record
        return event

    def synchronize(self) -> None:
        """Wait."""
        self.calls.append("wait")

    def reset_peak_memory_stats(self) -> None:
        """Nothing to reset."""

    def max_memory_allocated(self) -> int:
        """Nothing."""
        return 0


def test_events_time_what_the_clock_does(monkeypatch):
    cuda, opened = Cuda(tick=250.0), [True]
    monkeypatch.setattr(clock, "cuda_in_use", lambda: [cuda] if opened[0] else [])
    timer = Clock()
    timer.start()
    with timer.paused():
        cuda.now += 1e6  # scoring
    timer.stop()
    assert timer.device_s == 0.5
    # The device is idle as it starts, and waited for only after the event that ends it.
    assert cuda.calls == ["wait", "record", "record", "wait"] * 2
    assert timer.stop() == timer.seconds and timer.device_s == 0.5  # it stands already
    assert repeated(lambda _: None, lambda: None, 0.0)[1] == 0.25  # type: ignore[index]

    other = Clock()
    opened[0] = False
    other.start()
    opened[0] = True  # in the midst of it
    other.stop()
    assert other.device_s is None
    jax = SimpleNamespace(default_backend=lambda: "gpu", block_until_ready=lambda _: None)
    with monkeypatch.context() as patch:
        patch.setattr(clock, "jax_on_gpu", lambda: jax.default_backend() != "cpu")
        third = Clock()
        third.start()
        third.stop()
    assert third.device_s is None


@pytest.mark.parametrize(
    ("longest", "late", "on_device"),
    [
        (float("inf"), 0.0, 3),  # a repeat, from event to event
        (0.0, 0.0, 6),  # the first fit, after `supports`
        (0.0, 0.5, None),  # part of which the first push did
    ],
)
def test_a_row_has_the_fit_by_the_gpu_beside_its_seconds(monkeypatch, longest, late, on_device):
    cuda = Cuda(tick=3e3)
    monkeypatch.setattr(clock, "cuda_in_use", lambda: [cuda])
    monkeypatch.setattr(clock.CallTimes, "late", lambda _: late)
    monkeypatch.setattr(fit, "REDRAWN_S", float("inf"))
    for module in (clock, fit):
        monkeypatch.setattr(module, "REPEAT_S", longest)
    row = otbench.solve("gaussian[dim=1]", "linear").row
    assert row.fit_device_s == on_device and (row.fit_warm_s is None) == (longest == 0)


CURVE = [{"step": k, "seconds": k / 10, "l2_uvp": 30 / k} for k in (10, 20)]


def test_reports_leave_out_the_times_of_shared_gpus_and_say_so(tmp_path, capsys):
    alone = uvp("a", "otm", [1.0, 2.0], gpu_runs=1, device="cuda", curve=CURVE, fit_cold_s=2.0)
    crowded = [
        {**row, "seed": 2 + row["seed"], "key": f"crowded{row['seed']}"}
        for row in uvp("a", "otm", [3.0, 4.0], gpu_runs=2, device="cuda", curve=CURVE)
    ]
    only = uvp("a", "otp", [5.0] * 4, gpu_runs=3, device="cuda", curve=CURVE, fit_cold_s=0.1)
    results = write(tmp_path / "r", [*alone, *crowded, *only])
    note = (
        "times left out of 6 runs that shared their GPU with others (column `gpu_runs`): "
        "otp on a (4), otm on a (2)"
    )
    text = leaderboard(results)
    errors, times = (lines("### " + part) for part in text.split("### ")[1:])
    assert errors["otm"][1].startswith("**2.5") and errors["otp"][1].startswith("5.00")
    assert times["otm"][1].startswith("**2.00") and times["otp"][1].startswith("n/a")
    assert " ".join(text.split()).count(note) == 1
    assert note not in " ".join(leaderboard(results, metrics=["l2_uvp"]).split())

    runs = results.runs.assign(fit_s=results.runs.fit_cold_s.astype(float))
    figure = accuracy_curves(runs, results.curves, styles(runs), "cuda")
    assert figure is not None and len(figure.axes[0].lines) == 1
    plot(results, [tmp_path / "r"], tmp_path / "figures")
    assert capsys.readouterr().err.splitlines() == [note]


def test_times_of_shared_gpus_are_not_compared_nor_recommended_nor_amortized(tmp_path):
    changes = {"machine": "CPU, GPU", "load": 0.0, "device": "cuda"}
    for side, runs in (("a", 1), ("b", 2)):
        write(tmp_path / side, uvp("gaussian", "otm", [1.0, 2.0], gpu_runs=runs, **changes))
    refused = compare(tmp_path / "a", tmp_path / "b").refused
    assert "shared GPUs" in refused.set_index("quantity").reason["fit_s"]

    own = {"task": "samples", "metric_target_gap": 0.1, "verdict": "ok", "gpu_runs": 2}
    own |= {"metric_l2_uvp": None, "device": "cuda"}
    results = write(tmp_path / "own", [{**row, **own} for row in uvp("samples[x,y]", "otm", [1.0])])
    assert recommendations(results) == [
        "samples[x,y]: lowest target_gap: otm (one seed: no error is known); no run was alone on "
        "its GPU: no time is known"
    ]

    pairs = {"infer_ms_per_pair": 2.0, "infer_cold_ms": 3.0, "device": "cuda", "learns": True}
    rows = [
        *uvp("a", "meta", [1.0, 2.0], gpu_runs=1, **pairs),
        *uvp("a", "slow", [1.0, 2.0], gpu_runs=2, **pairs),
    ]
    text = amortization(write(tmp_path / "pairs", rows))
    assert "slow on a (2)" in text and "| slow" not in text and "| meta" in text
