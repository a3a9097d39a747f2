"""The selection language ``name[param=value,param=[v1,v2]]``: parsing, typing and writing of
values.
"""

from __future__ import annotations

import ast
import contextlib
import re
import typing
from typing import Any, Literal

from otbench.errors import UserError
from otbench.parameters import cut, names, options


def parse_selection(text: str) -> tuple[str, dict[str, list[str]]]:
    """Split ``name[param=value,param=[v1,v2]]`` into the name and the values of each parameter, as
    text.

    Raises:
        UserError: the text is not of that form.
    """
    match = re.fullmatch(r"\s*([^\[\]\s]+)\s*(?:\[(.*)\])?\s*", text, re.DOTALL)
    if not match:
        raise UserError(f"cannot read {text!r}: write name[param=value,param=[v1,v2]]")
    grid: dict[str, list[str]] = {}
    for part in _split(match[2] or "", text):
        parameter, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not parameter or not value:
            raise UserError(f"cannot read {part.strip()!r} in {text!r}: write param=value")
        if parameter in grid:
            raise UserError(
                f"parameter {parameter!r} stands twice in {text!r}: sweep with {parameter}=[v1,v2]"
            )
        values = (
            _split(value[1:-1], text) if value.startswith("[") and value.endswith("]") else [value]
        )
        if not values:
            raise UserError(f"empty grid for {parameter!r} in {text!r}: give at least one value")
        grid[parameter] = [v.strip() for v in values]
        if len(set(grid[parameter])) < len(grid[parameter]):
            raise UserError(f"a value of {parameter!r} stands twice in {text!r}")
    return match[1], grid


def _split(text: str, whole: str) -> list[str]:
    """Split on the commas outside brackets and quotes."""
    parts, depth, quote, start = [], 0, "", 0
    for i, c in enumerate(text):
        if quote:
            quote = "" if c == quote else quote
        elif c in "'\"":
            quote = c
        elif c in "[(":
            depth += 1
        elif c in "])":
            depth -= 1
        elif c == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
        if depth < 0:
            break
    if depth or quote:
        raise UserError(f"brackets or quotes do not match in {whole!r}")
    parts.append(text[start:])
    if any(not part.strip() for part in parts) and parts != [""]:
        raise UserError(f"an empty item between commas in {whole!r}")
    return [part for part in parts if part.strip()]


def _literal(text: str) -> Any:
    """A Python literal; true, false and none in any case; else the text itself."""
    lowered = {"true": True, "false": False, "none": None}
    if text.lower() in lowered:
        return lowered[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def parse_value(owner: str, parameter: str, text: str, annotation: Any) -> Any:
    """What the text means as the annotated type: an int is welcome where a float is wanted, a
    string needs no quotes.
    """
    kinds = options(annotation)
    value = _literal(text)
    for option in kinds:
        if typing.get_origin(option) is Literal:
            allowed = {str(choice): choice for choice in typing.get_args(option)}
            if str(value) in allowed or text in allowed:
                return allowed.get(text, allowed.get(str(value)))
        elif option is float and type(value) is int:
            with contextlib.suppress(OverflowError):
                return float(value)
        elif option is not str and type(value) is option:
            return value
    if str in kinds:
        return value if isinstance(value, str) else text
    raise UserError(
        f"parameter {parameter!r} of {owner} must be {names(annotation)}, got {cut(text)!r}"
    )


def quoted(text: str) -> str:
    """A Python literal of the text in which quotes stand at its ends only, so that a selection can
    hold it.
    """
    return repr(text).replace("\\'", "\\x27")


def format_value(value: Any) -> str:
    if isinstance(value, str) and set(value) & set("[](),'\""):
        return quoted(value)
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
