"""The adapters of the trivial maps and of the discrete methods, against closed forms, scipy and
each other.
"""

# pyright: reportMissingImports=false
# (otbench/__init__.py lends the package the folders tasks/ and solvers/ of a checkout; a type
# checker does not see that.)

import itertools
import re
from dataclasses import replace

import numpy as np
import ot
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from otbench import (
    EUCLIDEAN,
    GEODESIC,
    SQEUCLIDEAN,
    DiscreteProblem,
    MapProblem,
    Measure,
    Problem,
    Solver,
    Truth,
)
from otbench.methods.discrete import DiscreteSolver, SinkhornSolver
from otbench.methods.extension import extend
from otbench.metrics import l2_uvp, marginal_l1
from otbench.problem import Task
from otbench.scoring.convergence import certify
from otbench.solver import FitContext
from otbench.solvers.constant import Constant
from otbench.solvers.linear import Linear
from otbench.solvers.ott_sinkhorn import OttSinkhorn
from otbench.solvers.pot_emd import PotEmd
from otbench.solvers.pot_sinkhorn import PotSinkhorn
from otbench.solvers.pot_sliced_plan import PotSlicedPlan
from otbench.statuses import Stopped
from otbench.tasks.gaussian import Gaussian
from otbench.tasks.hyperbola import Hyperbola
from otbench.tasks.w1_funnels import W1Funnels


# Said on import by a dependency of OTT.
pytestmark = pytest.mark.filterwarnings("ignore:JAXopt is no longer maintained:DeprecationWarning")

DISCRETE: list[DiscreteSolver] = [
    PotEmd(n=64),
    PotSinkhorn(n=64),
    OttSinkhorn(n=64),
    PotSlicedPlan(n=64, projections=20),
    PotSlicedPlan(n=64, projections=20, plan="expected"),
]
SOLVERS: list[Solver] = [Constant(n=5000), Linear(n=1000), *DISCRETE]
SINKHORNS: list[type[SinkhornSolver]] = [PotSinkhorn, OttSinkhorn]


def name(solver: object) -> str:
    plan = getattr(solver, "plan", "")
    return f"{getattr(solver, 'name', solver)}{'-' + plan if plan else ''}"


def make_run(seed: int = 0) -> FitContext:
    return FitContext("cpu", torch.float32, seed, torch.Generator().manual_seed(seed))


def gaussian(dim: int = 2, shift: float = 1.0, condition: float = 10.0) -> MapProblem:
    task = Gaussian(dim=dim, shift=shift, condition=condition)
    return task.problem(np.random.default_rng(0), device="cpu", dtype=torch.float32)


def make_pair(n: int = 40, m: int = 30, dim: int = 2, seed: int = 0) -> DiscreteProblem:
    """Two weighted clouds; the first three points of each have no weight."""
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(k, dim, generator=generator, dtype=torch.float64) for k in (n, m))
    a, b = (torch.rand(k, generator=generator, dtype=torch.float64) + 0.1 for k in (n, m))
    a[:3], b[:3] = 0, 0
    return DiscreteProblem(x, a / a.sum(), y + 1, b / b.sum(), SQEUCLIDEAN, Truth("none"))


def uniform(pair: DiscreteProblem) -> DiscreteProblem:
    a, b = (torch.full_like(weights, 1 / len(weights)) for weights in (pair.a, pair.b))
    return replace(pair, a=a, b=b)


def cost_of(pair: DiscreteProblem, plan: torch.Tensor) -> float:
    return float((plan * pair.cost.matrix(pair.x, pair.y)).sum())


def push_of(solver: Solver, problem: Problem, x: torch.Tensor, seed: int = 0) -> torch.Tensor:
    transport = solver.fit(problem, make_run(seed))
    assert transport.push is not None
    return transport.push(x)


def uvp(solver: Solver, problem: MapProblem) -> float:
    assert problem.truth.map is not None and problem.target.variance is not None
    x = problem.source.sample(4096, torch.Generator().manual_seed(99))
    return l2_uvp(push_of(solver, problem, x), problem.truth.map(x), problem.target.variance)


