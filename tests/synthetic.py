"""Made-up run folders, for the tests of the reports."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from otbench.job import SCHEMA
from otbench.store import Results, RunFolder, load


MACHINE = {"cpu": "Test CPU", "cores": 4, "gpu": None}


def row(
    task: str, solver: str, seed: int = 0, status: str = "ok", **changes: Any
) -> dict[str, Any]:
    """One run; ``changes`` are columns, such as ``metric_l2_uvp=1.0``."""
    values: dict[str, Any] = {
        "task": task.split("[")[0],
        "task_label": task,
        "task_params": '{"dim": 2}',
        "solver": solver.split("[")[0],
        "solver_label": solver,
        "solver_params": "{}",
        "trivial": False,
        "seed": seed,
        "device": "cpu",
        "dtype": "float32",
        "tf32": False,
        "threads": 1,
        "schema": SCHEMA,
        "status": status,
        "message": None if status == "ok" else f"why {status}",
        "fit_cold_s": 2.0 if status == "ok" else None,
        "when": "2026-01-01T00:00:00+00:00",
        **changes,
    }
    key = "-".join(
        str(values[name]) for name in ("task_label", "solver_label", "seed", "device", "dtype")
    )
    return {"key": "".join(c if c.isalnum() else "-" for c in key), **values}


def write(
    folder: Path, rows: Iterable[Mapping[str, Any]], provenance: Mapping[str, Any] = MACHINE
) -> Results:
    """Record the rows in a run folder below ``folder``, and load them."""
    run_folder = RunFolder(folder, "synthetic", provenance)
    for values in rows:
        run_folder.append({"batch": run_folder.path.name, **values})
    run_folder.close()
    return load(folder)


def uvp(task: str, solver: str, values: Iterable[float], **changes: Any) -> list[dict[str, Any]]:
    """Successful runs with these values of ``l2_uvp``, seed by seed."""
    return [
        row(task, solver, seed, metric_l2_uvp=value, **changes) for seed, value in enumerate(values)
    ]


def together(
    task: str, solver: str, values: Iterable[float], seconds: float, **changes: Any
) -> list[dict[str, Any]]:
    """The same of seeds that were solved as one, in so many seconds."""
    values = list(values)
    return uvp(
        task,
        solver,
        values,
        fit_cold_s=None,
        together=len(values),
        fit_together_s=seconds,
        **changes,
    )


def lines(text: str) -> dict[str, list[str]]:
    """The cells of the (only) Markdown table by solver, rank first."""
    cells = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in text.splitlines()
        if line.startswith("| ")
    ]
    return {cell[1]: [cell[0], *cell[2:]] for cell in cells}


def dumps(**params: Any) -> str:
    """Parameters as the rows have them."""
    return json.dumps(params, sort_keys=True)
