"""Tables of the user's own, read from csv, tsv, parquet and feather files: their header, the rows
that a condition chooses, and which columns are coordinates and which weights.
"""

from __future__ import annotations

import ast
import csv
import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from otbench.errors import UserError, nearest


if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

SEPARATORS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (*SEPARATORS, ".parquet", ".feather")
ROWS = 2**16  # of a csv that are read at a time: all at once take twice the memory
SHOWN = 12  # names of columns in a message

# Names of columns that are hardly ever coordinates.
INDEX = re.compile(
    r"|unnamed: \d.*|(.*[_ .-])?(index|idx|id|rows?)|row[_ .-]?(names?|numbers?|nr|id)"
    r"|(__index_)?level_\d+_*",
    re.IGNORECASE,
)
WEIGHT = re.compile(
    r"(.*[_ .-])?(weights?|w|wts?|wgts?|mass(es)?|prob(s|ability|abilities)?|freq(uency|uencies)?"
    r"|pop(ulation)?)([_ .-].*)?|counts?",
    re.IGNORECASE,
)
LONGITUDE = re.compile(
    r"(.*[_ .-])?(lon|lng|long|longitude)s?((_?deg(rees)?)|[_ .-].*)?", re.IGNORECASE
)
LATITUDE = re.compile(r"(.*[_ .-])?(lat|latitude)s?((_?deg(rees)?)|[_ .-].*)?", re.IGNORECASE)
MISSING = {"", "-", ".", "?", "na", "n/a", "#n/a", "<na>", "null", "none", "missing"}
# What a condition on rows may be made of: nothing that calls or looks into objects.
HARMLESS = (
    ast.Expression,
    ast.BoolOp,
    ast.UnaryOp,
    ast.BinOp,
    ast.Compare,
    ast.Name,
    ast.Constant,
    ast.List,
    ast.Tuple,
    ast.expr_context,
    ast.boolop,
    ast.unaryop,
    ast.Add,
    ast.Sub,
    ast.Mult,
    ast.Div,
    ast.cmpop,
)


def read_table(path: Path) -> pd.DataFrame:
    """The table in a csv, tsv, parquet or feather file; columns without names are numbered from 1.

    The first line of a csv or tsv is a header where a cell of it is a name, and numbers beside
    names count from 0 or 1; or where its cells are 0, 1, 2, ..., as pandas names the columns of an
    array. A single 0 is one where the number below has decimals.

    Raises:
        UserError: an empty file, another separator, lines of different lengths, a first line that
            may be a header or a point, an index with a name or of real numbers.
    """
    from pyarrow import feather, parquet

    suffix = path.suffix.lower()
    if suffix in SEPARATORS:
        return _read_text(path, SEPARATORS[suffix])
    table = (
        parquet.read_table(path, pre_buffer=False)
        if suffix == ".parquet"
        else feather.read_table(path)
    )
    # without a copy: the columns are those of the file
    frame = table.to_pandas(split_blocks=True, self_destruct=True)
    del table
    named = any(name is not None for name in frame.index.names)
    if frame.index.nlevels > 1 or frame.index.dtype.kind == "f" or named:
        names = ", ".join(str(name) for name in frame.index.names)
        raise UserError(
            f"{path}: its index ({names}) may hold coordinates: write the table after "
            "reset_index(), or reset_index(drop=True) to leave the index out"
        )
    frame.columns = [str(name) for name in frame.columns]
    return frame


