"""Reports from recorded rows: leaderboard, verdicts, amortization, compare, plot, export.

A report that makes tables is a function ``(results, tasks=, format=, <further options>=)`` that
returns text, in a module of `otbench.report`, and a line in `COMMANDS`.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from pathlib import Path

from otbench.cli.options import (
    DEFAULT_FIGURES,
    Command,
    add_results,
    add_tasks,
    factor,
    image_shape,
    threshold,
)
from otbench.report.selected import RULESETS
from otbench.report.tables import FORMATS
from otbench.scoring.verdict import SADDLE_TAU, TAU


def _tables(
    name: str,
    text: str,
    further: Callable[[argparse.ArgumentParser], object] = lambda sub: None,
) -> Command:
    """A command that prints the tables of ``otbench.report.<name>.<name>``."""

    def arguments(sub: argparse.ArgumentParser) -> None:
        add_results(sub)
        sub.add_argument("--format", choices=FORMATS, default="md")
        sub.add_argument(
            "--task",
            action="append",
            dest="tasks",
            help="only this task, by name or label; may be given again",
        )
        further(sub)

    def run(options: argparse.Namespace) -> int:
        from otbench.store import load

        report = getattr(importlib.import_module(f"otbench.report.{name}"), name)
        given = {key: value for key, value in vars(options).items() if key != "command"}
        print(report(load(*given.pop("results")), **given))
        return 0

    return Command(name, text, arguments, run)


def _leaderboard(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--metric",
        action="append",
        dest="metrics",
        help="metric or time column; may be given again (default: accuracy and fit time)",
    )
    sub.add_argument(
        "--published", action="store_true", help="show published numbers beside, marked"
    )
    text = "only solvers whose parameters were chosen so: by default, preset, tuned, set by hand"
    sub.add_argument("--ruleset", choices=RULESETS, help=text)


def _verdicts(sub: argparse.ArgumentParser) -> None:
    text = f"threshold of the marginal defects (default: {TAU:g})"
    sub.add_argument("--tau", type=threshold, default=TAU, help=text)
    text = f"threshold of the saddle residuals, a share of the untrained (default: {SADDLE_TAU:g})"
    sub.add_argument("--saddle-tau", type=threshold, default=SADDLE_TAU, help=text)


def _amortization(sub: argparse.ArgumentParser) -> None:
    text = "count against this solver; may be given again"
    sub.add_argument("--against", action="append", metavar="SOLVER", help=text)


def _compare_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("base", type=Path)
    sub.add_argument("new", type=Path)
    text = "ratio new / base above which a worsening counts (default: 1.25)"
    sub.add_argument("--factor", type=factor, default=1.25, help=text)
    text = "exit status 2 where times are not comparable (and nothing else is a regression)"
    sub.add_argument("--require-times", action="store_true", help=text)


def _compare(options: argparse.Namespace) -> int:
    from otbench.report.compare import compare, render

    comparison = compare(options.base, options.new, options.factor)
    print(render(comparison))
    if comparison.regressions:
        return 1
    return 2 if options.require_times and len(comparison.refused) else 0


def _plot_arguments(sub: argparse.ArgumentParser) -> None:
    add_results(sub)
    text = f"folder for the pictures (default: {DEFAULT_FIGURES})"
    sub.add_argument("--out", type=Path, default=DEFAULT_FIGURES, help=text)
    add_tasks(sub)
    text = "vectors of that many coordinates are images, such as 16x16 or 3x16x16"
    sub.add_argument("--image-shape", type=image_shape, metavar="SHAPE", help=text)
    text = "add the best published number of each source to the curves"
    sub.add_argument("--published", action="store_true", help=text)


def _plot(options: argparse.Namespace) -> int:
    from otbench.report.figures import plot
    from otbench.store import load

    given = load(*options.results), options.results, options.out, options.task
    for path in plot(*given, options.image_shape, options.published):
        print(path)
    return 0


def _export_arguments(sub: argparse.ArgumentParser) -> None:
    add_results(sub)
    text = "folder for the files (default: results/export)"
    sub.add_argument("--out", type=Path, default=Path("results/export"), help=text)
    sub.add_argument("--format", choices=("parquet", "csv"), action="append", help="default: both")


def _export(options: argparse.Namespace) -> int:
    from otbench.report.export import export
    from otbench.store import load

    formats = tuple(options.format or ("parquet", "csv"))
    for path in export(load(*options.results), options.out, formats):
        print(path)
    return 0


COMMANDS = (
    _tables("leaderboard", "Print a leaderboard from recorded results.", _leaderboard),
    _tables(
        "verdicts",
        "Count the verdicts on map runs by task and solver, with the spurious-solution rate.",
        _verdicts,
    ),
    _tables("rejudged", "Count by task the recorded verdicts that are others today."),
    _tables(
        "amortization",
        "Training, inference and errors on amortized tasks, and after how many pairs learning "
        "has paid.",
        _amortization,
    ),
    _tables("status", "List the rows that are not of today's code, and what renewing them costs."),
    Command(
        "compare",
        "Compare two results folders, paired by run; exit status 1 on a regression.",
        _compare_arguments,
        _compare,
    ),
    Command(
        "plot",
        "Draw error against time, accuracy-against-time curves, rates of spurious solutions, "
        "distances beside their floor, maps and plans.",
        _plot_arguments,
        _plot,
    ),
    Command(
        "export",
        "Write the tables runs, metrics and curves as Parquet and CSV.",
        _export_arguments,
        _export,
    ),
)
