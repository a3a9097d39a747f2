"""What a row depends on: the hashes follow what a file uses, and nothing that changes no number."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from otbench.sources import source_hash


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
IMAGES = {
    "brenier-images",
    "hue-colorization",
    "image-generation",
    "image-restoration",
    "image-translation",
}
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


TYPES = "from typing import TYPE_CHECKING\n"
BASE = "class Base:\n    SCALE = 1\n"


USES = [  # a file, what stands beside it, and what is edited there
    ("from torch import mean as f\nx = f", {}, "s.py: mean -> max"),
    ("import numpy as np\nx = np.pi", {}, "s.py: numpy -> jax.numpy"),
    ("import json\nx = 1", {}, "s.py: json -> json, torch"),
    ("from base import Base\nclass S(Base): ...", {"base.py": BASE}, "base.py: 1 -> 3"),
    ("import base\nx = base.Base()", {"base.py": BASE}, "base.py: 1 -> 3"),
    ("from base import *\nx = Base()", {"base.py": BASE}, "base.py: 1 -> 3"),
    ("from .base import Base\nx = Base", {"__init__.py": "", "base.py": BASE}, "base.py: 1 -> 3"),
    ("import q.b\nx = q.b.Base", {"q/__init__.py": "", "q/b.py": BASE}, "q/b.py: 1 -> 3"),
    ("if 1:\n    from base import Base\nx = Base", {"base.py": BASE}, "base.py: 1 -> 3"),
    ("def f():\n    import base as b\n    return b.Base", {"base.py": BASE}, "base.py: 1 -> 3"),
    ("import base\nx = base.O, getattr(base, n)", {"base.py": BASE + "O = 2"}, "base.py: 1 -> 3"),
    (TYPES + "if not TYPE_CHECKING:\n    x = 1", {}, "s.py: 1 -> 3"),
    (TYPES + "if TYPE_CHECKING:\n    y = 2\nelse:\n    x = 1", {}, "s.py: 1 -> 3"),
    ("a = 1\nb = a\na = 2", {}, "s.py: b = a\na = 2 -> a = 2\nb = a"),
    (
        "from base import b\nx = b",
        {"base.py": "a = 1\nb = a\na = 2"},
        "base.py: b = a\na = 2 -> a = 2\nb = a",
    ),
    ("from base import B\nx = B", {"base.py": "try:\n    B = 1\nfinally: ..."}, "base.py: 1 -> 3"),
    ("from base import B\nx = B", {"base.py": "with f(1) as B: ..."}, "base.py: 1 -> 3"),
]


@pytest.mark.parametrize(("text", "beside", "edit"), USES, ids=[text for text, _, _ in USES])
def test_whatever_a_file_of_the_users_own_uses_counts(tmp_path, text, beside, edit):
    for name, content in {"s.py": text, **beside}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    before = source_hash(tmp_path / "s.py")
    name, _, change = edit.partition(": ")
    content, (old, new) = (tmp_path / name).read_text(), change.split(" -> ")
    assert old in content
    (tmp_path / name).write_text(content.replace(old, new))
    assert source_hash(tmp_path / "s.py") != before
    (tmp_path / name).write_text(content + "\n# A comment.\n")
    assert source_hash(tmp_path / "s.py") == before


def test_a_submodule_by_its_whole_name_counts(checkout, before):
    """``import otbench.methods.entropic``, then the name with all its dots."""
    solver = checkout / "solvers" / "dotted.py"
    text = (checkout / "solvers" / "identity.py").read_text()
    solver.write_text(
        text.replace('"identity"', '"dotted"')
        + "\n\nimport otbench.methods.entropic\nE = otbench.methods.entropic.Entropic\n"
    )
    try:
        edit = ("otbench/methods/entropic.py", "max_iters", "max_iterations_")
        assert "solver dotted" in changed_by(checkout, hashes(checkout), *edit)
    finally:
        solver.unlink()


def test_random_streams_and_the_late_saddle_value_are_of_the_scoring(checkout, before):
    for path, old, new in (
        ("otbench/randomness.py", "spawn(3)", "spawn(4)[:3]"),
        ("otbench/scoring/verdict.py", "0.8 * last", "0.7 * last"),
    ):
        assert changed_by(checkout, before, path, old, new) == {"scoring"}
