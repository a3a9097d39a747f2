"""What a solver says of itself (``Transport.info``), made into columns that a table can hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from otbench.parameters import LARGEST_INTEGER
from otbench.rows import writable


Plain = bool | int | float | str

LONGEST_NAME = 100  # characters
LONGEST_TEXT = 1000


def columns(info: object) -> tuple[dict[str, Plain], list[str]]:
    """The columns by name, and a sentence for each value that is not as it was given.

    Scalars of NumPy, torch and JAX become plain numbers; what else is no plain value becomes text;
    numbers that are not finite, or of more than 64 bits, are left out.
    """
    if not isinstance(info, Mapping):
        return {}, [f"info is {type(info).__name__}, no mapping: left out"]
    kept: dict[str, Plain] = {}
    changed = []
    for key, value in info.items():
        if not isinstance(key, str) or len(key) > LONGEST_NAME:
            changed.append(f"info has the key {_text(key)[:LONGEST_NAME]}, no short text: left out")
            continue
        name = writable(key)
        plain, why = _plain(value)
        if plain is not None:
            kept[name] = plain
        if why:
            changed.append(f"info[{name!r}] {why}")
    return kept, changed


def _plain(value: Any) -> tuple[Plain | None, str]:
    """The value that a column can hold, if any, and what was done to it."""
    if not isinstance(value, (bool, int, float, str)):
        value = _scalar(value)
    if isinstance(value, str):
        if len(value) > LONGEST_TEXT:
            return _cut(value), f"has {len(value)} characters, cut to {LONGEST_TEXT}"
        return writable(value), ""
    if isinstance(value, bool):
        return value, ""
    if isinstance(value, int):
        if abs(value) >= LARGEST_INTEGER:
            return None, "is a whole number of more than 64 bits: left out"
        return int(value), ""
    if isinstance(value, float):
        return (float(value), "") if math.isfinite(value) else (None, f"is {value}: left out")
    return _cut(_text(value)), f"is {type(value).__name__}, no plain number: kept as text"


def _scalar(value: Any) -> Any:
    """The number in a scalar of an array library; another value itself."""
    try:
        number = value.item()
    except Exception:  # of whatever library: it has no `item`, or several entries
        return value
    return number if isinstance(number, (bool, int, float, str)) else value


def _text(value: object) -> str:
    """A value in one line."""
    try:
        return " ".join(repr(value).split())
    except Exception as error:
        return f"{type(value).__name__} without a text ({type(error).__name__})"


def _cut(text: str) -> str:
    return writable(text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 3]}...")
