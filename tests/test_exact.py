"""The exact linear program at every scale of costs, and costs at every scale of points."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from otbench import get_solver
from otbench.methods.discrete import exact_truth, solved
from otbench.methods.exact import exact_plan
from otbench.methods.extension import extend
from otbench.problem import EUCLIDEAN, GEODESIC, SQEUCLIDEAN, DiscreteProblem, Truth
from otbench.scoring.convergence import certify
from otbench.scoring.plans import score_plans
from otbench.solver import Coupled, FitContext
from otbench.statuses import Stopped


EVEN = np.full(40, 1 / 40)
scales = st.floats(-12, 12).map(lambda power: 10.0**power)
seeds = st.integers(0, 10**6)


def clouds(seed: int, n: int = 40, m: int = 40, dim: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, dim)), rng.normal(size=(m, dim))


def squared(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.square(x[:, None] - y).sum(-1)


def pair(x: np.ndarray, y: np.ndarray, a=None, b=None, cost=SQEUCLIDEAN) -> DiscreteProblem:
    a, b = (np.full(len(z), 1 / len(z)) if w is None else w / w.sum() for z, w in ((x, a), (y, b)))
    points = torch.as_tensor(x), torch.as_tensor(a), torch.as_tensor(y), torch.as_tensor(b)
    return DiscreteProblem(*points, cost, Truth("none"))


def assignment_cost(costs: np.ndarray) -> float:
    return float(costs[linear_sum_assignment(costs)].mean())


@settings(max_examples=60, deadline=None)
@given(seed=seeds, scale=scales)
def test_the_exact_cost_is_scipys_at_every_scale(seed: int, scale: float) -> None:
    x, y = clouds(seed)
    costs = squared(scale * x, scale * y)
    found = exact_plan(costs, EVEN, EVEN)
    assert found.optimal
    assert found.cost == pytest.approx(assignment_cost(costs), rel=1e-9)
    assert 0 <= found.gap <= 1e-9 * found.cost


@settings(max_examples=60, deadline=None)
@given(seed=seeds, scale=scales, spread=st.floats(0, 12))
def test_a_few_points_far_away_do_not_blur_the_rest(seed: int, scale: float, spread: float) -> None:
    x, y = clouds(seed)
    x[:2], y[3:5] = scale * 10**spread + x[:2], scale * 10**spread + y[3:5]
    costs = squared(x, y)
    found = exact_plan(costs, EVEN, EVEN)
    assert found.optimal
    assert found.cost == pytest.approx(assignment_cost(costs), rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(seed=seeds, skew=st.floats(0, 8))
def test_potentials_certify_the_plan_of_uneven_weights(seed: int, skew: float) -> None:
    x, y = clouds(seed, 30, 50)
    rng = np.random.default_rng(seed)
    a, b = rng.random(30) ** skew, rng.random(50) ** skew
    a[:2], b[-1] = 0, 0
    a, b, costs = a / a.sum(), b / b.sum(), squared(x, y)
    found = exact_plan(costs, a, b)
    assert found.optimal
    np.testing.assert_allclose(found.plan.sum(1), a, atol=1e-15)
    np.testing.assert_allclose(found.plan.sum(0), b, atol=1e-15)
    assert (found.f[:, None] + found.g <= costs + 1e-12).all()
    assert a @ found.f + b @ found.g == pytest.approx(found.cost, rel=1e-9)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, offset=st.floats(-1e8, 1e8), scale=scales)
def test_the_true_cost_scales_shifts_and_permutes(seed: int, offset: float, scale: float) -> None:
    x, y = clouds(seed)
    cost = exact_truth(pair(x, y)).cost
    assert cost is not None
    order = np.random.default_rng(seed).permutation(40)
    assert exact_truth(pair(scale * x[order], scale * y)).cost == pytest.approx(scale**2 * cost)
    shifted = exact_truth(pair(x + offset, y + offset)).cost
    # what float64 keeps of the points at this offset
    assert shifted == pytest.approx(cost, rel=max(1e-9, 1e-14 * abs(offset)))


@settings(max_examples=30, deadline=None)
@given(seed=seeds)
def test_copies_of_a_point_are_its_weight(seed: int) -> None:
    x, y = clouds(seed, 12, 15)
    copies = 1 + np.random.default_rng(seed).integers(0, 5, 12)
    merged = exact_truth(pair(x, y, a=copies.astype(float))).cost
    assert exact_truth(pair(x.repeat(copies, 0), y)).cost == pytest.approx(merged, rel=1e-9)


def test_a_gap_that_is_not_closed_is_no_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = clouds(0)
    monkeypatch.setattr("otbench.methods.exact.ROUNDS", 1)
    monkeypatch.setattr("otbench.methods.exact.CLOSED", 0.0)
    truth = exact_truth(pair(x, y))
    assert truth.cost is None and truth.plan is None and "solved up to" in truth.unsolved
    assert truth.cost_bound == pytest.approx(assignment_cost(squared(x, y)))


def test_pot_emd_is_optimal_for_points_close_together() -> None:
    close = pair(1e-9 * clouds(0)[0], 1e-9 * clouds(0)[1])
    found = certify(Coupled(close, couple("pot-emd", close), tolerance=1e-9))
    assert found.stopped == Stopped.CONVERGED
    assert found.duality_gap is not None and found.duality_gap < 1e-9


def test_copies_of_a_point_go_to_the_mean_of_where_their_mass_goes() -> None:
    """50 copies of (1, 0) hold half of the mass, which goes to three targets."""
    x = np.array([[1.0, 0.0]] * 50 + [[-4.0, i / 50] for i in range(50)])
    y = np.array([[1.0, 1.0]] * 20 + [[1.0, 2.0]] * 10 + [[1.0, 3.0]] * 20 + [[-4.0, 0.0]] * 50)
    for solver in ("pot-emd", "pot-sliced-plan"):
        problem = pair(x, y)
        moved = extend(couple(solver, problem), problem)(torch.tensor([[1.0, 0.0]]).double())
        np.testing.assert_allclose(moved[0], [1, 2], atol=1e-12)


def couple(solver: str, problem: DiscreteProblem):
    context = FitContext("cpu", torch.float64, 0, torch.Generator().manual_seed(0))
    return get_solver(solver).couple(problem, context)  # type: ignore[attr-defined]


@pytest.mark.parametrize("dim", [2, 16, 17, 60])
@pytest.mark.parametrize("offset", [0.0, 1e8])
def test_squared_distances_keep_their_digits(dim: int, offset: float) -> None:
    """Points far apart, close together and equal, in one cloud."""
    x, y = clouds(dim, 200, 150, dim)
    y[:30], y[30:60] = x[:30], x[30:60] + 1e-6 * y[30:60]
    x[100] *= 1e6
    x, y = x + offset, y + offset
    true = squared(x, y)
    for cost, exact in ((SQEUCLIDEAN, true), (EUCLIDEAN, np.sqrt(true))):
        found = cost.matrix(torch.as_tensor(x), torch.as_tensor(y)).numpy()
        np.testing.assert_allclose(found, exact, rtol=1e-6)
        points = torch.as_tensor(x).requires_grad_()
        differentiable = cost.matrix(points, torch.as_tensor(y))
        np.testing.assert_allclose(differentiable.detach()[:99], exact[:99], atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_geodesics_keep_their_digits(dtype: torch.dtype) -> None:
    x = torch.nn.functional.normalize(torch.randn(50, 3, generator=torch.Generator()), dim=1)
    across = torch.nn.functional.normalize(x[:, [1, 2, 0]] - (x[:, [1, 2, 0]] * x).sum(1, True) * x)
    for angle in (1e-6, 1e-4, 1e-2, 1.0, 3.0, math.pi - 1e-4):
        y = (math.cos(angle) * x.double() + math.sin(angle) * across.double()).to(dtype)
        rounding = 2e-7 if dtype == torch.float32 else 1e-7  # of the points
        for found in (
            GEODESIC.pairwise(x.to(dtype), y),
            GEODESIC.matrix(x.to(dtype), y).diagonal(),
        ):
            torch.testing.assert_close(
                found, torch.full_like(found, angle), rtol=1e-6, atol=2 * rounding
            )
    assert (GEODESIC.pairwise(x, x) == 0).all() and (GEODESIC.pairwise(2 * x, x) == 0).all()
    assert GEODESIC.pairwise(x, -x).numpy() == pytest.approx(math.pi)


def test_optimal_plans_of_copies_have_the_same_barycentric_map() -> None:
    """Of two source points, each twice, to four targets: every order of the copies is optimal."""
    x = np.array([[0.0], [0.0], [9.0], [9.0]])
    y = np.array([[0.0], [1.0], [8.0], [9.0]])
    problem = solved(pair(x, y))
    other = problem.truth.plan[[1, 0, 3, 2]]  # type: ignore[index]
    scores = score_plans([problem], [other])
    assert scores["barycentric_uvp"] == 0 and scores["cost_gap"] == 0
