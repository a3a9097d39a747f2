"""Published numbers: a table of facts with their sources (see results/published/README.md), shown
beside measured rows, never ranked.
"""

# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportReturnType=false
# (pandas' own annotations join all that an operation may return, so that they fit almost nothing)

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otbench.errors import UserError
from otbench.selection import parse_selection


if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("source", "tag", "task", "params", "solver", "metric", "value", "unit", "note")


def default_path() -> Path:
    """The table in a wheel (``otbench/published``) or in a checkout (``results/published``)."""
    package = Path(__file__).parents[1]
    packed = package / "published" / "published.csv"
    return (
        packed if packed.is_file() else package.parent / "results" / "published" / "published.csv"
    )


def load(path: Path | None = None) -> pd.DataFrame:
    """The table, columns `COLUMNS`; ``value`` is empty where a source prints no number, and
    ``note`` says why.

    Raises:
        UserError: there is no such file, or a column is absent.
    """
    import pandas as pd

    path = path or default_path()
    if not path.is_file():
        raise UserError(
            f"no table of published numbers at {path}: it is part of the repository, in "
            "results/published"
        )
    table = pd.read_csv(path, keep_default_na=False, na_values={"value": [""]})
    lacking = [name for name in COLUMNS if name not in table]
    if lacking:
        raise UserError(
            f"{path}: no column {', '.join(lacking)}; the columns are {', '.join(COLUMNS)}"
        )
    return table


def matching(table: pd.DataFrame, task: str, label: str, params_json: str) -> pd.DataFrame:
    """The published rows of one measured task.

    A row matches if its task has this name, every parameter it states has the measured value, and
    it states every parameter that the label shows, i.e. that differs from its default.

    Args:
        table: as `load` gives it.
        task: ``task`` of the measured rows.
        label: their ``task_label``.
        params_json: their ``task_params``.
    """
    params, shown = json.loads(params_json), set(parse_selection(label)[1])
    rows = table[table.task == task]

    def matches(text: str) -> bool:
        stated = parse(text)
        return shown <= set(stated) and all(
            name in params and params[name] == value for name, value in stated.items()
        )

    return rows[rows.params.map(matches).astype(bool)]


def beside(runs: pd.DataFrame, metric: str, show: bool = True) -> pd.DataFrame:
    """The published values of this metric on the tasks of ``runs``, with their ``task_label``; none
    unless they are to be shown.
    """
    import pandas as pd

    table = load() if show else pd.DataFrame(columns=COLUMNS)
    table = table[table.metric == metric]
    tasks = runs.drop_duplicates("task_label")[["task", "task_label", "task_params"]]
    found = [
        matching(table, r.task, r.task_label, r.task_params).assign(task_label=r.task_label)
        for r in tasks.itertuples()
    ]
    return with_labels(pd.concat(found))


def presets(path: Path | None = None) -> pd.DataFrame:
    """Which preset of which solver has the settings of published rows, columns ``task``, ``params``
    (of the published row, those that matter), ``solver`` and ``preset``.
    """
    import pandas as pd

    return pd.read_csv(
        path or default_path().with_name("presets.csv"), keep_default_na=False, dtype=str
    )


def with_labels(rows: pd.DataFrame) -> pd.DataFrame:
    """Published rows with a column ``label``: the solver that has their settings, as on the command
    line; empty where none has.
    """
    known = presets()

    def label(task: str, solver: str, params: str) -> str:
        stated = parse(params)
        for row in known[(known.task == task) & (known.solver == solver)].itertuples():
            if parse(row.params).items() <= stated.items():
                return f"{solver}[preset={row.preset}]"
        return ""

    labels = [
        label(task, solver, params)
        for task, solver, params in zip(rows.task, rows.solver, rows.params, strict=True)
    ]
    return rows.assign(label=labels)


def parse(text: str) -> dict[str, Any]:
    """``dim=2;width=4`` as a dictionary; a bare word is a parameter that is true."""
    pairs = (part.partition("=") for part in text.split(";") if part)
    return {name: _literal(value) if equals else True for name, equals, value in pairs}


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