def select_rows(path: Path, frame: pd.DataFrame, where: str) -> np.ndarray:
    """``(n,)``, whether each row meets a condition such as ``dose > 1 and group == "control"``, in
    the words of ``DataFrame.query``.

    Raises:
        UserError: a condition that cannot be read, that calls functions or looks into objects, of
            columns that are not there, or that no row meets.
    """
    import numpy as np

    about = f"{path}: where {where!r}"
    checked = re.sub(r"`[^`]*`", "_", where)
    try:
        tree = ast.parse(checked.strip(), mode="eval")
    except (SyntaxError, ValueError):
        raise UserError(
            f"{about} is no condition: write one on columns, such as 'dose > 1 and group == "
            '"control"\''
        ) from None
    if odd := next((node for node in ast.walk(tree) if not isinstance(node, HARMLESS)), None):
        raise UserError(
            f"{about} has {type(odd).__name__}: compare columns with values by ==, !=, <, <=, >, "
            ">=, in, and join by and, or, not"
        )
    try:
        kept = frame.eval(where.strip(), engine="python", local_dict={}, global_dict={})
        # where a value is missing, the condition does not hold
        kept = np.asarray(kept.fillna(False).astype(bool) if _is_boolean(kept) else kept)
    except Exception as error:  # whatever pandas makes of it
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{about}: {reason}; {_listed(list(frame.columns))}") from error
    if kept.shape != (len(frame),) or kept.dtype != bool:
        raise UserError(f"{about} is not true or false of each row: compare a column with a value")
    if not kept.any():
        raise UserError(f"{about} holds for none of the {len(frame)} rows: {_values(frame, tree)}")
    return kept


def _is_boolean(values: object) -> bool:
    import pandas as pd

    return isinstance(values, pd.Series) and pd.api.types.is_bool_dtype(values.dtype)


def choose_columns(
    path: Path, names: Sequence[str], columns: str, weights: str, lonlat: bool
) -> tuple[list[int], int | None]:
    """Places of the columns that are coordinates, and of that of the weights.

    Args:
        path: of the file.
        names: of all columns.
        columns: names of the coordinates with commas between; by default all but the weights.
        weights: name of the column of weights, where there is one.
        lonlat: whether the coordinates are longitude and latitude. Columns of these names are
            chosen, in this order, and the others left out.

    Raises:
        UserError: no such column, no coordinates, or, where the coordinates are not named, a column
            whose name is that of an index or of weights.
    """
    of_weights = _place(path, names, weights, "--weights-column") if weights else None
    if columns:
        chosen = [_place(path, names, name.strip(), "--columns") for name in columns.split(",")]
        if len(set(chosen)) < len(chosen) or of_weights in chosen:
            raise UserError(f"{path}: a column of {columns!r} stands twice, or is that of weights")
    else:
        chosen = [i for i in range(len(names)) if i != of_weights]
    if lonlat:
        chosen = _degrees(path, names, chosen, bool(columns))
    if not chosen:
        raise UserError(f"{path}: holds no column of coordinates; {_listed(names)}")
    for i in () if columns else range(len(names)):
        name = names[i]
        others = ",".join(names[j] for j in chosen if j != i)[: SHOWN * 8] or "NAME,NAME"
        if i in chosen and INDEX.fullmatch(name):
            what = f"column {name!r} is" if name else f"column {i + 1} has no name and is"
            raise UserError(
                f"{path}: {what} taken for an index, not for a coordinate: write the file without "
                f"it (as to_csv(index=False) does), or name the coordinates, --columns {others}"
            )
        if i != of_weights and WEIGHT.fullmatch(name):
            raise UserError(
                f"{path}: column {name!r} looks like weights, not like a coordinate: choose it by "
                f"--weights-column {name!r}, or name the coordinates, --columns {others}"
            )
    return chosen, of_weights


def _place(path: Path, names: Sequence[str], name: str, option: str) -> int:
    if list(names).count(name) > 1:
        raise UserError(f"{path}: has several columns {name!r}, chosen by {option}: rename them")
    if name not in names:
        raise UserError(
            f"{path}: has no column {name!r} for {option}{nearest(name, names)}; {_listed(names)}"
        )
    return list(names).index(name)


def _degrees(path: Path, names: Sequence[str], among: Sequence[int], chosen: bool) -> list[int]:
    """Places of longitude and latitude, by their names; of two columns that have no names, or that
    were chosen, in their order.
    """
    longitudes, latitudes = (
        [i for i in among if form.fullmatch(names[i])] for form in (LONGITUDE, LATITUDE)
    )
    if len(longitudes) == len(latitudes) == 1:
        return longitudes + latitudes
    without_names = all(names[i].isdecimal() for i in among)
    if longitudes or latitudes or len(among) != 2 or not (without_names or chosen):
        raise UserError(
            f"{path}: it is not clear which columns are longitude and latitude: name them lon and "
            f"lat, or choose two, --columns LON,LAT; {_listed(names)}"
        )
    return list(among)


