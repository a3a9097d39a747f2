"""One contract over every registered solver and task, and proof that the contract catches what it
should.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch

from otbench.errors import DivergedError
from otbench.methods.discrete import DiscreteSolver
from otbench.problem import MapProblem
from otbench.registry import absent, registry
from otbench.runner.contract import PROBLEMS, findings
from otbench.solver import FitContext, Solver, Transport


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def problem(text: str, dtype: torch.dtype = torch.float32):
    (selection,) = registry("task").select(text)
    return selection.build().problem(np.random.default_rng(0), device="cpu", dtype=dtype)


DOUBLE = [task for task in PROBLEMS if task == "gaussian" or task.startswith("weight")]
CASES = [*((task, torch.float32) for task in PROBLEMS), *((task, torch.float64) for task in DOUBLE)]


def quick(solver: str, task: str, dtype: torch.dtype) -> bool:
    """All but those of OTT, of which each solver has one: JAX compiles anew for each shape, some
    seconds a solver and problem.
    """
    if not solver.startswith("ott-"):
        return True
    discrete = issubclass(registry("solver").entries[solver].cls, DiscreteSolver)
    once = "point-clouds[n=40,m=50]" if discrete else "gaussian"
    return task == once and dtype == torch.float32


TRIALS = [
    pytest.param(
        solver,
        task,
        dtype,
        id=f"{solver}-{task}-{str(dtype).removeprefix('torch.')}",
        marks=() if quick(solver, task, dtype) else pytest.mark.slow,
    )
    for solver in sorted(registry("solver").entries)
    for task, dtype in CASES
]


@pytest.mark.parametrize(("solver", "task", "dtype"), TRIALS)
def test_every_solver_keeps_the_contract(solver, task, dtype):
    entry = registry("solver").entries[solver]
    if entry.cls.environment:
        pytest.skip("runs in an environment of its own: tests/test_environments.py")
    if lacking := absent(entry.cls.needs):
        pytest.skip(lacking)
    built = entry.cls(
        **{
            name: value
            for name, value in {"n": 64, "steps": 5, "critics": 2, "batch": 32}.items()
            if name in entry.parameters
        }
    )
    small = problem(task, dtype)
    reason = built.supports(small)
    if reason is not None:
        assert reason.strip() and "\n" not in reason
        return
    assert findings(built, small, "cpu", dtype) == []


@pytest.mark.parametrize("kind", ["task", "solver"])
def test_every_entry_says_what_it_is(kind):
    for name, entry in registry(kind).entries.items():
        assert entry.summary.endswith((".", ":")) or len(entry.summary) > 20, name
        assert entry.cls.__doc__


class Misbehaving(Solver):
    """A map with one fault."""

    name = "misbehaving"

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def fit(self, problem, context: FitContext) -> Transport:
        def in_place(x):
            return x.mul_(2)

        weight = torch.ones(2, requires_grad=True)
        noise = np.random.default_rng()
        pushes = {
            "batch": lambda x: x - x.mean(0),
            "in place": in_place,
            "gradients": lambda x: x * weight,
            "seed": lambda x: x + float(noise.random()),
            "shape": lambda x: x[:, :1],
            "nan": lambda x: x / 0,
            "good": lambda x: x.clone(),
        }
        info: dict = {"odd": [1]} if self.fault == "info" else {}
        return Transport(push=pushes.get(self.fault, pushes["good"]), info=info)


class Muddled(Misbehaving):
    """A stack that keeps its members apart, or does not."""

    batched: ClassVar[bool] = True

    def fit_together(self, problems, contexts) -> list[Transport | DivergedError]:
        shift = {"good": 0.0, "stack": 1.0, "neighbour": 0.01 * contexts[0].seed}[self.fault]
        return [Transport(push=lambda x: x + shift) for _ in problems]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("batch", "point by point"),
        ("in place", "changes its input"),
        ("gradients", "tracks gradients"),
        ("seed", "two fits with one seed differ"),
        ("shape", "returned shape (64, 1), expected (64, 2)"),
        ("nan", "not finite"),
        ("info", "info['odd'] is list, no plain number: kept as text; give plain numbers"),
    ],
)
def test_the_contract_catches(fault, words):
    gaussian = problem("gaussian")
    assert isinstance(gaussian, MapProblem)
    assert findings(Misbehaving("good"), gaussian, "cpu", torch.float32) == []
    assert any(
        words in finding for finding in findings(Misbehaving(fault), gaussian, "cpu", torch.float32)
    )


@pytest.mark.parametrize(
    ("fault", "words"),
    [("stack", "another map than fit"), ("neighbour", "depends on its neighbours")],
)
def test_the_contract_catches_a_stack_that_mixes_its_members(fault, words):
    gaussian = problem("gaussian")
    assert findings(Muddled("good"), gaussian, "cpu", torch.float32) == []
    (finding,) = findings(Muddled(fault), gaussian, "cpu", torch.float32)
    assert words in finding
