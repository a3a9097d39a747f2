"""Finding and selecting tasks and solvers, and one clear line for each error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otbench.errors import UserError
from otbench.registry import Registry, absent, registry
from otbench.runner.plan import suites
from otbench.selection import parse_selection
from otbench.sources import source_hash


PLUGIN = '''"""A solver in a file."""
from dataclasses import dataclass
from typing import ClassVar, Literal
from otbench import Problem, Solver, Transport

@dataclass(frozen=True)
class {cls}(Solver):
    name: ClassVar[str] = "{name}"
    steps: int = 10
    lr: float = 1e-3
    kind: Literal["min", "expected"] = "min"
    note: str = "x"
    limit: int | None = None
    fast: bool = False

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {{self.steps}}")

    def fit(self, problem, run):
        return Transport(push=lambda x: x.clone())
'''


@pytest.fixture
def solvers(tmp_path: Path) -> Registry:
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN.format(cls="Mine", name="my-solver"))
    return Registry("solver", [str(path)])


def only(solvers: Registry, text: str) -> dict:
    (selection,) = solvers.select(text)
    return dict(selection.params)


def test_a_sweep_is_the_product_of_its_grids(solvers):
    chosen = solvers.select("my-solver[steps=[1,2,3],lr=[1e-4,1],kind=expected]")
    assert [(dict(s.params)["steps"], dict(s.params)["lr"]) for s in chosen] == [
        (n, lr) for n in (1, 2, 3) for lr in (1e-4, 1.0)
    ]
    assert chosen[0].label == "my-solver[steps=1,lr=0.0001,kind=expected]"
    assert type(chosen[1].build().lr) is float


def test_naming_a_default_changes_nothing(solvers):
    assert solvers.select("my-solver[steps=10,lr=0.001]") == solvers.select("my-solver")
    assert solvers.select("my-solver[steps=10]")[0].label == "my-solver"


@pytest.mark.parametrize("text", ["none", "raise", "1e-3", "true", "a b", "'a,b]'"])
def test_strings_need_no_quotes(solvers, text):
    assert only(solvers, f"my-solver[note={text}]")["note"] == text.strip("'")


def test_a_whole_number_is_a_float_where_one_is_wanted(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        PLUGIN.format(cls="Mine", name="my-solver").replace("lr: float = 1e-3", "lr: float = 1")
    )
    solvers = Registry("solver", [str(path)])
    assert (
        solvers.select("my-solver") == solvers.select("my-solver[lr=1]")
        and solvers.select("my-solver[lr=1]")[0].label == "my-solver"
    )


def test_optional_and_boolean_values(solvers):
    params = only(solvers, "my-solver[limit=5,fast=true]")
    assert params["limit"] == 5 and params["fast"] is True
    assert only(solvers, "my-solver[limit=none]")["limit"] is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("my-solvr", "unknown solver 'my-solvr'; did you mean 'my-solver'?"),
        ("zzz", "unknown solver 'zzz'; `otbench list solvers` names them all, --plugins PATH adds"),
        (
            "my-solver[step=3]",
            "unknown parameter 'step' of solver my-solver; did you mean 'steps'?",
        ),
        ("my-solver[lr={[]:1}]", "must be float"),
        ("my-solver[lr={1:[]}]", "must be float"),
        ("my-solver[steps=many]", "'steps' of my-solver must be int, got 'many'"),
        ("my-solver[steps=1.5]", "must be int, got '1.5'"),
        ("my-solver[steps=true]", "must be int, got 'true'"),
        ("my-solver[lr=fast]", "must be float"),
        ("my-solver[fast=1]", "must be bool"),
        ("my-solver[limit=x]", "must be int or none"),
        ("my-solver[kind=max]", "must be one of min, expected"),
        ("my-solver[steps=0]", "solver my-solver[steps=0]: steps must be at least 1, got 0"),
        ("my-solver[steps=[]]", "empty grid for 'steps'"),
        ("my-solver[steps=[1,1]]", "a value of 'steps' stands twice"),
        ("my-solver[steps=1,steps=2]", "'steps' stands twice"),
        ("my-solver[steps=[1,2]", "brackets or quotes do not match"),
        ("my-solver[steps", "write name[param=value,param=[v1,v2]]"),
        ("my-solver[steps]", "write param=value"),
        ("my-solver[=3]", "write param=value"),
        ("my-solver[steps=1,,lr=2]", "an empty item between commas"),
        ("", "write name[param=value"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(solvers, text, words):
    with pytest.raises(UserError) as error:
        solvers.select(text)
    assert words in str(error.value) and "\n" not in str(error.value)


@given(st.text(max_size=40))
def test_any_text_is_parsed_or_refused(text):
    try:
        name, grid = parse_selection(text)
    except UserError:
        return
    assert name and all(values for values in grid.values())


@given(
    st.dictionaries(
        st.sampled_from("abcd"), st.lists(st.integers(-99, 99), min_size=1, max_size=3, unique=True)
    )
)
def test_what_is_written_is_what_is_parsed(grid):
    text = (
        "name["
        + ",".join(f"{key}=[{','.join(map(str, values))}]" for key, values in grid.items())
        + "]"
    )
    assert parse_selection(text) == (
        "name",
        {key: [str(v) for v in values] for key, values in grid.items()},
    )


def write(tmp_path: Path, name: str, text: str) -> list[str]:
    (tmp_path / name).write_text(text)
    return [str(tmp_path / name)]


def test_plugins_are_refused_in_words(tmp_path):
    good = PLUGIN.format(cls="Mine", name="my-solver")
    cases = {
        "syntax.py": ("def", "cannot import"),
        "raises.py": ("1 / 0", "ZeroDivisionError"),
        "unfrozen.py": (good.replace("(frozen=True)", ""), "not a frozen dataclass"),
        "nameless.py": (good.replace('name: ClassVar[str] = "my-solver"', ""), "has no `name`"),
        "camel.py": (good.replace("my-solver", "MySolver"), "not kebab-case"),
        "no_default.py": (good.replace("steps: int = 10", "steps: int"), "no plain default"),
        "twice.py": (
            good + good.replace("class Mine", "class Other"),
            "two solvers are named 'my-solver'",
        ),
        "tuple.py": (
            good.replace("steps: int = 10", "widths: tuple = (1, 2)"),
            "must be a number, string, boolean or None",
        ),
        "preset.py": (
            good.replace(
                "    steps: int", "    presets: ClassVar = {'fast': {'stepz': 1}}\n    steps: int"
            ),
            "preset fast of my-solver sets stepz, which my-solver has no parameter for",
        ),
        "taken.py": (good.replace("my-solver", "identity"), "two solvers are named 'identity'"),
    }
    for name, (text, words) in cases.items():
        with pytest.raises(UserError, match=words):
            Registry("solver", write(tmp_path, name, text))
    with pytest.raises(UserError, match="no such Python file or folder"):
        Registry("solver", [str(tmp_path / "absent.py")])


def test_a_folder_of_plugins(tmp_path):
    write(tmp_path, "one.py", PLUGIN.format(cls="One", name="one"))
    write(tmp_path, "two.py", PLUGIN.format(cls="Two", name="two"))
    write(tmp_path, "_private.py", "1 / 0")
    assert {"one", "two"} <= set(Registry("solver", [str(tmp_path)]).entries)


def test_entry_points_of_an_installed_package(tmp_path):
    """A package that is found through its metadata, as pip writes it."""
    write(tmp_path, "their_solvers.py", PLUGIN.format(cls="Theirs", name="theirs"))
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[otbench.solvers]\ntheirs = their_solvers\n")
    code = (
        "from otbench.registry import Registry; print('theirs' in Registry('solver').entries, "
        "'theirs' in Registry('task').entries)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["True", "False"], done.stderr


def test_absent_packages_are_named_as_they_are_installed():
    assert absent(["json", "ast"]) is None
    assert absent(["package_that_is_not_there"]) == (
        "not installed: package_that_is_not_there; remedy: pip install package_that_is_not_there"
    )


def test_every_file_is_found_and_none_imports_a_framework():
    """Importing the package and describing everything stays light."""
    code = (
        "import sys, otbench; from otbench.registry import Registry; "
        "print(len(Registry('task').entries), len(Registry('solver').entries), "
        "[m for m in ('torch', 'jax', 'ot', 'ott', 'numpy', 'scipy', 'pandas', 'matplotlib') if m "
        "in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    root = Path(__file__).parent.parent
    tasks, solvers, heavy = done.stdout.split(maxsplit=2)
    named = {
        folder: sum(
            file.read_text().count("    name: ClassVar[str] = ")
            for file in (root / folder).glob("*.py")
        )
        for folder in ("tasks", "solvers")
    }
    assert (int(tasks), int(solvers)) == (named["tasks"], named["solvers"]), done.stderr
    assert heavy.strip() == "[]"


def test_the_hash_is_of_the_file_and_of_those_of_its_bases(tmp_path):
    entries = Registry("solver").entries
    assert entries["pot-emd"].source_hash != entries["identity"].source_hash
    path = tmp_path / "mine.py"
    hashes = []
    for more in ("", "\nODD = 1\n"):
        path.write_text(PLUGIN.format(cls="Mine", name="my-solver") + more)
        hashes.append(Registry("solver", [str(path)]).entries["my-solver"].source_hash)
    assert hashes[0] != hashes[1]


def test_the_hash_of_a_solver_covers_the_solvers_that_it_calls(monkeypatch):
    solvers = Registry("solver")

    def hashes() -> list[str]:
        texts = ("ot-cfm", "ot-cfm[coupling=meta-ot]", "ot-cfm[coupling=independent]", "sinkhorn")
        return [solvers.select(text)[0].source_hash for text in texts]

    before = hashes()
    assert len(set(before)) == 4 and before[2] == solvers.entries["ot-cfm"].source_hash
    monkeypatch.setattr(
        "otbench.registry.source_hash",
        lambda path: "other" if path.name == "pot_emd.py" else source_hash(path),
    )
    assert [old == new for old, new in zip(before, hashes(), strict=True)] == [False, *[True] * 3]


def test_trivial_rows_stand_in_every_suite():
    """But for what tells rates of one stack, and for a size at which no trivial solver fits."""
    without = {"gpu-spurious", "gpu-million"}
    for suite in suites().values():
        chosen = [s for text in suite.solvers for s in registry("solver").select(text)]
        trivial = any(solver.entry.cls.trivial for solver in chosen)
        assert trivial == (suite.name not in without), suite.name
