"""An answer in files: the folder that ``otbench solve`` writes."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otbench import __version__
from otbench.answer.solving import Answer
from otbench.data.clouds import as_degrees
from otbench.errors import UserError
from otbench.report.pictures import draw_mapped, png
from otbench.runner.outputs import heaviest


if TYPE_CHECKING:
    import numpy as np

MAP = "map.pt"
ENTRIES = 2**22  # most entries of a plan that are written, the heaviest
POINT_FILES = (".npy", ".csv", ".tsv", ".parquet", ".feather")


def save_answer(answer: Answer, folder: str | Path, points: str = ".npy", coords: str = "") -> None:
    """Write an answer into a new folder, whole or not at all.

    ``mapped`` holds T(x) of the source points in their order, ``plan.npz`` the plan as a SciPy
    sparse matrix (its `ENTRIES` heaviest entries), ``potentials.npz`` the arrays f and g,
    ``map.pt`` the map, ``answer.json`` the numbers, ``picture.png`` the points.

    Args:
        answer: what to write.
        folder: does not exist, or is empty.
        points: suffix of the file of mapped points, one of `POINT_FILES`.
        coords: ``lonlat`` for mapped points in degrees.

    Raises:
        UserError: the folder is not empty, or the map cannot be saved.
        OSError: a file cannot be written.
    """
    folder = Path(folder).absolute()
    check_new(folder)
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}")
    unfinished.mkdir(parents=True)
    try:
        write_points(unfinished / f"mapped{points}", answer.mapped, coords)
        kept = _write_plan(unfinished, answer)
        answer.fitted.save(unfinished / MAP)
        numbers = {**summary(answer), **kept}
        (unfinished / "answer.json").write_text(json.dumps(numbers, indent=2) + "\n")
        (unfinished / "picture.png").write_bytes(_picture(answer))
        if not folder.exists():
            os.replace(unfinished, folder)
            return
        for path in sorted(unfinished.iterdir(), key=lambda path: path.name == "answer.json"):
            os.replace(path, folder / path.name)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def check_new(folder: Path) -> None:
    """Refuse a folder that holds anything.

    Raises:
        UserError: it does, or is a file.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: exists and is not empty: name another folder, or remove it")


def check_writable(folder: Path, made: bool = True) -> None:
    """Check that files can be written into a folder, which is made where ``made`` says so.

    Raises:
        UserError: they cannot.
    """
    there = folder
    while made and not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise UserError(f"{there}: is no folder that can be written to: name another output")


def summary(answer: Answer) -> dict[str, Any]:
    """The numbers of an answer; those that are not finite are None."""
    numbers = {
        "otbench": __version__,
        "solver": answer.fitted.solver,
        "cost_name": answer.fitted.cost_name,
        "source_points": len(answer.source.points),
        "target_points": len(answer.target.points),
        "dim": answer.source.points.shape[1],
        "cost": answer.cost,
        "optimal_cost_at_least": answer.bound,
        "excess_at_most": answer.excess,
        "marginal_error": answer.marginal_error,
        "stopped": answer.stopped,
        "target_gap": answer.target_gap,
        "fit_s": answer.fit_s,
        **{f"info_{name}": value for name, value in answer.info.items()},
    }
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in numbers.items()
    }


def write_points(path: Path, points: np.ndarray, coords: str = "") -> None:
    """Write points ``(n, d)`` as an array or a table with a column per coordinate.

    Args:
        path: its suffix, one of `POINT_FILES`, says what is written.
        points: of them.
        coords: ``lonlat`` where points of the unit sphere are written in degrees.

    Raises:
        UserError: another suffix.
        OSError: the file cannot be written.
    """
    import numpy as np
    import pandas as pd

    suffix = path.suffix.lower()
    if suffix not in POINT_FILES:
        raise UserError(f"{path}: cannot be written: name a file in {', '.join(POINT_FILES)}")
    if coords:
        points = as_degrees(points)
    if suffix == ".npy":
        np.save(path, points)
        return
    names = ["lon", "lat"] if coords else [f"x{i}" for i in range(1, points.shape[1] + 1)]
    frame = pd.DataFrame(points, columns=names)
    if suffix in (".csv", ".tsv"):
        frame.to_csv(path, index=False, sep="," if suffix == ".csv" else "\t")
    elif suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.to_feather(path)


def _write_plan(folder: Path, answer: Answer) -> dict[str, Any]:
    """Plan and potentials, where there are; what of the plan is written."""
    import numpy as np
    from scipy.sparse import coo_array, save_npz

    if answer.potentials is not None:
        np.savez(folder / "potentials.npz", f=answer.potentials[0], g=answer.potentials[1])
    if answer.plan is None:
        return {}
    i, j, mass = (values.cpu().numpy() for values in heaviest(answer.plan, ENTRIES))
    save_npz(folder / "plan.npz", coo_array((mass, (i, j)), shape=tuple(answer.plan.shape)).tocsr())
    return {"plan_entries": len(mass), "plan_mass_written": float(mass.sum())}


def _picture(answer: Answer) -> bytes:
    a, b = answer.source.masses, answer.target.masses
    points = answer.source.points, a, answer.target.points, b, answer.mapped
    title = f"{answer.fitted.solver}, {answer.fitted.cost_name}"
    on_globe = answer.fitted.cost_name == "geodesic" and answer.mapped.shape[1] == 3
    return png(draw_mapped(*points, title, on_globe))
