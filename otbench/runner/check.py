"""Try a solver's contract on small problems, each in a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from otbench.job import Job
from otbench.registry import Selection, absent
from otbench.runner import plan
from otbench.runner.contract import PROBLEMS
from otbench.runner.executor import Limits, Started, executor
from otbench.runner.local import FRAMEWORKS
from otbench.statuses import Status


def check(text: str, plugins: tuple[str, ...], limits: Limits) -> Iterator[tuple[str, str, str]]:
    """Try every solver that the text selects.

    Args:
        text: the solver, as it is selected on the command line.
        plugins: as for a run.
        limits: per problem.

    Yields:
        ``(verdict, problem, sentence)`` with the verdict ``ok``, ``WRONG`` or ``skipped``.

    Raises:
        UserError: no such solver.
    """
    for solver in plan.select("solver", [text], plugins):
        yield from _check(solver, plugins, limits)


def _check(
    solver: Selection, plugins: tuple[str, ...], limits: Limits
) -> Iterator[tuple[str, str, str]]:
    entry = solver.entry
    heavy = [name for name in FRAMEWORKS if name in sys.modules]
    file = entry.origin.name
    if heavy:
        yield "WRONG", file, f"importing it imports {', '.join(heavy)}: import inside methods"
    if not entry.summary:
        yield (
            "WRONG",
            file,
            "the module has no docstring: say what the method is and cite its paper",
        )
    if lacking := absent(entry.cls.needs):
        yield "WRONG", file, lacking
        return
    specs = plan.expand(plan.select("task", PROBLEMS, plugins), [solver], [0], "cpu", "float32")
    specs.sort(key=lambda spec: spec.task_label)
    jobs = [Job((spec,), plugins, purpose="contract") for spec in specs]
    skipped = 0
    for event in executor("local", 1, limits).execute(jobs):
        if isinstance(event, Started):
            continue
        label, result = specs[event.job].task_label, event.result
        if result.status == Status.SKIPPED:
            skipped += 1
            yield "skipped", label, result.message
        elif result.status != Status.OK:
            yield "WRONG", label, f"{result.status}: {result.message}"
        elif result.findings:
            yield from (("WRONG", label, finding) for finding in result.findings)
        else:
            yield "ok", label, ""
    if skipped == len(specs):
        yield (
            "WRONG",
            entry.name,
            "supports() refuses every problem tried: take at least one, or say in the docstring "
            "which it is for",
        )
