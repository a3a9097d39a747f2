"""Where numbers come from: what is written once per invocation, before the first run."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from otbench.data.files import checksum, folders
from otbench.job import Gpu
from otbench.runner.devices import JAX_MEMORY, defaults


PACKAGES = ("otmapbench", "torch", "jax", "jaxlib", "ott-jax", "pot", "numpy", "scipy", "pandas")
ENVIRONMENT = (
    "OMP_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "JAX_PLATFORMS",
    "XLA_FLAGS",
    *JAX_MEMORY,
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "NVIDIA_TF32_OVERRIDE",
)


def collect(
    command: Sequence[str],
    suite: str,
    device: str,
    gpus: Sequence[Gpu],
    threads: int,
    jobs: int,
    data_files: Sequence[Path],
) -> dict[str, Any]:
    """The provenance of one invocation, as plain values.

    Args:
        command: the command line.
        suite: name and version of the suite.
        device: ``cpu`` or ``cuda``.
        gpus: to run on.
        threads: CPU threads per worker.
        jobs: workers at a time.
        data_files: the real data files that the planned tasks read.
    """
    environment = {**os.environ, **defaults(device)}
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
        "gpu": ", ".join(dict.fromkeys(gpu.name for gpu in gpus)) or None,
        "gpus": [gpu.to_json() for gpu in gpus],
        "device": device,
        "threads": threads,
        "jobs": jobs,
        "environment": {name: environment[name] for name in ENVIRONMENT if name in environment},
        "data_sha256": {_data_name(path): checksum(path) for path in data_files},
    }


@cache
def machine(gpu: Gpu | None = None) -> str:
    """CPU, number of cores and GPU in a few words: what times depend on most."""
    cores = f"{_cores()} core{'s' * (_cores() != 1)}"
    return ", ".join([_cpu_model(), cores, *([gpu.name] if gpu else [])])


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