def numbers(path: Path, frame: pd.DataFrame, columns: Sequence[int]) -> np.ndarray:
    """The cells of some columns of a table in float64, ``(n, columns)``, missing ones as nan.

    Raises:
        UserError: a column that does not hold numbers.
    """
    import numpy as np

    held = np.empty((len(frame), len(columns)))
    for i, place in enumerate(columns):
        column = frame.iloc[:, place]
        if len(column) and column.dtype.kind not in "iuf":
            value = next((value for value in column if not _is_number(value)), column.iloc[0])
            raise UserError(
                f"{path}: column {column.name} holds {str(value)[:40]!r}, which is no number: mend "
                "it, or name the columns that are coordinates, --columns NAME,NAME"
            )
        held[:, i] = column.to_numpy(np.float64, na_value=np.nan)
    return held


def _read_text(path: Path, separator: str) -> pd.DataFrame:
    import pandas as pd

    with open(path, encoding="utf-8-sig") as file:
        lines = list(
            islice((line for line in file if line.strip()), 2)
        )  # of which one may be a header
    if not lines:
        raise UserError(f"{path}: is empty: give one point per line")
    shown = {",": "commas", "\t": "tabs"}[separator]
    for cell in (cell for line in lines for cell in line.split(separator)):
        parts = [part for part in re.split(r'[,;"\s]+', cell) if part]
        if len(parts) > 1 and all(map(_is_number, parts)):
            raise UserError(
                f"{path}: has {cell.strip()[:40]!r} between {shown}: separate the columns by "
                f"{shown}, and write decimals with a point"
            )
    rows = [
        [cell.strip().lstrip("# ") for cell in row]
        for row in csv.reader(lines, delimiter=separator)
    ]
    cells = rows[0]
    header = _is_header(path, cells, rows[1] if len(rows) > 1 else [])
    if len(rows) > 1 and len(rows[1]) > len(cells):
        raise UserError(
            f"{path}: its lines have more cells than its first line: give every line as many"
        )
    with pd.read_csv(
        path,
        sep=separator,
        header=0 if header else None,
        encoding="utf-8-sig",
        low_memory=False,
        chunksize=ROWS,
    ) as reader:
        parts = list(reader)
    frame = pd.concat(parts, ignore_index=True)
    if header:
        # As they stand: pandas makes up names for those without one, and numbers equal ones.
        frame.columns = cells + [""] * (len(frame.columns) - len(cells))
    else:
        frame.columns = [str(i) for i in range(1, len(frame.columns) + 1)]
    return frame


def _is_header(path: Path, cells: Sequence[str], below: Sequence[str]) -> bool:
    """Whether the cells of a first line are names of columns, given those of the second.

    Raises:
        UserError: they may be names or a point.
    """
    given = [cell for cell in cells if _is_number(cell)]
    if len(given) < len(cells):
        if not given and all(cell.lower() in MISSING for cell in cells):
            return False
        return given in ([], _counted(0, len(given)), _counted(1, len(given)))
    if len(cells) == 1:
        return cells == ["0"] and not all(cell.lstrip("+-").isdecimal() for cell in below)
    if given == _counted(1, len(cells)):
        raise UserError(
            f"{path}: its first line, {','.join(cells)}, may be a header or a point: name the "
            "columns, or write the point with decimals"
        )
    return given == _counted(0, len(cells))


def _counted(first: int, n: int) -> list[str]:
    return [str(first + i) for i in range(n)]


def _listed(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > SHOWN else ""
    return f"its columns are {', '.join(map(repr, map(str, names[:SHOWN]))) or 'none'}{more}"


def _values(frame: pd.DataFrame, tree: ast.AST) -> str:
    """What the columns of a condition hold."""
    named = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    for name in sorted(named & set(frame.columns)):
        values = ", ".join(repr(value) for value in frame[name].unique()[:SHOWN].tolist())
        return f"{name} is {values}"
    return "give another"


def _is_number(value: object) -> bool:
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return True
