"""Adapters of libraries that fit maps to samples, of stochastic solvers and of partial transport,
against direct calls, closed forms and exact solvers.
"""

# pyright: reportMissingImports=false
# (otbench/__init__.py lends the package the folders tasks/ and solvers/ of a checkout; a type
# checker does not see that.)

import re
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import ot
import ot.mapping
import pytest
import torch
from scipy.optimize import linear_sum_assignment, linprog

from otbench import (
    EUCLIDEAN,
    GEODESIC,
    SQEUCLIDEAN,
    DiscreteProblem,
    DivergedError,
    FitContext,
    MapProblem,
    Measure,
    MissingError,
    Solver,
    Transport,
    Truth,
    UserError,
)
from otbench.families.partial import PARTIAL, partial_pair
from otbench.methods.sample_maps import standard
from otbench.registry import absent
from otbench.solvers.flash_sinkhorn import FlashSinkhorn
from otbench.solvers.hiref import HiRef
from otbench.solvers.pot_emd import PotEmd
from otbench.solvers.pot_gmm import PotGmm
from otbench.solvers.pot_kernel_map import PotKernelMap
from otbench.solvers.pot_partial import PotPartial
from otbench.solvers.pot_semidiscrete import PotSemidiscrete
from otbench.solvers.pot_sinkhorn import PotSinkhorn
from otbench.solvers.pot_stochastic import PotStochastic
from otbench.tasks.partial_clouds import PartialClouds


SAMPLE_MAPS: list[Solver] = [PotKernelMap(n=40, steps=3), PotGmm(n=200, components=3)]


def run(seed: int = 0) -> FitContext:
    return FitContext("cpu", torch.float64, seed, torch.Generator().manual_seed(seed))


def points(n: int, *shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, *shape, generator=generator, dtype=torch.float64)


def fixed(sample: torch.Tensor) -> Measure:
    """A measure of which every sample is this one."""
    return Measure(tuple(sample.shape[1:]), lambda n, generator: sample[:n])


def problem(x: torch.Tensor, y: torch.Tensor) -> MapProblem:
    return MapProblem(fixed(x), fixed(y), SQEUCLIDEAN, Truth("none"))


def push(transport: Transport, x: torch.Tensor) -> torch.Tensor:
    assert transport.push is not None
    return transport.push(x)


def clouds(n: int = 30, m: int = 20, seed: int = 0) -> DiscreteProblem:
    """Two weighted clouds; the first two points of each have no weight, two are copies."""
    x, y = points(n, 2, seed=seed), points(m, 2, seed=seed + 1) + 1
    x[5], y[5] = x[6], y[6]
    a, b = points(n, seed=seed + 2).square() + 0.3, points(m, seed=seed + 3).square() + 0.3
    a[:2], b[:2] = 0, 0
    return DiscreteProblem(x, a / a.sum(), y, b / b.sum(), SQEUCLIDEAN, Truth("none"))


