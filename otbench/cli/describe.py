"""``otbench list``, ``show`` and ``gallery``: what there is to run."""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

from otbench.cli.options import DEFAULT_FIGURES, Command, add_plugins
from otbench.metrics import METRICS
from otbench.registry import registry
from otbench.runner import plan


KINDS = ("tasks", "solvers", "suites", "metrics")


def _list_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("what", nargs="?", choices=KINDS, help="default: all of them")
    add_plugins(sub)


def _list(options: argparse.Namespace) -> int:
    for what in [options.what] if options.what else KINDS:
        if options.what is None:
            print(what.upper())
        if what in ("tasks", "solvers"):
            _list_entries(what, tuple(options.plugins))
        elif what == "suites":
            for name, suite in plan.suites().items():
                size = (
                    f"{len(suite.tasks)} task lines, {len(suite.solvers)} solver lines, "
                    f"{suite.seeds} seeds"
                )
                _item(f"{name} {suite.version}", f"{suite.description} {size}.")
        else:
            for name, metric in METRICS.items():
                _item(f"{name} ({metric.unit}, {metric.reading})", metric.summary)
        if options.what is None:
            print()
    return 0


def _list_entries(what: str, plugins: tuple[str, ...]) -> None:
    entries = registry("task" if what == "tasks" else "solver", plugins).entries
    for name, entry in sorted(entries.items()):
        parameters = ", ".join(f"{key}={value}" for key, value in entry.parameters.items())
        trivial = "trivial" if what == "solvers" and entry.cls.trivial else ""
        presets = f" Presets: {', '.join(entry.presets)}." if entry.presets else ""
        head = name + (f"[{parameters}]" if parameters else "")
        _item(head, entry.summary + presets, entry.cls.setting if what == "tasks" else trivial)


def _item(head: str, text: str, note: str = "") -> None:
    print(head + (f"  ({note})" if note else ""))
    print(textwrap.fill(text, 110, initial_indent="    ", subsequent_indent="    "))


def _show_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("tasks", nargs="+", metavar="TASK", help="name[param=value,param=[v1,v2]]")
    sub.add_argument("--seed", type=int, default=0, help="seed of the problem (default: 0)")
    _add_out(sub)
    add_plugins(sub)


def _show(options: argparse.Namespace) -> int:
    from otbench.report.gallery import show

    for text in show(options.tasks, options.seed, options.out, tuple(options.plugins)):
        print(text)
    return 0


def _gallery_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "results",
        nargs="*",
        type=Path,
        help="results folders whose trivial solvers are shown beside (default: none)",
    )
    sub.add_argument("--out", type=Path, required=True, help="folder for README.md and pictures/")
    sub.add_argument(
        "--task",
        action="append",
        default=[],
        help="only this task, by name; may be given again",
    )
    add_plugins(sub)


def _gallery(options: argparse.Namespace) -> int:
    from otbench.report.gallery import gallery

    for line in gallery(options.results, options.out, options.task, tuple(options.plugins)):
        print(line, flush=True)
    return 0


def _add_out(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--out",
        type=Path,
        default=DEFAULT_FIGURES,
        help=f"folder for the pictures (default: {DEFAULT_FIGURES})",
    )


COMMANDS = (
    Command("list", "Describe tasks, solvers, suites or metrics.", _list_arguments, _list),
    Command(
        "show",
        "Draw tasks, and say what they ask and how their answer is known.",
        _show_arguments,
        _show,
    ),
    Command(
        "gallery",
        "Write a page of all tasks with their pictures, from what is registered.",
        _gallery_arguments,
        _gallery,
    ),
)
