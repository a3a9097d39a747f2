"""``otbench run``."""

from __future__ import annotations

import argparse
from pathlib import Path

from otbench.cli.options import (
    DEFAULT_RESULTS,
    Command,
    add_limits,
    add_plugins,
    count,
    seconds,
    seeds,
)
from otbench.data.points import read_samples
from otbench.errors import UserError
from otbench.job import DEVICES, DTYPES
from otbench.problem import COSTS
from otbench.runner.executor import EXECUTORS, Limits
from otbench.selection import quoted


def _arguments(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add(
        "--suite",
        default="quick",
        help="named choice of tasks, solvers and seeds (default: quick)",
    )
    add(
        "-t",
        "--task",
        nargs="+",
        action="extend",
        help="tasks instead of the suite's: name[param=value,param=[v1,v2]]",
    )
    add(
        "-s",
        "--solver",
        nargs="+",
        action="extend",
        help="solvers instead of the suite's, likewise",
    )
    add(
        "--source",
        metavar="FILE",
        help="your own points (npy, npz, csv, parquet), with --target, instead of the suite's "
        "tasks",
    )
    add("--target", metavar="FILE", help="the points to transport them to")
    add(
        "--cost",
        choices=tuple(COSTS),
        help="between --source and --target (default: sqeuclidean)",
    )
    text = "seeds 0 ... N-1, or A ... B-1 of A:B, instead of the suite's number"
    add("--seeds", type=seeds, metavar="N", help=text)
    add("--device", choices=DEVICES, default="auto")
    add(
        "--dtype",
        choices=DTYPES,
        default="float32",
        help="floating point type of the problems",
    )
    add(
        "--jobs",
        type=count,
        default=1,
        help="runs at a time; each gets cores / jobs threads (default: 1)",
    )
    add(
        "--together",
        type=count,
        metavar="N",
        help="solve up to N seeds of a task as one where the solver can (default: as the suite "
        "says, else 1); many seeds for less, but such rows have no fit time of their own",
    )
    add(
        "--executor",
        choices=tuple(EXECUTORS),
        default="local",
        help="what starts the workers (default: local)",
    )
    add_limits(sub)
    add(
        "--results",
        type=Path,
        default=DEFAULT_RESULTS,
        help=f"results folder (default: {DEFAULT_RESULTS})",
    )
    add(
        "--rerun",
        choices=("missing", "changed", "failed", "all"),
        default="changed",
        help="beside what was never recorded, do again: nothing (missing), what other source code "
        "or data recorded (changed, the default), also what failed (failed), everything (all)",
    )
    add(
        "--keep",
        action="store_true",
        help="keep raw outputs and logs of every run; "
        "what was recorded without its output is done again",
    )
    add(
        "--save-fits",
        type=seconds,
        metavar="TIME",
        help="save long fits this often, such as 5m, so that the same command goes on with those "
        "that were interrupted (default: never; not of seeds that are solved together)",
    )
    add_plugins(sub)


def _run(options: argparse.Namespace) -> int:
    from rich.console import Console

    from otbench.report.leaderboard import leaderboard
    from otbench.runner.run import Options, run, say
    from otbench.store import load

    chosen = Options(
        suite=options.suite,
        tasks=[*(options.task or []), *own_samples(options)] or None,
        solvers=options.solver,
        seeds=options.seeds,
        device=options.device,
        dtype=options.dtype,
        jobs=options.jobs,
        together=options.together,
        executor=options.executor,
        limits=Limits(options.timeout, options.memory),
        results=options.results,
        rerun=options.rerun,
        keep=options.keep,
        save_fits_s=options.save_fits,
        plugins=tuple(options.plugins),
    )
    console = Console(highlight=False)
    planned = run(chosen, console)
    if planned.interrupted:
        return 130
    console.print()
    print(leaderboard(load(options.results).restricted(planned.keys)), flush=True)
    say(console, f"\nresults: {options.results}/")
    return 0


def own_samples(options: argparse.Namespace) -> list[str]:
    """The task of ``--source`` and ``--target``, where given. They are read here: what is wrong
    with them is said before anything runs.
    """
    paths = {"source": options.source, "target": options.target}
    given = [path is not None for path in paths.values()]
    if not any(given):
        if options.cost:
            raise UserError(
                f"--cost {options.cost} is that of --source and --target: give both, or a task "
                "with this cost"
            )
        return []
    if not all(given):
        raise UserError("--source and --target go together: name a file of points for each")
    cost = options.cost or "sqeuclidean"
    read_samples(options.source, options.target, cost)
    files = [f"{name}={quoted(path)}" for name, path in paths.items()]
    return [f"samples[{','.join(files)},cost={cost}]"]


COMMANDS = (
    Command(
        "run",
        "Run tasks x solvers x seeds, each in a process of its own, and print the leaderboard.",
        _arguments,
        _run,
    ),
)
