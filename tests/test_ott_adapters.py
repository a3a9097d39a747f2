"""The adapters of OTT-JAX beside Sinkhorn's algorithm, against scipy, POT, closed forms and direct
calls.
"""

# pyright: reportMissingImports=false
# (otbench/__init__.py lends the package the folders tasks/ and solvers/ of a checkout; a type
# checker does not see that.)

from __future__ import annotations

import importlib.util
import pickle
import re
from dataclasses import replace
from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

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
from otbench.errors import DivergedError, UserError
from otbench.methods.discrete import Coupling, DiscreteSolver
from otbench.methods.extension import extend
from otbench.methods.standard import Standard
from otbench.metrics import marginal_l1
from otbench.solver import FitContext, Solver
from otbench.solvers.ott_enot import OttEnot
from otbench.solvers.ott_hungarian import OttHungarian
from otbench.solvers.ott_lr_sinkhorn import OttLrSinkhorn
from otbench.solvers.ott_monge_gap import OttMongeGap
from otbench.solvers.ott_neural_dual import OttNeuralDual
from otbench.solvers.ott_progot import OttProgot
from otbench.solvers.ott_semidiscrete import OttSemidiscrete
from otbench.solvers.pot_emd import PotEmd
from otbench.solvers.pot_sinkhorn import PotSinkhorn


N, M = 24, 18
FEW = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(3, 2)
neural = pytest.mark.skipif(
    importlib.util.find_spec("diffrax") is None, reason="ott.neural imports diffrax"
)


def make_run(seed: int = 0) -> FitContext:
    return FitContext("cpu", torch.float32, seed, torch.Generator().manual_seed(seed))


