"""Time of the metrics; skipped in ordinary test runs: ``pytest tests/test_benchmarks.py
--benchmark-only``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from otbench import SQEUCLIDEAN, DiscreteProblem, Truth
from otbench.methods.c_transform import c_transform
from otbench.metrics import (
    EXACT_DIM,
    branch_defect,
    coordinate_ks,
    cos,
    cost_ratio,
    cost_visible,
    discrepancies,
    energy_distance,
    exact_w2_squared,
    l2_uvp,
    rounded_cost,
    sliced_w2_squared,
    target_gap,
    wrong_atom,
)
from otbench.runner.clock import MemoryMeter
from otbench.scoring.plans import score_plans


pytestmark = pytest.mark.usefixtures("one_thread")


def normal(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Standard normal numbers, always the same."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


@pytest.mark.parametrize("dim", [2, 256])
def test_l2_uvp(benchmark, dim):
    optimal = normal(16384, dim)
    assert benchmark(l2_uvp, optimal + 1, optimal, float(dim)) == pytest.approx(100, rel=1e-5)


@pytest.mark.parametrize("dim", [2, 256])
def test_cos(benchmark, dim):
    x = normal(16384, dim)
    assert benchmark(cos, x, 3 * x, 2 * x) == pytest.approx(1)


@pytest.mark.parametrize("n", [256, 1024])
def test_exact_w2_squared(benchmark, n):
    x, y = normal(2, n, 4, dtype=torch.float64)
    assert 0 < benchmark(exact_w2_squared, x, y) < math.inf


def test_exact_w2_squared_of_a_translation(benchmark):
    x = normal(1024, 4, dtype=torch.float64)
    assert benchmark(exact_w2_squared, x, x + 1) == pytest.approx(4)


@pytest.mark.parametrize("dim", [64, 3072])
def test_sliced_w2_squared(benchmark, dim):
    x = normal(4096, dim, dtype=torch.float64)
    shift = torch.ones(dim, dtype=torch.float64) / dim**0.5
    assert benchmark(sliced_w2_squared, x, x + shift) == pytest.approx(1, rel=0.3)


@pytest.mark.parametrize("n", [256, 1024])
def test_rounded_cost(benchmark, n):
    a = torch.full((n,), 1 / n, dtype=torch.float64)
    plan = normal(n, n, dtype=torch.float64).abs() / n**2
    ones = torch.ones(n, n, dtype=torch.float64)
    assert benchmark(
        rounded_cost, plan, a, a, lambda i, j: ones[i, j], lambda rows: ones[rows]
    ) == pytest.approx(1)


@pytest.mark.parametrize("dim", [2, 16])
def test_target_gap_of_4096_points(benchmark, dim):
    """Up to dimension 16 an exact W2^2; under five seconds on one idle core."""
    x, y = normal(2, 4096, dim, dtype=torch.float64)
    floors = torch.zeros(20, 2, dtype=torch.float64)
    gap = benchmark.pedantic(lambda: target_gap(discrepancies(x, y), floors[0], floors), rounds=1)
    assert 0 < gap < math.inf


MANY = 100_000  # a matrix of so many rows and columns takes 40 GB in single precision


def of_maps(dim: int) -> dict[str, Callable[[], float]]:
    """The metrics of a map with the arrays that they are functions of."""
    x = normal(MANY, dim)
    y, atoms, costs = x.flip(0) + 0.1, normal(16, dim), normal(MANY).abs()
    position, floors = (
        normal(MANY),
        torch.zeros(20, 2 if dim <= EXACT_DIM else 1, dtype=torch.float64),
    )
    return {
        "l2_uvp": lambda: l2_uvp(x, y, 1.0),
        "cos": lambda: cos(x, y, 2 * y),
        "cost_ratio": lambda: cost_ratio(costs, costs),
        "cost_visible": lambda: cost_visible(costs, costs + 1, 0.0, 1.0),
        "wrong_atom": lambda: wrong_atom(x, y, atoms),
        "branch_defect": lambda: branch_defect(position),
        "coordinate_ks": lambda: coordinate_ks(x, y, dim),
        "energy_distance": lambda: energy_distance(x, y),
        "target_gap": lambda: target_gap(discrepancies(x, y), floors[0], floors),
        "c_transform": lambda: float(
            c_transform(SQEUCLIDEAN, lambda z: -z.square().sum(1), x, y, x[:4096]).mean()
        ),
    }


def of_plans(dim: int) -> dict[str, Callable[[], float]]:
    """The metrics of a sparse plan, a wrong permutation, that leaves something to round."""
    x = normal(MANY, dim, dtype=torch.float64)
    every = torch.arange(MANY)
    a = torch.full((MANY,), 1 / MANY, dtype=torch.float64)
    right = torch.sparse_coo_tensor(
        torch.stack([every, every]), a, (MANY, MANY), check_invariants=True
    )
    wrong = torch.sparse_coo_tensor(
        torch.stack([every, every.flip(0)]), 0.9 * a, (MANY, MANY), check_invariants=True
    )
    pair = DiscreteProblem(x, a, x + 0.1, a, SQEUCLIDEAN, Truth("brenier", 0.01 * dim, plan=right))
    return {"plan metrics": lambda: score_plans([pair], [wrong])["cost_gap"]}


@pytest.mark.parametrize(
    ("name", "dim"),
    [
        *((name, 16) for name in of_maps(1)),
        ("target_gap", 64),
        ("energy_distance", 64),
        ("plan metrics", 16),
    ],
)
def test_a_hundred_thousand_points(benchmark, name, dim):
    """No metric holds a matrix of all pairs: the peak of memory above the arrays themselves stays
    far below it.
    """
    call = (of_plans(dim) if name == "plan metrics" else of_maps(dim))[name]
    memory = MemoryMeter()
    value = benchmark.pedantic(call, rounds=1)
    memory.pause()
    benchmark.extra_info["host_peak_mib"] = round(memory.host_peak_mib())
    assert math.isfinite(value)
    assert memory.host_peak_mib() < 2500
