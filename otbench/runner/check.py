"""Try a solver's contract on small problems with short fits, each in a process of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Container, Iterator
from dataclasses import dataclass, replace

from otbench.job import Job
from otbench.registry import Selection, solver_lacks
from otbench.runner import plan
from otbench.runner.contract import SHORT, TRIED
from otbench.runner.executor import Limits, Started, executor
from otbench.runner.local import FRAMEWORKS
from otbench.selection import parse_selection
from otbench.statuses import Status


SLOTS = 4  # processes at a time, each of which imports what a first fit needs


@dataclass(frozen=True)
class Finding:
    """What was found on one problem.

    Attributes:
        verdict: ``ok``, ``WRONG``, ``skipped``, or ``note`` of how the solver was tried.
        where: the problem, or the file.
        sentence: what is wrong and how to mend it, or why it was skipped.
        log: what the solver printed, with the traceback of an exception.
    """

    verdict: str
    where: str
    sentence: str = ""
    log: str = ""


def check(text: str, plugins: tuple[str, ...], limits: Limits) -> Iterator[Finding]:
    """Try every solver that the text selects.

    Args:
        text: the solver, as it is selected on the command line. Parameters of `SHORT` that it does
            not set are at most so large.
        plugins: as for a run.
        limits: per problem.

    Raises:
        UserError: no such solver.
    """
    given = parse_selection(text)[1]
    for solver in plan.select("solver", [text], plugins):
        yield from _check(solver, shortened(solver, given), plugins, limits)


def shortened(solver: Selection, given: Container[str]) -> Selection:
    """The solver with the parameters of `SHORT` that are not given, where it can be built so."""
    params = tuple(
        (name, min(value, SHORT[name]) if name in SHORT and name not in given else value)
        for name, value in solver.params
    )
    short = replace(solver, params=params)
    try:
        short.build()
    except ValueError:
        return solver
    return short


def _check(
    selected: Selection, solver: Selection, plugins: tuple[str, ...], limits: Limits
) -> Iterator[Finding]:
    entry = solver.entry
    heavy = [name for name in FRAMEWORKS if name in sys.modules]
    file = entry.origin.name
    if heavy:
        imported = f"importing it imports {', '.join(heavy)}: import inside methods"
        yield Finding("WRONG", file, imported)
    if not entry.summary:
        yield Finding(
            "WRONG", file, "the module has no docstring: say what the method is and cite its paper"
        )
    if lacking := solver_lacks(entry):
        yield Finding("WRONG", file, lacking)
        return
    if solver != selected:
        tried = f"tried as {solver.label}, which is soon done; give parameters to try others"
        yield Finding("note", selected.label, tried)
    specs = plan.expand(plan.select("task", TRIED, plugins), [solver], [0], "cpu", "float32")
    specs.sort(key=lambda spec: spec.task_label)
    jobs = [Job((spec,), plugins, purpose="contract") for spec in specs]
    skipped, costs = 0, set()
    for event in executor("local", min(SLOTS, os.cpu_count() or 1), limits).execute(jobs):
        if isinstance(event, Started):
            continue
        label, result = specs[event.job].task_label, event.result
        if result.status == Status.SKIPPED:
            skipped += 1
            yield Finding("skipped", label, result.message)
        elif result.status != Status.OK:
            yield Finding("WRONG", label, f"{result.status}: {result.message}", event.log)
        elif result.findings:
            yield from (Finding("WRONG", label, found, event.log) for found in result.findings)
        else:
            yield Finding("ok", label)
        costs.add(result.info.get("cost"))
    if {"euclidean", "sqeuclidean"} <= costs:
        sentence = (
            "takes the costs ||x - y|| and ||x - y||^2 alike: where the method is for one of them, "
            "have supports() refuse the other"
        )
        yield Finding("note", entry.name, sentence)
    if skipped == len(specs):
        yield Finding(
            "WRONG",
            entry.name,
            "supports() refuses every problem tried: take at least one, or say in the docstring "
            "which it is for",
        )
