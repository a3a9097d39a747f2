"""Docstrings taken apart: the first paragraph, which lists and tables show, and the rest."""

from __future__ import annotations

import inspect


def parts(text: str | None) -> tuple[str, str]:
    """The first paragraph of a docstring on one line, and what follows it."""
    first, _, rest = inspect.cleandoc(text or "").partition("\n\n")
    return " ".join(first.split()), rest


def summary(text: str | None) -> str:
    """The first paragraph of a docstring on one line; empty where there is none."""
    return parts(text)[0]
