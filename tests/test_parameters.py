"""Parameters out of range are refused as a task or solver is built, never later."""

from __future__ import annotations

import math
import typing
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from otbench.errors import UserError
from otbench.parameters import options
from otbench.registry import Registry, registry
from otbench.solver import Solver, Transport


NUMERIC = [
    (kind, name, parameter)
    for kind in ("task", "solver")
    for name, entry in sorted(registry(kind).entries.items())
    for parameter in entry.parameters
    if {int, float} & set(options(typing.get_type_hints(entry.cls)[parameter]))
]
# Zero asks for the default, switches something off, or is a value like any other.
ZERO = {
    *(
        "accelerate",
        "beta1",
        "beta2",
        "clip",
        "cube",
        "ema",
        "go",
        "group",
        "latent",
        "moves_until",
        "refine",
    ),
    *("gamma", "gp", "hjb", "strength", "weight"),
    *("anneal", "eps", "offset", "penalty", "pull", "r1", "ridge_sphere", "rotation", "seconds"),
    *("shift", "side", "sigma", "test_side", "tolerance", "train", "width"),
}
NEGATIVE = {("hyperbola", "offset")}  # which lies between -2 and 2


def refused(kind: Any, name: str, parameter: str, value: object) -> bool:
    """Whether no task or solver is built with the value."""
    try:
        registry(kind).entries[name].cls(**{parameter: value})
    except ValueError as error:
        assert parameter in str(error) and "\n" not in str(error) and len(str(error)) < 300
        return True
    return False


@pytest.mark.parametrize(("kind", "name", "parameter"), NUMERIC)
def test_no_value_out_of_range_builds(kind, name, parameter):
    for value in (math.nan, math.inf, -math.inf, 1e300, 10**400, -(10**400), [1], "1", True):
        assert refused(kind, name, parameter, value), value
    assert refused(kind, name, parameter, -1) or (name, parameter) in NEGATIVE
    assert refused(kind, name, parameter, 0) or parameter in ZERO


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("solver", "pot-sinkhorn[eps=1e400]", "eps must be finite, and fit single precision"),
        ("solver", f"pot-sinkhorn[eps={10**400}]", "must be float, got '1000"),
        ("solver", "pot-sinkhorn[eps=nan]", "must be float, got 'nan'"),
        ("solver", "pot-sinkhorn[eps=[[1,2]]]", "must be float, got '[1,2]'"),
        ("solver", "pot-sinkhorn[eps=-1]", "eps must be positive, got -1.0"),
        ("task", f"gaussian[dim={10**400}]", "dim must be of less than 64 bits, got a whole"),
        ("task", "gaussian[dim=0]", "dim must be at least 1, got 0"),
    ],
)
def test_on_the_command_line_it_is_one_line(kind, text, words):
    with pytest.raises(UserError) as error:
        registry(kind).select(text)
    assert words in str(error.value) and "\n" not in str(error.value)


@dataclass(frozen=True)
class Unchecked(Solver):
    """A solver that checks nothing itself."""

    name: ClassVar[str] = "unchecked"
    rate: float = 1.0
    limit: int | None = None

    def fit(self, problem, context) -> Transport:
        return Transport()


@dataclass(frozen=True)
class Comparing(Unchecked):
    """One that would stumble over what is no number."""

    name: ClassVar[str] = "comparing"

    def __post_init__(self) -> None:
        if int(self.rate) > 5:
            raise ValueError("rate must be at most 5")


@pytest.mark.parametrize("cls", [Unchecked, Comparing])
def test_whatever_a_class_checks_itself_the_types_come_first(cls):
    assert cls(rate=2, limit=None).rate == 2
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"rate": math.inf}, "rate must be finite"),
        ({"rate": "fast"}, "rate must be float, got 'fast'"),
        ({"rate": [1.0] * 99}, r"rate must be float, got \[1.0, .*\.\.\.$"),
        ({"limit": 1.5}, "limit must be int or none, got 1.5"),
    ]
    for given, words in wrong:
        with pytest.raises(ValueError, match=words):
            cls(**given)


def test_whatever_a_plugin_raises_as_it_is_built_is_one_line(tmp_path):
    path = tmp_path / "brittle.py"
    path.write_text(
        "from dataclasses import dataclass\nfrom otbench import Solver, Transport\n"
        "@dataclass(frozen=True)\nclass Brittle(Solver):\n    name = 'brittle'\n    n: int = 1\n"
        "    def __post_init__(self):\n        1 / self.n\n"
        "    def fit(self, problem, context):\n        return Transport()\n"
    )
    with pytest.raises(UserError, match=r"^solver brittle\[n=0\]: ZeroDivisionError: division"):
        Registry("solver", [str(path)]).select("brittle[n=0]")
