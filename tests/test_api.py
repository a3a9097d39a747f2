"""otbench from Python: the same runs, frames and errors as on the command line."""

# pyright: reportMissingImports=false

from __future__ import annotations

import copy
import importlib.util
import io
import json
import pickle
import sys
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from rich.console import Console

import otbench
from otbench import Transport
from otbench.solvers.linear import Linear


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def test_tasks_and_solvers_are_built_from_the_words_of_the_command_line():
    task = otbench.get_task("gaussian[dim=16]")
    assert task.name == "gaussian" and task.dim == 16  # type: ignore[attr-defined]
    assert otbench.get_solver("otm[steps=7]").steps == 7  # type: ignore[attr-defined]
    with pytest.raises(otbench.UserError, match="did you mean 'gaussian'"):
        otbench.get_task("gausian")
    with pytest.raises(otbench.UserError, match="selects 2 tasks: give one value"):
        otbench.get_task("gaussian[dim=[2,3]]")


def test_a_run_gives_the_frames_of_what_was_asked_for(tmp_path):
    console = quiet()
    task = otbench.get_task("gaussian[dim=1]")
    asked = {"solvers": ["identity", Linear()], "results": tmp_path / "out", "console": console}
    found = otbench.run(tasks=task, seeds=2, **asked)
    assert isinstance(found, otbench.Results)
    assert sorted(found.runs.solver) == ["identity", "identity", "linear", "linear"]
    assert set(found.runs.status) == {"ok"} and set(found.runs.task_label) == {"gaussian[dim=1]"}
    assert "[4/4]" in console.file.getvalue()  # type: ignore[attr-defined]

    one = otbench.run(tasks="gaussian[dim=1]", seeds=[1], **asked)
    assert list(one.runs.seed) == [1, 1] and "0 to do" in console.file.getvalue()  # type: ignore[attr-defined]
    assert len(otbench.load(tmp_path / "out").runs) == 4
    with pytest.raises(otbench.UserError, match="unknown solver"):
        otbench.run(tasks="gaussian", solvers="lineal", results=tmp_path / "out")


@dataclass(frozen=True)
class Shift(otbench.Solver):
    """A solver that is in no registry."""

    name: ClassVar[str] = "shift"
    by: float = 1.0

    def supports(self, problem: otbench.Problem) -> str | None:
        return None if isinstance(problem, otbench.MapProblem) else "takes map problems only"

    def fit(self, problem: otbench.Problem, context: otbench.FitContext) -> otbench.Transport:
        return otbench.Transport(push=lambda x: x + self.by, info={"by": self.by})


@pytest.mark.slow
def test_what_is_solved_here_has_the_row_that_a_run_records(tmp_path):
    solved = otbench.solve("gaussian[dim=2]", "linear", seed=1)
    x = torch.zeros(3, 2)
    assert solved.push(x).shape == (3, 2)
    console = quiet()
    recorded = otbench.run(
        "gaussian[dim=2]", "linear", [1], results=tmp_path / "out", console=console
    )
    row = json.loads(next(tmp_path.rglob("rows.jsonl")).read_text())
    here = solved.row.to_json()
    apart = {"when", "batch", "threads", "began", "load"} | {
        name for name in row if name.endswith(("_s", "_mib"))
    }
    apart |= {"push_us_per_point"}
    assert {k: v for k, v in here.items() if k not in apart} == {
        k: v for k, v in row.items() if k not in apart
    }
    assert solved.row.key == recorded.runs.key[0]


def test_a_solver_may_be_one_that_is_in_no_file_of_the_registry():
    solved = otbench.solve("gaussian[dim=1]", Shift(by=2.0))
    assert solved.row.solver_label == "shift[by=2]" and solved.row.info == {"by": 2.0}
    assert torch.equal(solved.push(torch.zeros(2, 1)), torch.full((2, 1), 2.0))
    with pytest.raises(otbench.UserError, match="no registered solver"):
        otbench.run(tasks="gaussian", solvers=Shift())


def test_what_cannot_be_solved_says_why():
    with pytest.raises(otbench.UserError, match="takes map problems only"):
        otbench.solve("weight-pairs[side=4,train=2,test=1]", Shift())
    found = otbench.solve("point-clouds[n=8,m=9]", "pot-emd")
    assert found.transport.plan is not None and found.row.metrics["cost_gap"] < 1e-6
    with pytest.raises(otbench.UserError, match="found no map"):
        found.push(torch.zeros(1, 2))


PLUGIN = """
from dataclasses import dataclass
from typing import ClassVar
from otbench import Solver, Transport

@dataclass(frozen=True)
class Times(Solver):
    name: ClassVar[str] = "times"
    scale: float = 1.0
    def fit(self, problem, context):
        {before}
        return Transport(push=lambda x: x * {factor})
"""


