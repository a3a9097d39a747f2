"""What is printed: texts of the user's as they are, on terminals that lack characters, too."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from otbench.cli.main import main
from otbench.job import Row
from otbench.runner.progress import Progress
from tests.synthetic import uvp, write


Printed = tuple[int, str]


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Printed]:
    """Call a command on a terminal of an encoding: the exit status, and all that it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(encoding: str, *arguments: object) -> Printed:
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        for name in ("stdout", "stderr"):
            monkeypatch.setattr(sys, name, stream)
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as error:
            status = int(error.code or 0)
        stream.flush()
        return status, stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]

    return call


NAMES = ("[/b]", "[bold]", "x:smile:", "[red]y[/red]", "éµ")
COMMANDS = {
    ("list",): "gaussian",
    ("data", "list"): "mnist",
    ("data", "verify", "é[/b]"): "[/b]",
    ("run", "-t", "é[/b]"): "cannot read",
    ("run", "--plugins", "é[/b].py"): "[/b].py: no such Python file or folder",
    ("check", "é"): "unknown solver",
    ("new", "solver", "é[/b]", "--cost", "any"): "[/b]' is not kebab-case",
    ("leaderboard", "é[/b]"): "l2_uvp",
    ("verdicts", "é[/b]"): "verdict",
    ("rejudged", "é[/b]"): "",
    ("amortization", "é[/b]"): "",
    ("status", "é[/b]"): "otm",
    ("compare", "é[/b]", "é[/b]"): "1 the same",
    ("export", "é[/b]", "--out", "µ[bold]"): "[bold]/runs.parquet",
    ("leaderboard", "absent[/b]é"): "no results folder absent[/b]",
}


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_stumbles_over_characters(printed, tmp_path, command, encoding):
    write(tmp_path / "é[/b]", uvp("gaussian[dim=2]", "otm", [1.0, 2.0]))
    status, text = printed(encoding, *command)
    assert status in (0, 2) and COMMANDS[command] in text


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_a_run_prints_paths_as_they_are(printed, tmp_path, encoding):
    results = tmp_path / "a[" / "b]:smile:[bold]é"
    run = ("run", "-t", "gaussian[dim=1]", "-s", "linear", "--seeds", 1, "--results", results)
    shown = str(results).encode(encoding, errors="replace").decode(encoding)
    for words in (f"rows and provenance in {shown}", f"already recorded under {shown}"):
        status, text = printed(encoding, *run)
        assert status == 0 and words in text and f"results: {shown}/" in text


def test_names_of_runs_are_no_markup_on_a_live_display():
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=200, color_system=None)
    with Progress(len(NAMES), console) as progress:
        for job, name in enumerate(NAMES):
            progress.started(job, name)
        progress.bars.refresh()
        for job, name in enumerate(NAMES):
            progress.finished(job, name, Row(status="error", message=f"{name} fell"))
    for name in NAMES:
        assert f"{name} " in stream.getvalue() and f"{name} fell" in stream.getvalue()


def test_data_folders_are_shown_as_they_are(printed, monkeypatch, tmp_path):
    folder = tmp_path / "[bold]:smile:"
    file = folder / "w2_benchmark" / "frozen_D2.npz"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"")
    monkeypatch.setenv("OTBENCH_DATA", str(folder))
    status, text = printed("utf-8", "data", "list")
    assert status == 0 and "[bold]:smile:" in text
