"""The adapters of POT's solvers of clouds, of GeomLoss and of SciPy's assignment: against direct
calls of the libraries, exact solutions and closed forms.
"""

# pyright: reportMissingImports=false
# (otbench/__init__.py lends the package the folders tasks/ and solvers/ of a checkout; a type
# checker does not see that.)

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import cache
from typing import Any

import ot
import pytest
import torch
from geomloss.ot import solve

from otbench import (
    EUCLIDEAN,
    GEODESIC,
    SQEUCLIDEAN,
    AmortizedProblem,
    DiscreteProblem,
    MapProblem,
    Measure,
    Truth,
)
from otbench.errors import DivergedError
from otbench.methods import adapting
from otbench.methods.discrete import Coupling, DiscreteSolver, SinkhornSolver
from otbench.methods.entropic import Entropic
from otbench.methods.exact import exact_plan
from otbench.metrics import marginal_l1
from otbench.scoring.convergence import certify
from otbench.solver import FitContext
from otbench.solvers.geomloss import GeomLoss
from otbench.solvers.pot_batch import PotBatch
from otbench.solvers.pot_bsp import PotBsp
from otbench.solvers.pot_eps_scaling import PotEpsScaling
from otbench.solvers.pot_factored import PotFactored
from otbench.solvers.pot_greenkhorn import PotGreenkhorn
from otbench.solvers.pot_lazy_emd import PotLazyEmd
from otbench.solvers.pot_lazy_sinkhorn import PotLazySinkhorn
from otbench.solvers.pot_lr_sinkhorn import PotLrSinkhorn
from otbench.solvers.pot_nystroem import PotNystroem
from otbench.solvers.pot_screenkhorn import PotScreenkhorn
from otbench.solvers.scipy_assignment import ScipyAssignment
from otbench.statuses import Stopped


BIJECTIONS: list[DiscreteSolver] = [ScipyAssignment(), PotBsp()]
SINKHORNS: list[type[SinkhornSolver]] = [
    GeomLoss,
    PotLazySinkhorn,
    PotBatch,
    PotEpsScaling,
    PotGreenkhorn,
]
ENTROPIC: list[SinkhornSolver] = [*(solver(eps=0.2) for solver in SINKHORNS), PotNystroem()]
SOLVERS: list[DiscreteSolver] = [
    *BIJECTIONS,
    *ENTROPIC,
    PotLrSinkhorn(),
    PotFactored(),
    PotLazyEmd(),
]


def name(solver: Any) -> str:
    return solver.name


def make_run(seed: int = 0) -> FitContext:
    """Its seeds are as large as those of a run may be."""
    generator = torch.Generator().manual_seed(seed)
    return FitContext("cpu", torch.float32, 2**32 - 1 - seed, generator)


def make_pair(n: int = 30, m: int = 24, dim: int = 2) -> DiscreteProblem:
    """Two weighted clouds; those of equal size have equal weights."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(k, dim, generator=generator, dtype=torch.float64) for k in (n, m))
    a, b = (torch.rand(k, generator=generator, dtype=torch.float64) + 0.1 for k in (n, m))
    if n == m:
        a, b = torch.ones_like(a), torch.ones_like(b)
    return DiscreteProblem(x, a / a.sum(), y + 1, b / b.sum(), SQEUCLIDEAN, Truth("none"))


def pair_for(solver: DiscreteSolver) -> DiscreteProblem:
    return make_pair(24, 24) if solver in BIJECTIONS else make_pair()


@cache
def coupled(solver: DiscreteSolver) -> Coupling:
    """Its coupling of `pair_for`, once for all tests."""
    return solver.couple(pair_for(solver), make_run())


def costs(pair: DiscreteProblem) -> torch.Tensor:
    return pair.cost.matrix(pair.x, pair.y)


def cost_of(pair: DiscreteProblem, plan: torch.Tensor) -> float:
    return float((plan * costs(pair)).sum())


def optimum(pair: DiscreteProblem) -> float:
    return exact_plan(costs(pair).numpy(), pair.a.numpy(), pair.b.numpy()).cost


def slack(solver: DiscreteSolver) -> float:
    """Marginal error that the solver is to meet: GeomLoss has no stopping rule, and the kernel of
    Nystroem is an approximation.
    """
    if isinstance(solver, GeomLoss | PotNystroem):
        return 0.02
    return getattr(solver, "tolerance", 1e-12) if not isinstance(solver, PotFactored) else 1e-12


@pytest.mark.parametrize("solver", SOLVERS, ids=name)
def test_plans_are_couplings_no_cheaper_than_the_optimum(solver):
    pair, plan = pair_for(solver), coupled(solver).plan
    assert plan.dtype == torch.float64 and plan.shape == (len(pair.x), len(pair.y))
    assert (plan >= 0).all() and marginal_l1(plan, pair.a, pair.b) <= slack(solver)
    assert cost_of(pair, plan) >= optimum(pair) - slack(solver) * float(costs(pair).max())


@pytest.mark.parametrize("solver", SINKHORNS[1:], ids=name)  # GeomLoss has no stopping rule
def test_sinkhorns_converge_at_more_than_a_thousand_points(solver):
    """There POT's scaling of eps absorbs its scalings without end, with its own threshold."""
    pair = make_pair(1100, 1050)
    assert certify(solver(eps=0.2).coupled(pair, make_run())).stopped == Stopped.CONVERGED