def test_a_plugin_edited_in_one_session_is_run_anew(tmp_path):
    path, found = tmp_path / "times.py", []
    for factor in (1, 3, 1):
        path.write_text(PLUGIN.format(before="pass", factor=factor))
        asked = {"results": tmp_path / "out", "plugins": path, "console": quiet()}
        runs = otbench.run("gaussian[dim=1]", "times", [0], **asked).runs
        found.append((runs.solver_hash[0], round(runs.metric_l2_uvp[0], 6)))
    assert found[0] == found[2] != found[1]


def test_a_row_of_code_that_was_edited_while_it_ran_is_stale(tmp_path):
    path = tmp_path / "times.py"
    edits = {"whole": '+ "x = 1"', "half": '+ "x ="', "renamed": '.replace("scale:", "size:")'}
    for name, edit in edits.items():
        before = (
            "import pathlib, sys; p = pathlib.Path(sys.modules[__name__].__file__); "
            f"p.write_text(p.read_text() {edit})"
        )
        path.write_text(PLUGIN.format(before=before, factor=1))
        asked = {"results": tmp_path / name, "plugins": [path], "console": quiet()}
        runs = otbench.run("gaussian[dim=1]", "times", [0], **asked).runs
        assert list(runs.solver_hash) == ["edited"] and list(runs.status) == ["ok"]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"seeds": 0}, "seeds are different whole numbers from 0 on, got 'none'"),
        ({"seeds": [0, 0]}, "got 'one twice'"),
        ({"seeds": [-1]}, "got -1"),
        ({"seeds": [True]}, "got True"),
        ({"seeds": [1.5]}, "got 1.5"),
        ({"seeds": "12"}, "seeds are a number of them or several numbers, got '12'"),
        ({"device": "gpu"}, "unknown device 'gpu': choose auto, cpu, cuda"),
        ({"dtype": "float16"}, "unknown dtype 'float16'"),
        ({"rerun": "al"}, "unknown rerun 'al'"),
        ({"executor": "slurm"}, "unknown executor 'slurm'"),
        ({"jobs": 0}, "jobs is 0: at least 1"),
        ({"together": 0}, "together is 0: at least 1"),
        ({"solvers": []}, "no solvers: name some"),
        ({"tasks": 3}, "3 is no task"),
    ],
)
def test_odd_arguments_are_refused_before_anything_runs(tmp_path, asked, words):
    usual = {"tasks": "gaussian", "solvers": "identity", "results": tmp_path / "out"}
    with pytest.raises(otbench.UserError) as found:
        otbench.run(**{**usual, **asked})
    assert words in str(found.value) and not (tmp_path / "out").exists()


def test_numbers_of_numpy_and_single_texts_are_taken(tmp_path):
    seeds = np.arange(2)
    found = otbench.run("gaussian[dim=1]", "identity", seeds, results=tmp_path, console=quiet())
    assert sorted(found.runs.seed) == [0, 1]
    assert "identity" in otbench.leaderboard(found, metrics="l2_uvp", tasks="gaussian")


def test_a_row_is_read_as_it_was_written():
    row = otbench.solve("gaussian[dim=1]", "identity").row
    assert type(row).from_json(json.loads(json.dumps(row.to_json()))) == row


def test_a_transport_pickles_or_says_how_to_save_it(monkeypatch):
    plain = Transport(info={"steps": 3}, sigma=0.5)
    assert pickle.loads(pickle.dumps(plain)) == plain == copy.copy(plain) == copy.deepcopy(plain)
    assert pickle.loads(pickle.dumps(Transport(push=torch.neg))).push is torch.neg
    found = otbench.solve("gaussian[dim=1]", "linear").transport
    x, copies = torch.ones(3, 1), [copy.copy(found), copy.deepcopy(found)]
    if importlib.util.find_spec("cloudpickle"):
        copies.append(pickle.loads(pickle.dumps(found)))
        with pytest.raises(TypeError, match="generator' object"):
            pickle.dumps(Transport(push=torch.neg, info={"odd": (i for i in "x")}))  # type: ignore[dict-item]
    for copied in copies:
        assert copied.push is not None and found.push is not None
        assert torch.equal(copied.push(x), found.push(x)) and copied.info == found.info
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    words = r"^a Transport cannot be pickled .*<lambda>.*: pip install cloudpickle, or save what it"
    for save in (pickle.dumps, lambda transport: torch.save(transport, io.BytesIO())):
        with pytest.raises(TypeError, match=words):
            save(found)
