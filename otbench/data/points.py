"""Points of the user's own, read from npy, npz, csv and parquet files."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from otbench.errors import UserError


if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

LEAST_POINTS = 8  # of a sample: half of them are scored on
LARGEST = 1e18  # norm of a point: squared distances fit single precision
UNIT = 1e-3  # how far from one the norms may be of points on the unit sphere


def read_samples(source: str, target: str, cost: str) -> tuple[np.ndarray, np.ndarray]:
    """Two samples that the named cost can compare, ``(n, d)`` and ``(m, d)``; for ``geodesic`` they
    are normalised.

    Raises:
        UserError: from `read_points`; different dimensions; target points that are all the same;
            for ``geodesic``, points off the unit sphere by more than `UNIT`.
    """
    import numpy as np

    x, y = read_points(source), read_points(target)
    if x.shape[1] != y.shape[1]:
        raise UserError(
            f"{source} has {x.shape[1]} columns and {target} has {y.shape[1]}: give points of the "
            "same dimension"
        )
    if (y == y[0]).all():
        raise UserError(
            f"{target}: its points are all the same: give a target that varies, errors are "
            "measured against its variance"
        )
    if cost != "geodesic":
        return x, y
    units = []
    for path, points in ((source, x), (target, y)):
        norms = np.linalg.norm(points, axis=1, keepdims=True)
        off = np.abs(norms - 1)
        if off.max() > UNIT:
            row = off.argmax()
            raise UserError(
                f"{path}: row {row + 1} has norm {norms[row, 0]:g}: make all norms one, or choose "
                "another cost than geodesic"
            )
        units.append(points / norms)
    return units[0], units[1]


def read_points(path: str | Path) -> np.ndarray:
    """The points of a file, ``(n, d)`` in float64.

    ``.npy`` holds an array of shape ``(n, d)``, or ``(n,)`` for points on a line; ``.npz`` one such
    array and no other; ``.csv`` and ``.parquet`` one point per line, a column per coordinate. The
    first line of a csv is a header where no cell of it is a number.

    Raises:
        UserError: the file is absent, of another format, damaged, or holds anything but
            `LEAST_POINTS` or more finite points.
    """
    import numpy as np

    path = Path(path)
    readers = {
        ".npy": _read_arrays,
        ".npz": _read_arrays,
        ".csv": _read_csv,
        ".parquet": _read_parquet,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{path}: unknown format: give a file that ends in {', '.join(readers)}")
    if not path.is_file():
        raise UserError(
            f"{path}: no such file: check the path, which is relative to the current folder"
        )
    try:
        points = reader(path)
    except UserError:
        raise
    except Exception as error:  # whatever a parser makes of a damaged file
        reason = (str(error).strip() or "no reason given").splitlines()[0]
        raise UserError(
            f"{path}: cannot be read as {path.suffix} ({type(error).__name__}: {reason}): write it "
            "again"
        ) from error

    if points.dtype.kind not in "iuf":
        raise UserError(f"{path}: holds values of type {points.dtype}: write real numbers")
    if points.ndim not in (1, 2):
        raise UserError(
            f"{path}: holds an array of shape {points.shape}: reshape it to (points, coordinates)"
        )
    points = points.astype(np.float64).reshape(len(points), -1) if points.size else np.zeros((0, 1))
    if len(points) < LEAST_POINTS:
        raise UserError(
            f"{path}: holds {len(points)} points: give at least {LEAST_POINTS}, half of them are "
            "kept for scoring"
        )
    largest = LARGEST / points.shape[1] ** 0.5
    wrong = ~(np.abs(points) <= largest)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise UserError(
            f"{path}: {wrong.sum()} values are missing, not finite or beyond {largest:g}, "
            f"the first in row {row + 1}, column {column + 1}: drop those rows, or rescale"
        )
    return points


def _read_arrays(path: Path) -> np.ndarray:
    import numpy as np

    with open(path, "rb") as file:
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        if len(loaded.files) != 1:
            names = ", ".join(loaded.files) or "none"
            raise UserError(
                f"{path}: holds {len(loaded.files)} arrays ({names}): save the one that is meant "
                "in a file of its own"
            )
        return loaded[loaded.files[0]]


def _read_csv(path: Path) -> np.ndarray:
    import pandas as pd

    with open(path, encoding="utf-8-sig") as file:
        lines = list(
            islice((line for line in file if line.strip()), 2)
        )  # of which one may be a header
    if not lines:
        raise UserError(f"{path}: is empty: give at least {LEAST_POINTS} points")
    for cell in (cell for line in lines for cell in line.split(",")):
        numbers = [part for part in re.split(r'[;"\s]+', cell) if part]
        if len(numbers) > 1 and all(map(_is_number, numbers)):
            raise UserError(
                f"{path}: has {cell.strip()[:40]!r} between commas: separate the columns by "
                "commas, and write decimals with a point"
            )
    cells = [cell.strip(' "\n') for cell in lines[0].split(",")]
    header = not any(map(_is_number, cells))
    if header and "" in cells:
        raise UserError(
            f"{path}: column {cells.index('') + 1} has no name: name it, or write the file without "
            "the index"
        )
    frame = pd.read_csv(path, header=0 if header else None, encoding="utf-8-sig", low_memory=False)
    if not isinstance(frame.index, pd.RangeIndex):
        raise UserError(
            f"{path}: its lines have more cells than its first line: give every line as many"
        )
    if not header:
        frame.columns = range(1, len(frame.columns) + 1)
    return _numbers(path, frame)


def _read_parquet(path: Path) -> np.ndarray:
    import pandas as pd

    return _numbers(path, pd.read_parquet(path))


def _numbers(path: Path, frame: pd.DataFrame) -> np.ndarray:
    import numpy as np

    for name, column in frame.items():
        if len(column) and column.dtype.kind not in "iuf":
            value = next((value for value in column if not _is_number(value)), column.iloc[0])
            raise UserError(
                f"{path}: column {name} holds {str(value)[:40]!r}, which is no number: drop the "
                "column, or mend it"
            )
    return frame.to_numpy(np.float64, na_value=np.nan)


def _is_number(value: object) -> bool:
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return True
