"""``otbench run``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from otbench.cli.options import (
    DEFAULT_RESULTS,
    Command,
    add_limits,
    add_own_data,
    add_plugins,
    add_setting,
    own_files,
    seconds,
    seeds,
)
from otbench.data.cloud_files import check_enough, read_pair
from otbench.errors import UserError
from otbench.families.own_data import BOUNDED, LP_POINTS, parameters
from otbench.methods.discrete import SOLVED
from otbench.runner.executor import EXECUTORS, Limits
from otbench.selection import quoted


if TYPE_CHECKING:
    from rich.console import Console

TASKS = {"map": "samples", "discrete": "clouds"}  # of the user's own data, by setting


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
    text = "seeds 0 ... N-1, or A ... B-1 of A:B, instead of the suite's number"
    add("--seeds", type=seeds, metavar="N", help=text)
    add_setting(sub)
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
    text = "settings that `otbench tune` chose, files or folders: run beside the solvers' own"
    add("--tuned", type=Path, nargs="+", action="extend", default=[], metavar="FILE", help=text)
    add_plugins(sub)
    add_own_data(sub)
    add(
        "--setting",
        choices=tuple(TASKS),
        help="of your own data: map (points are a sample of a measure), discrete (they are all of "
        "it); by default map, with weights both",
    )


def _run(options: argparse.Namespace) -> int:
    from rich.console import Console

    from otbench.report.leaderboard import leaderboard
    from otbench.report.recommendation import recommendations
    from otbench.runner.run import Options, run, say
    from otbench.store import load

    console = Console(highlight=False)
    chosen = Options(
        suite=options.suite,
        tasks=[*(options.task or []), *own_tasks(options, console)] or None,
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
        tuned=options.tuned,
    )
    planned = run(chosen, console)
    if planned.interrupted:
        return 130
    console.print()
    found = load(options.results).restricted(planned.keys)
    print(leaderboard(found), flush=True)
    for sentence in recommendations(found):
        print(f"\n{sentence}", flush=True)
    say(console, f"\nresults: {options.results}/")
    return 0


def own_tasks(options: argparse.Namespace, console: Console) -> list[str]:
    """The tasks of ``--source`` and ``--target``, where given. They are read here: what is wrong
    with them is said before anything runs, and so is what they hold.
    """
    from otbench.runner.run import say

    files = own_files(options)
    if files is None:
        if options.setting:
            raise UserError(
                f"--setting {options.setting} is that of --source and --target: give both files"
            )
        return []
    source, target, cost = files
    x, y = read_pair(source, target, cost)
    n, m = len(x.points), len(y.points)
    weighted = x.weights is not None or y.weights is not None
    wanted = (options.setting,) if options.setting else tuple(TASKS) if weighted else ("map",)
    if "map" in wanted:
        check_enough(source, x)
        check_enough(target, y)
    lines = [
        f"{side} {file.path}: {len(cloud.points)} points in dimension {cloud.points.shape[1]}"
        + (" with weights" if cloud.weights is not None else "")
        for side, file, cloud in (("source", source, x), ("target", target, y))
    ]
    if "discrete" in wanted and n * m > BOUNDED:
        huge = f"{n} x {m} costs are too many for the discrete setting"
        if options.setting:
            raise UserError(f"{huge}: take fewer points, or --setting map")
        wanted = ("map",)
        lines.append(f"{huge}, which is left out")
    elif "discrete" in wanted and n * m > SOLVED:
        lines.append(
            f"discrete: {n} x {m} costs are too many for the exact plan; plans are scored against "
            "a lower bound of the cost"
        )
    if "map" in wanted and max(n, m) // 2 > LP_POINTS:
        lines.append(
            f"map: the optimal cost is estimated from {LP_POINTS} held-out points of each measure, "
            "and verdicts allow for its error"
        )
    for line in lines:
        say(console, line)
    given = ",".join(
        f"{name}={quoted(value)}" for name, value in parameters(source, target, cost).items()
    )
    return [f"{TASKS[setting]}[{given}]" for setting in wanted]


COMMANDS = (
    Command(
        "run",
        "Run tasks x solvers x seeds, each in a process of its own, and print the leaderboard.",
        _arguments,
        _run,
    ),
)
