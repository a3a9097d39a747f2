"""Packages as plugins and as entry points: what they name is found, and what they use is hashed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from otbench.errors import UserError
from otbench.registry import Registry


SOLVER = '''"""A solver of a package."""
from dataclasses import dataclass
from typing import ClassVar
from otbench import Solver, Transport
{imports}

@dataclass(frozen=True)
class {cls}(Solver):
    name: ClassVar[str] = "{name}"

    def fit(self, problem, context):
        {lazily}
        return Transport(push=lambda x: {call}(x))
'''
MATHS = '''"""Helpers."""
FACTOR = 2


def scaled(x):
    return FACTOR * x
'''
EDIT = ("FACTOR = 2", "FACTOR = 3")


def package(folder: Path, **files: str) -> Path:
    """A package ``mypkg`` of these modules, by dotted name."""
    for name, text in {"__init__": "", **files}.items():
        path = folder / "mypkg" / f"{name.replace('.', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "mypkg"


def solver(imports: str, call: str, lazily: str = "", cls: str = "Mine", name: str = "mine") -> str:
    return SOLVER.format(imports=imports, call=call, lazily=lazily, cls=cls, name=name)


def hash_of(folder: Path, plugins: list[Path], name: str = "mine") -> str:
    """The hash of a solver, found by another process in which nothing is imported yet."""
    code = (
        "import sys; from otbench.registry import registry; "
        "print(registry('solver', tuple(sys.argv[2:])).entries[sys.argv[1]].source_hash)"
    )
    root = str(Path(__file__).parent.parent)
    path = root if plugins else os.pathsep.join([root, str(folder)])
    done = subprocess.run(
        [sys.executable, "-c", code, name, *map(str, plugins)],
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def installed(folder: Path, points: str, group: str = "solvers") -> Path:
    """What pip writes of a package that offers solvers."""
    info = folder / "mypkg-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mypkg\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[otbench.{group}]\n{points}\n")
    (info / "RECORD").write_text("mypkg/__init__.py,,\nmypkg_maths.py,,\n")
    return folder


USES = {
    "relative": {"imports": "from .maths import scaled", "call": "scaled"},
    "relative module": {"imports": "from . import maths", "call": "maths.scaled"},
    "absolute": {"imports": "from mypkg.maths import scaled", "call": "scaled"},
    "dotted": {"imports": "import mypkg.maths", "call": "mypkg.maths.scaled"},
    "renamed": {"imports": "import mypkg.maths as m", "call": "m.scaled"},
    "from the package": {"imports": "from mypkg import maths", "call": "maths.scaled"},
    "inside a function": {"imports": "", "lazily": "from .maths import scaled", "call": "scaled"},
    "dotted inside": {"imports": "", "lazily": "import mypkg.maths", "call": "mypkg.maths.scaled"},
    "a branch": {
        "imports": "try:\n    from .maths import scaled\nexcept ImportError:\n"
        "    from absent_package import scaled",
        "call": "scaled",
    },
}


@pytest.mark.parametrize("uses", USES.values(), ids=USES)
@pytest.mark.parametrize("way", ["file", "folder", "entry point", "installed"])
def test_an_edited_helper_of_a_package_changes_the_hash(tmp_path, way, uses):
    folder = tmp_path / "site-packages" if way == "installed" else tmp_path / "code"
    place = package(folder, core=solver(**uses), maths=MATHS)
    plugins = {"file": [place / "core.py"], "folder": [place]}.get(way, [])
    if not plugins:
        installed(folder, "mine = mypkg.core:Mine")
    before = hash_of(folder, plugins)
    (place / "maths.py").write_text(MATHS + "\n# A comment.\n")
    assert hash_of(folder, plugins) == before
    (place / "maths.py").write_text(MATHS.replace(*EDIT))
    assert hash_of(folder, plugins) != before


DEEP = {
    "a subpackage": (
        {"imports": "from .inner.maths import scaled", "call": "scaled"},
        {"inner.__init__": "", "inner.maths": MATHS},
    ),
    "a folder without a file of its own": (
        {"imports": "from .inner import maths", "call": "maths.scaled"},
        {"inner.maths": MATHS},
    ),
    "through the package": (
        {"imports": "from mypkg import scaled", "call": "scaled"},
        {"__init__": "from .inner import scaled", "inner.__init__": "from .maths import *"}
        | {"inner.maths": MATHS},
    ),
    "through a star": (
        {"imports": "from . import *", "call": "scaled"},
        {"__init__": "from .maths import *", "maths": MATHS},
    ),
    "through another helper": (
        {"imports": "from . import tools", "call": "tools.twice"},
        {"tools": "from mypkg import maths\n\n\ndef twice(x):\n    return maths.scaled(x)\n"}
        | {"maths": MATHS},
    ),
    "a fallback": (
        {"imports": "from .tools import scaled", "call": "scaled"},
        {"tools": "try:\n    from .maths import scaled\nexcept ImportError:\n"} | {"maths": MATHS},
    ),
}
DEEP["a fallback"][1]["tools"] += "    def scaled(x):\n        return x\n"


@pytest.mark.parametrize(("uses", "files"), DEEP.values(), ids=DEEP)
def test_helpers_are_followed_wherever_they_are(tmp_path, uses, files):
    place = package(tmp_path, core=solver(**uses), **files)
    maths = next(place.rglob("maths.py"))
    before = hash_of(tmp_path, [place / "core.py"])
    maths.write_text(MATHS.replace(*EDIT))
    assert hash_of(tmp_path, [place / "core.py"]) != before


def test_a_module_installed_beside_it_counts_and_another_distribution_does_not(tmp_path):
    folder = installed(tmp_path / "site-packages", "mine = mypkg:Mine")
    uses = solver("import mypkg_maths\nimport theirs", "mypkg_maths.scaled")
    package(folder, __init__=uses.replace("(x))", "(x) + theirs.FACTOR)"))
    (folder / "mypkg_maths.py").write_text(MATHS)
    (folder / "theirs.py").write_text(MATHS)
    before = hash_of(folder, [])
    (folder / "theirs.py").write_text(MATHS.replace(*EDIT))
    assert hash_of(folder, []) == before
    (folder / "mypkg_maths.py").write_text(MATHS.replace(*EDIT))
    assert hash_of(folder, []) != before


def test_a_file_beside_a_plugin_is_imported_and_counts(tmp_path):
    (tmp_path / "mine.py").write_text(solver("from maths_of_mine import scaled", "scaled"))
    (tmp_path / "maths_of_mine.py").write_text(MATHS)
    before = hash_of(tmp_path, [tmp_path / "mine.py"])
    (tmp_path / "maths_of_mine.py").write_text(MATHS.replace(*EDIT))
    assert hash_of(tmp_path, [tmp_path / "mine.py"]) != before


def test_an_edited_helper_is_run_again(otbench, tmp_path):
    place = package(tmp_path, core=solver(**USES["relative module"]), maths=MATHS)
    command = ["run", "-t", "gaussian[dim=1]", "-s", "mine", "--seeds", 1, "--plugins", place]
    assert "1 ok" in otbench(*command).stdout
    assert "0 to do" in otbench(*command).stdout
    (place / "maths.py").write_text(MATHS.replace(*EDIT))
    assert "1 ok" in otbench(*command).stdout


def test_a_package_is_read_again_where_a_file_of_it_was_edited(tmp_path):
    place = package(tmp_path, core=solver(**USES["absolute"]), maths=MATHS)
    try:
        assert "mine" in Registry("solver", [str(place)]).entries
        (place / "core.py").write_text(solver(**USES["absolute"], name="other"))
        entries = Registry("solver", [str(place)]).entries
        assert "other" in entries and "mine" not in entries
    finally:
        sys.path.remove(str(tmp_path))


def test_a_package_that_has_the_name_of_another_is_refused(tmp_path):
    place = package(tmp_path, core=solver(**USES["relative"]), maths=MATHS)
    taken = place.rename(tmp_path / "json")
    with pytest.raises(UserError, match="there is another package named json"):
        Registry("solver", [str(taken / "core.py")])


def found(folder: Path, kind: str = "solver") -> Any:
    """Names and classes of the entries, or what is said instead."""
    code = (
        "import json, sys; from otbench.errors import UserError; "
        "from otbench.registry import Registry\n"
        f"try: e = Registry({kind!r}).entries\n"
        "except UserError as error: print(json.dumps(str(error)))\n"
        "else: print(json.dumps([n for n in e if e[n].cls.__module__.startswith('my')]))"
    )
    root = str(Path(__file__).parent.parent)
    path = os.pathsep.join([root, str(folder)])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


PACKAGE = {
    "__init__": "from .core import Mine\nODD = 3\n",
    "core": solver("", "abs"),
    "more": "from .core import Mine\n" + solver("", "abs", cls="Other", name="other"),
    "unfinished": "import otbench\nclass Unfinished(otbench.Solver):\n    name = 'unfinished'\n",
}


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("mypkg.core", ["mine"]),
        ("mypkg.core:Mine", ["mine"]),
        ("mypkg:Mine", ["mine"]),  # taken from a module of its own
        ("mypkg", ["mine"]),
        ("mypkg.more:Mine", ["mine"]),
        ("mypkg.more:Other", ["other"]),
        ("mypkg.more", ["other"]),
        ("mypkg:core", ["mine"]),
        ("mypkg:core.Mine", ["mine"]),
    ],
)
def test_an_entry_point_gives_what_it_names(tmp_path, value, names):
    package(installed(tmp_path, f"mine = {value}"), **PACKAGE)
    assert found(tmp_path) == names
    assert found(tmp_path, "task") == []


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("mypkg.core:Mnie", "mypkg.core:Mnie, but there is no Mnie in mypkg.core; did you mean 'M"),
        ("mypkg:core.Mnie", "mypkg:core.Mnie, but there is no Mnie in mypkg.core; did you mean"),
        ("mypkg:ODD", "names mypkg:ODD, no subclass of otbench.Solver"),
        ("mypkg.core:Transport", "names mypkg.core:Transport, no subclass of otbench.Solver"),
        ("mypkg.unfinished:Unfinished", "Unfinished, which does not define fit"),
        ("mypkg.unfinished", "names mypkg.unfinished, which defines no solver: name the class"),
        ("mypkg.absent", "ModuleNotFoundError: No module named 'mypkg.absent'"),
        ("my pkg", "names 'my pkg': write module, or module:Class"),
    ],
)
def test_an_entry_point_that_names_nothing_is_said_in_one_line(tmp_path, value, words):
    package(installed(tmp_path, f"mine = {value}"), **PACKAGE)
    said = found(tmp_path)
    assert isinstance(said, str) and words in said and "\n" not in said
    assert "entry point 'mine' of group otbench.solvers" in said
