"""What a row depends on: the hashes follow what a file uses, and nothing that changes no number."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).parent.parent

HASHES = """
import json
from otbench.registry import registry
from otbench.sources import scoring_hash
found = {"scoring": scoring_hash()}
for kind in ("task", "solver"):
    found |= {f"{kind} {name}": e.source_hash for name, e in registry(kind).entries.items()}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code, to be edited."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("otbench", "tasks", "solvers"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    return folder


def hashes(checkout: Path) -> dict[str, str]:
    environment = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", HASHES], env=environment, capture_output=True, text=True, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def before(checkout: Path) -> dict[str, str]:
    return hashes(checkout)


def changed_by(checkout: Path, before: dict[str, str], path: str, old: str, new: str) -> set[str]:
    """What has another hash after an edit, which is taken back."""
    file = checkout / path
    text = file.read_text()
    assert text.count(old) >= 1, f"{path} has no {old!r} to edit"
    try:
        file.write_text(text.replace(old, new, 1))
        after = hashes(checkout)
    finally:
        file.write_text(text)
    return {name for name in before if before[name] != after[name]}


FUNNELS = {"task w1-funnels", "task w1-benchmark"}
IMAGES = {"hue-colorization", "image-generation", "image-restoration", "image-translation"}
SMOOTHED = {"perpendicular", "one-to-many", "parallel-segments", "low-dim-manifold"}


@pytest.mark.parametrize(
    ("path", "dependent"),
    [
        ("otbench/families/funnels.py", FUNNELS),
        ("otbench/data/pools.py", {f"task {name}" for name in IMAGES}),
        (
            "otbench/families/closed_forms.py",  # the first of its samplers
            {f"task {name}" for name in SMOOTHED | {"atom", "continuous-control"}},
        ),
    ],
)
def test_an_edited_helper_makes_exactly_the_rows_stale_that_use_it(
    checkout, before, path, dependent
):
    assert changed_by(checkout, before, path, "return ", "return 1 * ") == dependent


def test_what_is_used_by_way_of_other_helpers_counts(checkout, before):
    edit = ("otbench/methods/entropic.py", "max_iters", "max_iterations_")
    found = changed_by(checkout, before, *edit)
    assert {"solver sinkhorn", "solver ra-ot", "task digit-pairs", "scoring"} <= found
    assert not found & {"solver otm", "solver linear", "task gaussian"}
    unused = changed_by(checkout, before, edit[0], "class Entropic", "ODD = 1\n\n\nclass Entropic")
    assert not unused


def test_an_edited_metric_or_verdict_changes_the_scoring_alone(checkout, before):
    for path, old, new in (
        ("otbench/metrics/maps.py", "100 *", "101 *"),
        ("otbench/scoring/verdict.py", "TAU = 0.10", "TAU = 0.11"),
    ):
        assert changed_by(checkout, before, path, old, new) == {"scoring"}


def test_the_file_of_an_entry_counts_as_a_whole(checkout, before):
    found = changed_by(
        checkout, before, "solvers/linear.py", "@dataclass", "ODD = 1\n\n\n@dataclass"
    )
    assert found == {"solver linear"}


def test_formatting_comments_and_docstrings_change_nothing(checkout, before):
    for path in ("otbench/families/funnels.py", "tasks/gaussian.py", "otbench/metrics/maps.py"):
        file = checkout / path
        text = file.read_text()
        doc = text.split('"""')[1]
        edited = (
            text.replace(doc, "Another docstring.", 1).replace(" = ", "  =  ") + "\n# The end.\n"
        )
        try:
            file.write_text(edited)
            assert hashes(checkout) == before, path
        finally:
            file.write_text(text)


def test_a_module_that_moves_changes_nothing(checkout, before):
    """Its importers are edited too, in their import statements alone."""
    kept = {path: path.read_text() for path in checkout.rglob("*.py")}
    try:
        (checkout / "otbench/shapes").mkdir()
        (checkout / "otbench/shapes/__init__.py").write_text("")
        (checkout / "otbench/families/funnels.py").rename(checkout / "otbench/shapes/spikes.py")
        for path, text in kept.items():
            moved = text.replace("otbench.families.funnels", "otbench.shapes.spikes")
            if path.name != "funnels.py" and moved != text:
                path.write_text(moved)
        assert hashes(checkout) == before
    finally:
        shutil.rmtree(checkout / "otbench/shapes")
        for path, text in kept.items():
            path.write_text(text)


def test_what_runs_and_reports_is_no_part_of_a_row(checkout, before):
    package = checkout / "otbench"
    edited = [package / "store.py", package / "api.py", package / "job.py"]
    for folder in ("runner", "report", "cli"):
        edited += (package / folder).glob("*.py")
    kept = {path: path.read_text() for path in edited}
    try:
        for path, text in kept.items():
            path.write_text(text.replace("return ", "return 1 and "))
        assert hashes(checkout) == before
    finally:
        for path, text in kept.items():
            path.write_text(text)
