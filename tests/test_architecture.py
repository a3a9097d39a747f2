"""Imports flow one way: each package of otbench imports only from those on floors below its own."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


ROOT = Path(__file__).parent.parent

# From the top floor to the ground. Names on one floor do not import from each other.
FLOORS = (
    ("__main__",),
    ("cli",),
    ("api",),
    ("answer", "tuning"),
    ("runner", "report"),
    ("store",),
    ("rows",),
    ("job", "code_hashes"),
    ("scoring",),
    ("methods", "families"),
    ("metrics",),
    ("data",),
    ("randomness", "registry"),
    ("plugins", "environments"),
    ("sources", "selection", "solver"),
    ("problem",),
    ("docstrings", "errors", "parameters", "statuses"),
)
LEVEL = {name: level for level, names in enumerate(reversed(FLOORS)) for name in names}

# What a file in tasks/ or solvers/ may use.
OPEN = {
    "problem",
    "solver",
    "errors",
    "data",
    "families",
    "methods",
    "metrics",
    "registry",
    "otbench",
}


def imported(path: Path) -> Iterator[str]:
    """The modules of otbench that a file imports at run time, anywhere in it, as dotted names."""
    tree = ast.parse(path.read_text())
    annotations = {
        node
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
        for node in ast.walk(branch)
    }
    for node in ast.walk(tree):
        if node in annotations:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("otbench"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("otbench"):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def place(name: str) -> str:
    """The package or top module that a dotted name is in; ``otbench`` for what it re-exports."""
    part = [*name.split("."), ""][1]
    return part if part in LEVEL or part in ("tasks", "solvers") else "otbench"


MODULES = sorted((ROOT / "otbench").rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=[str(p.relative_to(ROOT)) for p in MODULES])
def test_imports_flow_one_way(path: Path):
    own = path.relative_to(ROOT / "otbench").parts[0].removesuffix(".py")
    if own == "__init__":
        assert {place(name) for name in imported(path)} <= {"errors", "problem", "solver"}
        return
    assert own in LEVEL, f"{own} stands on no floor: give it one in FLOORS"
    for name in imported(path):
        target = place(name)
        if target == own or (target == "otbench" and LEVEL[own] > LEVEL["solver"]):
            continue
        assert target in LEVEL, f"{path.name} imports {name}: the machine knows no task or solver"
        assert LEVEL[target] < LEVEL[own], f"{own} imports {name}, which is not below it"


@pytest.mark.parametrize("folder", ["tasks", "solvers"])
def test_tasks_and_solvers_know_neither_runner_nor_reports_nor_each_other(folder: str):
    paths = sorted((ROOT / folder).glob("*.py"))
    assert paths
    for path in paths:
        others = {place(name) for name in imported(path)} - OPEN - {folder}
        assert not others, f"{path.name} imports from {', '.join(sorted(others))}"
        same = [name for name in imported(path) if place(name) == folder]
        assert not same, f"{path.name} imports {same[0]}: share code in otbench"


def test_importing_the_command_line_imports_no_framework():
    heavy = "[m for m in ('torch', 'jax', 'ot', 'pandas', 'scipy') if m in sys.modules]"
    code = f"import sys, otbench, otbench.cli.main; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
