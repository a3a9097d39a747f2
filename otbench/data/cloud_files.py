"""Point clouds in files of the user's own: which arrays, columns and rows of a file are points and
weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otbench.data import arrays, cells, pixels, tables
from otbench.data.clouds import ROWS, Cloud, as_points, as_weights, check_pair, on_sphere
from otbench.errors import UserError


if TYPE_CHECKING:
    import numpy as np

LEAST_POINTS = 8  # of a sample: half of them are scored on
DENSE = 2**29  # most entries of a sparse matrix that is made dense: 4 GiB
COORDS = ("lonlat",)
SUFFIXES = (*arrays.SUFFIXES, *tables.SUFFIXES, *cells.SUFFIXES, *pixels.SUFFIXES)


@dataclass(frozen=True)
class CloudFile:
    """A file with a point cloud, and how it is to be read.

    Attributes:
        path: of an npy, npz, mat, pt, csv, tsv, parquet, feather or h5ad file, or of a picture.
        key: name of the array of points, in npz, mat and pt files; in h5ad files ``X``,
            ``obsm/NAME`` or ``layers/NAME``.
        where: condition on the rows that are taken of a table, or of the observations of h5ad.
        weights: path of a file with the weights, of any of the kinds above that hold one column.
        weights_column: name of the column, or of the array, of the weights; columns without names
            are numbered from 1.
        coords: ``lonlat`` where points are longitudes and latitudes in degrees, which become points
            on the unit sphere.
        kind: ``image`` where a two-dimensional array is an image with its mass where it is bright,
            ``dark-image`` with its mass where it is dark. A picture is an ``image`` without saying.
        columns: names of the columns that are coordinates, with commas between; by default all but
            the weights.
    """

    path: str
    key: str = ""
    where: str = ""
    weights: str = ""
    weights_column: str = ""
    coords: str = ""
    kind: str = ""
    columns: str = ""


def read_cloud(file: CloudFile) -> Cloud:
    """The points of a file and their weights, where it has any.

    Raises:
        UserError: the file is absent, of another format, damaged, or holds anything but finite
            points, or weights that are negative, not finite, zero altogether or not one for each
            point.
    """
    return _read(file, "")


def read_pair(source: CloudFile, target: CloudFile, cost: str) -> tuple[Cloud, Cloud]:
    """Two clouds that the named cost can compare; for ``geodesic`` their points are normalised.

    Of one file for both, which holds the arrays ``x`` and ``y``, the first is the source and the
    second the target.

    Raises:
        UserError: from `read_cloud`; different dimensions; a column that counts the rows in both
            files; target points that are all the same; for ``geodesic``, points off the unit sphere
            by more than `UNIT`.
    """
    # Of two files, x and y are as likely the coordinates of one cloud.
    one_file = Path(source.path).resolve() == Path(target.path).resolve()
    x, y = _read(source, "x" if one_file else ""), _read(target, "y" if one_file else "")
    if x.points.shape[1] == y.points.shape[1]:
        _refuse_index(source, x, target, y)
    return check_pair(x, y, cost, (source.path, target.path))


def check_enough(file: CloudFile, cloud: Cloud) -> None:
    """Check that a cloud has points to learn from and to be scored on.

    Raises:
        UserError: fewer than `LEAST_POINTS` with mass.
    """
    import numpy as np

    n = len(cloud.points) if cloud.weights is None else np.count_nonzero(cloud.weights)
    if n < LEAST_POINTS:
        mass = "" if cloud.weights is None else " with mass"
        raise UserError(
            f"{file.path}: holds {n} points{mass}: give at least {LEAST_POINTS}, half of them are "
            "kept for scoring"
        )


def _read(file: CloudFile, preferred: str) -> Cloud:
    """The cloud of a file; of the arrays ``x`` and ``y`` in one file, that which is preferred."""
    path = _checked(file)
    with _readable(path):
        points, weights = _held(path, file, preferred)
    points = as_points(path, points)
    if file.weights:
        weights = _weights_of(file.weights)
    if weights is not None:
        weights = as_weights(Path(file.weights or path), weights, len(points))
    return Cloud(on_sphere(path, points) if file.coords else points, weights)


def _checked(file: CloudFile) -> Path:
    """The path of the file, which is there.

    Raises:
        UserError: it is not, or an option does not go with files of its kind.
    """
    path = _existing(file.path)
    for what, given, known in (
        ("coordinates", file.coords, COORDS),
        ("kind", file.kind, pixels.KINDS),
    ):
        if given and given not in known:
            raise UserError(f"unknown {what} {given!r}: choose {', '.join(known)}")
    if file.weights and file.weights_column:
        raise UserError(
            f"{path}: its weights are said to be in {file.weights} and in column "
            f"{file.weights_column!r}: give one of both"
        )
    suffix = path.suffix.lower()
    named = (*arrays.SUFFIXES[1:], *cells.SUFFIXES)
    tabular = (*tables.SUFFIXES, *cells.SUFFIXES)
    of_points = tuple(known for known in SUFFIXES if known not in pixels.SUFFIXES)
    for option, given, fitting in (
        ("--key", file.key, named),
        ("--where", file.where, tabular),
        ("--as", file.kind, (*arrays.SUFFIXES, *pixels.SUFFIXES)),
        ("--columns", file.columns, of_points),
        ("--weights-column", file.weights_column, of_points),
        ("--coords", file.coords, of_points),
    ):
        if given and suffix not in fitting:
            raise UserError(
                f"{path}: {option} {given} does not go with {suffix} files, only with "
                f"{', '.join(fitting)}: leave it out, or give it for the other file alone"
            )
    of_image = (file.coords, file.columns, file.weights, file.weights_column)
    if (file.kind or suffix in pixels.SUFFIXES) and any(of_image):
        raise UserError(
            f"{path}: is read as an image, whose pixels are the points and the weights: leave out "
            "columns, coordinates and weights"
        )
    return path


def _existing(name: str) -> Path:
    path = Path(name)
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path}: unknown format: give a file that ends in {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise UserError(
            f"{path}: no such file: check the path, which is relative to the current folder"
        )
    return path


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Says in one line that a file cannot be read, whatever its parser makes of it."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        reason = (str(error).strip() or "no reason given").splitlines()[0]
        raise UserError(
            f"{path}: cannot be read as {path.suffix} ({type(error).__name__}: {reason}): write it "
            "again"
        ) from error


def _held(path: Path, file: CloudFile, preferred: str) -> tuple[Any, Any | None]:
    """Points and weights as the file has them."""
    suffix, dark = path.suffix.lower(), file.kind == pixels.KINDS[1]
    if suffix in pixels.SUFFIXES:
        return pixels.as_cloud(path, pixels.read_picture(path, dark), dark=False)
    if suffix in tables.SUFFIXES:
        frame = tables.read_table(path)
        if file.where:
            frame = frame.loc[tables.select_rows(path, frame, file.where)]
        chosen, of_weights = _columns(path, file, list(frame.columns))
        weights = None if of_weights is None else tables.numbers(path, frame, [of_weights])
        return tables.numbers(path, frame, chosen), weights
    if suffix in cells.SUFFIXES:
        matrix, names, weights = cells.read_cells(path, file.key, file.where, file.weights_column)
        chosen, _ = _columns(path, replace(file, weights_column=""), names)
        return _dense(path, matrix, chosen), weights

    # A column of the array where its name is a number, an array otherwise.
    numbered = file.weights_column if file.weights_column.isdecimal() else ""
    named = "" if numbered else file.weights_column
    held, weights = arrays.read_arrays(path, file.key, named, preferred)
    if file.kind:
        return pixels.as_cloud(path, held, dark)
    if held.ndim != 2:
        if file.columns or numbered:
            raise UserError(f"{path}: holds an array of shape {held.shape}, which has no columns")
        return held, weights
    if suffix == ".mat" and held.shape[0] == 1 < held.shape[1]:
        raise UserError(
            f"{path}: holds a row of {held.shape[1]} numbers, one point of many coordinates: save "
            "points in rows, as x(:) is"
        )
    names = [str(i) for i in range(1, held.shape[1] + 1)]
    chosen, of_weights = _columns(path, replace(file, weights_column=numbered), names)
    return _dense(path, held, chosen), weights if of_weights is None else held[:, of_weights]


def _columns(path: Path, file: CloudFile, names: list[str]) -> tuple[list[int], int | None]:
    return tables.choose_columns(
        path, names, file.columns, file.weights_column, lonlat=bool(file.coords)
    )


def _dense(path: Path, matrix: Any, columns: list[int]) -> np.ndarray:
    """Those columns of a dense or sparse matrix, without a copy where they are all."""
    if columns != list(range(matrix.shape[1])):
        matrix = matrix[:, columns]
    if not hasattr(matrix, "toarray"):
        return matrix
    n, d = matrix.shape
    if n * d > DENSE:
        raise UserError(
            f"{path}: holds a sparse matrix of {n} x {d} entries, too many to be made dense: "
            "reduce it first, to principal components for instance"
        )
    return matrix.toarray()


def _weights_of(name: str) -> Any:
    """The one column of a file of weights."""
    path = _existing(name)
    with _readable(path):
        if path.suffix.lower() in tables.SUFFIXES:
            frame = tables.read_table(path)
            return tables.numbers(path, frame, range(frame.shape[1]))
        if path.suffix.lower() in arrays.SUFFIXES:
            return arrays.read_arrays(path, "", "", "")[0]
    raise UserError(f"{path}: weights are read from arrays and tables: write them as npy or csv")


def _refuse_index(source: CloudFile, x: Cloud, target: CloudFile, y: Cloud) -> None:
    """Refuse a column that numbers the rows of both files: it is an index that came along.

    A column that counts by ones is one; so is one that numbers the rows in another order, or rises
    through whole numbers as the index of selected rows does, while other columns do not.

    Raises:
        UserError: there is such a column, and the coordinates were not named.
    """
    if source.columns or target.columns or source.coords or x.points.shape[1] == 1:
        return
    (of_x, numbers_x), (of_y, numbers_y) = (_numbering(cloud.points) for cloud in (x, y))
    numbers = numbers_x & numbers_y
    found = of_x & of_y if numbers.all() else numbers
    if found.any():
        column = int(found.argmax()) + 1
        raise UserError(
            f"{source.path} and {target.path}: column {column} counts the rows, as an index does: "
            "write both files without it, or name the coordinates, --columns NAME,NAME (numbers "
            "from 1 where columns have no names)"
        )


def _numbering(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(d,)`` twice: columns that count by ones, and those that number the rows in any order or
    rise through whole numbers.
    """
    import numpy as np

    n, d = points.shape
    if n < LEAST_POINTS:  # by chance
        return np.zeros(d, bool), np.zeros(d, bool)
    counts, rises, whole = np.ones(d, bool), np.ones(d, bool), np.ones(d, bool)
    for start in range(0, n, ROWS):
        part = points[start : start + ROWS + 1]
        steps = np.diff(part, axis=0)
        whole &= (part == np.floor(part)).all(0)
        counts &= (steps == 1).all(0)
        rises &= (steps > 0).all(0)
    spread = np.ptp(points, axis=0) == n - 1
    for column in np.flatnonzero(whole & spread & ~rises):
        rises[column] = len(np.unique(points[:, column])) == n
    return whole & counts, whole & rises
