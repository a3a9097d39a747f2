"""What the commands share: the form of a command, common options, and the types of their values."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


DEFAULT_RESULTS = Path("results/runs")
DEFAULT_FIGURES = Path("results/figures")


@dataclass(frozen=True)
class Command:
    """One command of the command line.

    Attributes:
        name: as it is typed.
        text: what it does, in a sentence.
        arguments: adds its arguments to a parser.
        run: does it; the exit status.
    """

    name: str
    text: str
    arguments: Callable[[argparse.ArgumentParser], object]
    run: Callable[[argparse.Namespace], int]


def add_results(sub: argparse.ArgumentParser) -> None:
    """The results folders of a report."""
    text = f"results folders (default: {DEFAULT_RESULTS})"
    sub.add_argument("results", nargs="*", type=Path, default=[DEFAULT_RESULTS], help=text)


def add_tasks(sub: argparse.ArgumentParser, by: str = "by name or label") -> None:
    """The tasks that a report is restricted to."""
    text = f"only this task, {by}; may be given again"
    sub.add_argument("--task", action="append", help=text)


def add_plugins(sub: argparse.ArgumentParser) -> None:
    """Files with more tasks and solvers."""
    sub.add_argument(
        "--plugins",
        action="append",
        default=[],
        metavar="PATH",
        help="Python file, or folder of files, with more tasks and solvers",
    )


def add_limits(sub: argparse.ArgumentParser) -> None:
    """Time and memory of a run."""
    sub.add_argument(
        "--timeout",
        type=seconds,
        default=600.0,
        metavar="TIME",
        help="limit of the solver in a run, such as 90s, 10m, 2h (default: 10m)",
    )
    sub.add_argument(
        "--memory",
        type=memory,
        default=8 * 2**30,
        metavar="SIZE",
        help="limit of the solver in a run, such as 500MiB, 8GiB (default: 8GiB)",
    )


def count(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def seeds(text: str) -> range:
    """``N`` is the seeds 0 ... N-1, ``A:B`` the seeds A ... B-1."""
    first, separator, end = text.rpartition(":")
    numbers = (first, end) if separator else ("0", end)
    if not all(number.isdecimal() for number in numbers) or not (
        chosen := range(*map(int, numbers))
    ):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no number of seeds, and no range A:B of them"
        )
    return chosen


def factor(text: str) -> float:
    """A number above 1."""
    return _above(text, 1)


def threshold(text: str) -> float:
    """A number above 0."""
    return _above(text, 0)


def seconds(text: str) -> float:
    """A time with its unit, in seconds."""
    units = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}
    return _quantity(text, units, "a time such as 90s, 10m or 2h")


def memory(text: str) -> int:
    """A size of memory with its unit, in bytes."""
    prefixes = list(enumerate("KMGT", 1))
    units = {"": 1, "B": 1}
    units |= {p + suffix: 1024**power for power, p in prefixes for suffix in ("", "iB")}
    units |= {f"{p}B": 1000**power for power, p in prefixes}
    return int(_quantity(text, units, "a size such as 500MiB or 8GiB"))


def _above(text: str, least: int) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above {least}")
    return value


def _quantity(text: str, units: dict[str, int], wanted: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text.strip())
    if not match or match[2] not in units or float(match[1]) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
    return float(match[1]) * units[match[2]]