@pytest.mark.parametrize(("unit", "offset"), [(1.0, 0.0), (1e-6, 0.0), (1e6, 1e6), (1.0, 1e6)])
def test_semidiscrete_cells_are_those_of_the_line(unit, offset):
    """Uniform on an interval to an atom of mass 1/2 and two of 1/4, in order, at any scale."""
    places = torch.tensor([[0.0], [1.0], [2.0], [0.0]], dtype=torch.float64)
    source = Measure(
        (1,), lambda n, g: offset + unit * torch.rand(n, 1, generator=g, dtype=torch.float64)
    )
    target = Measure((1,), lambda n, g: offset + 3 * unit + unit * places.repeat(n // 4, 1))
    problem = MapProblem(source, target, SQEUCLIDEAN, Truth("none"))
    transport = PotSemidiscrete(n=64, steps=1000).fit(problem, run())
    assert transport.info["atoms"] == 3
    x = offset + unit * torch.linspace(0, 1, 2001, dtype=torch.float64)[:, None]
    mapped = ((push(transport, x) - offset) / unit - 3).round(decimals=6)
    assert (mapped.diff(dim=0) >= 0).all()
    masses = [float((mapped == k).double().mean()) for k in range(3)]
    assert masses == pytest.approx([0.5, 0.25, 0.25], abs=0.03)


@pytest.mark.parametrize(
    ("cost", "unit", "shift"),
    [(SQEUCLIDEAN, 1, 0), (EUCLIDEAN, 1, 0), (SQEUCLIDEAN, 1000, 0), (SQEUCLIDEAN, 1, 1000)],
)
def test_semidiscrete_cells_have_the_masses_of_the_atoms(cost, unit, shift):
    """Also where the target is far from the source, or far larger."""
    corners = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    source = Measure((2,), lambda n, g: torch.randn(n, 2, generator=g, dtype=torch.float64))
    target = fixed(unit * corners.repeat(16, 1) + shift)
    problem = MapProblem(source, target, cost, Truth("none"))
    mapped = push(PotSemidiscrete(n=64, steps=1000).fit(problem, run()), points(4096, 2, seed=9))
    mapped = (mapped - shift) / unit
    assert float((mapped[:, 1] == 2).double().mean()) == pytest.approx(0.5, abs=0.03)
    assert float((mapped[:, 0] == 1).double().mean()) == pytest.approx(0.25, abs=0.03)


def test_the_semidiscrete_map_is_the_gradient_of_its_potential():
    sample = points(100, 2, seed=3)
    source = Measure((2,), lambda n, g: torch.randn(n, 2, generator=g, dtype=torch.float64))
    problem = MapProblem(source, fixed(2 * sample), SQEUCLIDEAN, Truth("none"))
    transport = PotSemidiscrete(n=100, steps=50).fit(problem, run())
    x = points(50, 2, seed=4).requires_grad_()
    assert transport.potential is not None
    (gradient,) = torch.autograd.grad(transport.potential(x).sum(), x)
    torch.testing.assert_close(push(transport, x.detach()), (x - gradient / 2).detach())


@pytest.mark.parametrize("cost", [SQEUCLIDEAN, EUCLIDEAN], ids=lambda cost: cost.name)
@pytest.mark.parametrize(("method", "error"), [("sag", 1e-6), ("asgd", 0.3)])
def test_stochastic_plans_approach_those_of_sinkhorn(method, error, cost):
    pair = replace(clouds(), cost=cost)
    coupling = PotStochastic(eps=0.2, method=method, max_iters=500).couple(pair, run())
    assert coupling.g is not None and coupling.eps is not None
    costs = cost.matrix(pair.x, pair.y)
    expected = ot.sinkhorn(
        pair.a, pair.b, costs, coupling.eps, method="sinkhorn_log", stopThr=1e-12, numItermax=5000
    )
    assert isinstance(expected, torch.Tensor)
    assert float((coupling.plan - expected).abs().sum()) < error
    torch.testing.assert_close(coupling.plan.sum(1), pair.a)
    gibbs = ((coupling.g - costs) / coupling.eps).exp() * pair.b
    torch.testing.assert_close(coupling.plan, pair.a[:, None] * gibbs / gibbs.sum(1, keepdim=True))
    assert coupling.plan[:2].abs().max() == 0 and coupling.plan[:, :2].abs().max() == 0


def test_stochastic_plans_are_those_of_the_library():
    """Of `ot.stochastic`, on the costs as they are; the seed is that of the context."""
    pair = clouds()
    coupling = PotStochastic(eps=1.0, eps_rule="absolute", max_iters=3).couple(pair, run(7))
    a, b, costs = (v.numpy() for v in (pair.a, pair.b, pair.cost.matrix(pair.x, pair.y)))
    g = ot.stochastic.sag_entropic_transport(a, b, costs, 1.0, 3 * len(a), random_state=7)
    assert coupling.g is not None
    np.testing.assert_allclose(coupling.g, g, rtol=1e-9)
    assert coupling.info["iterations"] == 3


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_an_eps_too_small_for_the_exponentials_is_said():
    with pytest.raises(DivergedError, match="too small for POT: give a larger eps"):
        PotStochastic(eps=1e-5, max_iters=50).couple(clouds(), run())


def test_the_kernel_map_is_that_of_the_library():
    x, y = (standard(points(40, 3, seed=seed))[0] for seed in (0, 1))
    weights = ot.mapping.joint_OT_mapping_kernel(x, y, eta=0.05, sigma=2, numItermax=3)[1]
    new = points(9, 3, seed=2)
    expected = torch.exp(-torch.cdist(new, x).square() / 8) @ weights
    transport = PotKernelMap(n=40, eta=0.05, sigma=2.0, steps=3).fit(problem(x, y), run())
    torch.testing.assert_close(push(transport, new), expected)


def test_one_component_is_the_affine_map_between_gaussians():
    x, y = points(300, 3) * torch.tensor([1.0, 2.0, 0.5]), points(300, 3, seed=1) + 1
    y[:, 0] += y[:, 1]
    moments = [f(z) for f in (lambda z: z.mean(0), lambda z: z.T.cov(correction=0)) for z in (x, y)]
    matrix, shift = ot.gaussian.bures_wasserstein_mapping(*moments)[:2]
    new = points(20, 3, seed=2)
    transport = PotGmm(n=300, components=1).fit(problem(x, y), run())
    torch.testing.assert_close(push(transport, new), new @ matrix + shift, rtol=1e-4, atol=1e-4)
    assert transport.sample is not None
    torch.testing.assert_close(transport.sample(new, 2)[:, 1], push(transport, new))


def test_far_components_are_coupled_as_an_assignment():
    """Three clusters far apart, moved each its way: T is known; where a cluster is to be split, the
    draws have the law of the target, which their mean has not.
    """
    corners = 20 * torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    x = torch.cat([corner + points(200, 2, seed=k) for k, corner in enumerate(corners)])
    shifts = torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.0, 4.0]], dtype=torch.float64)
    y = x + shifts.repeat_interleave(200, 0)
    transport = PotGmm(n=600, components=3).fit(problem(x, y), run())
    torch.testing.assert_close(push(transport, x), y, rtol=0, atol=0.01)

    split = PotGmm(n=600, components=2).fit(
        problem(points(600, 2), torch.cat([points(300, 2) - 50, points(300, 2) + 50])), run()
    )
    assert split.sample is not None and split.estimates_map
    drawn = split.sample(points(100, 2, seed=9), 20)
    assert drawn.shape == (100, 20, 2)
    assert float((drawn[..., 0] > 0).double().mean()) == pytest.approx(0.5, abs=0.1)
    assert float(drawn.abs().mean()) == pytest.approx(50, rel=0.05)


