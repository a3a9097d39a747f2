"""What the commands share: the form of a command, common options, and the types of their values."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from otbench.data.cloud_files import COORDS, CloudFile
from otbench.data.pixels import KINDS
from otbench.errors import UserError
from otbench.families.own_data import SIDES
from otbench.job import DEVICES, DTYPES, NUMBERED
from otbench.problem import COSTS


DEFAULT_RESULTS = Path("results/runs")
MOST = 1_000_000  # seeds, or processes, that one command may ask for
DEFAULT_FIGURES = Path("results/figures")

# How files of the user's own are read: attributes of `CloudFile`, options and their help.
READ = {
    "key": ("key", "array of the points in npz, mat, pt; X, obsm/NAME or layers/NAME in h5ad"),
    "weights_column": ("weights-column", "column of the weights (its number if unnamed), or array"),
    "columns": ("columns", "columns that are coordinates, with commas between"),
    "coords": ("coords", "lonlat: points are degrees on the globe"),
    "kind": ("as", "pixels are points, weighted by brightness (image) or darkness (dark-image)"),
}
OF_ONE = {"where": "where", "weights": "weights", **{name: read[0] for name, read in READ.items()}}
CHOICES = {"coords": COORDS, "kind": KINDS}


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


def add_setting(sub: argparse.ArgumentParser) -> None:
    """Where and how problems are solved."""
    add = sub.add_argument
    text = "auto (default), cpu, cuda, or cuda:N for one GPU of several"
    add("--device", type=device, default="auto", metavar="DEVICE", help=text)
    text = "floating point type of the problems"
    add("--dtype", choices=DTYPES, default="float32", help=text)
    text = (
        "runs at a time; each gets cores / jobs threads (default: 1, on GPUs one for each). Times "
        "of runs that share a GPU are in no report"
    )
    add("--jobs", type=count, help=text)
    text = (
        "solve up to N seeds of a task as one where the solver can (default: as the suite says, "
        "else 1); many seeds for less, but such rows have no fit time of their own"
    )
    add("--together", type=count, metavar="N", help=text)


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


def add_own_data(sub: argparse.ArgumentParser) -> None:
    """Two files of the user's own, and how they are read."""
    text = "options on reading have forms --source-... and --target-... for one of the files alone"
    add = sub.add_argument_group("your own data", text).add_argument
    text = (
        "your own points (npy, npz, mat, pt, csv, tsv, parquet, feather, h5ad, pictures), with "
        "--target"
    )
    add("--source", metavar="FILE", action=_File, help=text)
    add("--target", metavar="FILE", action=_File, help="the points to transport them to")
    text = "between them (default: sqeuclidean, of lonlat geodesic)"
    add("--cost", choices=tuple(COSTS), help=text)
    text = "rows of the file named before, such as 'dose > 1 and group == \"control\"'"
    add("--where", metavar="CONDITION", action=_Where, help=text)
    for name, (option, text) in READ.items():
        add(f"--{option}", dest=name, help=text, **reading_form(name))
    for side in SIDES:
        add(f"--{side}-weights", metavar="FILE", help=f"weights of the {side}, one for each point")
        for name, option in OF_ONE.items():
            if name != "weights":
                add(
                    f"--{side}-{option}",
                    dest=f"{side}_{name}",
                    help=argparse.SUPPRESS,
                    **reading_form(name),
                )


def own_files(options: argparse.Namespace) -> tuple[CloudFile, CloudFile, str] | None:
    """The source, the target and the cost of the options of `add_own_data`; None where no file is
    named.

    Raises:
        UserError: one file alone, or options on reading without files.
    """
    of_files = {side: getattr(options, f"{side}_where") for side in SIDES}
    for side, condition in options.where or []:
        if side is None:
            raise UserError(f"--where {condition!r} stands before any file: put it behind its file")
        if of_files[side] is not None:
            raise UserError(f"--where {condition!r} is the second of the {side}: join both by and")
        of_files[side] = condition
    if options.source is None and options.target is None:
        known = {"cost": "cost", **{name: option for name, (option, _) in READ.items()}}
        for side in SIDES:
            known |= {f"{side}_{name}": f"{side}-{option}" for name, option in OF_ONE.items()}
        for name, option in known.items():
            if (value := getattr(options, name)) is not None:
                raise UserError(
                    f"--{option} {value} is that of --source and --target: give both files, or a "
                    "task with this parameter"
                )
        return None
    if options.source is None or options.target is None:
        raise UserError("--source and --target go together: name a file of points for each")

    def file(side: str) -> CloudFile:
        said = {name: getattr(options, f"{side}_{name}") for name in OF_ONE}
        said["where"] = of_files[side]
        said |= {name: getattr(options, name) for name in READ if said[name] is None}
        return CloudFile(
            getattr(options, side), **{name: value or "" for name, value in said.items()}
        )

    source, target = map(file, SIDES)
    on_globe = source.coords == target.coords == "lonlat"
    return source, target, options.cost or ("geodesic" if on_globe else "sqeuclidean")


def reading_form(name: str) -> dict[str, Any]:
    """What values an option on reading takes."""
    return {"choices": CHOICES[name]} if name in CHOICES else {"metavar": "NAME"}


class _File(argparse.Action):
    """Keeps the path of a file, and which file was named last."""

    def __call__(self, _: Any, options: argparse.Namespace, values: Any, *__: Any) -> None:
        setattr(options, self.dest, values)
        options.named = self.dest


class _Where(argparse.Action):
    """Keeps conditions with the file that was named before each."""

    def __call__(self, _: Any, options: argparse.Namespace, values: Any, *__: Any) -> None:
        options.where = [*(options.where or []), (getattr(options, "named", None), values)]


def count(text: str) -> int:
    """A whole number of at least 1."""
    number = _whole(text)
    if number is None or not 1 <= number <= MOST:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {MOST}")
    return number


def device(text: str) -> str:
    """One of `DEVICES`, or ``cuda:N``."""
    if text not in DEVICES and not NUMBERED.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no device: choose {', '.join(DEVICES)}, or cuda:N for one GPU of several"
        )
    return text


def seeds(text: str) -> range:
    """``N`` is the seeds 0 ... N-1, ``A:B`` the seeds A ... B-1."""
    first, separator, end = text.rpartition(":")
    start, stop = _whole(first if separator else "0"), _whole(end)
    if start is None or stop is None or not 0 < stop - start <= MOST:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no number of seeds, and no range A:B of them, up to {MOST}"
        )
    return range(start, stop)


def factor(text: str) -> float:
    """A number above 1."""
    return _above(text, 1)


def threshold(text: str) -> float:
    """A number above 0."""
    return _above(text, 0)


def image_shape(text: str) -> tuple[int, int, int]:
    """``HxW`` or ``CxHxW``: channels, one or three, height and width."""
    match = re.fullmatch(r"(?:([13])x)?([1-9]\d*)x([1-9]\d*)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no shape such as 16x16 or 3x16x16")
    return int(match[1] or 1), int(match[2]), int(match[3])


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


def _whole(text: str) -> int | None:
    """A whole number from 0 on that fits 64 bits."""
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


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
    value = float(match[1]) * units.get(match[2], 0) if match else 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
    return value
