"""What only a GPU can show. Skipped, with the reason, where there is none."""

from __future__ import annotations

import json

import pytest

from otbench.run import find_device
from tests.conftest import HOSTILE, rows


pytestmark = pytest.mark.skipif(find_device("auto") == "cpu", reason="torch sees no CUDA device here")


def test_runs_on_the_gpu_are_scored_as_on_the_cpu(otbench, tmp_path):
    solvers = ("identity", "linear", "pot-emd[n=256]", "pot-sinkhorn[n=256]")
    for device in ("cpu", "cuda"):
        otbench("run", "-t", "gaussian[dim=4]", "-s", *solvers, "--seeds", 3, "--device", device, "--results", device)
    uvp = {device: {(row["solver"], row["seed"]): row["metric_l2_uvp"] for row in rows(tmp_path / device)} for device in ("cpu", "cuda")}
    assert uvp["cpu"].keys() == uvp["cuda"].keys() and len(uvp["cpu"]) == 12
    for seed in range(3):  # other random numbers on the other device, the same law
        assert uvp["cuda"]["identity", seed] == pytest.approx(uvp["cpu"]["identity", seed], rel=0.05)
        assert uvp["cuda"]["linear", seed] < 0.1
    gpu = [row for row in rows(tmp_path / "cuda") if row["solver"] == "pot-sinkhorn"]
    assert all(row["device_peak_mib"] > 0 and row["device"] == "cuda" for row in gpu)


def test_queued_kernels_are_waited_for(otbench, tmp_path):
    grid = ("-t", "gaussian", "-s", "async-torch[wait=[false,true]]", "--seeds", 3)
    otbench("run", *grid, "--device", "cuda", "--plugins", HOSTILE, "--results", "out")
    times = {False: [], True: []}
    for row in rows(tmp_path / "out"):
        times[json.loads(row["solver_params"])["wait"]].append(row["fit_warm_s"])
    assert min(times[False]) == pytest.approx(min(times[True]), rel=0.25)
