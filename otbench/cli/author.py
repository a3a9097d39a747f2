"""``otbench check`` and ``otbench new``: for whoever adds a solver."""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from pathlib import Path

from otbench.cli.options import Command, add_limits, add_plugins
from otbench.errors import UserError
from otbench.problem import COSTS
from otbench.registry import registry


TEMPLATE = '''"""{title}: one sentence on what it is (Author year, equation).

What it assumes, what differs from the paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from otbench import {imported}


@dataclass(frozen=True)
class {cls}(Solver):
    """Fields are parameters: `{name}[n=500]` sets one, `[n=[100,500]]` sweeps."""

    name: ClassVar[str] = "{name}"
    needs: ClassVar[tuple[str, ...]] = ("torch",)  # imported before the clock; else inside methods
    n: int = 1024

    def supports(self, problem: Problem) -> str | None:
        """Say why not, or None."""
        if not isinstance(problem, MapProblem) or problem.source.shape != problem.target.shape:
            return "takes map problems between equal spaces only"
{refusal}        return None

    def fit(self, problem: Problem, context: FitContext) -> Transport:
        """Here: the shift between the means of n samples. Put your method in its place."""
        assert isinstance(problem, MapProblem)
        x = problem.source.sample(self.n, context.generator)
        y = problem.target.sample(self.n, context.generator)
        shift = y.mean(0) - x.mean(0)
        return Transport(push=lambda x: x + shift, info={{"shift_norm": float(shift.norm())}})
'''


REFUSAL = """        if problem.cost != {constant}:
            return f"is for the cost {cost}, not {{problem.cost.name}}"
"""
ANY = "any"  # cost


def new_solver(name: str, cost: str, folder: Path | None) -> Path:
    """Write a working adapter file.

    Args:
        name: of the solver, kebab-case.
        cost: that the method is for, one of `otbench.problem.COSTS`, or ``any``.
        folder: where to write; by default ``solvers/`` of a checkout one stands in, else the
            current folder.

    Raises:
        UserError: a bad or taken name, a file that exists.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise UserError(
            f"solver name {name!r} is not kebab-case: begin with a small letter, then letters, "
            "digits and single dashes"
        )
    if name in registry("solver").entries:
        raise UserError(f"a solver is named {name!r} already: choose another name")
    in_checkout = Path("solvers").is_dir() and Path("otbench").is_dir()
    path = (folder or Path("solvers" if in_checkout else ".")) / f"{name.replace('-', '_')}.py"
    words = name.split("-")
    constant = cost.upper()
    nouns = ["FitContext", "MapProblem", "Problem", "Solver", "Transport"]
    text = TEMPLATE.format(
        imported=", ".join(nouns if cost == ANY else sorted([constant, *nouns], key=_case)),
        refusal="" if cost == ANY else REFUSAL.format(constant=constant, cost=cost),
        name=name,
        title=" ".join(words).capitalize(),
        cls="".join(word.capitalize() for word in words),
    )
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UserError(f"{path} exists: choose another name, or delete it") from None
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror}; name a folder you can write with --folder"
        ) from None
    return path


def _case(name: str) -> tuple[bool, str]:
    """Constants come first, as isort has them."""
    return not name.isupper(), name


def _asked_cost() -> str:
    """The cost that the method is for, asked for at a terminal.

    Raises:
        UserError: there is no terminal to ask at, or the answer is no cost.
    """
    choices = ", ".join((*COSTS, ANY))
    if not sys.stdin.isatty():
        raise UserError(f"say which cost the method is for: --cost with one of {choices}")
    answer = input(f"Which cost is the method for ({choices})? ").strip()
    if answer not in (*COSTS, ANY):
        raise UserError(f"{answer!r} is no cost: choose one of {choices}")
    return answer


def _check_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("solver", help="name[param=value]")
    text = "show what the solver printed, with the traceback of an exception"
    sub.add_argument("--traceback", action="store_true", help=text)
    add_limits(sub)
    add_plugins(sub)


def _check(options: argparse.Namespace) -> int:
    from otbench.runner.check import check
    from otbench.runner.executor import Limits

    wrong = 0
    limits = Limits(options.timeout, options.memory)
    for found in check(options.solver, tuple(options.plugins), limits):
        wrong += found.verdict == "WRONG"
        said = f": {found.sentence}" if found.sentence else ""
        print(f"{found.verdict:8} {found.where}{said}", flush=True)
        if options.traceback and found.log:
            print(textwrap.indent(found.log.rstrip(), "    "), flush=True)
    if wrong and not options.traceback:
        print("--traceback shows what the solver printed, and where it raised")
    print(f"{options.solver}: {f'{wrong} to mend' if wrong else 'keeps the contract'}")
    return 1 if wrong else 0


def _new_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("kind", choices=("solver",))
    sub.add_argument("name", help="kebab-case name")
    text = "that the method is for: sqeuclidean is that of W2, euclidean that of W1"
    sub.add_argument("--cost", choices=(*COSTS, ANY), help=text)
    text = "default: solvers/ in a checkout, else the current folder"
    sub.add_argument("--folder", type=Path, help=text)


def _new(options: argparse.Namespace) -> int:
    path = new_solver(options.name, options.cost or _asked_cost(), options.folder)
    plugins = "" if path.parent.name == "solvers" else f" --plugins {path}"
    print(f"wrote {path}: a working adapter. Put your method in, then")
    print(f"  otbench check {options.name}{plugins}")
    print(f"  otbench run -s {options.name}{plugins}")
    return 0


COMMANDS = (
    Command(
        "check",
        "Try the contract of a solver on small problems, and say in words what is wrong.",
        _check_arguments,
        _check,
    ),
    Command("new", "Write a working adapter file to start from.", _new_arguments, _new),
)