@pytest.mark.parametrize("solver", SAMPLE_MAPS, ids=lambda solver: solver.name)
def test_maps_of_samples_move_and_scale_with_their_samples(solver):
    x, y, new = points(200, 3), points(200, 3, seed=1).square(), points(7, 3, seed=2)
    plain = push(solver.fit(problem(x, y), run()), new)
    for of_x, of_y in ((1e6, 1e-6), (1e-6, 1e6)):
        moved = problem(of_x * (x + 10), of_y * (y - 10))
        pushed = push(solver.fit(moved, run()), of_x * (new + 10))
        torch.testing.assert_close(pushed, of_y * (plain - 10), rtol=1e-5, atol=1e-5 * of_y)
    far = problem(x + 1e6, y - 1e6)
    pushed = push(solver.fit(far, run()), new + 1e6)
    torch.testing.assert_close(pushed + 1e6, plain, rtol=0, atol=1e-4)


@pytest.mark.parametrize("solver", SAMPLE_MAPS, ids=lambda solver: solver.name)
def test_maps_of_samples_take_images_copies_and_a_single_place(solver):
    x = points(200, 1, 2, 2)
    x[50:150] = x[0]
    place = torch.full((200, 1, 2, 2), 1e-7, dtype=torch.float64)
    mapped = push(solver.fit(problem(x, place), run()), x[:5].float())
    assert mapped.dtype == torch.float32
    torch.testing.assert_close(mapped, place[:5].float())
    mapped = push(solver.fit(problem(place, x), run()), place[:5])
    assert mapped.shape == (5, 1, 2, 2) and torch.isfinite(mapped).all()