@pytest.mark.parametrize("solver", SINKHORNS, ids=name)
def test_sinkhorns_find_the_entropic_plan_and_its_potential(solver):
    """P_ij = a_i b_j exp((f_i + g_j - C_ij) / eps), f being the soft c-transform of g."""
    settings: dict[str, Any] = {"max_iters": 1000} if solver is GeomLoss else {"tolerance": 1e-9}
    near = 1e-4 if solver is GeomLoss else 1e-8
    pair = replace(make_pair(), eps=0.5)
    coupling = solver(**settings).couple(pair, make_run())
    assert coupling.eps == coupling.info["eps"] == 0.5 and coupling.g is not None
    truth = Entropic(pair).solve(tolerance=1e-12).plan
    torch.testing.assert_close(coupling.plan, truth, rtol=0, atol=near)
    gibbs = ((coupling.g - costs(pair)) / 0.5).exp() * pair.b
    gibbs = pair.a[:, None] * gibbs / gibbs.sum(1, keepdim=True)
    torch.testing.assert_close(coupling.plan, gibbs, rtol=0, atol=near)


def test_nystroem_is_near_the_entropic_plan_and_nearer_with_more_anchors():
    pair = make_pair(300, 300, dim=8)
    errors = []
    for anchors in (20, 100, 600):
        coupling = PotNystroem(anchors=anchors).couple(pair, make_run())
        truth = Entropic(pair, coupling.eps).solve().plan
        errors.append(float((coupling.plan - truth).abs().sum()) / 2)
    assert errors[0] > 3 * errors[1] > 9 * errors[2] and errors[1] < 0.02


def test_screenkhorn_is_not_converged_and_its_marginals_say_how_far():
    pair = make_pair(60, 60, dim=8)
    errors = []
    for eps in (0.2, 1.0, 5.0):
        found = PotScreenkhorn(eps=eps).coupled(pair, make_run())
        coupling, certificate = found.coupling, certify(found)
        errors.append(certificate.marginal_error)
        assert certificate.stopped == Stopped.EARLY
    assert errors[0] > 0.5 and errors[0] > 2 * errors[1] > 4 * errors[2]
    truth = Entropic(pair, coupling.eps).solve().plan
    assert float((coupling.plan - truth).abs().sum()) / 2 < 0.05
    tied = replace(pair, x=torch.zeros_like(pair.x), y=torch.zeros_like(pair.y))
    with pytest.raises(DivergedError, match="POT cannot screen these points"):
        PotScreenkhorn().couple(tied, make_run())