def make_pair(n: int = N, m: int = M, weighted: bool = False, dim: int = 2) -> DiscreteProblem:
    """Two clouds; where weighted, the first three points of each have no weight."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(k, dim, generator=generator, dtype=torch.float64) for k in (n, m))
    a, b = (torch.rand(k, generator=generator, dtype=torch.float64) + 0.1 for k in (n, m))
    a[:3], b[:3] = 0, 0
    if not weighted:
        a, b = torch.ones_like(a), torch.ones_like(b)
    return DiscreteProblem(x, a / a.sum(), y + 1, b / b.sum(), SQEUCLIDEAN, Truth("none"))


def moved(pair: DiscreteProblem, scale: float, offset: float) -> DiscreteProblem:
    return replace(pair, x=scale * pair.x + offset, y=scale * pair.y + offset)


def gaussian(scale: float = 1.0, offset: float = 0.0) -> MapProblem:
    """N(0, I) to N((1, 1), diag(4, 1/4)), both then scaled and shifted."""
    stretch = torch.tensor([2.0, 0.5], dtype=torch.float64)

    def measure(of: torch.Tensor, shift: float) -> Measure:
        def draw(n: int, generator: torch.Generator) -> torch.Tensor:
            normal = torch.randn(n, 2, generator=generator, dtype=torch.float64)
            return scale * (normal * of + shift) + offset

        return Measure((2,), draw)

    return MapProblem(
        measure(torch.ones_like(stretch), 0.0),
        measure(stretch, 1.0),
        SQEUCLIDEAN,
        Truth("none", map=lambda x: scale * ((x - offset) / scale * stretch + 1) + offset),
    )


def cost_of(pair: DiscreteProblem, plan: torch.Tensor) -> float:
    return float((plan * pair.cost.matrix(pair.x, pair.y)).sum())


@pytest.fixture(scope="module")
def low_rank() -> Coupling:
    return OttLrSinkhorn().couple(make_pair(weighted=True), make_run())


@pytest.fixture(scope="module")
def walked() -> Coupling:
    return OttProgot(steps=2, tolerance=1e-9).couple(make_pair(), make_run())


@pytest.mark.parametrize("cost", [SQEUCLIDEAN, GEODESIC], ids=lambda cost: cost.name)
def test_hungarian_is_the_assignment_of_scipy(cost):
    pair = replace(make_pair(N, N, dim=3), cost=cost)
    pair.y[:4] = pair.y[4:8].clone()  # ties
    plan = OttHungarian().couple(pair, make_run()).plan
    matrix = pair.cost.matrix(pair.x, pair.y)
    rows, columns = linear_sum_assignment(matrix.numpy())
    assert cost_of(pair, plan) == pytest.approx(float(matrix[rows, columns].mean()), rel=1e-14)
    assert marginal_l1(plan, pair.a, pair.b) < 1e-14
    assert plan.count_nonzero() == N


def test_low_rank_is_what_the_library_finds(low_rank):
    from ott.geometry.pointcloud import PointCloud
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers.linear.sinkhorn_lr import LRSinkhorn

    pair = make_pair(weighted=True)
    rank = low_rank.info["rank"]
    assert rank == M - 3 and torch.linalg.matrix_rank(low_rank.plan) <= rank
    with jax.enable_x64(True):
        x, y, a, b = (jnp.asarray(part[3:].numpy()) for part in (pair.x, pair.y, pair.a, pair.b))
        problem = LinearProblem(PointCloud(x, y, scale_cost="mean"), a, b)
        output = jax.jit(LRSinkhorn(rank, threshold=1e-5))(problem, rng=jax.random.key(0))
        direct = np.array(output.matrix)
    np.testing.assert_allclose(low_rank.plan[3:, 3:], direct, rtol=1e-6, atol=1e-9)


def test_low_rank_is_a_coupling_between_the_optimum_and_independence(low_rank):
    pair = make_pair(weighted=True)
    assert low_rank.plan[:3].abs().max() == 0 and low_rank.plan[:, :3].abs().max() == 0
    assert (low_rank.plan >= 0).all() and marginal_l1(low_rank.plan, pair.a, pair.b) < 2e-3
    optimum = cost_of(pair, PotEmd().couple(pair, make_run()).plan)
    independent = cost_of(pair, pair.a[:, None] * pair.b)
    assert 0.99 * optimum < cost_of(pair, low_rank.plan) < optimum + 0.2 * (independent - optimum)


def test_progot_walks_along_the_entropic_maps_of_pot(walked):
    """Two steps: half of the way along one entropic map, then all of the next, at one eps."""
    pair, new = make_pair(), make_pair(30).x + 0.5
    absolute = PotSinkhorn(eps=walked.info["eps"], eps_rule="absolute", tolerance=1e-11)
    first = absolute.couple(pair, make_run())
    halfway = replace(pair, x=(pair.x + extend(first, pair)(pair.x)) / 2)
    second = absolute.couple(halfway, make_run())
    stop = (new + extend(first, pair)(new)) / 2
    torch.testing.assert_close(walked.plan, second.plan, rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(extend(walked, pair)(new), extend(second, halfway)(stop))
    assert walked.info["eps_over_mean_cost"] == pytest.approx(0.05)


@pytest.mark.parametrize(("scale", "offset"), [(1e-6, 0.0), (1e6, 0.0), (1.0, 1e6)])
def test_plans_know_nothing_of_scale_and_place(scale, offset, low_rank, walked):
    weighted, equal = (moved(make_pair(weighted=flag), scale, offset) for flag in (True, False))
    again = OttLrSinkhorn().couple(weighted, make_run())
    torch.testing.assert_close(again.plan, low_rank.plan, rtol=0, atol=1e-6)
    again = OttProgot(steps=2, tolerance=1e-9).couple(equal, make_run())
    torch.testing.assert_close(again.plan, walked.plan, rtol=0, atol=1e-8)
    new = make_pair(30).x
    pushed, before = (extend(again, equal)(scale * new + offset), extend(walked, make_pair())(new))
    torch.testing.assert_close((pushed - offset) / scale, before, rtol=0, atol=1e-6)


def test_points_that_are_all_one_have_the_independent_plan_or_are_said_to_have_none():
    pair = make_pair(weighted=True)
    with pytest.raises(DivergedError, match="ott-lr-sinkhorn: the plan is not finite"):
        OttLrSinkhorn().couple(replace(pair, x=0 * pair.x, y=0 * pair.y), make_run())
    pair = make_pair()
    same = OttProgot(steps=2, tolerance=1e-9).couple(
        replace(pair, x=0 * pair.x, y=0 * pair.y), make_run()
    )
    torch.testing.assert_close(same.plan, pair.a[:, None] * pair.b)


def test_a_saved_walk_is_the_same_in_float64():
    found = OttProgot(n=16, steps=2).fit(gaussian(), make_run())
    loaded = pickle.loads(pickle.dumps(found))
    assert found.push is not None and torch.equal(loaded.push(FEW), found.push(FEW))


def atoms(scale: float, offset: float) -> MapProblem:
    """N(0, I) to the atoms -e_1 and e_1 of weights 0.3 and 0.7, scaled and shifted."""
    points = torch.tensor([[-1.0, 0.0]] * 3 + [[1.0, 0.0]] * 7, dtype=torch.float64)
    target = Measure((2,), lambda n, _: scale * points.repeat(n // 10, 1) + offset)
    return replace(gaussian(scale, offset), target=target)


@pytest.mark.parametrize(("scale", "offset"), [(1e-6, 0.0), (1e3, 1e6)])
def test_semidiscrete_cells_have_the_weights_of_the_atoms(scale, offset):
    """The cells of two atoms meet where a share of 0.3 of the normal law lies on the left."""
    problem = atoms(scale, offset)
    found = OttSemidiscrete(n=10, steps=300, batch=64, lr=0.05).fit(problem, make_run())
    assert found.push is not None and found.potential is not None and found.info["n"] == 2
    line = torch.linspace(-2, 1, 3001, dtype=torch.float64)
    x = scale * torch.stack([line, torch.zeros_like(line)], 1) + offset
    boundary = float(line[(found.push(x)[:, 0] < offset).sum()])
    assert boundary == pytest.approx(NormalDist().inv_cdf(0.3), abs=0.05)
    x = x[::100].clone().requires_grad_()
    (slope,) = torch.autograd.grad(found.potential(x).sum(), x)
    torch.testing.assert_close((x - slope / 2 - found.push(x)) / scale, 0 * x, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("scale", "offset"), [(1e-4, 0.0), (1.0, 1e5), (1e4, -1e3)])
def test_semidiscrete_maps_move_and_scale_with_the_target(scale, offset):
    near = gaussian()
    target = Measure((2,), lambda n, g: scale * near.target.sample(n, g) + offset)
    x = near.source.sample(500, torch.Generator().manual_seed(1))
    images = []
    for problem in (near, replace(near, target=target)):
        push = OttSemidiscrete(n=32, steps=100, lr=0.05).fit(problem, make_run()).push
        assert push is not None
        images.append(push(x))
    same = ((images[1] - offset) / scale - images[0]).norm(dim=1) < 1e-4
    assert same.double().mean() > 0.99


def test_semidiscrete_maps_are_nearer_than_the_nearest_neighbour():
    problem, errors = gaussian(), []
    x = problem.source.sample(2000, torch.Generator().manual_seed(1))
    for solver in (PotEmd(n=64), OttSemidiscrete(n=64, steps=500, lr=0.03)):
        push, optimal = solver.fit(problem, make_run()).push, problem.truth.map
        assert push is not None and optimal is not None
        errors.append(float((push(x) - optimal(x)).square().mean()))
    assert errors[1] < 0.7 * errors[0]


def test_float64_ends_with_the_fit(low_rank, walked):
    assert low_rank.plan.dtype == walked.plan.dtype == torch.float64
    assert jnp.ones(1).dtype == jnp.float32 and torch.get_default_dtype() == torch.float32


UNEQUAL, WEIGHTED, ENTROPIC = (
    make_pair(),
    make_pair(N, N, weighted=True),
    replace(make_pair(N, N), eps=0.5),
)
FLAT, SHORT = gaussian(), Measure((1,), lambda n, generator: torch.zeros(n, 1))


@pytest.mark.parametrize(
    ("solver", "problem", "reason"),
    [
        (OttHungarian(), UNEQUAL, "as many points of the source as of the target, not 24 and 18"),
        (OttHungarian(), WEIGHTED, "equal weights only"),
        (
            OttHungarian(),
            AmortizedProblem([make_pair(N, N), UNEQUAL], [], SQEUCLIDEAN, Truth("none")),
            "as many points of the source as of the target",
        ),
        (OttLrSinkhorn(), ENTROPIC, "without an eps only"),
        (OttProgot(), ENTROPIC, "without an eps only"),
        (OttProgot(), WEIGHTED, "equal weights only"),
        (OttProgot(), replace(UNEQUAL, cost=EUCLIDEAN), "sqeuclidean cost only, not euclidean"),
        (OttSemidiscrete(), UNEQUAL, "map problems only"),
        (OttSemidiscrete(), replace(FLAT, cost=GEODESIC), "not geodesic"),
        (OttNeuralDual(), UNEQUAL, "map problems only"),
        (OttEnot(), replace(FLAT, cost=EUCLIDEAN), "sqeuclidean cost only, not euclidean"),
        (OttMongeGap(), replace(FLAT, cost=EUCLIDEAN), "sqeuclidean cost only, not euclidean"),
        (OttNeuralDual(), replace(FLAT, target=SHORT), r"equal shapes only, not \(2,\) and \(1,\)"),
    ],
)
def test_refusals_say_why(solver: Solver, problem, reason):
    said = solver.supports(problem)
    assert said is not None and re.search(reason, said) and "\n" not in said


@pytest.mark.parametrize("solver", [OttHungarian(), OttLrSinkhorn(), OttProgot()])
def test_what_is_not_refused_is_taken(solver: DiscreteSolver):
    assert solver.supports(make_pair(N, N)) is None and solver.supports(gaussian()) is None


@pytest.mark.parametrize("solver", [OttHungarian(), OttProgot()])
def test_a_pair_unlike_those_that_were_shown_is_an_error(solver: DiscreteSolver):
    with pytest.raises(UserError, match=f"{solver.name} takes points of equal weights only"):
        solver.couple(WEIGHTED, make_run())


@pytest.mark.parametrize(
    ("solver", "bad"),
    [
        (OttLrSinkhorn, {"rank": 0}),
        (OttLrSinkhorn, {"tolerance": float("nan")}),
        (OttProgot, {"steps": 0}),
        (OttProgot, {"speed": "fast"}),
        (OttSemidiscrete, {"batch": 0}),
        (OttNeuralDual, {"network": "cnn"}),
        (OttNeuralDual, {"lr": 0.0}),
        (OttEnot, {"weight": -1.0}),
        (OttEnot, {"expectile": 0.4}),
        (OttMongeGap, {"strength": -1.0}),
        (OttMongeGap, {"width": 0}),
    ],
)
def test_bad_parameters_are_named(solver, bad):
    (parameter,) = bad
    with pytest.raises(ValueError, match=parameter):
        solver(**bad)


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1e-6, 0.0), (1e6, 0.0), (1e3, 1e6)])
def test_standard_potentials_are_those_of_the_cost(scale, offset):
    """Of the quadratic f' that is optimal between the Gaussians: f + g <= c, with equality on the
    map, and gradients of f that move the points there.
    """
    problem = gaussian(scale, offset)
    units = Standard.of(problem, torch.Generator().manual_seed(0))
    diagonal = torch.tensor([2.0, 0.5])
    f, g = (
        make(lambda u, d=d: ((d * u.square()).sum(1) / 2, d * u))
        for make, d in ((units.potential, diagonal), (units.target_potential, 1 / diagonal))
    )
    x = problem.source.sample(50, torch.Generator().manual_seed(1)).requires_grad_()
    y = units.push(lambda u: diagonal * u, x.detach(), (2,))
    (slope,) = torch.autograd.grad(f(x).sum(), x)
    tolerance = {"rtol": 0, "atol": 1e-5 * scale**2}
    with torch.no_grad():
        total, cost = f(x) + g(y), problem.cost.pairwise(x, y)
        torch.testing.assert_close(total, cost, **tolerance)
        others = problem.cost.matrix(x, y)
        assert (f(x)[:, None] + g(y) <= others + tolerance["atol"]).all()
    torch.testing.assert_close(x.detach() - slope / 2, y, rtol=0, atol=1e-5 * scale)


@pytest.mark.slow
@neural
@pytest.mark.parametrize(
    "solver",
    [
        OttNeuralDual(steps=150, width=32),
        OttEnot(steps=300, width=32, depth=2, lr=5e-3),
        OttMongeGap(steps=150, width=32, lr=0.01, batch=64),
    ],
    ids=lambda solver: solver.name,
)
@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1e6, 0.0), (1e3, 1e6)])
def test_neural_maps_approach_the_closed_form(solver, scale, offset):
    problem = gaussian(scale, offset)
    found = solver.fit(problem, make_run())
    assert found.push is not None and problem.truth.map is not None
    x = problem.source.sample(500, torch.Generator().manual_seed(1))
    error = (found.push(x) - problem.truth.map(x)).square().sum(1).mean() / scale**2
    assert error < 0.3  # of a target's variance of 4.25
    if found.potential is not None and found.target_potential is not None:
        y = problem.truth.map(x)
        values = (found.potential(x) + found.target_potential(y)) / scale**2
        cost = problem.cost.pairwise(x, y) / scale**2
        assert values.mean() == pytest.approx(float(cost.mean()), abs=0.2)
