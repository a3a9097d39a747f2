"""What several test files share."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from otbench.cli.main import main


if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # several processes share the cores

settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")

HOSTILE = Path(__file__).parent / "hostile" / "hostile.py"


def call_otbench(
    *arguments: object, cwd: Path, env: dict[str, str] | None = None, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Call the command line as a user does, in a process of its own."""
    command = [sys.executable, "-m", "otbench", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "200", **(env or {})}
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout
    )


@pytest.fixture
def otbench(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line, called from an empty folder."""
    return partial(call_otbench, cwd=tmp_path)


def call_here(
    *arguments: object, cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Call the command line in this process, which has imported already what a new one would."""
    command, out, err = list(map(str, arguments)), io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        for name, value in {"COLUMNS": "200", **(env or {})}.items():
            patch.setenv(name, value)
        try:
            status = main(command)
        except SystemExit as left:
            status = left.code if isinstance(left.code, int) else 1
    return subprocess.CompletedProcess(command, status, out.getvalue(), err.getvalue())


@pytest.fixture
def otbench_here(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line in this process, called from an empty folder."""
    return partial(call_here, cwd=tmp_path)


@pytest.fixture
def one_thread():
    """Small networks do not gain from more, and timings do not depend on what else runs then."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def rows(results: Path) -> list[dict[str, Any]]:
    """Every row recorded below a results folder, in order of recording."""
    files: Sequence[Path] = sorted(results.rglob("rows.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]