def direct(solver: DiscreteSolver) -> torch.Tensor:
    """The plan that the library finds when it is called on the arrays of `pair_for`."""
    pair = pair_for(solver)
    x, y, a, b = (held.numpy() for held in (pair.x, pair.y, pair.a, pair.b))
    cost, eps = costs(pair).numpy(), coupled(solver).eps
    if isinstance(solver, GeomLoss):
        found: Any = solve(cost, reg=eps, a=a, b=b, max_iter=100)
        plan = found.plan
    elif isinstance(solver, PotLazySinkhorn):
        plan = ot.solve_sample(x, y, a, b, reg=eps, lazy=True, tol=1e-3, max_iter=2000).lazy_plan[:]
    elif isinstance(solver, PotBatch):
        found = ot.batch.solve_sample_batch(x[None], y[None], eps, a[None], b[None], tol=2e-4)
        assert found.plan is not None
        plan = found.plan[0]
    elif isinstance(solver, PotGreenkhorn):
        plan = ot.sinkhorn(a, b, cost, eps, method="greenkhorn", stopThr=1e-6)
    elif isinstance(solver, PotEpsScaling):
        plan = ot.sinkhorn(a, b, cost, eps, method="sinkhorn_epsilon_scaling", stopThr=1e-7)
    elif isinstance(solver, PotScreenkhorn):
        plan = ot.bregman.screenkhorn(a, b, cost, eps)
    else:
        plan = ot.solve_sample(x, y, a, b, lazy=True).sparse_plan.toarray()
    return torch.as_tensor(plan)


@pytest.mark.filterwarnings("ignore:Sinkhorn did not converge:UserWarning")  # inner stages
@pytest.mark.filterwarnings("ignore:Bottleneck module is not installed:UserWarning")
@pytest.mark.parametrize("solver", [*ENTROPIC[:-1], PotLazyEmd(), PotScreenkhorn()], ids=name)
def test_plans_are_those_of_direct_calls(solver):
    near = 1e-12 if isinstance(solver, GeomLoss | PotLazyEmd | PotScreenkhorn) else 1e-3
    assert float((coupled(solver).plan - direct(solver)).abs().sum()) < near


def test_the_exact_ones_reach_the_optimum_with_their_duals():
    pair, coupling = make_pair(), coupled(PotLazyEmd())
    assert cost_of(pair, coupling.plan) == pytest.approx(optimum(pair), rel=1e-12)
    assert coupling.g is not None and coupling.info["optimal"] is True
    f = (costs(pair) - coupling.g).amin(1)
    assert float(pair.a @ f + pair.b @ coupling.g) == pytest.approx(optimum(pair), rel=1e-9)
    square = pair_for(ScipyAssignment())
    plan = coupled(ScipyAssignment()).plan
    assert cost_of(square, plan) == pytest.approx(optimum(square), rel=1e-12)
    assert torch.equal((plan > 0).sum(0), torch.ones(24)) and (plan.sum(1) == square.a).all()


@pytest.mark.parametrize("solver", [PotLazyEmd(), PotLazySinkhorn(eps=0.05)], ids=name)
def test_distances_are_a_cost_too(solver):
    pair = replace(make_pair(), cost=EUCLIDEAN)
    assert optimum(pair) - 1e-2 < cost_of(pair, solver.couple(pair, make_run()).plan)
    assert cost_of(pair, solver.couple(pair, make_run()).plan) < 1.1 * optimum(pair)


def test_any_cost_matrix_is_taken():
    pair = make_pair(24, 24, dim=3)
    pair = replace(pair, cost=GEODESIC)
    for solver in (ScipyAssignment(), *(each(eps=0.05, max_iters=3000) for each in SINKHORNS)):
        if solver.supports(pair) is None:
            plan = solver.couple(pair, make_run()).plan
            assert optimum(pair) - 1e-2 < cost_of(pair, plan) < 1.15 * optimum(pair), solver.name
    assert [solver.supports(pair) is None for solver in SOLVERS].count(True) == 5


