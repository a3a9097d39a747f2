"""``otbench tune``: settings are chosen on other seeds than are reported, by the rule that is said,
and rows and boards say by which rule.
"""

from __future__ import annotations

import io
import json
import shlex
from pathlib import Path

import pytest
from rich.console import Console

from otbench.errors import UserError
from otbench.parameters import Ladder, Span
from otbench.registry import registry
from otbench.report.leaderboard import leaderboard
from otbench.runner.run import Options, run
from otbench.runner.tuned import Tuned, read_tuned
from otbench.store import load
from otbench.tuning import search_space, tune
from tests.conftest import call_here


# The error is |rate - 0.3|, to be minimised; rates above 0.8 raise.
SOLVER = '''
"""Shifts the plan by how far its rate is from 0.3."""

from dataclasses import dataclass
from typing import ClassVar

import otbench
from otbench.methods.discrete import Coupling, DiscreteSolver
from otbench.methods.exact import exact_plan
from otbench.methods.discrete import host_problem


@dataclass(frozen=True)
class Rated(DiscreteSolver):
    name: ClassVar[str] = "rated"
    presets: ClassVar = {"good": {"rate": 0.25, "n": 900}}
    rate: float = 1.0
    loose: bool = False

    def couple(self, pair, context):
        import torch

        if self.rate > 2:
            raise RuntimeError("rate is too high")
        best = torch.as_tensor(exact_plan(*host_problem(pair)).plan)
        share = min(abs(self.rate - 0.3), 1.0)
        plan = (1 - share) * best + share * pair.a[:, None] * pair.b
        return Coupling(plan * (0.5 if self.loose else 1))
'''
TASK = "point-clouds[n=12,m=10]"


