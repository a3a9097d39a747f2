"""The solvers that sliced potentials are compared with: learned potentials, learned sorting, and
the cheapest of many directions.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import itertools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from otbench import (
    GEODESIC,
    SQEUCLIDEAN,
    AmortizedProblem,
    DiscreteProblem,
    DivergedError,
    FitContext,
    Truth,
)
from otbench.methods.discrete import exact_truth
from otbench.methods.entropic import Entropic, entropic_truth
from otbench.methods.neural.networks import Weights
from otbench.metrics import entries, marginal, marginal_l1
from otbench.runner.contract import findings
from otbench.solver import Transport
from otbench.solvers import meta_ot
from otbench.solvers.meta_ot import MetaOt
from otbench.solvers.min_stp import MinStp, staircase
from otbench.solvers.pot_emd import PotEmd
from otbench.solvers.pot_sliced_plan import PotSlicedPlan
from otbench.tasks.digit_pairs import DigitPairs
from otbench.tasks.weight_pairs import WeightPairs


pytestmark = pytest.mark.usefixtures("one_thread")

WEIGHTS = MetaOt(width=128, steps=250)
SETS = MetaOt(encoder="set", width=64, depth=2, lr=3e-3, steps=250)
SCORES = MinStp(width=64, steps=500)


def make_run(dtype: torch.dtype = torch.float64, seed: int = 0) -> FitContext:
    return FitContext("cpu", dtype, seed, torch.Generator().manual_seed(seed))


def build(dtype: torch.dtype = torch.float64, **parameters: float) -> AmortizedProblem:
    task = WeightPairs(side=5, **parameters)  # type: ignore[arg-type]
    problem = task.problem(np.random.default_rng(0), device="cpu", dtype=dtype)
    assert isinstance(problem, AmortizedProblem)
    return problem


@pytest.fixture(scope="module")
def grids() -> AmortizedProblem:
    return build(train=40, test=10, eps=0.05)


def clouds(
    number: int, *, sphere: bool = False, eps: float = 0.0, seed: int = 0
) -> list[DiscreteProblem]:
    """Pairs of clouds of their own points and of their own sizes, some points without mass."""
    generator = torch.Generator().manual_seed(seed)

    def cloud(n: int, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
        points = torch.randn(n, dim, generator=generator, dtype=torch.float64)
        weights = torch.rand(n, generator=generator, dtype=torch.float64)
        weights[:2] = 0
        return GEODESIC.project(points) if sphere else points, weights / weights.sum()

    cost, dim = (GEODESIC, 3) if sphere else (SQEUCLIDEAN, 2)
    pairs = []
    for i in range(number):
        (x, a), (y, b) = cloud(15 + i % 3, dim), cloud(20 - i % 4, dim)
        pairs.append(
            DiscreteProblem(x, a, y if sphere else 0.5 * y + 1, b, cost, Truth("none"), eps)
        )
    return pairs


def amortized(pairs: list[DiscreteProblem], test: int = 4) -> AmortizedProblem:
    solved = [
        replace(pair, truth=entropic_truth(pair) if pair.eps > 0 else exact_truth(pair))
        for pair in pairs[:test]
    ]
    return AmortizedProblem(pairs[test:], solved, pairs[0].cost, Truth("lp"))


def plan_of(transport: Transport, pair: DiscreteProblem) -> torch.Tensor:
    assert transport.plan is not None
    return transport.plan(pair)


def cost_of(pair: DiscreteProblem, plan: torch.Tensor) -> float:
    dense = plan.to_dense() if plan.is_sparse else plan
    return float((dense * pair.cost.matrix(pair.x, pair.y)).sum())


def error(pair: DiscreteProblem, plan: torch.Tensor) -> float:
    assert pair.truth.plan is not None
    return float((plan - pair.truth.plan).norm())


@pytest.mark.parametrize(
    "solver", [WEIGHTS, SETS, replace(WEIGHTS, pairs="given")], ids=["weights", "set", "given"]
)
def test_a_trained_network_beats_no_prediction_on_held_out_pairs(solver, grids):
    transport = solver.fit(grids, make_run())
    learned, without = [], []
    for pair in grids.test:
        problem = Entropic(pair)
        learned.append(error(pair, plan_of(transport, pair)))
        without.append(
            error(pair, problem.on_all_points(problem.plan_from(torch.zeros_like(problem.a))))
        )
    assert sum(learned) < 0.6 * sum(without)


@pytest.mark.parametrize("solver", [WEIGHTS, SETS], ids=["weights", "set"])
def test_training_raises_the_dual_up_to_its_optimum(solver, grids):
    optimum = 0.0
    for pair in grids.train:
        problem = Entropic(pair)
        solution = problem.solve()
        optimum += float(problem.a @ solution.f + problem.b @ solution.g) / len(grids.train)
    early, late = (
        replace(solver, steps=steps).fit(grids, make_run()).info["dual_value"] for steps in (2, 250)
    )
    assert isinstance(early, float) and isinstance(late, float)
    assert early < late < optimum
    assert optimum - late < 0.3 * (optimum - early)


def test_the_unit_of_the_cost_does_not_matter():
    pairs = clouds(12, eps=0.5)
    scaled = [replace(pair, x=3 * pair.x, y=3 * pair.y, eps=9 * pair.eps) for pair in pairs]
    solver = replace(SETS, steps=30)
    first, second = (
        plan_of(solver.fit(amortized(those), make_run()), those[0]) for those in (pairs, scaled)
    )
    torch.testing.assert_close(first, second, rtol=1e-6, atol=1e-12)


@pytest.fixture(scope="module")
def moving() -> tuple[AmortizedProblem, Transport]:
    problem = amortized(clouds(40, eps=0.3))
    return problem, SETS.fit(problem, make_run())


def test_sets_are_learnt_where_points_change(moving):
    problem, transport = moving
    for pair in problem.test:
        posed = Entropic(pair)
        assert error(pair, plan_of(transport, pair)) < error(
            pair, posed.on_all_points(posed.plan_from(torch.zeros_like(posed.a)))
        )


def test_sets_have_no_order(moving):
    problem, transport = moving
    pair = problem.test[0]
    rows, columns = (
        torch.randperm(n, generator=torch.Generator().manual_seed(1))
        for n in (len(pair.a), len(pair.b))
    )
    shuffled = replace(pair, x=pair.x[rows], a=pair.a[rows], y=pair.y[columns], b=pair.b[columns])
    torch.testing.assert_close(
        plan_of(transport, shuffled),
        plan_of(transport, pair)[rows][:, columns],
        rtol=1e-6,
        atol=1e-12,
    )


def test_splitting_a_point_of_a_set_splits_its_row(moving):
    problem, transport = moving
    pair = problem.test[0]
    a = torch.cat([pair.a, pair.a[-1:] / 2])
    a[-2] /= 2
    split = plan_of(transport, replace(pair, x=torch.cat([pair.x, pair.x[-1:]]), a=a))
    whole = plan_of(transport, pair)
    torch.testing.assert_close(split[:-2], whole[:-1], rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(split[-2] + split[-1], whole[-1], rtol=1e-6, atol=1e-12)


def test_the_encoder_of_weights_refuses_other_points(grids):
    other = amortized(clouds(8, eps=0.3))
    assert "encoder=set" in (MetaOt().supports(other) or "")
    assert MetaOt(encoder="set").supports(other) is None
    transport = replace(WEIGHTS, steps=1).fit(grids, make_run())
    with pytest.raises(ValueError, match="encoder=set"):
        plan_of(transport, other.test[0])
    pair = grids.test[0]
    with pytest.raises(ValueError, match="encoder=set"):
        plan_of(transport, replace(pair, x=pair.x + 0.1))
    copied = replace(pair, x=pair.x.clone())
    torch.testing.assert_close(plan_of(transport, copied), plan_of(transport, pair))


@pytest.mark.parametrize(
    "pairs",
    [
        clouds(4, eps=0.3),
        clouds(4, eps=0.3, sphere=True),
        build(train=4, test=1, eps=0.05).train,
    ],
    ids=["plane", "sphere", "images"],
)
def test_a_batch_of_padded_pairs_has_the_slopes_of_its_pairs(pairs):
    """Of the semi-dual: clouds of different sizes, and images with pixels without mass."""
    problems = [Entropic(pair) for pair in pairs]
    source, target = meta_ot._sides(problems)
    costs = meta_ot._costs(source, target, pairs[0].cost)(source, target)
    shape = source.masses.shape
    f = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for number, (problem, cost) in enumerate(zip(problems, costs, strict=True)):
        a, b = source.masses[number], target.masses[number]
        eps = torch.tensor(problem.eps, dtype=torch.float64)
        found = meta_ot._semidual_gradient(f[number], cost, a, b, eps)
        own, rest = found.split([len(problem.a), shape[1] - len(problem.a)])
        potential = f[number, : len(problem.a)]
        plan = problem.plan(potential, problem.target_potential(potential))
        torch.testing.assert_close(own, problem.a - plan.sum(1), rtol=0, atol=1e-14)
        assert not rest.any()


@pytest.mark.parametrize("solver", [WEIGHTS, SETS], ids=["weights", "set"])
def test_values_do_not_depend_on_the_batch(solver, grids):
    """Nor on whether pairs are known to share their points."""
    problems = [Entropic(pair) for pair in grids.train[:5]]
    network = solver._network(grids.train, make_run())
    weights = Weights.draw(network, [torch.Generator().manual_seed(0)], torch.float64).frozen
    together = network(weights, *meta_ot._sides(problems))
    for values, problem in zip(together, problems, strict=True):
        alone = network(weights, *meta_ot._sides([problem]))[0]
        torch.testing.assert_close(values[: len(alone)], alone)
        moved = replace(problem.pair, x=problem.pair.x + 1)  # so that no two share theirs
        if solver is SETS:
            (alone, _) = network(weights, *meta_ot._sides([problem, Entropic(moved)]))
            torch.testing.assert_close(alone[: len(problem.a)], values[: len(problem.a)])


def test_seconds_end_the_training(grids):
    solver = replace(WEIGHTS, steps=10**9, seconds=0.5)
    info = solver.fit(grids, make_run()).info
    assert 1 <= info["steps"] < 10**6  # type: ignore[operator]


def test_weights_that_are_not_finite_are_seen_where_time_ends_the_training(grids, monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr(meta_ot, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    solver = MetaOt(width=8, depth=6, lr=3e38, steps=10**6, seconds=20)
    with pytest.raises(DivergedError, match="lower lr"):
        solver.fit(grids, make_run(torch.float32))


def test_a_staircase_is_the_exact_plan_on_a_line():
    for pair in clouds(6):
        line = replace(pair, x=pair.x[2:, :1], a=pair.a[2:], y=pair.y[2:, :1], b=pair.b[2:])
        rows, columns, masses = staircase(line.x[:, 0], line.y[:, 0], line.a, line.b)
        assert len(masses) <= len(line.a) + len(line.b) - 1 and float(masses.min()) > 0
        plan = torch.zeros(len(line.a), len(line.b), dtype=torch.float64).index_put(
            (rows, columns), masses, accumulate=True
        )
        assert marginal_l1(plan, line.a, line.b) < 1e-14
        assert cost_of(line, plan) == pytest.approx(exact_truth(line).cost, rel=1e-12)


def two_groups(pairs: list[DiscreteProblem]) -> list[DiscreteProblem]:
    """Clouds of the sphere, drawn to two opposite points of it."""
    stretch = torch.tensor([0.2, 2.0, 0.2], dtype=torch.float64)
    return [
        replace(pair, x=GEODESIC.project(pair.x * stretch), y=GEODESIC.project(pair.y * stretch))
        for pair in pairs
    ]


def gap(problem: AmortizedProblem, solver: MinStp, seed: int) -> float:
    """Of the costs of all held-out plans to the optimal ones, after a look at each plan."""
    transport = solver.fit(problem, make_run(seed=seed))
    total = 0.0
    for pair in problem.test:
        plan, optimum = plan_of(transport, pair), pair.truth.cost
        assert (
            plan.is_sparse
            and len(entries(plan)) <= int((pair.a > 0).sum()) + int((pair.b > 0).sum()) - 1
        )
        assert marginal_l1(plan, pair.a, pair.b) < 1e-12
        assert not marginal(plan, 1)[pair.a == 0].any() and not marginal(plan, 0)[pair.b == 0].any()
        assert optimum is not None and cost_of(pair, plan) >= optimum - 1e-12
        total += cost_of(pair, plan) - optimum
    return total


@pytest.mark.parametrize("space", ["digits", "sphere"])
def test_learnt_scores_sort_into_sparse_plans_that_are_cheaper_than_those_of_random_scores(space):
    if space == "digits":
        problem = DigitPairs(data="digits", train=50, test=20, eps=0.0).problem(
            np.random.default_rng(0), device="cpu", dtype=torch.float64
        )
    else:
        problem = amortized(two_groups(clouds(40, sphere=True)), test=10)
    untrained = [gap(problem, replace(SCORES, lr=1e-12, steps=1), seed) for seed in range(5)]
    assert gap(problem, SCORES, seed=0) < 0.9 * sum(untrained) / 5


def test_equal_clouds_are_not_moved():
    """Whatever the scores: they are the same for both."""
    pairs = [replace(pair, y=pair.x, b=pair.a) for pair in clouds(6)]
    transport = MinStp(steps=1).fit(amortized(pairs), make_run())
    assert all(cost_of(pair, plan_of(transport, pair)) < 1e-12 for pair in pairs)


def test_the_soft_plan_has_the_cost_of_the_sorted_one_in_the_limit():
    errors = torch.zeros(3, dtype=torch.float64)
    for pair in clouds(5):
        problem = Entropic(pair)
        s, t = problem.pair.x[problem.rows, 0], problem.pair.y[problem.columns, 0]
        rows, columns, masses = staircase(s, t, problem.a, problem.b)
        hard = float(masses @ problem.matrix[rows, columns])
        for i, softness in enumerate((1.0, 0.1, 1e-4)):
            errors[i] += (
                abs(float(MinStp(softness=softness).soft_cost(problem, s, t)) / hard - 1) / 5
            )
    assert errors[0] > errors[1] > errors[2] and errors[2] < 0.02


def test_the_cheapest_direction_on_the_sphere():
    problem = amortized(clouds(5, sphere=True))
    few, many = (
        PotSlicedPlan(projections=projections).fit(problem, make_run()) for projections in (3, 200)
    )
    exact = PotEmd().fit(problem, make_run())
    costs = torch.tensor(
        [[cost_of(pair, plan_of(of, pair)) for pair in problem.test] for of in (exact, many, few)]
    )
    assert (costs[0] <= costs[1] + 1e-12).all() and (costs[1] < costs[2]).all()
    independent = [cost_of(pair, pair.a[:, None] * pair.b) for pair in problem.test]
    assert costs[1].sum() < 0.8 * sum(independent)
    for pair in problem.test:
        assert marginal_l1(plan_of(many, pair), pair.a, pair.b) < 1e-12


CONTRACTS = [
    (MetaOt(steps=5), {"eps": 0.05}),
    (MetaOt(encoder="set", steps=5), {"eps": 0.05}),
    (MinStp(steps=5), {}),
    (MinStp(steps=5), {"eps": 0.05}),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("solver", "parameters"), CONTRACTS)
def test_the_contract_is_kept(solver, parameters, dtype):
    problem = build(dtype, train=4, test=2, **parameters)
    assert solver.supports(problem) is None
    assert findings(solver, problem, "cpu", dtype) == []


@pytest.mark.parametrize(
    "solver", [MetaOt(), MetaOt(encoder="set"), MinStp()], ids=["weights", "set", "scores"]
)
def test_what_cannot_be_learnt_from_is_refused(solver):
    assert "none to train on" in (solver.supports(build(train=0, test=1, eps=0.05)) or "")
    assert "amortized setting only" in (solver.supports(clouds(1)[0]) or "")
    assert (solver.supports(build(train=1, test=1)) is None) == isinstance(solver, MinStp)


@pytest.mark.parametrize(
    ("solver", "parameters"),
    [
        (MetaOt, {"encoder": "image"}),
        (MetaOt, {"pairs": "all"}),
        (MetaOt, {"decay": "linear"}),
        (MetaOt, {"steps": 0}),
        (MetaOt, {"batch": 0}),
        (MetaOt, {"lr": 0.0}),
        (MetaOt, {"seconds": -1.0}),
        (MinStp, {"pairs": "all"}),
        (MinStp, {"context": 0}),
        (MinStp, {"softness": 0.0}),
        (MinStp, {"decay": "linear"}),
    ],
)
def test_parameters_that_define_nothing_are_refused(solver, parameters):
    (name,) = parameters
    with pytest.raises(ValueError, match=f"^{name} must"):
        solver(**parameters)


@pytest.mark.parametrize("solver", [MetaOt, MinStp])
def test_presets_are_settings(solver):
    for preset in solver.presets.values():
        built = solver(**preset)
        assert {name: getattr(built, name) for name in preset} == dict(preset)
