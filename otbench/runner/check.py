"""`otbench check` and `otbench new`: the two commands for whoever adds a solver."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from otbench.errors import UserError
from otbench.registry import Selection, absent, registry
from otbench.runner import local as execute
from otbench.runner import plan
from otbench.runner.contract import PROBLEMS
from otbench.runner.run import FRAMEWORKS, preloaded
from otbench.statuses import Status


TEMPLATE = '''"""{title}: one sentence on what it is (Author year, equation).

What it assumes, what differs from the paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from otbench import FitContext, MapProblem, Problem, Solver, Transport


@dataclass(frozen=True)
class {cls}(Solver):
    """Parameters are fields with a default; `{name}[n=500]` on the command line sets one, `[n=[100,500]]` sweeps."""

    name: ClassVar[str] = "{name}"
    needs: ClassVar[tuple[str, ...]] = ("torch",)  # imported before the clock starts; import them inside methods only
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
            f"solver name {name!r} is not kebab-case: begin with a small letter, then letters, digits and single dashes"
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
        with open(path, "x") as file:
            file.write(text)
    except FileExistsError:
        raise UserError(f"{path} exists: choose another name, or delete it") from None
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror}; name a folder you can write with --folder"
        ) from None
    return path


def check(
    text: str, plugins: tuple[str, ...], timeout_s: float, memory_bytes: int
) -> Iterator[tuple[str, str, str]]:
    """Try a solver's contract on small problems, each in a process of its own.

    Args:
        text: the solver, as it is selected on the command line.
        plugins: as for a run.
        timeout_s: limit per problem.
        memory_bytes: limit per problem.

    Yields:
        ``(verdict, problem, sentence)`` with the verdict ``ok``, ``WRONG`` or ``skipped``.

    Raises:
        UserError: no such solver.
    """
    solvers = plan.select("solver", [text], plugins)
    for solver in solvers:
        yield from _check(solver, plugins, execute.Limits(timeout_s, memory_bytes))


def _check(
    solver: Selection, plugins: tuple[str, ...], limits: execute.Limits
) -> Iterator[tuple[str, str, str]]:
    entry = solver.entry
    heavy = [name for name in FRAMEWORKS if name in sys.modules]
    if heavy:
        yield (
            "WRONG",
            entry.origin.name,
            f"importing the file imports {', '.join(heavy)}: import inside methods",
        )
    if not entry.summary:
        yield (
            "WRONG",
            entry.origin.name,
            "the module has no docstring: say what the method is and cite its paper",
        )
    if lacking := absent(entry.cls.needs):
        yield "WRONG", entry.origin.name, lacking
        return
    specs = plan.expand(
        plan.select("task", PROBLEMS, plugins), [solver], 1, "cpu", "float32", plugins
    )
    specs.sort(key=lambda spec: spec.task.label)
    jobs = [{**plan.job([spec]), "contract": True} for spec in specs]
    skipped = 0
    for event in execute.execute(
        jobs, slots=1, limits=limits, preload=preloaded(entry.cls.needs, True), plugins=plugins
    ):
        if isinstance(event, execute.Started):
            continue
        label, fields = specs[event.id].task.label, event.fields
        if fields["status"] == Status.SKIPPED:
            skipped += 1
            yield "skipped", label, fields["message"]
        elif fields["status"] != Status.OK:
            yield "WRONG", label, f"{fields['status']}: {fields['message']}"
        elif fields["findings"]:
            yield from (("WRONG", label, finding) for finding in fields["findings"])
        else:
            yield "ok", label, ""
    if skipped == len(specs):
        yield (
            "WRONG",
            entry.name,
            "supports() refuses every problem tried: take at least one, or say in the docstring which it is for",
        )
