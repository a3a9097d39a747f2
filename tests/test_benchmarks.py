"""Time of the metrics; skipped in ordinary test runs: ``pytest tests/test_benchmarks.py --benchmark-only``."""

from __future__ import annotations

import math

import pytest
import torch

from otbench.metrics import cos, exact_w2_squared, l2_uvp, round_plan, sliced_w2_squared


@pytest.fixture(autouse=True)
def one_thread():
    """So that timings do not depend on what else runs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
    assert 0 < benchmark(sliced_w2_squared, x, x + shift) < 1


@pytest.mark.parametrize("n", [256, 1024])
def test_round_plan(benchmark, n):
    a = torch.full((n,), 1 / n, dtype=torch.float64)
    plan = normal(n, n, dtype=torch.float64).abs() / n**2
    rounded = benchmark(round_plan, plan, a, a)
    assert torch.allclose(rounded.sum(0), a) and torch.allclose(rounded.sum(1), a)
