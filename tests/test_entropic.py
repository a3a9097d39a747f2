"""The entropic problem: potentials, plans, Sinkhorn's algorithm and its truth."""

from __future__ import annotations

from dataclasses import replace

import ot
import pytest
import torch

from otbench import SQEUCLIDEAN, DiscreteProblem, Truth
from otbench.methods.entropic import TOLERANCE, Entropic, entropic_truth


def make(
    n: int = 12,
    m: int = 9,
    eps: float = 0.3,
    zeros: int = 2,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> DiscreteProblem:
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(k, 2, generator=generator, dtype=dtype) for k in (n, m))
    a, b = (
        torch.rand(k, generator=generator, dtype=dtype).index_fill_(0, torch.arange(zeros), 0)
        for k in (n, m)
    )
    return DiscreteProblem(x, a / a.sum(), y, b / b.sum(), SQEUCLIDEAN, Truth("none"), eps)


@pytest.mark.parametrize("eps", [0.003, 0.05, 1.0])
def test_the_plan_is_that_of_pot(eps):
    pair = make(eps=eps)
    problem = Entropic(pair)
    solution = problem.solve(max_iters=100_000)
    costs = SQEUCLIDEAN.matrix(pair.x, pair.y)[2:, 2:]
    expected = ot.sinkhorn(
        pair.a[2:], pair.b[2:], costs, eps, method="sinkhorn_log", stopThr=1e-12, numItermax=100_000
    )
    whole = problem.on_all_points(solution.plan)
    torch.testing.assert_close(whole[2:, 2:], torch.as_tensor(expected), rtol=0, atol=1e-8)
    assert float(whole[:2].abs().sum() + whole[:, :2].abs().sum()) == 0
    torch.testing.assert_close(
        problem.plan(solution.f, solution.g), solution.plan, rtol=1e-6, atol=1e-300
    )


def test_an_eps_a_thousand_times_less_than_the_costs_neither_overflows_nor_stops_early():
    pair = make(eps=1e-3)
    solution = Entropic(pair).solve(tolerance=1e-3, max_iters=100_000)
    assert solution.error <= 1e-3 and bool(torch.isfinite(solution.plan).all())
    exact = float(torch.as_tensor(ot.emd2(pair.a, pair.b, SQEUCLIDEAN.matrix(pair.x, pair.y))))
    assert solution.cost == pytest.approx(exact, rel=1e-2)


def test_an_iteration_is_a_soft_c_transform_there_and_back():
    problem = Entropic(make())
    start = torch.linspace(-1, 1, len(problem.a), dtype=torch.float64)
    f = start
    for k in (1, 2, 3):
        g = problem.target_potential(f)
        f = problem.source_potential(g)
        solution = problem.solve(start, tolerance=0, max_iters=k)
        assert solution.iterations == k
        torch.testing.assert_close(solution.plan, problem.plan(f, g))
    torch.testing.assert_close(
        problem.plan_from(start), problem.solve(start, tolerance=0, max_iters=2).plan
    )