@pytest.mark.parametrize("dim", [1, 2, 16])
def test_linear_reaches_the_closed_form(dim):
    assert uvp(Linear(), gaussian(dim, shift=3.0)) < 0.1


def test_linear_survives_a_measure_on_a_line():
    problem = gaussian()
    flat = torch.tensor([1.0, 0.0])
    source = replace(
        problem.source, draw=lambda n, generator: problem.source.draw(n, generator) * flat
    )
    pushed = push_of(
        Linear(),
        replace(problem, source=source),
        source.sample(1000, torch.Generator().manual_seed(1)),
    )
    assert torch.isfinite(pushed).all() and pushed.std(0).max() < 2


def test_constant_scores_all_of_the_variance():
    problem = gaussian(dim=4, shift=10.0)
    assert uvp(Constant(), problem) == pytest.approx(100, rel=0.05)
    pushed = push_of(Constant(), problem, torch.zeros(7, 4))
    assert problem.target.mean is not None
    torch.testing.assert_close(pushed, problem.target.mean.expand(7, 4), rtol=0, atol=0.02)


def test_constant_takes_points_of_any_shape_and_a_ragged_last_batch():
    images = Measure((1, 2, 3), lambda n, generator: torch.ones(n, 1, 2, 3))
    problem = MapProblem(
        Measure((5,), lambda n, generator: torch.zeros(n, 5)), images, SQEUCLIDEAN, Truth("none")
    )
    torch.testing.assert_close(
        push_of(Constant(n=4097), problem, torch.zeros(2, 5)), torch.ones(2, 1, 2, 3)
    )


def test_emd_is_the_assignment_of_scipy():
    pair = uniform(make_pair(n=50, m=50, dim=3))
    coupled = PotEmd().coupled(pair, make_run())
    coupling = coupled.coupling
    matrix = pair.cost.matrix(pair.x, pair.y)
    rows, columns = linear_sum_assignment(matrix.numpy())
    assert cost_of(pair, coupling.plan) == pytest.approx(
        float(matrix[rows, columns].mean()), rel=1e-10
    )
    assert certify(coupled).stopped == Stopped.CONVERGED
    assert torch.allclose(extend(coupling, pair)(pair.x), pair.y[columns], rtol=1e-14)


def test_emd_says_when_the_pivots_run_out():
    found = certify(PotEmd(max_iters=2).coupled(make_pair(), make_run()))
    assert found.stopped == Stopped.EARLY
    assert found.duality_gap is not None and found.duality_gap > 1e-3


@pytest.mark.parametrize("cost", [EUCLIDEAN, GEODESIC], ids=lambda cost: cost.name)
@pytest.mark.parametrize("solver", [PotEmd(), PotSinkhorn(eps=0.01, max_iters=5000)], ids=name)
def test_pot_takes_other_costs(solver, cost):
    pair = make_pair()
    pair = replace(
        pair,
        x=pair.x / pair.x.norm(dim=1, keepdim=True),
        y=pair.y / pair.y.norm(dim=1, keepdim=True),
        cost=cost,
    )
    assert solver.supports(pair) is None
    optimum = cost_of(pair, PotEmd().couple(pair, make_run()).plan)
    assert optimum - 1e-3 <= cost_of(pair, solver.couple(pair, make_run()).plan) < optimum * 1.1


@pytest.mark.parametrize("solver", DISCRETE, ids=name)
@pytest.mark.parametrize("weights", ["weighted", "uniform"])
def test_plans_are_couplings_no_cheaper_than_the_optimum(solver, weights):
    pair = make_pair() if weights == "weighted" else uniform(make_pair(n=40, m=40))
    coupling = solver.couple(pair, make_run())
    slack = solver.tolerance if isinstance(solver, SinkhornSolver) else 1e-12
    assert coupling.plan.dtype == torch.float64 and coupling.plan.shape == (
        len(pair.x),
        len(pair.y),
    )
    assert marginal_l1(coupling.plan, pair.a, pair.b) <= slack and (coupling.plan >= 0).all()
    matrix = pair.cost.matrix(pair.x, pair.y)
    assert cost_of(pair, coupling.plan) >= cost_of(
        pair, PotEmd().couple(pair, make_run()).plan
    ) - slack * float(matrix.max())


