"""`otbench run`: plan, execute, store, and show the leaderboard of what was planned."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from otbench import store
from otbench.data.files import present
from otbench.errors import UserError
from otbench.registry import absent
from otbench.report.leaderboard import leaderboard
from otbench.runner import local as execute
from otbench.runner import plan, provenance
from otbench.runner.progress import Progress
from otbench.statuses import Status


# What a worker may need and is slow to import. The rest is imported by the worker itself: a package
# that kills its importer kills one run.
FRAMEWORKS = ("torch", "jax", "ott", "ot")


@dataclass(frozen=True)
class Options:
    """The command's options; what a suite decides unless it is given is None."""

    suite: str = "quick"
    tasks: Sequence[str] | None = None
    solvers: Sequence[str] | None = None
    seeds: int | None = None
    device: str = "auto"
    dtype: str = "float32"
    jobs: int = 1
    together: int | None = None
    timeout_s: float = 600.0
    memory_bytes: int = 8 * 2**30
    results: Path = Path("results/runs")
    rerun: plan.Rerun = "changed"
    keep: bool = False
    save_fits_s: float | None = None
    plugins: tuple[str, ...] = ()


def run(options: Options, console: Console) -> int:
    """Run what is planned and not yet recorded; the exit status.

    Raises:
        UserError: anything wrong with the selection or the results folder.
    """
    suite = plan.suite(options.suite)
    tasks = plan.select("task", options.tasks or suite.tasks, options.plugins)
    solvers = plan.select("solver", options.solvers or suite.solvers, options.plugins)
    device = find_device(options.device)
    runs = plan.expand(
        tasks, solvers, options.seeds or suite.seeds, device, options.dtype, options.plugins
    )

    for path in store.repair(options.results):
        console.print(f"repaired {path}: its last line was torn", soft_wrap=True)
    recorded = store.latest_rows(options.results) if options.results.is_dir() else {}
    saved = store.SavedFits(options.results).keys() if options.save_fits_s else set()
    todo = plan.pending(runs, recorded, options.rerun, saved)
    console.print(
        f"{len(runs)} runs: {len(tasks)} tasks x {len(solvers)} solvers x {options.seeds or suite.seeds} seeds on {device}",
        soft_wrap=True,
    )
    if len(todo) < len(runs):
        console.print(
            f"{len(runs) - len(todo)} already recorded under {options.results}, {len(todo)} to do",
            soft_wrap=True,
        )

    if begun := sum(run.key in saved for run in todo):
        console.print(f"{begun} of them begun before, their fits saved", soft_wrap=True)

    interrupted = False
    if todo:
        customised = options.tasks or options.solvers
        label = "custom" if customised else suite.name
        described = f"{suite.name} {suite.version}" + (" (customised)" if customised else "")
        files = [path for task in tasks for path in present(task.build().files)]
        threads = len(execute.core_sets(options.jobs)[0])
        facts = provenance.collect(
            sys.argv, described, device, threads, options.jobs, sorted(set(files))
        )
        folder = store.RunFolder(options.results, label, facts)
        try:
            interrupted = _execute(
                todo, folder, options.together or suite.together, options, console
            )
        finally:
            folder.close()
    if interrupted:
        return 130

    console.print()
    print(leaderboard(store.load(options.results).restricted(run.key for run in runs)), flush=True)
    console.print(f"\nresults: {options.results}/", soft_wrap=True)
    return 0


def _execute(
    todo: Sequence[plan.RunSpec],
    folder: store.RunFolder,
    together: int,
    options: Options,
    console: Console,
) -> bool:
    """Run and record; whether it was interrupted."""
    ready: list[plan.RunSpec] = []
    fits = store.SavedFits(options.results)
    where = {"threads": len(execute.core_sets(options.jobs)[0]), "machine": provenance.machine()}
    with Progress(len(todo), options.jobs, console) as progress:

        def record(id: int, spec: plan.RunSpec, fields: dict[str, Any]) -> None:
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            row = {**spec.identity(), **where, **fields, "batch": folder.path.name, "when": now}
            folder.append(row)
            if row["status"] in (
                Status.OK,
                Status.DIVERGED,
                Status.SKIPPED,
            ):  # after any other the same fit may be gone on with
                fits.forget(spec.key)
            progress.finished(id, spec.label, row)

        shared = tempfile.TemporaryDirectory(prefix="otbench-", ignore_cleanup_errors=True)
        for spec in todo:
            lacking = absent(spec.needs)
            if lacking is None:
                ready.append(spec)
            else:
                record(-1, spec, {"status": Status.MISSING, "message": lacking})

        groups = plan.grouped(ready, together)
        saving = plan.Saving(fits.path, options.save_fits_s, where) if options.save_fits_s else None
        jobs = [
            plan.job(group, folder.output_path if options.keep else None, shared.name, saving)
            for group in groups
        ]
        needs = {name for spec in ready for name in spec.needs}
        preload = preloaded(needs, any(spec.task.entry.cls.setting == "map" for spec in ready))
        limits = execute.Limits(options.timeout_s, options.memory_bytes)
        # What the leaderboard needs is imported while the fork server imports the frameworks.
        threading.Thread(target=importlib.import_module, args=("pandas",), daemon=True).start()
        events = execute.execute(
            jobs, slots=options.jobs, limits=limits, preload=preload, plugins=options.plugins
        )
        try:
            for event in events:
                group = groups[event.id]
                if isinstance(event, execute.Started):
                    progress.started(
                        event.id,
                        group[0].label + (f" and {len(group) - 1} more" if len(group) > 1 else ""),
                    )
                    continue
                spec = group[event.member]
                if event.log and (options.keep or event.fields["status"] != Status.OK):
                    folder.save_log(spec.key, event.log)
                record(event.id, spec, event.fields)
            console.print(
                f"done: {progress.summary()}; rows and provenance in {folder.path}", soft_wrap=True
            )
            return False
        except KeyboardInterrupt:
            console.print(
                f"interrupted: {progress.done} of {len(todo)} runs recorded in {folder.path}; the same command does the rest",
                soft_wrap=True,
            )
            return True
        finally:
            events.close()  # kills what is running
            shared.cleanup()


def preloaded(needs: Collection[str], scores_maps: bool) -> list[str]:
    """What the fork server imports: the frameworks among ``needs``, and what the machine itself
    uses in every worker.
    """
    return [
        *(name for name in FRAMEWORKS if name in needs),
        "numpy.random",
        *(["scipy.optimize"] if scores_maps else []),
    ]


def find_device(wanted: str) -> str:
    """``cpu`` or ``cuda``.

    Raises:
        UserError: cuda was asked for and torch cannot use it here.
    """
    if wanted == "cpu":
        return "cpu"
    usable = shutil.which("nvidia-smi") is not None and _torch_has_cuda()
    if wanted == "cuda" and not usable:
        raise UserError(
            "--device cuda: torch sees no CUDA device here; install a CUDA build of torch and a driver, or use --device cpu"
        )
    return "cuda" if usable else "cpu"


def _torch_has_cuda() -> bool:
    """Asked in a process of its own: this one stays light and never opens a device."""
    question = "import torch, sys; sys.exit(0 if torch.cuda.is_available() else 1)"
    return subprocess.run([sys.executable, "-c", question], capture_output=True).returncode == 0
