"""Export: the frames `runs`, `metrics` and `curves` as files that other tools read, and a page that
says what each column means.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from otbench.errors import UserError
from otbench.metrics import METRICS
from otbench.report.tables import pipe_table
from otbench.statuses import Phase, Status
from otbench.store import COLUMNS


if TYPE_CHECKING:
    import pandas as pd

    from otbench.store import Results

FORMATS = ("parquet", "csv")


def export(results: Results, out: Path, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Write ``runs``, ``metrics`` and ``curves`` in each format, and ``COLUMNS.md``; the files
    written.

    Args:
        results: as `otbench.load` gives them.
        out: the folder to write to, made if need be.
        formats: of ``parquet`` and ``csv``.

    Raises:
        UserError: an unknown format, or the folder cannot be written.
    """
    for name in formats:
        if name not in FORMATS:
            raise UserError(f"unknown export format {name!r}: choose among {', '.join(FORMATS)}")
    written = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for table in ("runs", "metrics", "curves"):
            frame = plain(getattr(results, table))
            for name in formats:
                path = out / f"{table}.{name}"
                frame.to_parquet(path, index=False) if name == "parquet" else frame.to_csv(
                    path, index=False
                )
                written.append(path)
        (out / "COLUMNS.md").write_text(describe(results), encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"cannot write to {out}: {error.strerror or error}; name another folder"
        ) from error
    return [*written, out / "COLUMNS.md"]


def plain(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with one type per column, as Parquet wants it: a column that solvers filled with
    several types becomes text.
    """
    import pandas as pd

    mixed = [
        name
        for name in frame
        if pd.api.types.infer_dtype(frame[name], skipna=True) in ("mixed", "mixed-integer")
    ]
    return frame.assign(**{name: frame[name].map(str, na_action="ignore") for name in mixed})


def describe(results: Results) -> str:
    """The page: every column of every table, every metric, every status."""
    runs = [name for name in results.runs.columns if not name.startswith("metric_")]
    meanings = {name: COLUMNS.get(name, COLUMNS["info_*"]) for name in runs}
    metrics = {
        f"metric_{m.name}": f"{m.summary} Unit: {m.unit}; {m.reading}." for m in METRICS.values()
    }
    metrics = {
        name: text.replace("one is better", "closest to one is best")
        for name, text in metrics.items()
    }
    curves = {
        "key": COLUMNS["key"],
        "step": "the solver's step at the checkpoint",
        "seconds": "seconds of solver time up to it, scoring excluded",
        "metric": "metric name, as above without `metric_`",
        "value": "its value in the metric's unit",
    }
    parts = [
        "# Columns",
        "## runs: one row per run",
        _meanings(meanings),
        "## runs, metrics: wide as `metric_<name>` in runs, long as `key, metric, value` in "
        "metrics",
        _meanings(metrics),
        "## curves: one row per checkpoint and metric",
        _meanings(curves),
        "## values of `status`",
        _meanings({status.value: status.meaning for status in Status}),
        "## values of `phase`",
        _meanings({phase.value: phase.meaning for phase in Phase}),
    ]
    return "\n\n".join(parts) + "\n"


def _meanings(meanings: dict[str, str]) -> str:
    rows = [[f"`{name}`", text] for name, text in meanings.items()]
    return pipe_table([["name", "meaning"], *rows])
