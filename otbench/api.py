"""otbench from Python: get_task, get_solver, run and solve, as short as the command line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from otbench.errors import UserError
from otbench.job import Job, Row
from otbench.problem import Problem, Task
from otbench.registry import Selection, absent, registry
from otbench.selection import format_value
from otbench.solver import Solver, Transport


if TYPE_CHECKING:
    import torch
    from numpy.typing import ArrayLike
    from rich.console import Console

    from otbench.answer.solving import Answer
    from otbench.data.cloud_files import CloudFile
    from otbench.data.clouds import Cloud
    from otbench.runner.executor import Limits
    from otbench.runner.plan import Rerun
    from otbench.store import Results

    Points = ArrayLike | str | Path | CloudFile


def get_task(text: str, plugins: Sequence[str] = ()) -> Task:
    """The task that ``name[param=value]`` stands for, such as ``gaussian[dim=16]``.

    Raises:
        UserError: no such task or parameter, or more than one value of a parameter.
    """
    return _one("task", text, plugins).build()


def get_solver(text: str, plugins: Sequence[str] = ()) -> Solver:
    """The solver that ``name[param=value]`` stands for, such as ``otm[steps=2000]``.

    Raises:
        UserError: no such solver or parameter, or more than one value of a parameter.
    """
    return _one("solver", text, plugins).build()


def run(
    tasks: str | Task | Iterable[str | Task] | None = None,
    solvers: str | Solver | Iterable[str | Solver] | None = None,
    seeds: int | Iterable[int] | None = None,
    *,
    suite: str = "quick",
    results: str | Path = "results/runs",
    device: str = "auto",
    dtype: str = "float32",
    jobs: int | None = None,
    together: int | None = None,
    executor: str = "local",
    limits: Limits | None = None,
    rerun: Rerun = "changed",
    keep: bool = False,
    save_fits_s: float | None = None,
    plugins: Sequence[str] = (),
    tuned: Iterable[str | Path] = (),
    console: Console | None = None,
) -> Results:
    """Run tasks x solvers x seeds, each run in a process of its own; as ``otbench run`` does.

    What is recorded in ``results`` already is not run again.

    Args:
        tasks: selections ``name[param=value,param=[v1,v2]]``, or tasks; by default the suite's.
        solvers: likewise.
        seeds: how many, or which ones; by default as many as the suite has.
        suite: named choice of tasks, solvers and seeds.
        results: results folder.
        device: ``auto``, ``cpu``, ``cuda``, or ``cuda:N`` for one GPU of several.
        dtype: ``float32`` or ``float64``, of the problems.
        jobs: runs at a time; by default one, on GPUs one for each.
        together: most seeds that are solved as one, where the solver can.
        executor: what starts the workers.
        limits: seconds and bytes of a run.
        rerun: what is done again beside what was never recorded, see `otbench.runner.plan.pending`.
        keep: keep raw outputs and logs of every run; what was recorded without is done again.
        save_fits_s: least seconds between two saves of a long fit; never by default.
        plugins: files or folders with more tasks and solvers.
        tuned: files or folders of settings that ``otbench tune`` chose, run beside.
        console: where progress is shown; by default the terminal or notebook.

    Returns:
        The frames ``runs``, ``metrics`` and ``curves`` of the runs that were asked for.

    Raises:
        UserError: anything wrong with the selection or the results folder.
        KeyboardInterrupt: it was interrupted; what ended is recorded.
    """
    from rich.console import Console

    from otbench.runner.executor import Limits
    from otbench.runner.run import Options
    from otbench.runner.run import run as execute
    from otbench.store import load

    options = Options(
        suite=suite,
        tasks=_texts("task", tasks, plugins),
        solvers=_texts("solver", solvers, plugins),
        seeds=_seeds(seeds),
        device=device,
        dtype=dtype,
        jobs=jobs,
        together=together,
        executor=executor,
        limits=limits or Limits(),
        results=Path(results),
        rerun=rerun,
        keep=keep,
        save_fits_s=save_fits_s,
        plugins=_several(plugins),
        tuned=list(map(Path, _several(tuned))),
    )
    planned = execute(options, console or Console(highlight=False))
    if planned.interrupted:
        raise KeyboardInterrupt
    return load(results).restricted(planned.keys)


@dataclass(frozen=True)
class Solved:
    """A problem, what a solver made of it, and its row.

    Attributes:
        problem: with its samplers and its truth.
        transport: what the solver returned.
        row: as ``otbench run`` would record it; see `otbench.job.Row`.
    """

    problem: Problem
    transport: Transport
    row: Row

    def push(self, x: torch.Tensor) -> torch.Tensor:
        """T(x) for ``(n, *source shape)`` points, ``(n, *target shape)``.

        Raises:
            UserError: the solver found no map; the settings discrete and amortized have plans.
        """
        if self.transport.push is None:
            raise UserError(f"{self.row.solver_label} found no map: see transport.plan")
        return self.transport.push(x)


@overload
def solve(
    task: str | Task,
    solver: str | Solver,
    seed: int = 0,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    plugins: Sequence[str] = (),
) -> Solved: ...
@overload
def solve(
    *,
    solver: str | Solver,
    source: Points,
    target: Points,
    source_weights: ArrayLike | None = None,
    target_weights: ArrayLike | None = None,
    cost: str = "sqeuclidean",
    seed: int = 0,
    device: str = "cpu",
    dtype: str = "float32",
    plugins: Sequence[str] = (),
) -> Answer: ...
def solve(
    task: str | Task | None = None,
    solver: str | Solver = "",
    seed: int = 0,
    *,
    source: Points | None = None,
    target: Points | None = None,
    source_weights: ArrayLike | None = None,
    target_weights: ArrayLike | None = None,
    cost: str = "sqeuclidean",
    device: str = "cpu",
    dtype: str = "float32",
    plugins: Sequence[str] = (),
) -> Solved | Answer:
    """Solve one problem in this process: that of a task, scored as a run would be, or that of one's
    own points, all of them, as ``otbench solve`` does.

    There is no isolation, no limit and no record: a solver may be one that is in no file yet.

    Args:
        task: ``name[param=value]``, or a task.
        solver: likewise.
        seed: of all random streams.
        source: points ``(n, d)`` instead of a task, or a file of them: its path, or a
            `otbench.data.cloud_files.CloudFile`.
        target: points ``(m, d)`` likewise.
        source_weights: ``(n,)``, not negative; equal by default.
        target_weights: ``(m,)``.
        cost: between source and target.
        device: ``cpu``, ``cuda`` or ``auto``.
        dtype: ``float32`` or ``float64``.
        plugins: files or folders with more tasks and solvers.

    Raises:
        UserError: no such task or solver, points or weights that are none, or the solver does not
            take this problem.
        MissingError: a data file is absent.
        DivergedError: values that are not finite.
        InvalidOutputError: the solver returned no transport of this problem.
    """
    from otbench.runner import plan
    from otbench.runner.devices import find_device

    if (task is None) == (source is None and target is None):
        raise UserError("solve takes a task, or source and target")
    plan.check_setting(device, dtype, [seed])
    solvers = _selection("solver", solver, plugins)
    if task is not None:
        return _solve_task(_selection("task", task, plugins), solvers, seed, device, dtype, plugins)
    if source is None or target is None:
        raise UserError("source and target go together: give both")
    _check_here(solvers)
    if lacking := absent(solvers.entry.cls.needs):
        raise UserError(lacking)
    if solvers.entry.cls.control:
        raise UserError(f"{solvers.label} is given the answer of a task: it finds none")

    from otbench.answer.solving import solve_clouds

    x, y = _clouds(source, target, source_weights, target_weights, cost)
    return solve_clouds(
        x, y, solvers.build(), solvers.label, cost, seed, find_device(device), dtype
    )


def _solve_task(
    tasks: Selection, solvers: Selection, seed: int, device: str, dtype: str, plugins: Sequence[str]
) -> Solved:
    import torch

    from otbench.code_hashes import Code
    from otbench.runner import plan
    from otbench.runner.devices import find_devices
    from otbench.runner.fit import Run
    from otbench.runner.measure import Phases
    from otbench.runner.provenance import machine
    from otbench.statuses import Status

    _check_here(solvers)
    needed = (*tasks.entry.cls.needs, *solvers.entry.cls.needs)
    if lacking := absent(needed):
        raise UserError(lacking)
    device, gpus = find_devices(device)
    identity = plan.spec(tasks, solvers, seed, device, dtype, Code())
    job = Job((identity,), _several(plugins), threads=torch.get_num_threads())
    known = {"threads": job.threads, "machine": machine(gpus[0] if gpus else None)}

    def unheard(event: object) -> None:
        """There is no coordinator to hear it."""

    fit = Run(job, 0, tasks.build(), solvers.build(), Phases(unheard), unheard, known)
    problem = fit.build()
    result = fit.result(problem)
    if result.status != Status.OK or fit.transport is None:
        raise UserError(f"{identity.label}: {result.message}")
    when = datetime.now(UTC).isoformat(timespec="milliseconds")
    return Solved(problem, fit.transport, Row.of(identity, result, "", when))


def _check_here(solver: Selection) -> None:
    """Refuse a solver that does not run in this environment."""
    if solver.entry.cls.environment:
        raise UserError(
            f"{solver.label} runs in an environment of its own, not in this process: otbench.run"
        )


def _clouds(
    source: Points, target: Points, a: ArrayLike | None, b: ArrayLike | None, cost: str
) -> tuple[Cloud, Cloud]:
    """Points of any form as checked clouds."""
    from otbench.data.cloud_files import CloudFile, read_cloud, read_pair
    from otbench.data.clouds import as_cloud, check_pair

    x, y = (CloudFile(str(p)) if isinstance(p, (str, Path)) else p for p in (source, target))
    if isinstance(x, CloudFile) and isinstance(y, CloudFile) and a is None and b is None:
        return read_pair(x, y, cost)

    def cloud(name: str, points: Any, weights: ArrayLike | None) -> Cloud:
        if isinstance(points, CloudFile):
            held = read_cloud(points)
            points, weights = held.points, held.weights if weights is None else weights
        return as_cloud(name, points, weights)

    return check_pair(cloud("source", x, a), cloud("target", y, b), cost)


def _selection(kind: Any, given: str | Task | Solver, plugins: Sequence[str]) -> Selection:
    return _one(kind, given, plugins) if isinstance(given, str) else Selection.of(given)


def _one(kind: Any, text: str, plugins: Sequence[str]) -> Selection:
    found = registry(kind, _several(plugins)).select(text)
    if len(found) > 1:
        raise UserError(f"{text!r} selects {len(found)} {kind}s: give one value of each parameter")
    return found[0]


def _seeds(given: int | Iterable[int] | None) -> Sequence[int] | None:
    """Plain numbers, also of NumPy's."""
    if given is None or isinstance(given, range):
        return given
    if isinstance(given, int) and not isinstance(given, bool):
        return range(given)
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise UserError(f"seeds are a number of them or several numbers, got {given!r}")
    # What is no whole number is refused with the other options.
    return [one if isinstance(one, (bool, str, float)) else index(one) for one in given]


def _several(given: str | Path | Iterable[str | Path]) -> tuple[str, ...]:
    """Texts, of which one need not be in a list."""
    return tuple(map(str, [given] if isinstance(given, (str, Path)) else given))


def _texts(kind: str, given: Any, plugins: Sequence[str]) -> list[str] | None:
    """Selections in the words of the command line, whatever they were given as."""
    if given is None:
        return None
    several = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    return [one if isinstance(one, str) else _text(kind, one, plugins) for one in several]


def _text(kind: Any, given: Task | Solver, plugins: Sequence[str]) -> str:
    values = dict(Selection.of(given).params)
    found = registry(kind, _several(plugins)).entries.get(given.name)
    if found is None or found.cls is not type(given):
        raise UserError(
            f"{type(given).__name__} is no registered {kind}, and a run is in another process: "
            f"put it into a file and name the file in plugins, or call otbench.solve"
        )
    shown = ",".join(f"{name}={format_value(value)}" for name, value in values.items())
    return f"{given.name}[{shown}]" if shown else given.name
