"""Where numbers come from: what is written once per invocation, before the first run."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from otbench.data.files import checksum, folders


PACKAGES = ("otmapbench", "torch", "jax", "jaxlib", "ott-jax", "pot", "numpy", "scipy", "pandas")
ENVIRONMENT = (
    "OMP_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "JAX_PLATFORMS",
    "XLA_FLAGS",
    "NVIDIA_TF32_OVERRIDE",
)


def collect(
    command: Sequence[str],
    suite: str,
    device: str,
    threads: int,
    jobs: int,
    data_files: Sequence[Path],
) -> dict[str, Any]:
    """The provenance of one invocation, as plain values.

    Args:
        command: the command line.
        suite: name and version of the suite.
        device: ``cpu`` or ``cuda``.
        threads: CPU threads per worker.
        jobs: workers at a time.
        data_files: the real data files that the planned tasks read.
    """
    gpu = gpu_query()
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [Path(command[0]).name, *command[1:]],
        "suite": suite,
        **_git(),
        "versions": {name: _version(name) for name in PACKAGES},
        "python": sys.version.split()[0],
        "os": platform.platform(),
        "cpu": _cpu_model(),
        "cores": _cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": gpu.get("name"),
        "driver": gpu.get("driver_version"),
        "gpu_clock": gpu.get("clocks.max.sm"),
        "device": device,
        "threads": threads,
        "jobs": jobs,
        "environment": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
        "data_sha256": {_data_name(path): checksum(path) for path in data_files},
    }


@cache
def machine() -> str:
    """CPU, number of cores and GPU in a few words: what times depend on most."""
    gpu = gpu_query().get("name")
    return f"{_cpu_model()}, {_cores()} core{'s' * (_cores() != 1)}" + (f", {gpu}" if gpu else "")


@cache
def gpu_query() -> dict[str, str]:
    """Name, driver and clock of the first NVIDIA GPU, empty without one."""
    fields = ("name", "driver_version", "clocks.max.sm")
    if shutil.which("nvidia-smi") is None:
        return {}
    query = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, errors="replace", timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    lines = answer.stdout.strip().splitlines() if answer.returncode == 0 else []
    return (
        dict(zip(fields, (value.strip() for value in lines[0].split(",")), strict=False))
        if lines
        else {}
    )


def _data_name(path: Path) -> str:
    """The path inside the data folder; of a file elsewhere, from the current folder."""
    return next(
        (str(path.relative_to(folder)) for folder in folders() if path.is_relative_to(folder)),
        os.path.relpath(path),
    )


def _git() -> dict[str, Any]:
    """Commit and dirty flag of the checkout the code runs from; None where it is no checkout."""
    root = Path(__file__).parents[2]

    def git(*arguments: str) -> str | None:
        try:
            answer = subprocess.run(
                ["git", "-C", str(root), *arguments],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=30,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return answer.stdout.strip() if answer.returncode == 0 else None

    if not (root / ".git").exists():
        return {"git_commit": None, "git_dirty": None}
    return {
        "git_commit": git("rev-parse", "HEAD"),
        "git_dirty": bool(git("status", "--porcelain", "--untracked-files=no")),
    }


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        for line in (
            Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        ):
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
