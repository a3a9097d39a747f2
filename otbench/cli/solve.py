"""``otbench solve`` and ``otbench push``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from otbench.cli.options import READ, Command, add_own_data, add_plugins, own_files, reading_form
from otbench.data.cloud_files import CloudFile, read_cloud
from otbench.data.tables import SUFFIXES as TABLES
from otbench.errors import DivergedError, InvalidOutputError, MissingError, UserError
from otbench.job import DEVICES, DTYPES


if TYPE_CHECKING:
    from otbench.answer.solving import Answer

OF_POINTS = ("key", "columns", "coords")  # how points without weights are read


def _solve_arguments(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add_own_data(sub)
    add("-s", "--solver", required=True, help="name[param=value]")
    text = "new folder for mapped points, plan, potentials, map, numbers and picture"
    add("-o", "--output", required=True, type=Path, metavar="FOLDER", help=text)
    add("--seed", type=int, default=0, help="of the solver's randomness (default: 0)")
    add("--device", choices=DEVICES, default="auto")
    text = "what solvers of maps compute in (default: float32); plans are of float64 points"
    add("--dtype", choices=DTYPES, default="float32", help=text)
    add_plugins(sub)


def _solve(options: argparse.Namespace) -> int:
    from otbench.answer.files import check_new, check_writable, save_answer
    from otbench.api import solve

    files = own_files(options)
    if files is None:
        raise UserError("solve needs --source and --target: name a file of points for each")
    check_new(options.output)
    check_writable(options.output.absolute().parent)
    source, target, cost = files
    with _in_a_line(options.solver):
        answer = solve(
            solver=options.solver,
            seed=options.seed,
            source=source,
            target=target,
            cost=cost,
            device=options.device,
            dtype=options.dtype,
            plugins=options.plugins,
        )
    suffix = Path(source.path).suffix.lower()
    with _written(options.output):
        save_answer(answer, options.output, suffix if suffix in TABLES else ".npy", target.coords)
    for line in _lines(answer):
        print(line)
    names = ", ".join(sorted(path.name for path in options.output.iterdir()))
    print(f"written to {options.output}/: {names}")
    return 0


@contextmanager
def _in_a_line(solver: str) -> Iterator[None]:
    """Says in one line what a solver lacks or did wrong."""
    try:
        yield
    except (MissingError, DivergedError, InvalidOutputError) as error:
        raise UserError(f"{solver}: {error}") from error


@contextmanager
def _written(output: Path) -> Iterator[None]:
    """Says in one line that the system does not let the output be written."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error.strerror}): name another") from error


def _lines(answer: Answer) -> Iterator[str]:
    """What was found, in words."""
    n, m, d = len(answer.source.points), len(answer.target.points), answer.source.points.shape[1]
    name = answer.fitted.cost_name
    yield f"{answer.fitted.solver}: {n} points to {m}, dimension {d}, fit {answer.fit_s:.3g} s"
    what = "plan" if answer.plan is not None else "map"
    yield f"cost of the {what}: {answer.cost:.6g} ({name})"
    if answer.bound is None:
        yield "optimal cost: unknown, the clouds are large and the solver has no plan"
    elif answer.plan is not None and answer.cost == 0:
        yield "optimal cost: 0"
    elif answer.plan is not None and answer.excess is None:
        yield f"optimal cost: at least {answer.bound:.6g}, which says nothing of the plan"
    elif answer.excess is None:
        yield f"optimal cost: at least {answer.bound:.6g}, unless the map misses the target"
    else:
        yield (
            f"optimal cost: at least {answer.bound:.6g}, so the plan costs at most "
            f"{100 * answer.excess:.3g} % too much"
        )
    if answer.marginal_error is not None:
        how = f", {answer.stopped}: {answer.stopped.meaning}" if answer.stopped else ""
        yield f"marginal error of the plan: {answer.marginal_error:.2g} (l1){how}"
    yield f"mapped points miss the target by {100 * answer.target_gap:.3g} % of its variance"


def _push_arguments(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("map", type=Path, metavar="MAP", help="folder that `otbench solve` wrote, or its map.pt")
    add("points", metavar="FILE", help="new points, of the kinds that --source takes")
    text = "file of the mapped points (npy, csv, tsv, parquet, feather)"
    add("-o", "--output", required=True, type=Path, metavar="FILE", help=text)
    add("--where", default="", metavar="CONDITION", help="rows of the file that are mapped")
    for option in OF_POINTS:
        flag, text = READ[option]
        add(f"--{flag}", dest=option, default="", help=text, **reading_form(option))


def _push(options: argparse.Namespace) -> int:
    from otbench.answer.files import MAP, POINT_FILES, check_writable, write_points
    from otbench.answer.fitted_map import load

    if options.output.suffix.lower() not in POINT_FILES:
        raise UserError(
            f"{options.output}: cannot be written: name a file in {', '.join(POINT_FILES)}"
        )
    check_writable(options.output.absolute().parent, made=False)
    fitted = load(options.map / MAP if options.map.is_dir() else options.map)
    chosen = {name: getattr(options, name) for name in (*OF_POINTS, "where")}
    cloud = read_cloud(CloudFile(options.points, **chosen))
    with _in_a_line(fitted.solver):
        mapped = fitted.push(cloud.points)
    with _written(options.output):
        write_points(options.output, mapped, options.coords)
    print(f"{fitted.solver}: {len(mapped)} points mapped to {options.output}")
    return 0


COMMANDS = (
    Command(
        "solve",
        "Fit one solver on all points of two files, and write mapped points, plan, map and cost.",
        _solve_arguments,
        _solve,
    ),
    Command("push", "Apply a map that solve has written to new points.", _push_arguments, _push),
)
