"""One writer of tables: Markdown that reads in a terminal, self-contained HTML, LaTeX, csv."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

from otbench.errors import UserError


if TYPE_CHECKING:
    import pandas as pd


DASH = "\N{EN DASH}"
WIDTH = 110  # characters of a terminal; a wider matrix is split into blocks of columns


@dataclass
class Table:
    """A matrix of texts to be rendered: ``head`` and ``rows`` start with rank and solver; ``best``
    holds (row, column) to set in bold.
    """

    title: str
    head: list[str]
    rows: list[list[str]] = field(default_factory=list)
    best: set[tuple[int, int]] = field(default_factory=set)


def markdown(tables: Sequence[Table], notes: Sequence[str]) -> str:
    """Padded and split into blocks of columns that fit a terminal; best values in bold."""
    parts = []
    for table in tables:
        parts.append(f"### {_cell(table.title)}")
        bold = [
            [f"**{text}**" if (i, j) in table.best else text for j, text in enumerate(row)]
            for i, row in enumerate(table.rows)
        ]
        lines = [list(map(_cell, row)) for row in [table.head, *bold]]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for block in _blocks(widths):
            shown = [lines[0], *(row for row in lines[1:] if any(row[j] for j in block[2:]))]
            rows = [
                "| " + " | ".join(row[j].ljust(widths[j]) for j in block) + " |" for row in shown
            ]
            rows.insert(1, "|" + "|".join("-" * (widths[j] + 2) for j in block) + "|")
            parts.append("\n".join(rows))
    return (
        "\n\n".join(
            [*parts, *(textwrap.fill(note, WIDTH, break_on_hyphens=False) for note in notes)]
        )
        + "\n"
    )


def _cell(text: str) -> str:
    """On one line, without an end of the cell in it."""
    return " ".join(text.splitlines()).replace("|", "\\|")


def _blocks(widths: Sequence[int]) -> list[list[int]]:
    """Columns in blocks that fit the terminal; each block starts with rank and solver."""
    blocks, free = [[0, 1]], 0
    for j in range(2, len(widths)):
        if free < widths[j] + 3 and len(blocks[-1]) > 2:
            blocks.append([0, 1])
        if len(blocks[-1]) == 2:
            free = WIDTH - 1 - sum(widths[k] + 3 for k in (0, 1))
        blocks[-1].append(j)
        free -= widths[j] + 3
    return blocks


STYLE = """<style>
.otbench table { border-collapse: collapse; margin: 1.5em 0;
  font: 14px/1.5 system-ui, sans-serif; font-variant-numeric: tabular-nums; }
.otbench caption { text-align: left; font-weight: 600; padding-bottom: .4em; }
.otbench th, .otbench td { padding: .2em .8em; text-align: left; white-space: nowrap;
  border-bottom: 1px solid #ddd; }
.otbench tr:hover td { background: #f4f6f8; }
.otbench div { overflow-x: auto; }
.otbench p { font: 13px/1.4 system-ui, sans-serif; color: #555; margin: .3em 0; max-width: 60em; }
</style>"""


def to_html(tables: Sequence[Table], notes: Sequence[str]) -> str:
    """Self-contained: a few lines of style, no script, nothing fetched."""
    parts = [STYLE, '<div class="otbench">']
    for table in tables:
        head = "".join(f"<th>{html.escape(text)}</th>" for text in table.head)
        parts.append(
            f"<div><table>\n<caption>{html.escape(table.title)}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>"
        )
        for i, row in enumerate(table.rows):
            cells = (
                f"<b>{html.escape(text)}</b>" if (i, j) in table.best else html.escape(text)
                for j, text in enumerate(row)
            )
            parts.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
        parts.append("</tbody></table></div>")
    return "\n".join([*parts, *(f"<p>{html.escape(note)}</p>" for note in notes), "</div>"]) + "\n"


LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": "$<$", ">": "$>$", "[": "{[}", "]": "{]}",
    "°": r"$^\circ$", "±": r"$\pm$", "†": r"$\dagger$", "‡": r"$\ddagger$",
    "\N{EN DASH}": "--", "µ": r"$\mu$",
}  # fmt: skip


def latex(tables: Sequence[Table], notes: Sequence[str]) -> str:
    """One booktabs ``tabular`` per table; the notes follow as paragraphs."""
    escape = str.maketrans(LATEX)
    parts = ["% needs \\usepackage{booktabs}"]
    for table in tables:
        rows = [[text.translate(escape) for text in row] for row in table.rows]
        rows = [
            [f"\\textbf{{{text}}}" if (i, j) in table.best else text for j, text in enumerate(row)]
            for i, row in enumerate(rows)
        ]
        title, columns = table.title.translate(escape), "l" * len(table.head)
        parts += [
            r"\begin{table}",
            rf"\caption{{{title}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
        ]
        parts += [" & ".join(text.translate(escape) for text in table.head) + r" \\", r"\midrule"]
        parts += [" & ".join(row) + r" \\" for row in rows]
        parts += [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return (
        "\n".join(
            [
                *parts,
                *(rf"\noindent{{\footnotesize {note.translate(escape)}}}\par" for note in notes),
            ]
        )
        + "\n"
    )


WRITERS: Mapping[str, Callable[[Sequence[Table], Sequence[str]], str]] = {
    "md": markdown,
    "html": to_html,
    "latex": latex,
}
Format = Literal["md", "csv", "html", "latex"]
FORMATS: tuple[Format, ...] = get_args(Format)


def render(
    format: Format, tables: Sequence[Table], notes: Sequence[str], tidy: Callable[[], pd.DataFrame]
) -> str:
    """Tables and notes in a format; ``csv`` is the long frame instead, one line per cell.

    Args:
        format: of `FORMATS`.
        tables: to be written one after another.
        notes: paragraphs below them.
        tidy: makes the frame of ``csv``.

    Raises:
        UserError: an unknown format.
    """
    if format not in FORMATS:
        raise UserError(f"unknown format {format!r}: choose {', '.join(FORMATS)}")
    return tidy().to_csv(index=False) if format == "csv" else WRITERS[format](tables, notes)


def pipe_table(rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table for a page, not padded; the first row is its head."""
    escaped = [list(map(_cell, row)) for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in escaped]
    return "\n".join([lines[0], "|" + " --- |" * len(escaped[0]), *lines[1:]])


def plain_table(rows: Sequence[Sequence[str]]) -> str:
    """A table for a terminal, in columns of equal width."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(map(str.rstrip, lines))
