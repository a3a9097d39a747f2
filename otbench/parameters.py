"""Parameters of tasks and solvers: checks that each value is of its annotated type, and finite, in
single precision too; and the values among which tuning looks.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


LARGEST_INTEGER = 2**63  # from which on no array has such a size, and no column holds it
LARGEST_FLOAT = 3e38  # in single precision
PLAIN = (bool, int, float, str, type(None))


@dataclass(frozen=True)
class Ladder:
    """Values of a parameter to try, each of them."""

    values: tuple[float | int | str | bool, ...]


@dataclass(frozen=True)
class Span:
    """Values of a parameter to search between, on a logarithmic scale where both are positive.

    Raises:
        ValueError: ``low`` is not below ``high``.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        """Check the ends."""
        if not self.low < self.high:
            raise ValueError(f"{self.low:g} is not below {self.high:g}")


class Parameters:
    """Base of tasks and solvers: the fields of the dataclass are parameters, whose values are
    checked before the ``__post_init__`` of a subclass compares them.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        """Put the check before the class's own."""
        super().__init_subclass__(**options)
        if own := vars(cls).get("__post_init__"):

            @functools.wraps(own)
            def checked(self: Parameters) -> None:
                check(self)
                own(self)

            cls.__post_init__ = checked

    def __post_init__(self) -> None:
        """Check the parameters.

        Raises:
            ValueError: one is not of its type, not finite, or too large.
        """
        check(self)

    def require(
        self,
        positive: Sequence[str] = (),
        not_negative: Sequence[str] = (),
        at_least_one: Sequence[str] = (),
        fractions: Sequence[str] = (),
    ) -> None:
        """Refuse parameters out of range.

        Args:
            positive: names of parameters.
            not_negative: names of parameters.
            at_least_one: names of parameters.
            fractions: names of parameters of at least 0 and less than 1.

        Raises:
            ValueError: one of them is not.
        """
        for name in positive:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in not_negative:
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in at_least_one:
            if not getattr(self, name) >= 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in fractions:
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"{name} must be at least 0 and less than 1, got {getattr(self, name)}"
                )


def check(owner: object) -> None:
    """Refuse a parameter that is not of its annotated type, not finite, or too large.

    Raises:
        ValueError: naming it, and what it may be.
    """
    for name, annotation in _annotations(type(owner)).items():
        value, kinds = getattr(owner, name), options(annotation)
        if not set(kinds) <= set(PLAIN):
            continue  # a choice, which the parser or the class itself knows
        if not any(_fits(value, kind) for kind in kinds):
            raise ValueError(f"{name} must be {names(annotation)}, got {_shown(value)}")
        if isinstance(value, float) and not abs(value) <= LARGEST_FLOAT:
            raise ValueError(f"{name} must be finite, and fit single precision, got {value}")
        if isinstance(value, int) and abs(value) >= LARGEST_INTEGER:
            raise ValueError(f"{name} must be of less than 64 bits, got {_shown(value)}")


def options(annotation: Any) -> tuple[Any, ...]:
    """The types of a union; of another annotation itself."""
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        return typing.get_args(annotation)
    return (annotation,)


def names(annotation: Any) -> str:
    """The types of an annotation, as a message says them."""
    return " or ".join(map(_name, options(annotation)))


def cut(text: str, most: int = 60) -> str:
    """The text, its end left out where it is too long for a message."""
    return text if len(text) <= most else f"{text[:most]}..."


def _name(kind: Any) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return "one of " + ", ".join(map(str, typing.get_args(kind)))
    return "none" if kind is type(None) else getattr(kind, "__name__", str(kind))


def _fits(value: object, kind: type) -> bool:
    """Whether a value is of a type; a whole number is a float, a boolean is no number."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _shown(value: object) -> str:
    if isinstance(value, int) and value.bit_length() > 64:
        return f"a whole number of {value.bit_length()} bits"
    return cut(repr(value))


@functools.cache
def _annotations(cls: type) -> dict[str, Any]:
    if not dataclasses.is_dataclass(cls):
        return {}
    try:
        hints = typing.get_type_hints(cls)
    except NameError:  # of types that are imported for type checkers alone
        return {}
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}