@pytest.fixture(scope="module")
def plugin(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("rated") / "of mine" / "rated.py"
    path.parent.mkdir()
    path.write_text(SOLVER)
    return path


def selected(kind, text: str, plugin: Path):
    return registry(kind, (str(plugin),)).select(text)[0]


@pytest.fixture(scope="module")
def tuned(plugin, tmp_path_factory):
    """A ladder with values that raise and that do not converge, tuned and run on reported seeds."""
    out = tmp_path_factory.mktemp("tuned")
    search = ["--search", "rate=3,0.5,0.3,0.9", "--search", "loose=true,false"]
    where = ["--plugins", plugin, "--results", out / "tuning"]
    ran = call_here("tune", "rated", "-t", TASK, *search, "--seeds", "1000:1002", *where, cwd=out)
    assert ran.returncode == 0, ran.stderr
    solvers = ["rated", "rated[preset=good]", "rated[rate=0.4]", "rated[rate=0.3]", "independent"]
    solvers = [word for solver in solvers for word in ("-s", solver)]
    record = out / "tuning" / "tuned"
    where = ["--plugins", plugin, "--results", out / "runs", "--seeds", "2", "--tuned", record]
    again = call_here("run", "-t", TASK, *solvers, *where, cwd=out)
    assert again.returncode == 0, again.stderr
    return ran, out


def test_the_best_of_a_ladder_is_chosen_among_settings_that_succeeded_and_converged(tuned) -> None:
    ran, out = tuned
    (file,) = (out / "tuning" / "tuned").glob("*.json")
    found = read_tuned([file])[0]
    assert found.params == {"n": 1024, "rate": 0.3, "loose": False} and found.budget == 9
    assert found.seeds == [1000, 1001] and found.metric == "cost_gap"
    assert found.value < 1e-6 and found.default_value is not None and found.default_value > 0.1
    table = [[cell.strip() for cell in line.split("|")] for line in ran.stdout.splitlines()]
    told = {cells[2]: cells[3] for cells in table if len(cells) > 4}
    assert told["rate=3, loose=False"].startswith("error")
    assert told["rate=0.3, loose=True"] == "not converged"
    assert told["rate=0.3, loose=False"].startswith("**")
    said = shlex.split(ran.stdout.splitlines()[-1])
    assert said[said.index("--tuned") + 1] == str(file) and "of mine" in said[-1]


def test_rows_and_boards_say_how_parameters_were_chosen(tuned) -> None:
    results = load(tuned[1] / "runs")
    rules = dict(zip(results.runs.solver_label, results.runs.ruleset, strict=True))
    assert rules == {
        "rated": "default",
        "rated[preset=good]": "preset good",
        "rated[rate=0.4]": "set",
        "rated[rate=0.3]": "set",  # the values of the tuned one
        "rated[tuned=9]": "tuned (9)",
        "independent": "default",
    }
    assert set(results.runs.seed) == {0, 1}
    board = leaderboard(results, metrics=["cost_gap"], ruleset="tuned")
    assert "rated[tuned=9]" in board and "independent" in board
    assert "rated " not in board and "preset" not in board
    older = results.runs.assign(ruleset=None)
    for rule, label in (("preset", "rated[preset=good]"), ("set", "rated[rate=0.4]")):
        replaced = type(results)(older, results.metrics, results.curves)
        assert label in leaderboard(replaced, metrics=["cost_gap"], ruleset=rule)
    with pytest.raises(UserError, match="unknown ruleset 'best': choose default, preset"):
        leaderboard(results, ruleset="best")


def test_seeds_that_a_setting_was_chosen_on_are_not_reported(tuned) -> None:
    out = tuned[1]
    options = Options(
        tasks=[TASK], solvers=["independent"], seeds=[1001, 1002], tuned=[out / "tuning/tuned"]
    )
    with pytest.raises(UserError, match="seeds 1001: rated was tuned on them for point-clouds"):
        run(options, Console())


@pytest.mark.slow
def test_optuna_searches_a_span_and_starts_at_the_defaults(plugin, tmp_path) -> None:
    solver, task = selected("solver", "rated", plugin), selected("task", TASK, plugin)
    options = Options(results=tmp_path, seeds=[1000], plugins=(str(plugin),))
    said = io.StringIO()
    quiet = Console(file=said)
    space = search_space(solver, ["rate=0.1..1.0"])
    assert space == {"rate": Span(0.1, 1.0)}
    found = tune(solver, task, space, 4, options, quiet)
    rates = [trial.params["rate"] for trial in found.trials]
    assert rates[0] == 1.0 and len(set(rates)) == 4 and all(0.1 <= rate <= 1 for rate in rates)
    best = min(found.trials, key=lambda trial: trial.loss)
    assert found.chosen.params["rate"] == best.params["rate"] and best.loss < found.trials[0].loss
    again = tune(solver, task, space, 4, options, quiet)
    assert again == found and "0 to do" in said.getvalue()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rates=1,2", "unknown parameter 'rates' of rated; did you mean 'rate'"),
        ("rate", "write rate=v1,v2,... or rate=low..high"),
        ("rate=1..0.1", "1 is not below 0.1"),
        ("rate=high", "'rate' of rated must be float, got 'high'"),
        ("loose=false..true", "loose is no number, list its values"),
    ],
)
def test_what_cannot_be_searched_is_refused(plugin, text: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        search_space(selected("solver", "rated", plugin), [text])
    assert said in str(error.value)


def test_seeds_that_are_reported_and_solvers_without_a_search_are_refused(plugin, tmp_path) -> None:
    solver, task = selected("solver", "rated", plugin), selected("task", TASK, plugin)
    options = Options(results=tmp_path, seeds=range(3))
    with pytest.raises(UserError, match="seeds below 1000 are those that tables report"):
        tune(solver, task, {"rate": Ladder((0.5,))}, 2, options, Console())
    with pytest.raises(UserError, match="rated names nothing to search: give --search"):
        search_space(solver, [])


def test_a_setting_of_older_parameters_is_refused(plugin, tmp_path) -> None:
    file = tmp_path / "old.json"
    entry = registry("solver", (str(plugin),)).entries["rated"]
    known = Tuned("rated", TASK, {"rate": 0.3}, 3, [1000], "cost_gap", 0.1, 0.2, "", "")
    known.write(file)
    with pytest.raises(
        UserError, match=r"when it had other parameters \(loose, n\): tune it again"
    ):
        read_tuned([file])[0].selection(entry)
    (tmp_path / "twice.json").write_text(file.read_text())
    with pytest.raises(UserError, match="are both of rated on point-clouds"):
        read_tuned([tmp_path])
    edited = {**json.loads(file.read_text()), "params": {"n": 1024, "rate": 0.5, "loose": True}}
    file.write_text(json.dumps(edited))
    with pytest.raises(UserError, match="was edited after `otbench tune` wrote it: tune it again"):
        read_tuned([file])
    odd = [{**json.loads(file.read_text()), "seeds": seeds} for seeds in (7, [], ["1000"])]
    for text in ("{", "[]", json.dumps({"solver": "rated"}), *map(json.dumps, odd)):
        file.write_text(text)
        with pytest.raises(UserError, match="is no file of `otbench tune`"):
            read_tuned([file])
