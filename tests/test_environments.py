"""Solvers in environments of their own, with a real pair of versions that conflict: GENOT was taken
out of OTT-JAX in 0.6, which other solvers need.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import otbench as api
from otbench import environments
from otbench.errors import MissingError, UserError
from otbench.registry import absent
from tests.conftest import call_otbench, rows


REQUIRED = ("ott-jax[neural]==0.5.1",)
OLD = '''
"""Says which OTT it has."""

from dataclasses import dataclass
from typing import ClassVar

from otbench import Solver, Transport


@dataclass(frozen=True)
class Old(Solver):
    name: ClassVar[str] = "old"
    needs: ClassVar[tuple[str, ...]] = ("ott.neural.methods.flows.genot",)  # in 0.5.1 alone
    environment: ClassVar[tuple[str, ...]] = ("ott-jax[neural]==0.5.1",)

    def fit(self, problem, context):
        import sys

        import ott

        return Transport(push=lambda x: x, info={"ott": ott.__version__, "at": sys.prefix})


@dataclass(frozen=True)
class New(Old):
    name: ClassVar[str] = "new"
    needs: ClassVar[tuple[str, ...]] = ("ott",)
    environment: ClassVar[tuple[str, ...]] = ()

    def fit(self, problem, context):
        import ott

        return Transport(push=lambda x: x, info={"ott": ott.__version__})
'''


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[dict[str, str], Path]:
    """An environment that pip filled."""
    home, plugin = (
        tmp_path_factory.mktemp("environments"),
        tmp_path_factory.mktemp("old") / "old.py",
    )
    plugin.write_text(OLD)
    env = {"OTBENCH_ENVIRONMENTS": str(home)}
    asked = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", home, REQUIRED[0]]
    if subprocess.run(asked, capture_output=True).returncode:
        pytest.skip("no package index can be reached")
    (home / "old").mkdir()  # what is left of an attempt that was killed
    done = call_otbench("env", "create", "old", "--plugins", plugin, cwd=home, env=env)
    assert done.returncode == 0, done.stderr
    return env, plugin


def test_two_versions_of_a_library_are_run_side_by_side(made, tmp_path) -> None:
    env, plugin = made
    where = ["--plugins", plugin, "--results", tmp_path / "out", "--seeds", "1"]
    solvers = ["-s", "old", "-s", "new", "-s", "identity"]
    done = call_otbench("run", "-t", "gaussian[dim=1]", *solvers, *where, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    found = {row["solver"]: row for row in rows(tmp_path / "out")}
    old, new, plain = found["old"], found["new"], found["identity"]
    assert {row["status"] for row in found.values()} == {"ok"}, old["message"]
    assert old["info_ott"] == "0.5.1" and new["info_ott"].startswith("0.6")
    assert old["info_at"].startswith(env["OTBENCH_ENVIRONMENTS"])
    assert old["environment"] == "ott-jax==0.5.1" and "environment" not in new
    # the same problem, scored by the same code, and no start-up on the clock
    assert old["metric_l2_uvp"] == new["metric_l2_uvp"] == plain["metric_l2_uvp"]
    assert old["scoring_hash"] == new["scoring_hash"]
    assert old["fit_cold_s"] < 0.5 * old["import_s"]
    listed = call_otbench("env", "list", "--plugins", plugin, cwd=tmp_path, env=env).stdout
    assert f"old: {REQUIRED[0]}: {env['OTBENCH_ENVIRONMENTS']}/old/bin/python" in listed


@pytest.mark.slow
def test_a_solver_in_its_environment_is_checked_and_killed_like_others(made, tmp_path) -> None:
    env, plugin = made
    done = call_otbench("check", "old", "--plugins", plugin, cwd=tmp_path, env=env)
    assert "ok       gaussian\n" in done.stdout and "without plan" in done.stdout, done.stdout
    slow = tmp_path / "slow.py"
    slow.write_text(OLD.replace("import sys\n", "import sys, time; time.sleep(60)\n", 1))
    where = ["--plugins", slow, "--results", tmp_path / "out", "--seeds", "1", "--timeout", "2s"]
    call_otbench("run", "-t", "gaussian[dim=1]", "-s", "old", *where, cwd=tmp_path, env=env)
    (row,) = rows(tmp_path / "out")
    assert row["status"] == "timeout" and row["phase"] == "fit"


def test_an_environment_that_is_absent_or_of_another_kind_is_missing(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("OTBENCH_ENVIRONMENTS", str(tmp_path))
    with pytest.raises(MissingError, match="runs in an environment of its own"):
        environments.interpreter("old", REQUIRED)
    assert environments.interpreter("any", ()) == sys.executable
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / environments.MADE_FOR).write_text("ott-jax==0.4\n")
    with pytest.raises(
        MissingError, match="made for other packages; remedy: otbench env create old"
    ):
        environments.interpreter("old", REQUIRED)
    assert environments.remove("old") == tmp_path / "old" and not (tmp_path / "old").exists()
    with pytest.raises(UserError, match="no environment of old in"):
        environments.remove("old")


def test_what_is_not_whole_is_made_again(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OTBENCH_ENVIRONMENTS", "in here")
    made = environments.create("old", ["pip"])
    assert made == tmp_path / "in here" / "old"
    python = environments.interpreter("old", ["pip"])
    assert Path(python).is_absolute()
    monkeypatch.setattr(environments.venv.EnvBuilder, "create", _killed)
    with pytest.raises(KeyboardInterrupt):
        environments.create("old", ["pip"])
    with pytest.raises(MissingError):
        environments.interpreter("old", ["pip"])
    (made / environments.MADE_FOR).write_text(environments._made_for(["pip"]))
    Path(python).unlink()
    with pytest.raises(MissingError, match="has no Python any more; remedy: otbench env create"):
        environments.interpreter("old", ["pip"])


def test_what_an_environment_lacks_is_missing_and_no_fault_of_the_solver(tmp_path) -> None:
    plugin = tmp_path / "old.py"
    required = '("ott-jax[neural]==0.5.1",)'
    plugin.write_text(OLD.replace(required, '("pip",)').replace("ott.neural", "no_such.neural"))
    env = {"OTBENCH_ENVIRONMENTS": str(tmp_path / "in here")}
    where = ["--plugins", plugin]
    call_otbench("env", "create", "old", *where, cwd=tmp_path, env=env)
    where += ["--results", tmp_path / "out", "--seeds", "1"]
    call_otbench("run", "-t", "gaussian[dim=1]", "-s", "old", *where, cwd=tmp_path, env=env)
    (row,) = rows(tmp_path / "out")
    assert row["status"] == "missing"
    assert row["message"].startswith("the environment of old lacks no_such: its package belongs in")
    assert absent(("no_such.module",)) == (
        "not installed: no_such.module; remedy: pip install no_such.module"
    )


def _killed(self, folder) -> None:
    raise KeyboardInterrupt


def test_an_environment_is_told_of_requirements_that_are_no_packages(tmp_path, monkeypatch) -> None:
    required = ["pytest>=1", "git+https://example.org/some", "./there"]
    version = pytest.__version__
    assert environments.versions(required) == f"pytest=={version}, {required[1]}, {required[2]}"
    monkeypatch.setenv("OTBENCH_ENVIRONMENTS", str(tmp_path / "one:two"))
    with pytest.raises(UserError, match="OTBENCH_ENVIRONMENTS: "):
        environments.create("old", ["pip"])


def test_what_pip_cannot_install_is_one_line_and_no_environment(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("OTBENCH_ENVIRONMENTS", str(tmp_path))
    with pytest.raises(UserError, match="pip cannot install no-such-package-0==1 in"):
        environments.create("odd", ["no-such-package-0==1"])
    with pytest.raises(MissingError):
        environments.interpreter("odd", ["no-such-package-0==1"])


def test_such_a_solver_is_not_run_in_this_process(otbench_here) -> None:
    with pytest.raises(UserError, match="runs in an environment of its own, not in this process"):
        api.solve("gaussian", "ott-genot")
    for words, said in (
        (["create"], "env create needs a solver: ott-genot"),
        (["create", "pot-emd"], "solver 'pot-emd' needs no environment of its own"),
        (["remove", "genot"], "solver 'genot' is unknown; did you mean 'ott-genot'"),
    ):
        done = otbench_here("env", *words)
        assert done.returncode == 2 and said in done.stderr
