"""README and documentation say what is so: tables, generated pages, links, the adapter shown."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

from otbench.registry import registry
from otbench.report import gallery
from otbench.store import load


ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SPEC = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
assert SPEC is not None and SPEC.loader is not None
generate = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(generate)

PAGES = sorted((ROOT / "docs").rglob("*.md"))
TABLES = [
    (page, command, shown)
    for page in (ROOT / "README.md", *PAGES)
    for command, shown in generate.TABLE.findall(page.read_text())
]


@pytest.mark.parametrize(
    ("command", "shown"),
    [(command, shown) for _, command, shown in TABLES],
    ids=[f"{page.name}: {command}" for page, command, _ in TABLES],
)
def test_the_tables_are_those_of_the_committed_results(command, shown):
    """Mend with ``python docs/generate.py``."""
    assert generate.printed(command).strip() == shown.strip() != ""


@pytest.mark.parametrize("path", list(generate.GENERATED))
def test_generated_pages_are_up_to_date(path):
    """Mend with ``python docs/generate.py``."""
    assert (ROOT / path).read_text() == generate.GENERATED[path]()


def test_the_gallery_has_the_text_and_the_scores_of_every_task():
    """Mend with ``otbench gallery results/reference/tasks --out docs/gallery``."""
    page = (ROOT / "docs/gallery/README.md").read_text()
    runs = load(ROOT / "results/reference/tasks").runs
    for entry in registry("task").entries.values():
        assert [part for part in gallery._section(entry, "", {}, runs) if part not in page] == []


def test_every_reference_result_is_on_a_page():
    shown = " ".join(command for _, command, _ in TABLES)
    folders = {rows.parent.parent.name for rows in (ROOT / "results/reference").rglob("rows.jsonl")}
    unshown = {name for name in folders if f"results/reference/{name}" not in shown}
    assert unshown <= {"tasks"}  # the trivial rows of the gallery


LONG = ("data.md", "ci.md")  # half a minute each, of commands that other tests run too


@pytest.mark.parametrize(
    "page",
    [pytest.param(p, marks=pytest.mark.slow if p.name in LONG else (), id=p.name) for p in PAGES],
)
def test_the_code_blocks_of_a_page_run(page, otbench, otbench_here, tmp_path, monkeypatch):
    """In an empty folder: Python in one namespace, lines of ``sh`` as calls of otbench."""
    monkeypatch.chdir(tmp_path)

    def run_commands(example: Example) -> None:
        for line in example.parsed.strip().splitlines():
            program, *arguments = shlex.split(line)
            assert program == "otbench", line
            # `check` looks at what is imported, which here is much.
            done = (otbench if arguments[0] == "check" else otbench_here)(*arguments)
            assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"

    parsers = [PythonCodeBlockParser(), CodeBlockParser("sh", run_commands)]
    for example in Sybil(parsers).parse(page).examples():
        example.evaluate()


def test_the_readme_is_one_page():
    assert len(README.splitlines()) <= 150


def test_the_adapter_of_the_readme_takes_25_lines_and_reaches_the_board(
    otbench, otbench_here, tmp_path
):
    (adapter,) = re.findall(r"```python\n(\"\"\"Mean shift.*?)```", README, re.DOTALL)
    assert len([line for line in adapter.splitlines() if line.strip()]) <= 25
    path = tmp_path / "mean_shift.py"
    path.write_text(adapter)
    checked = otbench("check", "mean-shift", "--plugins", path)
    assert checked.returncode == 0, checked.stdout
    solvers = ("-s", "identity", "mean-shift", "--plugins", path)
    done = otbench_here("run", "-t", "gaussian[dim=1]", *solvers, "--seeds", 2, "--results", "out")
    assert done.returncode == 0, done.stderr
    board = otbench_here("leaderboard", "out").stdout
    assert "mean-shift" in board and "identity" in board


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_every_linked_file_is_there(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    broken = [
        link
        for link in links
        if not link.startswith("#") and not (page.parent / link.partition("#")[0]).exists()
    ]
    assert not broken
