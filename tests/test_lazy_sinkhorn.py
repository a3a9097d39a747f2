"""Sinkhorn's algorithm without a cost matrix, and clouds of any size with a known permutation."""

# pyright: reportMissingImports=false
# (otbench.solvers is joined to the package at run time, see otbench/__init__.py)

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

import otbench.solvers.lazy_sinkhorn as module
from otbench import SQEUCLIDEAN, DiscreteProblem, Truth
from otbench.scoring.convergence import certify
from otbench.scoring.plans import score_plans
from otbench.solvers.lazy_sinkhorn import LazySinkhorn
from otbench.solvers.sinkhorn import Sinkhorn
from otbench.statuses import Stopped
from otbench.tasks.permuted_cloud import DENSE, PermutedCloud
from tests.test_agreement import CLOUDS, context


def cloud(n: int, dim: int = 3, seed: int = 0) -> DiscreteProblem:
    return PermutedCloud(n, dim).problem(
        np.random.default_rng(seed), device="cpu", dtype=torch.float64
    )


@pytest.mark.parametrize(("n", "dim"), [(1, 1), (200, 1), (200, 3), (100, 16)])
def test_no_assignment_is_cheaper_than_the_known_permutation(n: int, dim: int) -> None:
    pair = cloud(n, dim)
    matrix = SQEUCLIDEAN.matrix(pair.x, pair.y).numpy()
    rows, columns = linear_sum_assignment(matrix)
    plan, cost = pair.truth.plan, pair.truth.cost
    assert plan is not None and cost is not None
    assert cost == pytest.approx(float(matrix[rows, columns].mean()), rel=1e-10)
    assert (plan.nonzero().numpy() == np.stack([rows, columns], 1)).all()


def test_a_large_permutation_is_sparse_and_scored_by_its_entries() -> None:
    pair = cloud(DENSE + 1)
    assert pair.truth.plan is not None and pair.truth.plan.is_sparse
    scores = score_plans([pair], [pair.truth.plan])
    assert scores["plan_tv"] == 0 and scores["cost_gap"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("clouds", CLOUDS)
def test_the_plan_is_that_of_the_stored_costs(clouds: str) -> None:
    problem = CLOUDS[clouds]()
    settings = {"eps": 0.05, "max_iters": 5000, "tolerance": 1e-5}
    lazy, stored = (
        solver(**settings).coupled(problem, context()) for solver in (LazySinkhorn, Sinkhorn)
    )
    assert certify(lazy).stopped is Stopped.CONVERGED
    torch.testing.assert_close(lazy.coupling.plan, stored.coupling.plan, rtol=0, atol=1e-5)


def spread(b: list[float], shift: float = 0.0) -> DiscreteProblem:
    """Normal points of a unit scale, the target of these weights, so far away."""
    stream = torch.Generator().manual_seed(0)
    x, y = (torch.randn(n, 2, generator=stream, dtype=torch.float64) for n in (60, len(b)))
    a, weights = x.new_full((60,), 1 / 60), torch.tensor(b, dtype=torch.float64)
    return DiscreteProblem(x, a, y + shift, weights / weights.sum(), SQEUCLIDEAN, Truth("none"))


@pytest.mark.parametrize(
    "pair", [spread([1.0] * 50, 1e6), spread([1.0] * 49 + [1e-50])], ids=["far", "faint"]
)
def test_single_precision_holds_far_clouds_and_points_of_hardly_any_mass(
    pair: DiscreteProblem,
) -> None:
    settings = {"eps": 0.5, "eps_rule": "absolute", "tolerance": 1e-5}
    lazy, stored = (
        solver(**settings).coupled(pair, context()) for solver in (LazySinkhorn, Sinkhorn)
    )
    assert certify(lazy).stopped is Stopped.CONVERGED
    torch.testing.assert_close(lazy.coupling.plan, stored.coupling.plan, rtol=0, atol=1e-5)


@pytest.mark.parametrize("tolerance", [3e-5, 1e-5, 3e-6])
def test_where_it_stops_the_plan_is_certified(tolerance: float) -> None:
    """Rounding of single precision does not make the error that it stops at one above."""
    for seed in range(8):
        pair = cloud(100, seed=seed)
        found = LazySinkhorn(eps=0.1, tolerance=tolerance).coupled(pair, context())
        assert certify(found).stopped is Stopped.CONVERGED


def test_of_many_pairs_the_plan_keeps_the_largest_of_each_row(monkeypatch) -> None:
    pair = cloud(300)
    settings = {"eps": 1e-3, "max_iters": 3000, "tolerance": 1e-4}
    whole = LazySinkhorn(**settings).couple(pair, context()).plan
    monkeypatch.setattr(module, "SOLVED", 1000)
    monkeypatch.setattr(module, "BLOCK", 7 * 300)  # blocks of seven rows, the last of six
    found = LazySinkhorn(**settings, kept=4).couple(pair, context())
    assert ((found.plan > 0).sum(1) <= 4).all() and found.g is None
    torch.testing.assert_close(found.plan.sum(1), pair.a, rtol=1e-14, atol=0)
    largest, _ = whole.topk(4, dim=1)
    kept = float(largest.sum())
    assert found.info["kept_mass"] == pytest.approx(kept, abs=1e-5) and kept > 0.95
    scores = score_plans([pair], [found.plan])
    assert scores["marginal_l1"] < 2.1 * (1 - kept) + 1e-3 and scores["cost_gap"] < 0.02
