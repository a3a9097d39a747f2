"""The seeds of one task solved as one stack (``otbench run --together``), each with its own row."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from otbench.errors import DivergedError, InvalidOutputError
from otbench.job import Result
from otbench.problem import MapProblem
from otbench.runner.clock import Clock, MemoryMeter
from otbench.runner.fit import MapRun, Run, checked, refusal
from otbench.runner.outcome import failure
from otbench.statuses import Phase, Status


def results_together(runs: Sequence[Run]) -> Iterator[Result]:
    """The result of each seed.

    Time and memory are not those of one run: only the whole's time is given.

    Raises:
        InvalidOutputError: the solver is batched and the problems are no map problems.
    """
    solver, problems, phases = (
        runs[0].solver,
        [run.build() for run in runs],
        runs[0].measured.phases,
    )
    phases.enter(Phase.FIT)
    given = [run.given(problem) for run, problem in zip(runs, problems, strict=True)]
    for problem in given:
        if (reason := refusal(solver, problem)) is not None:
            yield from (run.measured.ended(Status.SKIPPED, reason) for run in runs)
            return
    maps = [problem for problem in problems if isinstance(problem, MapProblem)]
    if len(maps) < len(problems):
        raise InvalidOutputError(f"{solver.name} is batched, which is for map problems only")
    memory, clock = MemoryMeter(), Clock()
    members = [MapRun(run, problem, clock, memory) for run, problem in zip(runs, maps, strict=True)]
    clock.start()
    outcomes = solver.fit_together(given, [member.context for member in members])
    shared = {"together": len(runs), "fit_together_s": clock.stop()}
    for member, outcome in zip(members, outcomes, strict=True):
        member.run.measured.columns |= shared
        yield _scored(member, outcome)


def _scored(member: MapRun, outcome: object) -> Result:
    """The result of one seed; an error is the end of its run alone."""
    measured = member.run.measured
    try:
        if failed := member.diverged or (outcome if isinstance(outcome, DivergedError) else None):
            raise failed
        transport = checked(outcome, member.problem)
        member.score(transport)
        measured.report(transport.info)
        return measured.finished()
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        task, solver = (
            Path(inspect.getfile(type(of))) for of in (member.run.task, member.run.solver)
        )
        status, message, columns = failure(error, "map", measured.phases.of(error), task, solver)
        return measured.ended(status, message, **columns)
