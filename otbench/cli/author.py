"""``otbench check`` and ``otbench new``: for whoever adds a solver."""

from __future__ import annotations

import argparse
import re
import textwrap
from pathlib import Path

from otbench.cli.options import Command, add_limits, add_plugins
from otbench.errors import UserError
from otbench.registry import registry


TEMPLATE = '''"""{title}: one sentence on what it is (Author year, equation).

What it assumes, what differs from the paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from otbench import FitContext, MapProblem, Problem, Solver, Transport


@dataclass(frozen=True)
class {cls}(Solver):
    """Parameters are fields with a default: `{name}[n=500]` sets one, `[n=[100,500]]` sweeps."""

    name: ClassVar[str] = "{name}"
    needs: ClassVar[tuple[str, ...]] = ("torch",)  # imported before the clock; else inside methods
    n: int = 1024

    def supports(self, problem: Problem) -> str | None:
        """Say why not, or None."""
        same = isinstance(problem, MapProblem) and problem.source.shape == problem.target.shape
        return None if same else "takes map problems between equal spaces only"

    def fit(self, problem: Problem, context: FitContext) -> Transport:
        """Here: the shift between the means of n samples. Put your method in its place."""
        assert isinstance(problem, MapProblem)
        x = problem.source.sample(self.n, context.generator)
        y = problem.target.sample(self.n, context.generator)
        shift = y.mean(0) - x.mean(0)
        return Transport(push=lambda x: x + shift, info={{"shift_norm": float(shift.norm())}})
'''


def new_solver(name: str, folder: Path | None) -> Path:
    """Write a working adapter file.

    Args:
        name: of the solver, kebab-case.
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
    text = TEMPLATE.format(
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
    text = "default: solvers/ in a checkout, else the current folder"
    sub.add_argument("--folder", type=Path, help=text)


def _new(options: argparse.Namespace) -> int:
    path = new_solver(options.name, options.folder)
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
