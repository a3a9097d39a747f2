"""Run a benchmark: plan, execute what is not yet recorded, and store a row for every run."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.text import Text

from otbench import store
from otbench.data.files import present
from otbench.errors import UserError
from otbench.job import NUMBERED, Gpu, Job, Result, Row, RunSpec, Saving
from otbench.registry import Selection, code_files, lacking
from otbench.rows import fault
from otbench.runner import plan, provenance
from otbench.runner.devices import find_devices
from otbench.runner.executor import Executor, Limits, Started, executor
from otbench.runner.progress import Progress
from otbench.runner.saving import SavedFits
from otbench.runner.tuned import Tuned, read_tuned
from otbench.statuses import Status


LOOK_S = 0.1  # between two looks at the times of the code's files


@dataclass(frozen=True)
class Options:
    """What to run and how; what a suite decides unless it is given is None."""

    suite: str = "quick"
    tasks: Sequence[str] | None = None
    solvers: Sequence[str] | None = None
    seeds: Sequence[int] | None = None
    device: str = "auto"
    dtype: str = "float32"
    jobs: int | None = None
    together: int | None = None
    executor: str = "local"
    limits: Limits = field(default_factory=Limits)
    results: Path = Path("results/runs")
    rerun: plan.Rerun = "changed"
    keep: bool = False
    save_fits_s: float | None = None
    plugins: tuple[str, ...] = ()
    tuned: Sequence[Path] = ()

    def __post_init__(self) -> None:
        """Refuse what no run can be made with.

        Raises:
            UserError: naming the option and what it may be.
        """
        device = "cuda" if NUMBERED.fullmatch(str(self.device)) else self.device
        plan.check_setting(device, self.dtype, self.seeds)
        if self.rerun not in get_args(plan.Rerun):
            known = ", ".join(get_args(plan.Rerun))
            raise UserError(f"unknown rerun {self.rerun!r}: choose {known}")
        for name, least in (("jobs", 1), ("together", 1), ("save_fits_s", 0)):
            given = getattr(self, name)
            if given is not None and not given >= least:
                raise UserError(f"{name} is {given}: at least {least} is needed")
        for name in ("tasks", "solvers"):
            if getattr(self, name) is not None and not getattr(self, name):
                raise UserError(f"no {name}: name some, or leave them out for those of the suite")

    @property
    def fits(self) -> Path:
        """The folder of saved fits."""
        return (self.results / "fits").absolute()


@dataclass(frozen=True)
class Planned:
    """The runs that were asked for, by key, and whether they were interrupted."""

    keys: tuple[str, ...]
    interrupted: bool


def run(options: Options, console: Console) -> Planned:
    """Run what is planned and not yet recorded.

    Raises:
        UserError: anything wrong with the selection or the results folder.
    """
    device, gpus = find_devices(options.device)
    slots = options.jobs or max(1, len(gpus))
    chosen = executor(options.executor, slots, options.limits, gpus)
    suite = plan.suite(options.suite)
    texts = suite.tasks if options.tasks is None else options.tasks
    tasks = plan.select("task", texts, options.plugins)
    texts = suite.solvers if options.solvers is None else options.solvers
    solvers = plan.select("solver", texts, options.plugins)
    seeds = options.seeds if options.seeds is not None else range(suite.seeds)
    tuned = read_tuned(options.tuned)
    for found in tuned:
        if chosen_on := sorted(set(seeds) & set(found.seeds)):
            raise UserError(
                f"seeds {', '.join(map(str, chosen_on))}: {found.solver} was tuned on them for "
                f"{found.task}; take others for what is reported"
            )
    runs = plan.expand(tasks, solvers, seeds, device, options.dtype, tuned)

    for path in store.repair(options.results):
        say(console, f"repaired {path}: its last line was torn")
    keys = tuple(spec.key for spec in runs)
    recorded = store.latest_rows(options.results) if options.results.is_dir() else {}
    rows = {key: Row.from_json(recorded[key]) for key in keys if key in recorded}
    saved = SavedFits(options.fits).keys() if options.save_fits_s else set()
    unkept = _unkept(options, rows) if options.keep else set()
    redone = unkept if options.rerun != "missing" else set()
    todo = plan.pending(runs, rows, options.rerun, saved, redone)
    size = f"{len(tasks)} tasks x {len(solvers)} solvers x {len(seeds)} seeds on {device}"
    say(console, f"{len(runs)} runs: {size}")
    if gpus:
        say(console, _of_gpus(gpus, slots))
    for line in _of_tuned(tuned, runs):
        say(console, line)
    if len(todo) < len(runs):
        known = f"{len(runs) - len(todo)} already recorded under {options.results}"
        say(console, f"{known}, {len(todo)} to do")
    if unkept:
        remedy = "done again" if redone else "left so by --rerun missing"
        say(console, f"{len(unkept)} recorded without the raw output that --keep keeps, {remedy}")
    if begun := sum(spec.key in saved for spec in todo):
        say(console, f"{begun} of them begun before, their fits saved")
    if not todo:
        return Planned(keys, interrupted=False)

    customised = bool(options.tasks or options.solvers)
    described = f"{suite.name} {suite.version}" + (" (customised)" if customised else "")
    label = "custom" if customised else suite.name
    together = options.together or suite.together
    with _Execution(
        options, chosen, device, gpus, described, tasks, together, console
    ) as execution:
        return Planned(keys, execution.run(todo, label))


def _of_tuned(tuned: Sequence[Tuned], runs: Sequence[RunSpec]) -> Iterator[str]:
    """What is to be said of tuned settings: that there are no runs of them, or of other code."""
    of_tuned = {
        (run.solver, run.task_label): run for run in runs if run.ruleset.startswith("tuned")
    }
    for found in tuned:
        run = of_tuned.get((found.solver, found.task))
        if run is None:
            yield f"tuned {found.solver} on {found.task}: not among these tasks and solvers"
        elif (run.solver_hash, run.task_hash) != (found.solver_hash, found.task_hash):
            yield f"tuned {found.solver} on {found.task}: the code was another when it was tuned"


def _of_gpus(gpus: Sequence[Gpu], slots: int) -> str:
    """On how many GPUs of which kinds the runs are."""
    kinds = Counter(gpu.name for gpu in gpus)
    here = ", ".join(f"{n} x {name}" for name, n in kinds.items())
    if slots <= len(gpus):
        return f"on {here}"
    them = "it" if len(gpus) == 1 else "them"
    return f"on {here}: {slots} runs at a time share {them}, so that no report shows their times"


def say(console: Console, text: str) -> None:
    """Print a line as it is: brackets and colons of paths and names are no markup."""
    console.print(Text(text), soft_wrap=True)


def _unkept(options: Options, rows: Mapping[str, Row]) -> set[str]:
    """The keys of the successful runs whose raw output is not there."""
    kept = store.kept_outputs(options.results) if rows else {}
    return {
        key for key, row in rows.items() if row.status == Status.OK and (row.batch, key) not in kept
    }


class _Execution:
    """One invocation: its executor, its folder, and the temporary folder that its runs share."""

    def __init__(
        self,
        options: Options,
        executor: Executor,
        device: str,
        gpus: Sequence[Gpu],
        suite: str,
        tasks: Sequence[Selection],
        together: int,
        console: Console,
    ) -> None:
        self.options, self.console = options, console
        self.device, self.gpus, self.suite, self.tasks = device, gpus, suite, tasks
        self.together = together
        self.executor = executor
        self.fits = SavedFits(options.fits)
        self.code, self.began = code_files(options.plugins), time.time()
        self.edited, self.looked = False, 0.0

    def __enter__(self) -> _Execution:
        self.shared = tempfile.TemporaryDirectory(prefix="otbench-", ignore_cleanup_errors=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.shared.cleanup()

    def run(self, todo: Sequence[RunSpec], label: str) -> bool:
        """Run and record; whether it was interrupted."""
        data = sorted({path for task in self.tasks for path in present(task.build().files)})
        threads, jobs = self.executor.threads, self.executor.slots
        facts = provenance.collect(
            sys.argv, self.suite, self.device, self.gpus, threads, jobs, data
        )
        with closing(store.RunFolder(self.options.results, label, facts)) as folder:
            self.folder = folder
            with Progress(len(todo), self.console) as self.progress:
                try:
                    self._execute(self._installed(todo))
                except KeyboardInterrupt:
                    say(
                        self.console,
                        f"interrupted: {self.progress.done} of {len(todo)} runs recorded in "
                        f"{folder.path}; the same command does the rest",
                    )
                    return True
            done = f"done: {self.progress.summary()}; rows and provenance in {folder.path}"
            say(self.console, done)
        return False

    def _installed(self, todo: Sequence[RunSpec]) -> list[RunSpec]:
        """The runs whose packages are installed; the others are recorded as missing."""
        ready = []
        for spec in todo:
            remedy = lacking(spec.task, spec.solver, self.options.plugins)
            if remedy is None:
                ready.append(spec)
            else:
                self._record(None, spec, Result(Status.MISSING, remedy))
        return ready

    def _execute(self, ready: Sequence[RunSpec]) -> None:
        options = self.options
        saving = options.save_fits_s
        jobs = [
            Job(
                specs=group,
                plugins=options.plugins,
                outputs=str(self.folder.outputs) if options.keep else None,
                floors=self.shared.name,
                saving=Saving(str(options.fits), saving) if saving else None,
            )
            for group in plan.grouped(ready, self.together, options.plugins)
        ]
        # What the leaderboard needs is imported while the workers import the frameworks.
        threading.Thread(target=importlib.import_module, args=("pandas",), daemon=True).start()
        with closing(self.executor.execute(jobs)) as events:  # closing it ends what is running
            for event in events:
                if isinstance(event, Started):
                    self.progress.started(event.job, jobs[event.job].label)
                    continue
                spec = jobs[event.job].specs[event.member]
                failed = event.result.status != Status.OK
                if event.log and (options.keep or failed):
                    self.folder.save_log(spec.key, event.log)
                self._record(event.job, spec, event.result)

    def _record(self, job: int | None, spec: RunSpec, result: Result) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        if self._edited():
            spec = plan.as_it_ran(spec, self.options.plugins)
        row = _row(spec, result, self.folder.path.name, now)
        self.folder.append(row.to_json())
        # After any other end the same fit may be gone on with.
        if row.status in (Status.OK, Status.DIVERGED, Status.SKIPPED):
            self.fits.forget(spec.key)
        self.progress.finished(job, spec.label, row)

    def _edited(self) -> bool:
        """Whether code was written since the plan was made, up to a moment ago."""
        if not self.edited and time.time() > self.looked + LOOK_S:
            self.looked = time.time()
            try:
                self.edited = any(os.stat(file).st_mtime > self.began for file in self.code)
            except OSError:
                self.edited = True  # one is gone
        return self.edited


def _row(spec: RunSpec, result: Result, batch: str, when: str) -> Row:
    """The row of a run; of a result that is none (a solver can write where its worker does), an
    error.
    """
    try:
        row = Row.of(spec, result, batch, when)
        wrong = fault(row.to_json())
    except (TypeError, AttributeError) as error:
        row, wrong = None, f"is none ({error})"
    if row is None or wrong:
        row = Row.of(spec, Result(Status.ERROR, f"the worker sent a row that {wrong}"), batch, when)
    return row