@pytest.mark.parametrize("solver", DISCRETE, ids=name)
def test_points_without_weight_change_nothing(solver):
    pair = make_pair()
    without = replace(pair, x=pair.x[3:], a=pair.a[3:], y=pair.y[3:], b=pair.b[3:])
    full, part = (solver.couple(each, make_run()) for each in (pair, without))
    assert full.plan[:3].abs().max() == 0 and full.plan[:, :3].abs().max() == 0
    torch.testing.assert_close(full.plan[3:, 3:], part.plan, rtol=1e-3, atol=1e-6)
    new = torch.randn(20, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    torch.testing.assert_close(
        extend(full, pair)(new), extend(part, without)(new), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("solver", SINKHORNS, ids=lambda solver: solver.name)
def test_eps_is_in_cost_units_under_both_rules(solver):
    pair = make_pair()
    mean_cost = float(pair.a @ pair.cost.matrix(pair.x, pair.y) @ pair.b)
    relative = solver(eps=0.1).coupled(pair, make_run())
    absolute = solver(eps=0.1 * mean_cost, eps_rule="absolute").coupled(pair, make_run())
    for coupled in (relative, absolute):
        coupling = coupled.coupling
        assert coupling.info["eps"] == pytest.approx(0.1 * mean_cost)
        assert coupling.info["eps_over_mean_cost"] == pytest.approx(0.1)
        assert certify(coupled).stopped == Stopped.CONVERGED
    plans = relative.coupling.plan, absolute.coupling.plan
    torch.testing.assert_close(*plans, rtol=1e-5, atol=1e-8)


@pytest.mark.filterwarnings("ignore:Sinkhorn did not converge:UserWarning")
@pytest.mark.parametrize("solver", SINKHORNS, ids=lambda solver: solver.name)
def test_sinkhorn_says_when_it_has_not_converged(solver):
    coupled = solver(eps=0.001, max_iters=10, tolerance=1e-6).coupled(make_pair(), make_run())
    found = certify(coupled)
    assert found.stopped == Stopped.LIMIT and found.marginal_error > 1e-6
    assert coupled.coupling.info["iterations"] == 10


@pytest.mark.parametrize(
    ("solver", "cost", "rtol"),
    [
        (PotSinkhorn(tolerance=1e-10), SQEUCLIDEAN, 1e-9),
        (OttSinkhorn(tolerance=1e-5), EUCLIDEAN, 1e-4),
    ],
    ids=["pot-sinkhorn", "ott-sinkhorn"],
)
def test_potentials_are_relative_to_the_weights(solver, cost, rtol):
    """P_ij = a_i b_j exp((f_i + g_j - C_ij) / eps), f being the soft c-transform of g."""
    pair = replace(make_pair(), cost=cost)
    coupling = solver.couple(pair, make_run())
    assert coupling.g is not None and coupling.eps is not None and torch.isfinite(coupling.g).all()
    gibbs = ((coupling.g - pair.cost.matrix(pair.x, pair.y)) / coupling.eps).exp() * pair.b
    torch.testing.assert_close(
        coupling.plan, pair.a[:, None] * gibbs / gibbs.sum(1, keepdim=True), rtol=rtol, atol=1e-14
    )


def test_ott_finds_the_euclidean_plan_of_pot():
    """Also where points of the two clouds coincide, and the distance has no gradient."""
    pair = make_pair()
    pair = replace(pair, y=torch.cat([pair.x[3:8], pair.y[5:]]), cost=EUCLIDEAN)
    coupling = OttSinkhorn(eps=0.1, eps_rule="absolute", tolerance=1e-5).couple(pair, make_run())
    cost = torch.cdist(pair.x, pair.y, compute_mode="donot_use_mm_for_euclid_dist")
    plan = ot.sinkhorn(
        pair.a, pair.b, cost, 0.1, method="sinkhorn_log", numItermax=5000, stopThr=1e-10
    )
    assert isinstance(plan, torch.Tensor)
    torch.testing.assert_close(coupling.plan, plan, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("task", [Hyperbola(), W1Funnels(dim=2)], ids=lambda task: task.name)
def test_ott_has_the_euclidean_map_and_potential_of_pot(task: Task):
    problem = task.problem(np.random.default_rng(0), device="cpu", dtype=torch.float32)
    assert isinstance(problem, MapProblem) and problem.cost == EUCLIDEAN
    x = problem.source.sample(200, torch.Generator().manual_seed(1)).double().requires_grad_()
    pushed, gradients = [], []
    for solver in SINKHORNS:
        transport = solver(n=128, tolerance=1e-5).fit(problem, make_run())
        assert transport.push is not None and transport.potential is not None
        pushed.append(transport.push(x))
        gradients += torch.autograd.grad(transport.potential(x).sum(), x)
    torch.testing.assert_close(pushed[1], pushed[0], rtol=0, atol=1e-4)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("weights", ["weighted", "uniform"])
def test_the_entropic_maps_of_pot_and_ott_agree_with_the_formula(weights):
    pair = make_pair() if weights == "weighted" else uniform(make_pair())
    pot, ott = (solver(eps=0.1, tolerance=1e-5).couple(pair, make_run()) for solver in SINKHORNS)
    torch.testing.assert_close(ott.plan, pot.plan, rtol=1e-3, atol=1e-7)
    new = 2 * torch.randn(200, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert pot.g is not None and pot.eps is not None
    weight = pair.b * ((pot.g - (new[:, None] - pair.y).square().sum(2)) / pot.eps).exp()
    formula = weight @ pair.y / weight.sum(1, keepdim=True)
    torch.testing.assert_close(extend(pot, pair)(new), formula, rtol=1e-9, atol=1e-9)
    assert (extend(ott, pair)(new) - formula).norm() < 1e-3 * formula.norm()


@pytest.mark.parametrize("solver", SINKHORNS, ids=lambda solver: solver.name)
def test_the_entropic_cost_approaches_the_linear_program(solver):
    pair = make_pair()
    optimum = cost_of(pair, PotEmd().couple(pair, make_run()).plan)
    ladder = (1.0, 0.1, 0.01, 0.002)
    costs = [
        cost_of(
            pair, solver(eps=eps, max_iters=20000, tolerance=1e-4).couple(pair, make_run()).plan
        )
        for eps in ladder
    ]
    assert all(coarse > fine for coarse, fine in itertools.pairwise(costs))
    assert costs[0] > 1.5 * optimum and costs[-1] == pytest.approx(optimum, rel=0.01)


def test_more_directions_make_the_cheapest_sliced_plan_cheaper():
    pair = make_pair(dim=5)
    few, many = (PotSlicedPlan(projections=k).couple(pair, make_run()).plan for k in (2, 500))
    expected = PotSlicedPlan(projections=500, plan="expected").couple(pair, make_run()).plan
    assert cost_of(pair, many) < cost_of(pair, few)
    assert cost_of(pair, many) < cost_of(pair, expected) < cost_of(pair, pair.a[:, None] * pair.b)


@pytest.mark.parametrize("weights", ["weighted", "uniform"])
def test_sliced_plans_are_the_cheapest_and_the_average_of_those_of_the_directions(weights):
    pair = make_pair(dim=3) if weights == "weighted" else uniform(make_pair(n=40, m=40, dim=3))
    singles = []
    for plan in ot.sliced.sliced_plans(pair.x, pair.y, pair.a, pair.b, n_projections=7, seed=5)[0]:
        entries = torch.zeros(len(pair.x), len(pair.y), dtype=torch.float64)
        singles.append(entries.index_put((plan.rows, plan.cols), plan.data, accumulate=True))
    cheapest, average = (
        PotSlicedPlan(plan=plan, projections=7).couple(pair, make_run(5)).plan
        for plan in ("min", "expected")
    )
    assert torch.equal(cheapest, min(singles, key=lambda plan: cost_of(pair, plan)))
    torch.testing.assert_close(average, torch.stack(singles).mean(0))


def test_sliced_plans_are_optimal_on_a_line():
    pair = make_pair(dim=1)
    optimum = cost_of(pair, PotEmd().couple(pair, make_run()).plan)
    for plan in ("min", "expected"):
        assert cost_of(
            pair, PotSlicedPlan(plan=plan, projections=3).couple(pair, make_run()).plan
        ) == pytest.approx(optimum)


@pytest.mark.parametrize("solver", SOLVERS, ids=name)
def test_the_seed_decides(solver):
    problem, x = gaussian(), torch.randn(50, 2, generator=torch.Generator().manual_seed(1))
    assert torch.equal(push_of(solver, problem, x, seed=3), push_of(solver, problem, x, seed=3))
    assert not torch.equal(push_of(solver, problem, x, seed=3), push_of(solver, problem, x, seed=4))


@pytest.mark.parametrize("solver", SOLVERS, ids=name)
def test_push_acts_point_by_point_in_the_dtype_of_x(solver):
    x = torch.randn(9, 2, generator=torch.Generator().manual_seed(1))
    transport = solver.fit(gaussian(), make_run())
    before = x.clone()
    pushed = transport.push(x)
    assert pushed.dtype == torch.float32 and pushed.shape == x.shape and torch.equal(x, before)
    for i in range(len(x)):
        torch.testing.assert_close(
            transport.push(x[i : i + 1]), pushed[i : i + 1], rtol=1e-5, atol=1e-5
        )
    assert transport.push(x.double()).dtype == torch.float64


@pytest.mark.parametrize("solver", SOLVERS, ids=name)
def test_every_map_beats_nothing_at_all(solver):
    """Far apart Gaussians: the mean is what any solver finds, the identity does not."""
    problem = gaussian(shift=5.0)
    assert uvp(solver, problem) < 150


@pytest.mark.parametrize(
    "solver", [PotSinkhorn(n=512), OttSinkhorn(n=512), PotEmd(n=512)], ids=name
)
def test_discrete_maps_approach_the_closed_form(solver):
    assert uvp(solver, gaussian()) < 5


@pytest.mark.parametrize(
    "solver", [*SINKHORNS, PotEmd, PotSlicedPlan], ids=lambda solver: solver.name
)
def test_images_are_points_too(solver):
    draw = lambda n, generator: torch.randn(n, 1, 3, 3, generator=generator)  # noqa: E731
    problem = MapProblem(
        Measure((1, 3, 3), draw), Measure((1, 3, 3), draw), SQEUCLIDEAN, Truth("none")
    )
    pushed = push_of(solver(n=16), problem, draw(4, make_run(1).generator))
    assert pushed.shape == (4, 1, 3, 3) and pushed.dtype == torch.float32


@pytest.mark.parametrize(
    ("solver", "problem", "reason"),
    [
        (Constant(), make_pair(), "map problems only"),
        (Linear(), make_pair(), "map problems only"),
        (Linear(), replace(gaussian(), cost=GEODESIC), "sqeuclidean cost only, not geodesic"),
        (Linear(), replace(gaussian(), target=gaussian(dim=3).target), r"shapes \(2,\) and \(3,\)"),
        (
            OttSinkhorn(),
            replace(make_pair(), cost=GEODESIC),
            "sqeuclidean and euclidean costs only, not geodesic",
        ),
        (PotSlicedPlan(), replace(make_pair(), cost=GEODESIC), "not geodesic"),
    ],
)
def test_refusals_say_why(solver, problem, reason):
    said = solver.supports(problem)
    assert said is not None and re.search(reason, said)


@pytest.mark.parametrize("solver", SOLVERS, ids=name)
def test_a_gaussian_problem_is_taken(solver):
    assert solver.supports(gaussian()) is None


@pytest.mark.parametrize(
    ("solver", "bad"),
    [
        (Constant, {"n": 0}),
        (Linear, {"n": 1}),
        (PotEmd, {"max_iters": 0}),
        (PotEmd, {"n": -1}),
        (PotSinkhorn, {"eps": -0.1}),
        (OttSinkhorn, {"eps_rule": "median"}),
        (PotSlicedPlan, {"plan": "max"}),
        (PotSlicedPlan, {"projections": 0}),
    ],
)
def test_bad_parameters_are_named(solver, bad):
    (parameter,) = bad
    with pytest.raises(ValueError, match=parameter):
        solver(**bad)
