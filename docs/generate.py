"""Write the generated parts of the documentation: tables of results, solvers, columns.

    python docs/generate.py

A table stands between ``<!-- table: ARGUMENTS -->`` and ``<!-- end -->`` and is what ``otbench
ARGUMENTS`` prints. ``methods.md`` and ``columns.md`` are made from docstrings and `otbench.job`.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from otbench import docstrings
from otbench.cli.main import main
from otbench.metrics import METRICS
from otbench.metrics.arrays import ARRAYS
from otbench.registry import registry
from otbench.report.gallery import as_markdown
from otbench.report.tables import pipe_table
from otbench.scoring.verdict import Verdict
from otbench.statuses import Phase, Status
from otbench.store import COLUMNS


ROOT = Path(__file__).parent.parent
TABLE = re.compile(r"<!-- table: (.*?) -->\n(.*?)<!-- end -->", re.DOTALL)


def pages() -> Iterator[Path]:
    """The pages that have tables of results."""
    yield ROOT / "README.md"
    yield from sorted((ROOT / "docs").rglob("*.md"))


def printed(arguments: str) -> str:
    """What ``otbench ARGUMENTS`` prints, in the root of the checkout."""
    text = io.StringIO()
    with contextlib.chdir(ROOT), contextlib.redirect_stdout(text):
        status = main(shlex.split(arguments))
    if status:
        raise SystemExit(f"otbench {arguments}: exit status {status}")
    return text.getvalue()


def with_tables(page: str) -> str:
    """A page with its tables made again."""
    return TABLE.sub(lambda m: f"<!-- table: {m[1]} -->\n{printed(m[1])}<!-- end -->", page)


def methods() -> str:
    """The page of all solvers: what each is, its source, its parameters."""
    parts = [
        "# Solvers",
        "From the docstring of each adapter; `otbench list solvers` prints the same in short.",
    ]
    for name, entry in sorted(registry("solver").entries.items()):
        summary, rest = docstrings.parts(sys.modules[entry.cls.__module__].__doc__)
        parts += [f"## {name}", as_markdown(summary), as_markdown(rest)]
        presets = f" Presets: {', '.join(entry.presets)}." if entry.presets else ""
        values = ", ".join(f"`{key}={value}`" for key, value in entry.parameters.items())
        tuned = f" Chosen: {entry.cls.tuning}." if entry.cls.tuning else ""
        parts.append(f"Parameters: {values or 'none'}.{presets}{tuned}")
    return "\n\n".join(part for part in parts if part) + "\n"


def columns() -> str:
    """The page of columns, metrics, arrays, statuses and verdicts."""
    metrics = {
        f"metric_{m.name}": f"{m.summary} Unit: {m.unit}; {m.reading}." for m in METRICS.values()
    }
    arrays = {
        a.name: f"{a.meaning}; {a.shape or 'a number'}, unit {a.unit}" for a in ARRAYS.values()
    }
    parts = [
        "# Columns of the tables",
        "One row per run in `rows.jsonl` and in the frame `runs` of `otbench.load`.",
        _meanings(dict(COLUMNS)),
        "## Metrics",
        _meanings(metrics),
        "## Values of `status`",
        _meanings({status.value: status.meaning for status in Status}),
        "## Values of `phase`",
        _meanings({phase.value: phase.meaning for phase in Phase}),
        "## Values of `verdict`",
        _meanings({verdict.value: verdict.meaning for verdict in Verdict}),
        "## Arrays that metrics are functions of",
        _meanings(arrays),
    ]
    return "\n\n".join(parts) + "\n"


def _meanings(meanings: Mapping[str, str]) -> str:
    rows = [[f"`{name}`", as_markdown(text)] for name, text in meanings.items()]
    return pipe_table([["name", "meaning"], *rows])


GENERATED = {"docs/methods.md": methods, "docs/columns.md": columns}


def generate() -> None:
    """Write all of it."""
    for path, make in GENERATED.items():
        (ROOT / path).write_text(make())
    for page in pages():
        text = page.read_text()
        if (made := with_tables(text)) != text:
            page.write_text(made)


if __name__ == "__main__":
    os.environ["COLUMNS"] = "200"
    generate()
