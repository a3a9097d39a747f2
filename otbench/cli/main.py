"""`otbench run | list | data | leaderboard | verdicts | amortization | compare | plot | show |
gallery | export | check | new`.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from otbench import __version__
from otbench.data.points import read_samples
from otbench.errors import UserError
from otbench.metrics import METRICS
from otbench.problem import COSTS
from otbench.registry import registry
from otbench.runner import plan
from otbench.scoring.verdict import TAU
from otbench.selection import quoted


DEFAULT_RESULTS = Path("results/runs")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the console script; the exit status."""
    options = parser().parse_args(arguments)
    try:
        return options.command(options)
    except UserError as error:
        print(f"otbench: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        sys.stdout = None  # the reader of a pipe went away: nothing to say, and nothing to flush
        return 0
    except KeyboardInterrupt:
        return 130


def parser() -> argparse.ArgumentParser:
    """Every command and option."""
    top = argparse.ArgumentParser(
        prog="otbench", description="A benchmark suite for optimal transport map solvers."
    )
    top.add_argument("--version", action="version", version=f"otbench {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=function)
        return sub

    sub = command(
        "run",
        _run,
        "Run tasks x solvers x seeds, each in a process of its own, and print the leaderboard.",
    )
    sub.add_argument(
        "--suite", default="quick", help="named choice of tasks, solvers and seeds (default: quick)"
    )
    sub.add_argument(
        "-t",
        "--task",
        nargs="+",
        action="extend",
        help="tasks instead of the suite's: name[param=value,param=[v1,v2]]",
    )
    sub.add_argument(
        "-s",
        "--solver",
        nargs="+",
        action="extend",
        help="solvers instead of the suite's, likewise",
    )
    sub.add_argument(
        "--source",
        metavar="FILE",
        help="your own points (npy, npz, csv, parquet), with --target, instead of the suite's tasks",
    )
    sub.add_argument("--target", metavar="FILE", help="the points to transport them to")
    sub.add_argument(
        "--cost", choices=tuple(COSTS), help="between --source and --target (default: sqeuclidean)"
    )
    sub.add_argument("--seeds", type=_count, help="seeds 0 ... N-1 instead of the suite's number")
    sub.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    sub.add_argument(
        "--dtype",
        choices=("float32", "float64"),
        default="float32",
        help="floating point type of the problems",
    )
    sub.add_argument(
        "--jobs",
        type=_count,
        default=1,
        help="runs at a time; each gets cores / jobs threads (default: 1)",
    )
    sub.add_argument(
        "--together",
        type=_count,
        metavar="N",
        help="solve up to N seeds of a task as one where the solver can (default: as the suite says, else 1); "
        "many seeds for less, but such rows have no fit time of their own",
    )
    _add_limits(sub)
    sub.add_argument(
        "--results",
        type=Path,
        default=DEFAULT_RESULTS,
        help=f"results folder (default: {DEFAULT_RESULTS})",
    )
    sub.add_argument(
        "--rerun",
        choices=("missing", "changed", "failed", "all"),
        default="changed",
        help="beside what was never recorded, do again: nothing (missing), what other source code or data recorded (changed, the default), "
        "also what failed (failed), everything (all)",
    )
    sub.add_argument("--keep", action="store_true", help="keep raw outputs and logs of every run")
    sub.add_argument(
        "--save-fits",
        type=_seconds,
        metavar="TIME",
        help="save long fits this often, such as 5m, so that the same command goes on with those that were interrupted (default: never; "
        "not of seeds that are solved together)",
    )
    _add_plugins(sub)

    sub = command("list", _list, "Describe tasks, solvers, suites or metrics.")
    sub.add_argument(
        "what",
        nargs="?",
        choices=("tasks", "solvers", "suites", "metrics"),
        help="default: all of them",
    )
    _add_plugins(sub)

    sub = command(
        "data",
        _data,
        "The real data that tasks read: the terms of use, where it is here, downloads, and whether it is whole.",
    )
    actions = sub.add_subparsers(required=True, metavar="ACTION", dest="action")
    for action, number, text in (
        ("list", "*", "Show data sets, where they are here, and their terms of use."),
        (
            "fetch",
            "+",
            "Download data sets, or go on where a download stopped, once their terms are accepted.",
        ),
        (
            "verify",
            "*",
            "Read and check every file that is here; exit status 1 where one is damaged.",
        ),
    ):
        sub = actions.add_parser(action, help=text, description=text)
        sub.add_argument(
            "names",
            nargs=number,
            metavar="NAME",
            help="data set" + (" (default: all of them)" if number == "*" else ""),
        )
        if action == "fetch":
            sub.add_argument(
                "--accept-terms",
                action="store_true",
                help="do not ask whether the terms are accepted",
            )

    sub = command("leaderboard", _leaderboard, "Print a leaderboard from recorded results.")
    _add_results(sub)
    sub.add_argument("--format", choices=("md", "csv", "html", "latex"), default="md")
    sub.add_argument(
        "--metric",
        action="append",
        help="metric or time column; may be given again (default: accuracy and fit time)",
    )
    sub.add_argument(
        "--task", action="append", help="only this task, by name or label; may be given again"
    )
    sub.add_argument(
        "--published", action="store_true", help="show published numbers beside, marked"
    )

    sub = command(
        "verdicts",
        _verdicts,
        "Count the verdicts on map runs by task and solver, with the spurious-solution rate.",
    )
    _add_results(sub)
    sub.add_argument("--format", choices=("md", "csv", "html", "latex"), default="md")
    sub.add_argument(
        "--tau",
        type=_threshold,
        default=TAU,
        help=f"threshold of the marginal defects (default: {TAU:g})",
    )
    sub.add_argument(
        "--task", action="append", help="only this task, by name or label; may be given again"
    )

    sub = command(
        "amortization",
        _amortization,
        "Training, inference and errors on amortized tasks, and after how many pairs learning has paid.",
    )
    _add_results(sub)
    sub.add_argument("--format", choices=("md", "csv", "html", "latex"), default="md")
    sub.add_argument(
        "--task", action="append", help="only this task, by name or label; may be given again"
    )
    sub.add_argument(
        "--against",
        action="append",
        metavar="SOLVER",
        help="count against this solver; may be given again",
    )

    sub = command(
        "compare",
        _compare,
        "Compare two results folders, paired by run; exit status 1 on a regression.",
    )
    sub.add_argument("base", type=Path)
    sub.add_argument("new", type=Path)
    sub.add_argument(
        "--factor",
        type=_factor,
        default=1.25,
        help="ratio new / base above which a worsening counts (default: 1.25)",
    )

    sub = command(
        "plot",
        _plot,
        "Draw error against time, accuracy-against-time curves, rates of spurious solutions, distances beside their floor, and 2-D maps.",
    )
    _add_results(sub)
    sub.add_argument(
        "--out",
        type=Path,
        default=Path("results/figures"),
        help="folder for the pictures (default: results/figures)",
    )
    sub.add_argument(
        "--task", action="append", help="only this task, by name or label; may be given again"
    )

    sub = command("show", _show, "Draw tasks, and say what they ask and how their answer is known.")
    sub.add_argument("tasks", nargs="+", metavar="TASK", help="name[param=value,param=[v1,v2]]")
    sub.add_argument("--seed", type=int, default=0, help="seed of the problem (default: 0)")
    sub.add_argument(
        "--out",
        type=Path,
        default=Path("results/figures"),
        help="folder for the pictures (default: results/figures)",
    )
    _add_plugins(sub)

    sub = command(
        "gallery",
        _gallery,
        "Write a page of all tasks with their pictures, from what is registered.",
    )
    sub.add_argument(
        "results",
        nargs="*",
        type=Path,
        help="results folders whose trivial solvers are shown beside (default: none)",
    )
    sub.add_argument("--out", type=Path, required=True, help="folder for README.md and pictures/")
    sub.add_argument(
        "--task", action="append", default=[], help="only this task, by name; may be given again"
    )
    _add_plugins(sub)

    sub = command(
        "export", _export, "Write the tables runs, metrics and curves as Parquet and CSV."
    )
    _add_results(sub)
    sub.add_argument(
        "--out",
        type=Path,
        default=Path("results/export"),
        help="folder for the files (default: results/export)",
    )
    sub.add_argument("--format", choices=("parquet", "csv"), action="append", help="default: both")

    sub = command(
        "check",
        _check,
        "Try the contract of a solver on small problems, and say in words what is wrong.",
    )
    sub.add_argument("solver", help="name[param=value]")
    _add_limits(sub)
    _add_plugins(sub)

    sub = command("new", _new, "Write a working adapter file to start from.")
    sub.add_argument("kind", choices=("solver",))
    sub.add_argument("name", help="kebab-case name")
    sub.add_argument(
        "--folder", type=Path, help="default: solvers/ in a checkout, else the current folder"
    )
    return top


def _add_results(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "results",
        nargs="*",
        type=Path,
        default=[DEFAULT_RESULTS],
        help=f"results folders (default: {DEFAULT_RESULTS})",
    )


def _add_plugins(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--plugins",
        action="append",
        default=[],
        metavar="PATH",
        help="Python file, or folder of files, with more tasks and solvers",
    )


def _add_limits(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--timeout",
        type=_seconds,
        default=600.0,
        metavar="TIME",
        help="limit per run, such as 90s, 10m, 2h (default: 10m)",
    )
    sub.add_argument(
        "--memory",
        type=_bytes,
        default=8 * 2**30,
        metavar="SIZE",
        help="limit per run, such as 500MiB, 8GiB (default: 8GiB)",
    )


def _run(options: argparse.Namespace) -> int:
    from rich.console import Console

    from otbench.runner.run import Options, run

    chosen = Options(
        suite=options.suite,
        tasks=[*(options.task or []), *_own_samples(options)] or None,
        solvers=options.solver,
        seeds=options.seeds,
        device=options.device,
        dtype=options.dtype,
        jobs=options.jobs,
        together=options.together,
        timeout_s=options.timeout,
        memory_bytes=options.memory,
        results=options.results,
        rerun=options.rerun,
        keep=options.keep,
        save_fits_s=options.save_fits,
        plugins=tuple(options.plugins),
    )
    return run(chosen, Console(highlight=False))


def _own_samples(options: argparse.Namespace) -> list[str]:
    """The task of ``--source`` and ``--target``, where given. They are read here: what is wrong
    with them is said before anything runs.
    """
    paths = {"source": options.source, "target": options.target}
    given = [path is not None for path in paths.values()]
    if not any(given):
        if options.cost:
            raise UserError(
                f"--cost {options.cost} is that of --source and --target: give both, or a task with this cost"
            )
        return []
    if not all(given):
        raise UserError("--source and --target go together: name a file of points for each")
    cost = options.cost or "sqeuclidean"
    read_samples(options.source, options.target, cost)
    files = [f"{name}={quoted(path)}" for name, path in paths.items()]
    return [f"samples[{','.join(files)},cost={cost}]"]


def _list(options: argparse.Namespace) -> int:
    plugins = tuple(options.plugins)
    for what in [options.what] if options.what else ["tasks", "solvers", "suites", "metrics"]:
        if options.what is None:
            print(f"{what.upper()}")
        if what in ("tasks", "solvers"):
            entries = registry("task" if what == "tasks" else "solver", plugins).entries
            for name, entry in sorted(entries.items()):
                parameters = ", ".join(f"{key}={value}" for key, value in entry.parameters.items())
                note = (
                    entry.cls.setting if what == "tasks" else "trivial" if entry.cls.trivial else ""
                )
                presets = f" Presets: {', '.join(entry.presets)}." if entry.presets else ""
                _item(
                    name + (f"[{parameters}]" if parameters else ""), entry.summary + presets, note
                )
        elif what == "suites":
            for name, suite in plan.suites().items():
                size = f"{len(suite.tasks)} task lines, {len(suite.solvers)} solver lines, {suite.seeds} seeds"
                _item(f"{name} {suite.version}", f"{suite.description} {size}.")
        else:
            for name, metric in METRICS.items():
                _item(f"{name} ({metric.unit}, {metric.reading})", metric.summary)
        if options.what is None:
            print()
    return 0


def _item(head: str, text: str, note: str = "") -> None:
    print(head + (f"  ({note})" if note else ""))
    print(textwrap.fill(text, 110, initial_indent="    ", subsequent_indent="    "))


def _data(options: argparse.Namespace) -> int:
    from rich.console import Console

    from otbench.data import catalogue as datasets

    names = datasets.chosen(options.names)
    if options.action == "list":
        Console(highlight=False).print(datasets.listed(names))
        return 0
    if options.action == "fetch":
        from otbench.data.download import fetch

        return 0 if fetch(names, options.accept_terms) else 1
    wrong = 0
    for state, path, reason in datasets.verify(names):
        wrong += state not in ("ok", "absent")
        print(f"{state:14} {path}" + (f": {reason}" if reason else ""), flush=True)
    return 1 if wrong else 0


def _leaderboard(options: argparse.Namespace) -> int:
    from otbench.report.leaderboard import leaderboard
    from otbench.store import load

    print(
        leaderboard(
            load(*options.results), options.metric, options.task, options.format, options.published
        )
    )
    return 0


def _verdicts(options: argparse.Namespace) -> int:
    from otbench.report.verdicts import verdicts
    from otbench.store import load

    print(verdicts(load(*options.results), options.task, options.tau, options.format))
    return 0


def _amortization(options: argparse.Namespace) -> int:
    from otbench.report.amortization import amortization
    from otbench.store import load

    print(amortization(load(*options.results), options.task, options.against, options.format))
    return 0


def _compare(options: argparse.Namespace) -> int:
    from otbench.report.compare import compare, render

    comparison = compare(options.base, options.new, options.factor)
    print(render(comparison))
    return 1 if comparison.regressions else 0


def _plot(options: argparse.Namespace) -> int:
    from otbench.report.figures import plot
    from otbench.store import load

    for path in plot(load(*options.results), options.results, options.out, options.task):
        print(path)
    return 0


def _show(options: argparse.Namespace) -> int:
    from otbench.report.gallery import show

    for text in show(options.tasks, options.seed, options.out, tuple(options.plugins)):
        print(text)
    return 0


def _gallery(options: argparse.Namespace) -> int:
    from otbench.report.gallery import gallery

    for line in gallery(options.results, options.out, options.task, tuple(options.plugins)):
        print(line, flush=True)
    return 0


def _export(options: argparse.Namespace) -> int:
    from otbench.report.export import export
    from otbench.store import load

    for path in export(
        load(*options.results), options.out, tuple(options.format or ("parquet", "csv"))
    ):
        print(path)
    return 0


def _check(options: argparse.Namespace) -> int:
    from otbench.runner.check import check

    wrong = 0
    for verdict, where, sentence in check(
        options.solver, tuple(options.plugins), options.timeout, options.memory
    ):
        wrong += verdict == "WRONG"
        print(f"{verdict:8} {where}" + (f": {sentence}" if sentence else ""), flush=True)
    print(f"{options.solver}: {f'{wrong} to mend' if wrong else 'keeps the contract'}")
    return 1 if wrong else 0


def _new(options: argparse.Namespace) -> int:
    from otbench.runner.check import new_solver

    path = new_solver(options.name, options.folder)
    plugins = "" if path.parent.name == "solvers" else f" --plugins {path}"
    print(
        f"wrote {path}: a working adapter. Put your method in, then\n  otbench check {options.name}{plugins}"
    )
    print(f"  otbench run -s {options.name}{plugins}")
    return 0


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _factor(text: str) -> float:
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not factor > 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 1")
    return factor


def _threshold(text: str) -> float:
    try:
        threshold = float(text)
    except ValueError:
        threshold = 0.0
    if not 0 < threshold < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return threshold


def _seconds(text: str) -> float:
    return _quantity(
        text, {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}, "a time such as 90s, 10m or 2h"
    )


def _bytes(text: str) -> int:
    units = {
        "": 1,
        "B": 1,
        **{
            f"{p}{suffix}": 2 ** (10 * (i + 1))
            for i, p in enumerate("KMGT")
            for suffix in ("", "iB")
        },
    }
    units |= {f"{p}B": 1000 ** (i + 1) for i, p in enumerate("KMGT")}
    return int(_quantity(text, units, "a size such as 500MiB or 8GiB"))


def _quantity(text: str, units: dict[str, int], wanted: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text.strip())
    if not match or match[2] not in units or float(match[1]) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
    return float(match[1]) * units[match[2]]