@pytest.fixture
def matching(monkeypatch):
    """In place of HiRef an exact matching with its calls, which draws from torch's own generator
    and prints; what it was called with.
    """
    calls = SimpleNamespace(clouds=(), euclidean=False)

    def init(x, y, ranks, device, sq_Euclidean):
        calls.clouds, calls.squared, calls.ranks = (x, y), sq_Euclidean, ranks
        costs = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")

        def solved():
            print("Rank Level", torch.rand(1))
            matched = linear_sum_assignment(costs.square() if sq_Euclidean else costs)
            return [(torch.tensor([i]), torch.tensor([j])) for i, j in zip(*matched, strict=True)]

        return SimpleNamespace(run=solved)

    def schedule(n, hierarchy_depth, max_Q, max_rank):
        assert n % 2 == 0, "Error! Rank-schedule does not factorize n!"
        return [2, n // 2]

    refinement = SimpleNamespace(init_from_point_clouds=init)
    module = SimpleNamespace(HierarchicalRefinementOT=refinement)
    monkeypatch.setitem(sys.modules, "HR_OT", module)
    annealing = SimpleNamespace(optimal_rank_schedule=schedule)
    monkeypatch.setitem(sys.modules, "rank_annealing", annealing)
    return calls


@pytest.mark.parametrize("cost", [SQEUCLIDEAN, EUCLIDEAN], ids=lambda cost: cost.name)
def test_hiref_is_given_clouds_of_size_one_and_its_matching_is_the_plan(matching, cost, capsys):
    x, y = 1e6 * points(12, 1, 3) + 1e8, 1e6 * points(12, 1, 3, seed=1) + 1e8
    weights = torch.full((12,), 1 / 12, dtype=torch.float64)
    pair = DiscreteProblem(x, weights, y, weights, cost, Truth("none"))
    state = torch.get_rng_state()
    assert HiRef().supports(pair) is None
    coupling = HiRef().couple(pair, run())
    rows, columns = linear_sum_assignment(cost.matrix(x, y))
    assert torch.equal(coupling.plan.nonzero(), torch.tensor([*zip(rows, columns, strict=True)]))
    torch.testing.assert_close(coupling.plan.sum(1), weights)
    assert coupling.info == {"levels": 2} and matching.squared == (cost == SQEUCLIDEAN)
    assert all(cloud.shape == (12, 3) and cloud.abs().max() < 10 for cloud in matching.clouds)
    assert torch.equal(torch.get_rng_state(), state) and capsys.readouterr().out == ""


def test_hiref_says_what_it_cannot_match(matching):
    assert re.search("as many points of equal weights", HiRef().supports(clouds()) or "")
    assert re.search("not geodesic", HiRef().supports(replace(clouds(), cost=GEODESIC)) or "")
    with pytest.raises(UserError, match="no ranks of which 7 points are the product"):
        HiRef(n=7).fit(problem(points(7, 2), points(7, 2)), run())


def test_a_clone_is_the_remedy_for_what_is_no_package():
    assert absent(("HR_OT", "ot", "not_there")) == (
        "not installed: HR_OT, not_there; remedy: pip install not_there; git clone "
        "https://github.com/raphael-group/HiRef, and its folder src on PYTHONPATH"
    )


def test_flash_sinkhorn_says_that_it_needs_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert FlashSinkhorn().supports(clouds()) == "runs on an NVIDIA GPU only: there is none"
    with pytest.raises(MissingError, match="run with --device cuda"):
        FlashSinkhorn().couple(clouds(), run())


@pytest.mark.skipif(
    bool(absent(("flash_sinkhorn",))) or not torch.cuda.is_available(),
    reason="needs flash-sinkhorn and a GPU",
)
@pytest.mark.parametrize(("unit", "offset"), [(1.0, 0.0), (1e6, 1e6), (1e-6, 0.0)])
def test_flash_sinkhorn_finds_the_plan_of_pot(unit, offset):
    pair = clouds()
    pair = replace(pair, x=unit * pair.x + offset, y=unit * pair.y + offset)
    expected = PotSinkhorn(eps=0.2, tolerance=1e-9).couple(pair, run())
    x, a, y, b = (values.cuda() for values in (pair.x, pair.a, pair.y, pair.b))
    moved = replace(pair, x=x, a=a, y=y, b=b)
    found = FlashSinkhorn(eps=0.2, tolerance=1e-4).couple(moved, run())
    assert float((found.plan.cpu() - expected.plan).abs().sum()) < 1e-4


@pytest.mark.parametrize("share", [0.3, 0.8, 1.0])
@pytest.mark.parametrize("unit", [1.0, 1e-6, 1e6])
def test_partial_plans_attain_the_linear_program(share, unit):
    """That of the partial problem, by scipy, without the added points."""
    pair = clouds(n=9, m=7)
    x, y, a, b = unit * pair.x, unit * pair.y, pair.a, pair.b
    costs = SQEUCLIDEAN.matrix(x, y).numpy() / unit**2
    rows, columns = np.kron(np.eye(9), np.ones(7)), np.kron(np.ones(9), np.eye(7))
    optimum = linprog(
        costs.ravel(),
        A_ub=np.vstack([rows, columns]),
        b_ub=np.concatenate([a, b]),
        A_eq=np.ones((1, 63)),
        b_eq=[share],
    ).fun
    balanced = partial_pair(x, a, y, b, share)
    assert float(balanced.a.sum()) == pytest.approx(1) == float(balanced.b.sum())
    matrix = balanced.cost.matrix(balanced.x, balanced.y)
    pairs = torch.cartesian_prod(torch.arange(10), torch.arange(8))
    pairwise = balanced.cost.pairwise(balanced.x[pairs[:, 0]], balanced.y[pairs[:, 1]])
    torch.testing.assert_close(pairwise.reshape(10, 8), matrix)
    for solver in (PotPartial(), PotEmd()):
        plan = solver.couple(balanced, run()).plan
        assert float((plan * matrix).sum()) * (2 - share) / unit**2 == pytest.approx(optimum)
        torch.testing.assert_close(plan.sum(1), balanced.a)
        torch.testing.assert_close(plan.sum(0), balanced.b)
        assert float(plan[-1, -1]) == pytest.approx(0, abs=1e-12)


def test_partial_clouds_are_balanced_problems_with_their_truth():
    task = PartialClouds(n=20, m=30, dim=3, share=0.6)
    pair = task.problem(np.random.default_rng(0), device="cpu", dtype=torch.float64)
    assert pair.x.shape == (21, 4) and pair.y.shape == (31, 4) and pair.cost == PARTIAL
    assert pair.truth.plan is not None and pair.truth.cost is not None
    assert float(pair.truth.plan[:-1, :-1].sum()) == pytest.approx(0.6 / 1.4)
    found = PotPartial().couple(pair, run()).plan
    cost = float((found * pair.cost.matrix(pair.x, pair.y)).sum())
    assert cost == pytest.approx(pair.truth.cost, rel=1e-9)
    assert PotPartial().supports(pair) is None
    assert re.search("partial-sqeuclidean cost only", PotPartial().supports(clouds()) or "")
    assert re.search("not partial-sqeuclidean", HiRef().supports(pair) or "")


@pytest.mark.parametrize(
    ("solver", "given", "reason"),
    [
        (PotSemidiscrete(), clouds(), "map problems only"),
        (PotKernelMap(), clouds(), "map problems only"),
        (PotGmm(), replace(problem(points(2, 3), points(2, 3)), cost=GEODESIC), "not geodesic"),
        (PotGmm(), problem(points(2, 3), points(2, 2)), r"one shape, not \(3,\) and \(2,\)"),
        (PotGmm(), problem(points(2, 2000), points(2, 2000)), "1024 dimensions, not 2000"),
    ],
)
def test_refusals_say_why(solver, given, reason):
    assert re.search(reason, solver.supports(given) or "")


@pytest.mark.parametrize(
    ("cls", "parameters", "reason"),
    [
        (PotSemidiscrete, {"batch": 0}, "batch must be at least 1, got 0"),
        (PotStochastic, {"method": "sgd"}, "method must be sag or asgd, got 'sgd'"),
        (PotKernelMap, {"sigma": 0.0}, "sigma must be positive, got 0"),
        (PotGmm, {"n": 1}, "n must be at least 2, got 1"),
        (HiRef, {"depth": 1}, "depth must be at least 2, got 1"),
        (PartialClouds, {"share": 0.0}, "share must be above 0 and at most 1, got 0"),
        (PartialClouds, {"m": 0}, "m must be at least 1, got 0"),
        (PotGmm, {"components": 0}, "components must be at least 1, got 0"),
    ],
)
def test_bad_parameters_are_refused(cls, parameters, reason):
    with pytest.raises(ValueError, match=reason):
        cls(**parameters)
