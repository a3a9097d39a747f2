"""Check recorded rows: what is wrong with one that was edited by hand, or that a solver forged."""

from __future__ import annotations

import functools
import json
import math
import typing
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from otbench.job import FIXED, Row
from otbench.parameters import LARGEST_INTEGER, cut, names, options
from otbench.statuses import Status


STATUSES = frozenset(map(str, Status))
REQUIRED = ("key", "task", "solver", "seed", "status", "when")
TIMES = ("began", "when")
JSON_COLUMNS = ("task_params", "solver_params")
HINTS = {name: hint for name, hint in typing.get_type_hints(Row).items() if name in FIXED}
KINDS = {name: options(hint) for name, hint in HINTS.items()}


def fault(values: object) -> str | None:
    """What is wrong with a row, as it is read from JSON; None where nothing is.

    A column may be absent or null unless it is one of `REQUIRED`; columns that are not known may
    hold anything.
    """
    if not isinstance(values, Mapping):
        return f"is {type(values).__name__}, no row"
    for name in REQUIRED:
        if values.get(name) is None:
            return f"has no {name}"
    for name, value in values.items():
        if value is not None and (wrong := _wrong(name, value)):
            return f"has {name} = {cut(json.dumps(value))}, {wrong}"
    return None


def writable(text: str) -> str:
    """The text with backslashes for halves of characters, which no file and no table holds."""
    return text.encode(errors="backslashreplace").decode()


def _wrong(name: str, value: Any) -> str | None:
    """What a column should be that it is not."""
    if name in KINDS:
        if not any(_is(value, kind) for kind in KINDS[name]):
            return f"expected {names(HINTS[name])}"
        if name == "status" and value not in STATUSES:
            return f"expected one of {', '.join(Status)}"
        if name in TIMES and not _is_time(value):
            return "expected a time in ISO 8601"
        if name in JSON_COLUMNS and not _is_json_object(value):
            return "expected a JSON object"
        if name == "seed" and value < 0:
            return "expected a whole number from 0 on"
    elif name.startswith("metric_") and not _is(value, float):
        return "expected a number"
    elif name.startswith("info_") and not any(_is(value, kind) for kind in (bool, float, str)):
        return "expected a number, string or boolean"
    elif name == "curve":
        return _wrong_curve(value)
    return None


def _wrong_curve(points: Any) -> str | None:
    if not isinstance(points, list):
        return "expected a list of checkpoints"
    for point in points:
        if not isinstance(point, dict) or not {"step", "seconds"} <= set(point):
            return "expected checkpoints with step and seconds"
        if not all(_is(value, float) for value in point.values()):
            return "expected numbers in a checkpoint"
    return None


def _is(value: object, kind: type) -> bool:
    """Whether a value is of a type, a number one that a table can hold."""
    if isinstance(value, bool):
        return kind is bool
    if isinstance(value, int):
        return kind in (int, float) and abs(value) < LARGEST_INTEGER
    if isinstance(value, float):
        return kind is float and math.isfinite(value)
    return isinstance(value, kind)


@functools.lru_cache(maxsize=4096)
def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


@functools.lru_cache(maxsize=4096)
def _is_json_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
