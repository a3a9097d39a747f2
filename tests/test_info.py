"""What a solver says of itself becomes columns, whatever it is, and never ends a run."""

from __future__ import annotations

import enum
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otbench.rows import fault
from otbench.runner.info import columns


class Odd:
    """A value without a text."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


class Level(enum.IntEnum):
    """Whole numbers that JSON writes otherwise than it reads."""

    HIGH = 3


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (0.5, 0.5),
        (True, True),
        ("text", "text"),
        (Level.HIGH, 3),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.array([0.25]), 0.25),
        (torch.tensor(2.5, requires_grad=True), 2.5),
        (torch.tensor(3), 3),
    ],
)
def test_numbers_of_any_library_are_kept(value, kept):
    assert columns({"value": value}) == ({"value": kept}, [])
    assert type(columns({"value": value})[0]["value"]) is type(kept)


@pytest.mark.parametrize(
    ("value", "kept", "said"),
    [
        (float("nan"), None, "info['value'] is nan: left out"),
        (float("1e400"), None, "info['value'] is inf: left out"),
        (np.float32("inf"), None, "info['value'] is inf: left out"),
        (torch.tensor(float("nan")), None, "info['value'] is nan: left out"),
        (10**400, None, "info['value'] is a whole number of more than 64 bits: left out"),
        (-(2**63), None, "info['value'] is a whole number of more than 64 bits: left out"),
        ([1, {"a": 2}], "[1, {'a': 2}]", "is list, no plain number: kept as text"),
        (None, "None", "is NoneType, no plain number: kept as text"),
        (1j, "1j", "is complex, no plain number: kept as text"),
        (torch.zeros(2, 2), "tensor([[0., 0.], [0., 0.]])", "is Tensor, no plain number"),
        (Odd(), "Odd without a text (RuntimeError)", "is Odd, no plain number"),
        ("x" * 2000, "x" * 997 + "...", "has 2000 characters, cut to 1000"),
        ([0] * 2000, "[" + "0, " * 332 + "...", "is list, no plain number"),
    ],
)
def test_what_no_column_holds_is_said(value, kept, said):
    found, sentences = columns({"value": value, "other": 1})
    assert found == {"other": 1} | ({} if kept is None else {"value": kept})
    assert len(sentences) == 1 and said in sentences[0] and "\n" not in sentences[0]


def test_names_are_short_texts():
    found, sentences = columns({3: 1, "x" * 101: 2, "\ud800": "\udfff"})  # type: ignore[dict-item]
    assert found == {"\\ud800": "\\udfff"}
    assert "info has the key 3, no short text: left out" in sentences and len(sentences) == 2
    assert columns([1]) == ({}, ["info is list, no mapping: left out"])


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.complex_numbers() | st.binary()
    | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner),
    max_leaves=5,
)  # fmt: skip


@given(st.dictionaries(st.text(st.characters()) | st.integers(), ANY))
def test_any_info_is_part_of_a_row(info):
    found, _ = columns(info)
    row = dict.fromkeys(("key", "task", "solver"), "x") | {"seed": 0, "status": "ok"}
    row |= {"when": "2026-01-01"} | {f"info_{name}": value for name, value in found.items()}
    assert fault(json.loads(json.dumps(row, allow_nan=False).encode())) is None