@pytest.mark.parametrize("eps", [0.02, 0.001])
def test_a_potential_that_is_far_off_is_updated_as_any_other(eps):
    """Rows and columns of its plan underflow, where no scaling helps."""
    problem = Entropic(make(eps=eps))
    f = 30 * torch.randn(
        len(problem.a), generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    for k in (1, 2, 3):
        plan = problem.solve(f, tolerance=0, max_iters=k).plan
        g, updated = f, f
        for _ in range(k):
            g = problem.target_potential(updated)
            updated = problem.source_potential(g)
        torch.testing.assert_close(plan, problem.plan(updated, g), rtol=1e-6, atol=1e-12)
        torch.testing.assert_close(plan.sum(1), problem.a)


def test_from_the_solution_there_is_nothing_left_to_do():
    problem = Entropic(make())
    solution = problem.solve()
    assert solution.iterations > 5
    assert problem.solve(solution.f).iterations == 1
    assert problem.solve(solution.f + 3.7).iterations == 1, "a constant is of no consequence"


def test_the_two_sided_objective_is_the_dual_before_and_after_half_an_iteration():
    """As the authors of OA-OT write it, <a, f - f_a> + <b, g - g_b> + eps (1 - sum P), and as the
    sum of two semi-duals.
    """
    problem = Entropic(make())
    eps, f = problem.eps, torch.linspace(-1, 1, len(problem.a), dtype=torch.float64)
    g = problem.target_potential(f)
    # in their gauge potentials contain eps log of the weights
    gauge_f, gauge_g = f + eps * problem.a.log(), g + eps * problem.b.log()
    of_rows = eps * ((gauge_g - problem.matrix) / eps).logsumexp(1)
    of_columns = eps * ((gauge_f[:, None] - problem.matrix) / eps).logsumexp(0)
    mass = ((gauge_f[:, None] + gauge_g - problem.matrix) / eps).exp().sum()
    theirs = problem.a @ (gauge_f - of_rows) + problem.b @ (gauge_g - of_columns) + eps * (1 - mass)
    semidual = problem.a @ f + problem.b @ g
    after = problem.b @ g + problem.a @ problem.source_potential(g)
    entropy = eps * (problem.a @ problem.a.log() + problem.b @ problem.b.log())
    assert float(theirs) == pytest.approx(float(semidual + after + entropy), rel=1e-12)


def test_duality_at_the_solution():
    """<a, f> + <b, g> = <C, P> + eps KL(P | a b')."""
    problem = Entropic(make())
    solution = problem.solve()
    plan = solution.plan
    entropy = float((plan * (plan / (problem.a[:, None] * problem.b)).log()).sum())
    assert float(problem.a @ solution.f + problem.b @ solution.g) == pytest.approx(
        solution.cost + problem.eps * entropy, rel=1e-8
    )


def test_transposed_is_the_problem_of_the_exchanged_clouds():
    pair = make()
    there, back = Entropic(pair), Entropic(replace(pair, x=pair.y, a=pair.b, y=pair.x, b=pair.a))
    swapped = there.transposed()
    torch.testing.assert_close(swapped.matrix, back.matrix)
    torch.testing.assert_close(swapped.solve().plan, there.solve().plan.T, rtol=0, atol=1e-8)
    f = torch.linspace(0, 1, len(back.a), dtype=torch.float64)
    torch.testing.assert_close(swapped.target_potential(f), back.target_potential(f))
    torch.testing.assert_close(
        swapped.on_all_points(swapped.solve().plan), back.on_all_points(back.solve().plan)
    )


def test_the_potential_of_points_without_mass_is_the_c_transform():
    pair = make()
    solution = Entropic(pair).solve()
    everywhere = solution.everywhere()
    torch.testing.assert_close(everywhere[2:], solution.f, rtol=0, atol=1e-7)
    costs = SQEUCLIDEAN.matrix(pair.x, pair.y[2:])
    torch.testing.assert_close(
        everywhere, -0.3 * (pair.b[2:] * ((solution.g - costs) / 0.3).exp()).sum(1).log()
    )


@pytest.mark.parametrize("eps", [0.03, 0.3])
def test_the_method_of_newton_finds_what_sinkhorns_algorithm_does(eps):
    problem = Entropic(make(eps=eps))
    start = problem.solve(max_iters=10)
    found, expected = problem.polished(start.f, max_iters=50), problem.solve(max_iters=100_000)
    assert found.error <= TOLERANCE < start.error
    torch.testing.assert_close(found.plan, expected.plan, rtol=0, atol=1e-8)


def test_the_truth_of_a_batch_on_which_sinkhorns_algorithm_stalls():
    """Two groups of equal weight far apart, of sizes that do not match: one point's mass has to be
    shared across.
    """
    x = torch.tensor([[0.0], [0.1], [0.2], [9.0]], dtype=torch.float64)
    y = torch.tensor([[0.0], [0.1], [9.0], [9.1]], dtype=torch.float64)
    weights = x.new_full((4,), 0.25)
    pair = DiscreteProblem(x, weights, y, weights, SQEUCLIDEAN, Truth("none"), 0.05)
    assert Entropic(pair).solve().error > TOLERANCE
    truth = entropic_truth(pair)
    assert truth.plan is not None and float((truth.plan.sum(1) - weights).abs().sum()) <= TOLERANCE
    assert float((truth.plan.sum(0) - weights).abs().sum()) <= TOLERANCE


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_truth_meets_its_marginals_in_the_dtype_of_the_pair(dtype):
    pair = make(dtype=dtype)
    truth = entropic_truth(pair)
    assert truth.certificate == "entropic" and truth.plan is not None and truth.plan.dtype == dtype
    error = float(
        (truth.plan.double().sum(0) - pair.b.double() / pair.b.double().sum()).abs().sum()
    )
    assert error <= (TOLERANCE * 1.01 if dtype == torch.float64 else 1e-6)


def test_iterations_that_do_not_suffice_are_an_error():
    with pytest.raises(
        ValueError,
        match=r"does not converge in 2 iterations at eps 0\.003: take a larger eps, or 0",
    ):
        entropic_truth(make(eps=0.003), max_iters=2)
