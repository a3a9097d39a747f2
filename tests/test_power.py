"""The study of what the test of the push-forward can see, docs/power.py, on one small problem."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import otbench
from otbench import MapProblem


FILE = Path(__file__).parent.parent / "docs" / "power.py"


@pytest.fixture(scope="module")
def power() -> ModuleType:
    spec = importlib.util.spec_from_file_location("power", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["power"] = module
    spec.loader.exec_module(module)
    return module


def test_a_lost_direction_is_seen_along_it_alone(power, monkeypatch):
    monkeypatch.setattr("otbench.scoring.maps.SLICED_GAP_POINTS", 1024)
    monkeypatch.setattr(power, "SIZES", (0.02, 0.5, 1.0))
    problem = otbench.get_task("gaussian[dim=20]").problem(
        np.random.default_rng(0), device="cpu", dtype=torch.float32
    )
    assert isinstance(problem, MapProblem)
    bench = power.Bench(problem)
    assert not any(bench.flags(bench.fresh(20)).values())
    found = bench.smallest(power.lost, 1)
    assert "before" not in found and found["after"] <= 1.0 and found["largest"] <= 0.5
    page = power.page({"gaussian[dim=20]": {"lost direction": found}}, 1)
    assert f"| gaussian[dim=20] | – → {found['after']:g} |" in page  # noqa: RUF001


def test_defects_grow_from_nothing_and_keep_the_number_of_points(power):
    y = torch.randn(200, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for name, defect in power.DEFECTS.items():
        at = {size: defect(y, size, torch.Generator().manual_seed(1)) for size in (0.0, 0.1, 1.0)}
        assert {of.shape for of in at.values()} == {y.shape}
        if name != "lost mass":  # it draws anew from what is left
            assert torch.equal(at[0.0], y)
            assert 0 < (at[0.1] - y).norm() < (at[1.0] - y).norm()


def test_the_page_has_every_task(power):
    text = power.PAGE.read_text()
    assert all(text.count(f"| {task} |") == 2 for task in power.TASKS)
