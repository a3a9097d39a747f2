"""The README says what is so: its tables are those of the committed results, its adapter works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from otbench.cli.main import main


ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
TABLES = re.findall(r"<!-- table: (.*?) -->\n(.*?)<!-- end -->", README, re.DOTALL)


@pytest.mark.parametrize(("command", "shown"), TABLES, ids=[command for command, _ in TABLES])
def test_the_tables_are_those_of_the_committed_results(command, shown, capsys, monkeypatch):
    """Mend with ``python -m tests.test_readme``."""
    monkeypatch.chdir(ROOT)
    assert main(shlex.split(command)) == 0
    assert capsys.readouterr().out.strip() == shown.strip() != ""


def test_the_adapter_of_the_readme_takes_25_lines_and_reaches_the_board(otbench, tmp_path):
    (adapter,) = re.findall(r"```python\n(\"\"\"Mean shift.*?)```", README, re.DOTALL)
    assert len([line for line in adapter.splitlines() if line.strip()]) <= 25
    path = tmp_path / "mean_shift.py"
    path.write_text(adapter)
    checked = otbench("check", "mean-shift", "--plugins", path)
    assert checked.returncode == 0, checked.stdout
    otbench("run", "-t", "gaussian[dim=1]", "-s", "identity", "--seeds", 2, "--results", "out")
    done = otbench(
        "run",
        "-t",
        "gaussian[dim=1]",
        "-s",
        "mean-shift",
        "--seeds",
        2,
        "--plugins",
        path,
        "--results",
        "out",
    )
    assert "mean-shift" in done.stdout
    board = otbench("leaderboard", "out").stdout
    assert "mean-shift" in board and "identity" in board


def test_every_linked_file_is_there():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links and all((ROOT / link).exists() for link in links), links


if __name__ == "__main__":
    import contextlib
    import io
    import os

    os.chdir(ROOT)
    for command, shown in TABLES:
        text = io.StringIO()
        with contextlib.redirect_stdout(text):
            main(shlex.split(command))
        README = README.replace(
            f"{command} -->\n{shown}<!-- end", f"{command} -->\n{text.getvalue()}<!-- end"
        )
    Path("README.md").write_text(README)
