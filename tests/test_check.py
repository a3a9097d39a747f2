"""``otbench check``: short fits, the adapter's own line where it raises, and tracebacks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from otbench.registry import registry
from otbench.runner.check import shortened
from otbench.runner.outcome import describe
from otbench.selection import parse_selection
from tests.conftest import rows


RAISING = '''"""Solvers that raise below otbench's own code."""
from dataclasses import dataclass
from otbench import Solver, Transport
from otbench.methods.discrete import DiscreteSolver

@dataclass(frozen=True)
class Couples(DiscreteSolver):
    name = "couples"

    def couple(self, pair, context):
        pair.x @ pair.a.to(pair.x) @ pair.b  # in couple

@dataclass(frozen=True)
class Pushes(Solver):
    name = "pushes"

    def fit(self, problem, context):
        def push(x):
            print("pushing", len(x))
            return self.deeper(x)
        return Transport(push=push, info={"loss": 10**400, "history": [1]})

    def deeper(self, x):
        return x.no_such_thing  # in push
'''


def line_of(path: Path, words: str) -> int:
    lines = path.read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if words in line)


@pytest.fixture
def raising(tmp_path: Path) -> Path:
    path = tmp_path / "raising.py"
    path.write_text(RAISING)
    return path


def test_check_names_the_adapters_line(otbench, raising):
    place = rf"\(raising\.py:{line_of(raising, '# in couple')}\)"
    done = otbench("check", "couples", "--plugins", raising)
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr
    found = re.findall(r"WRONG +(\S+): error: RuntimeError: .+", done.stdout)
    assert "gaussian" in found and "point-clouds[n=40,m=50]" in found
    assert len(re.findall(place, done.stdout)) == len(found)
    assert "--traceback shows" in done.stdout


def test_check_shows_tracebacks_where_asked(otbench, raising):
    done = otbench("check", "pushes", "--plugins", raising, "--traceback")
    line = line_of(raising, "# in push")
    assert f"(raising.py:{line})" in done.stdout and f'raising.py", line {line}, in deeper' in (
        done.stdout
    )
    assert "    pushing 64" in done.stdout and "--traceback shows" not in done.stdout


def test_a_row_names_the_adapters_line(otbench_here, tmp_path, raising):
    solvers = ("-s", "couples", "pushes", "--plugins", raising)
    otbench_here("run", "-t", "gaussian[dim=1]", *solvers, "--seeds", 1, "--results", "out")
    said = {row["solver"]: row["message"] for row in rows(tmp_path / "out")}
    for solver, words in (("couples", "in couple"), ("pushes", "in push")):
        assert f"(raising.py:{line_of(raising, words)})" in said[solver]


def test_the_place_of_an_error_is_in_the_file_else_in_its_package(tmp_path):
    texts = {
        "__init__": "",
        "core": "from .base import fall\n\ndef fit(f):\n    f()\n",
        "base": "def fall():\n    raise ValueError('no')\n",
    }
    package = tmp_path / "pkg"
    package.mkdir()
    spaces: dict[str, dict] = {}
    for name, text in texts.items():
        path = package / f"{name}.py"
        path.write_text(text)
        spaces[name] = {}
        code = text.replace("from .base import fall", "")
        exec(compile(code, str(path), "exec"), spaces[name])

    def place(call, file: str) -> str:
        with pytest.raises(ValueError) as raised:
            call()
        return describe(raised.value, package / file)

    fit, fall = spaces["core"]["fit"], spaces["base"]["fall"]
    assert place(lambda: fit(fall), "core.py") == "ValueError: no (core.py:4)"
    assert place(fall, "core.py") == "ValueError: no (base.py:2)"
    assert "(test_check.py:" in place(lambda: int("x"), "core.py")


@pytest.mark.parametrize(
    ("text", "tried"),
    [
        ("otm", "otm[steps=5]"),
        ("otm[steps=7,batch=9]", "otm[steps=7,batch=9]"),
        ("otm[preset=paper]", "otm[preset=paper,steps=5]"),
        ("ttc", "ttc[steps=5,critics=2]"),
        ("pot-emd", "pot-emd[n=64]"),
        ("pot-emd[n=3]", "pot-emd[n=3]"),
        ("identity", "identity"),
    ],
)
def test_what_is_not_given_is_short(text, tried):
    (solver,) = registry("solver").select(text)
    assert shortened(solver, parse_selection(text)[1]).label == tried


def test_info_that_no_column_holds_is_found(otbench, otbench_here, tmp_path):
    path = tmp_path / "talks.py"
    path.write_text(RAISING.replace("x.no_such_thing", "x.clone()"))
    done = otbench("check", "pushes", "--plugins", path)
    assert done.returncode == 1
    for words in (
        "info['loss'] is a whole number of more than 64 bits: left out; give plain numbers",
        "info['history'] is list, no plain number: kept as text; give plain numbers",
    ):
        assert f"WRONG    gaussian: {words}" in done.stdout
    solver = ("-s", "pushes", "--plugins", path)
    run = otbench_here("run", "-t", "gaussian[dim=1]", *solver, "--seeds", 1)
    assert run.returncode == 0 and "1 ok" in run.stdout and "info['loss'] is a whole" in run.stdout