@pytest.mark.parametrize("solver", [PotLrSinkhorn, PotFactored], ids=name)
def test_plans_have_the_rank_that_is_asked_for(solver):
    pair = make_pair()
    plans = [solver(rank=rank).couple(pair, make_run()).plan for rank in (1, 3, 24)]
    torch.testing.assert_close(plans[0], pair.a[:, None] * pair.b, rtol=0, atol=1e-4)
    assert torch.linalg.matrix_rank(plans[1], rtol=1e-6) == 3
    prices = [cost_of(pair, plan) for plan in plans]
    assert prices[0] > prices[1] > prices[2] and prices[2] < 1.2 * optimum(pair)


def test_low_rank_plans_are_feasible_to_the_tolerance_that_they_stop_at():
    coupled = PotLrSinkhorn().coupled(make_pair(), make_run())
    found = certify(coupled)
    assert found.stopped == Stopped.FEASIBLE and 1e-6 < found.marginal_error <= 1e-3
    exact = replace(coupled, tolerance=1e-6)
    assert certify(exact).stopped == Stopped.EARLY


def test_bsp_finds_a_good_bijection_by_the_seed_alone():
    """POT's own seed is heeded by the first call of a thread only."""
    pair = make_pair(200, 200)
    first, again, other = (PotBsp().couple(pair, make_run(seed)).plan for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal((first > 0).sum(0), torch.ones(200))
    assert optimum(pair) < cost_of(pair, first) < 1.1 * optimum(pair)
    single = PotBsp(trees=1).couple(pair, make_run()).plan
    assert cost_of(pair, first) < cost_of(pair, single)


@pytest.mark.parametrize("solver", [*SOLVERS, PotScreenkhorn()], ids=name)
@pytest.mark.parametrize(("scale", "offset"), [(1e-6, 0.0), (1e6, 0.0), (1.0, 1e6)])
def test_scales_and_offsets_change_no_plan(solver, scale, offset):
    pair = pair_for(solver)
    moved = replace(pair, x=scale * pair.x + offset, y=scale * pair.y + offset)
    coupling = solver.couple(moved, make_run())
    # a pseudo-inverse of the kernel magnifies rounding
    near = 0.02 if isinstance(solver, PotNystroem) else 1e-5
    assert float((coupling.plan - coupled(solver).plan).abs().sum()) < near
    if coupling.g is not None:
        shift = coupling.g / scale**2 - coupled(solver).g
        assert float((shift - shift.mean()).abs().max()) < near


@pytest.mark.parametrize("solver", [*SOLVERS, PotScreenkhorn()], ids=name)
def test_points_without_mass_and_of_any_shape_change_nothing(solver):
    pair = pair_for(solver)
    nowhere = torch.full((2, 2), 1e3, dtype=torch.float64)
    x, y = (torch.cat([nowhere, points]).reshape(-1, 1, 2, 1) for points in (pair.x, pair.y))
    a, b = (torch.cat([torch.zeros(2).double(), weights]) for weights in (pair.a, pair.b))
    held = [tensor.clone() for tensor in (x, y, a, b)]
    coupling = solver.couple(replace(pair, x=x, y=y, a=a, b=b), make_run())
    assert all(map(torch.equal, held, (x, y, a, b)))
    assert coupling.plan[:2].abs().max() == 0 and coupling.plan[:, :2].abs().max() == 0
    torch.testing.assert_close(coupling.plan[2:, 2:], coupled(solver).plan, rtol=0, atol=1e-9)
    if coupling.g is not None:
        torch.testing.assert_close(coupling.g[2:], coupled(solver).g, rtol=0, atol=1e-6)


@pytest.mark.parametrize("solver", SOLVERS, ids=name)
def test_coinciding_points_are_coupled(solver):
    """All points at one place, and five copies of each."""
    pair = pair_for(solver)
    constant = replace(pair, x=torch.full_like(pair.x, 0.1), y=torch.full_like(pair.y, 0.1))
    plan = solver.couple(constant, make_run()).plan
    assert (plan >= 0).all() and marginal_l1(plan, pair.a, pair.b) <= slack(solver)
    copies = replace(pair, x=pair.x[torch.arange(len(pair.x)) // 5])
    plan = solver.couple(copies, make_run()).plan
    assert marginal_l1(plan, pair.a, pair.b) <= slack(solver)
    assert cost_of(copies, plan) >= optimum(copies) - slack(solver) * float(costs(copies).max())


def test_large_plans_of_few_entries_are_sparse(monkeypatch):
    pair = pair_for(ScipyAssignment())
    x, y = (torch.cat([points[:3], points]) for points in (pair.x, pair.y))
    a = torch.cat([torch.zeros(3).double(), pair.a])
    padded = replace(pair, x=x, y=y, a=a, b=a)
    solvers = (ScipyAssignment(), PotBsp(), PotLazyEmd())
    dense = [solver.couple(padded, make_run()).plan for solver in solvers]
    monkeypatch.setattr(adapting, "DENSE", 10)
    for solver, plan in zip(solvers, dense, strict=True):
        sparse = solver.couple(padded, make_run()).plan
        assert sparse.is_sparse and torch.equal(sparse.to_dense(), plan)


@pytest.mark.parametrize("cost", [SQEUCLIDEAN, EUCLIDEAN], ids=name)
def test_the_mean_cost_needs_no_cost_matrix(monkeypatch, cost):
    pair = replace(make_pair(), cost=cost)
    monkeypatch.setattr(adapting, "BLOCK", 7 * len(pair.b))
    assert adapting.mean_cost(pair) == pytest.approx(
        float(pair.a @ costs(pair) @ pair.b), rel=1e-14
    )


@pytest.mark.parametrize(
    ("solver", "error", "said"),
    [
        (PotLazySinkhorn(eps=1e-3, max_iters=10), UserWarning, "Sinkhorn did not converge"),
        (PotGreenkhorn(eps=0.01, max_iters=1), UserWarning, "Sinkhorn did not converge"),
        (PotEpsScaling(eps=1e-3, max_iters=100), UserWarning, "pot-eps-scaling has not met"),
        (PotLazyEmd(max_iters=1), UserWarning, "numItermax reached"),
        (PotGreenkhorn(eps=1e-5), DivergedError, r"exp\(-C / eps\) vanishes"),
        (PotNystroem(eps=1e-3), DivergedError, "take a larger eps or more anchors"),
        (ScipyAssignment(), ValueError, "as many points"),
        (PotBsp(), ValueError, "as many points"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_what_fails_is_said(solver, error, said):
    with warnings.catch_warnings():
        warnings.simplefilter("error" if error is UserWarning else "ignore")
        with pytest.raises(error, match=said):
            solver.couple(make_pair(), make_run())


def test_refusals_say_why():
    draw = lambda n, generator: torch.randn(n, 2, generator=generator)  # noqa: E731
    clouds = MapProblem(Measure((2,), draw), Measure((2,), draw), SQEUCLIDEAN, Truth("none"))
    square, weighted = make_pair(24, 24), make_pair()
    uneven = replace(square, a=weighted.a[:24] / weighted.a[:24].sum())
    stack = AmortizedProblem([square], [uneven], SQEUCLIDEAN, Truth("none"))
    for solver in SOLVERS:
        assert solver.supports(clouds) is None and solver.supports(square) is None
        taken = solver not in BIJECTIONS
        assert (solver.supports(weighted) is None) == (solver.supports(stack) is None) == taken
    for solver in BIJECTIONS:
        assert "not 30 and 24" in str(solver.supports(weighted))
        assert "equal weights" in str(solver.supports(uneven))
    for solver in (PotBsp(), PotLrSinkhorn(), PotFactored(), PotNystroem()):
        assert "not euclidean" in str(solver.supports(replace(square, cost=EUCLIDEAN)))


@pytest.mark.parametrize(
    ("solver", "bad"),
    [
        (PotLrSinkhorn, {"rank": 0}),
        (PotFactored, {"tolerance": 0.0}),
        (PotLazyEmd, {"max_iters": 0}),
        (PotLazySinkhorn, {"block": 0}),
        (PotNystroem, {"anchors": 1}),
        (PotBsp, {"trees": 0}),
        (PotScreenkhorn, {"kept": 1.0}),
    ],
)
def test_bad_parameters_are_named(solver, bad):
    (parameter,) = bad
    with pytest.raises(ValueError, match=parameter):
        solver(**bad)
