"""The worker process: takes a job, does its runs, and sends what happens as JSON lines.

Events: ``{"event": "started", "threads": ..., "machine": ..., ...}`` once imports are done,
``{"event": "phase", "phase": ...}`` as one begins, ``{"event": "resumed", ...}`` where a saved fit
goes on, ``{"event": "checkpoint", ...}`` as they are scored, and ``{"event": "result", ...}``. The
process may be killed at any time.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from otbench.environments import versions
from otbench.errors import MissingError
from otbench.job import Job, Result
from otbench.problem import AmortizedProblem, Problem, Task
from otbench.registry import registry
from otbench.runner.clock import LoadMeter
from otbench.runner.contract import findings
from otbench.runner.devices import sm_clock_mhz
from otbench.runner.fit import Run, refusal
from otbench.runner.measure import Phases, Send
from otbench.runner.outcome import failure
from otbench.runner.provenance import machine
from otbench.runner.together import results_together
from otbench.solver import Solver
from otbench.statuses import Phase, Status


def perform(job: Job, send: Send, imported: Mapping[str, float]) -> None:
    """Do the runs of a job, and send a result for each, whatever the solver does in this process.

    Args:
        job: what to run.
        send: takes one event.
        imported: seconds that packages imported ahead of the fork took.
    """
    left = dict.fromkeys(range(len(job.specs)))
    began = datetime.now(UTC).isoformat(timespec="milliseconds")
    place = {"threads": job.threads, "machine": machine(job.gpu), "began": began}
    if job.gpu is not None:
        place["driver"] = job.gpu.driver
    load, phases = LoadMeter(job.cpus), Phases(send)

    def send_result(member: int, result: Result) -> None:
        del left[member]
        values = result.to_json()
        values["measured"]["load"] = load.share()
        if job.gpu is not None:
            values["measured"]["gpu_clock_mhz"] = sm_clock_mhz(job.gpu)
        del values["curve"]  # its points were sent as they came
        send({"event": "result", "member": member, **values})

    try:
        _perform(job, phases, send, send_result, imported, place)
    except BaseException as error:
        with contextlib.suppress(Exception):  # a solver may have closed stderr
            traceback.print_exc()
        task = registry("task", job.plugins).entries[job.specs[0].task]
        solver = registry("solver", job.plugins).entries[job.specs[0].solver]
        status, message, columns = failure(
            error, task.cls.setting, phases.of(error), task.origin, solver.origin
        )
        for member in list(left):
            send_result(member, Result(status, message, {**place, **columns}))


def _perform(
    job: Job,
    phases: Phases,
    send: Send,
    send_result: Callable[[int, Result], None],
    imported: Mapping[str, float],
    place: Mapping[str, Any],
) -> None:
    """Import, build task and solver, and send what comes of them."""
    import torch

    _use_threads(job.threads, job.cpus)
    began = time.perf_counter()
    spec = job.specs[0]
    tasks, solvers = (registry(kind, job.plugins).entries for kind in ("task", "solver"))
    task: Task = tasks[spec.task].cls(**json.loads(spec.task_params))
    solver: Solver = solvers[spec.solver].cls(**json.loads(spec.solver_params))
    needs = ("torch", *task.needs, *solver.needs)
    for name in needs:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if not solver.environment:
                raise
            raise MissingError(
                f"the environment of {solver.name} lacks {error.name}: its package belongs in "
                f"`environment`; then otbench env create {solver.name}"
            ) from error
    import_s = time.perf_counter() - began + sum(imported.get(name, 0.0) for name in set(needs))
    if solver.environment:
        place = {**place, "environment": versions(solver.environment)}
    send({"event": "started", **place})

    torch.set_num_threads(job.threads)
    if spec.device == "cuda":
        torch.zeros(1, device="cuda")  # opens the context before any clock
    known = {**place, "import_s": import_s}
    runs = [Run(job, member, task, solver, phases, send, known) for member in range(len(job.specs))]
    if job.purpose == "contract":
        send_result(0, _contract(runs[0]))
    elif len(runs) == 1:
        send_result(0, runs[0].result(runs[0].build()))
    else:
        for member, result in enumerate(results_together(runs)):
            send_result(member, result)


def _contract(run: Run) -> Result:
    """What the solver does wrong on the problem of the run."""
    problem, spec = run.build(), run.spec
    run.measured.phases.enter(Phase.FIT)
    if (reason := refusal(run.solver, problem)) is not None:
        return Result(Status.SKIPPED, reason)
    found = findings(run.solver, problem, spec.device, run.randomness.dtype)
    return Result(Status.OK, findings=found, info={"cost": _cost_of(problem)})


def _cost_of(problem: Problem) -> str:
    pair = problem.test[0] if isinstance(problem, AmortizedProblem) else problem
    return pair.cost.name


def _use_threads(threads: int, cpus: Sequence[int]) -> None:
    """Keep this process on its own cores, so that every library's thread pool is as large as it
    should be.
    """
    if cpus and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cpus)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)


def sender(fd: int) -> Send:
    """Events as JSON lines into a file descriptor."""

    def send(event: dict[str, Any]) -> None:
        line = f"\n{json.dumps(event)}\n".encode()  # apart from what a solver wrote before it
        while line:
            line = line[os.write(fd, line) :]

    return send


if __name__ == "__main__":  # python -m otbench.runner.worker FD JOB, where forking is not safe
    perform(Job.from_json(json.loads(sys.argv[2])), sender(int(sys.argv[1])), {})
    os._exit(0)
