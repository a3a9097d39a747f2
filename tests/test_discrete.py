"""The lift of discrete solvers to the three settings: maps with solvers that need no library,
potentials of the linear program.
"""

# pyright: reportMissingImports=false
# (otbench/__init__.py lends the package the folders tasks/ and solvers/ of a checkout; a type
# checker does not see that.)

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otbench import EUCLIDEAN, SQEUCLIDEAN, AmortizedProblem, DiscreteProblem, MapProblem, Truth
from otbench.methods.discrete import (
    Coupling,
    DiscreteSolver,
    SinkhornSolver,
    in_float64,
    sample_pair,
)
from otbench.methods.extension import CHUNK, c_transform, extend
from otbench.solver import FitContext
from otbench.solvers.pot_emd import PotEmd
from otbench.tasks.gaussian import Gaussian


@dataclass(frozen=True)
class Independent(DiscreteSolver):
    """P = a b^T, which is what eps = infinity gives; as a potential with ``kind="entropic"``."""

    name: ClassVar[str] = "independent"
    kind: Literal["plan", "entropic", "push"] = "plan"

    def couple(self, pair: DiscreteProblem, context: FitContext) -> Coupling:
        """The independent coupling."""
        assert pair.x.dtype == pair.a.dtype == torch.float64
        plan = pair.a[:, None] * pair.b
        if self.kind == "entropic":
            return Coupling(plan, g=torch.zeros_like(pair.b), eps=1e9)
        return Coupling(
            plan, push=(lambda x: -x) if self.kind == "push" else None, info={"points": len(pair.x)}
        )


@dataclass(frozen=True)
class Ordered(DiscreteSolver):
    """The i-th point of x goes to the i-th point of y."""

    name: ClassVar[str] = "ordered"

    def couple(self, pair: DiscreteProblem, context: FitContext) -> Coupling:
        """A diagonal plan."""
        return Coupling(pair.a.diag())


def make_run(seed: int = 0) -> FitContext:
    return FitContext("cpu", torch.float32, seed, torch.Generator().manual_seed(seed))


def gaussian(dim: int = 2) -> MapProblem:
    return Gaussian(dim=dim).problem(np.random.default_rng(0), device="cpu", dtype=torch.float32)


def make_pair(
    n: int = 12, m: int = 9, dim: int = 2, seed: int = 0, dtype: torch.dtype = torch.float64
) -> DiscreteProblem:
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(k, dim, generator=generator, dtype=dtype) for k in (n, m))
    a, b = (torch.rand(k, generator=generator, dtype=dtype) + 0.1 for k in (n, m))
    return DiscreteProblem(x, a / a.sum(), y, b / b.sum(), SQEUCLIDEAN, Truth("none"))


def test_discrete_setting_returns_the_plan_in_the_pairs_dtype():
    pair = make_pair(dtype=torch.float32)
    transport = Independent().fit(pair, make_run())
    assert transport.push is None and transport.plan is not None
    plan = transport.plan(pair)
    assert plan.dtype == torch.float32
    torch.testing.assert_close(plan, pair.a[:, None] * pair.b)
    assert transport.info == {"points": 12}


def test_map_setting_samples_n_points_and_pushes_in_the_dtype_of_x():
    problem = gaussian()
    transport = Independent(n=50).fit(problem, make_run())
    assert transport.push is not None and transport.info == {"n": 50, "points": 50}
    pair = sample_pair(problem, 50, make_run().generator)
    pushed = transport.push(torch.zeros(3, 2))
    assert pushed.dtype == torch.float32
    torch.testing.assert_close(pushed, pair.y.mean(0).float().expand(3, 2))


@pytest.mark.parametrize("kind", ["plan", "entropic"])
def test_both_extensions_of_the_independent_coupling_are_the_mean(kind):
    pair = make_pair()
    push = extend(Independent(kind=kind).couple(pair, make_run()), pair)
    torch.testing.assert_close(
        push(torch.randn(5, 2).double()), (pair.b @ pair.y).expand(5, 2), rtol=1e-6, atol=1e-6
    )


def test_the_librarys_own_push_goes_first():
    transport = Independent(kind="push").fit(gaussian(), make_run())
    assert transport.push is not None
    x = torch.randn(4, 2)
    assert torch.equal(transport.push(x), -x)


def test_amortized_setting_solves_each_pair_from_scratch():
    pairs = [make_pair(n=n, m=n, seed=n, dtype=torch.float32) for n in (4, 7)]
    transport = Ordered().fit(AmortizedProblem([], pairs, SQEUCLIDEAN, Truth("lp")), make_run())
    assert transport.plan is not None
    for pair in pairs:
        assert torch.equal(transport.plan(pair), pair.a.diag())


def test_pushing_more_than_a_chunk_changes_nothing():
    pair = make_pair(n=12, m=12)
    push = extend(Ordered().couple(pair, make_run()), pair)
    x = torch.randn(CHUNK + 7, 2, dtype=torch.float64)
    torch.testing.assert_close(push(x), torch.cat([push(x[:11]), push(x[11:])]))


def test_points_need_not_be_vectors():
    generator = torch.Generator().manual_seed(0)
    x, y = (
        torch.randn(6, 1, 2, 2, generator=generator).double(),
        torch.randn(6, 3, 2, 2, generator=generator).double(),
    )
    weights = torch.full((6,), 1 / 6, dtype=torch.float64)
    pair = DiscreteProblem(x, weights, y, weights, SQEUCLIDEAN, Truth("none"))
    assert torch.allclose(extend(Coupling(torch.eye(6).double() / 6), pair)(x), y, rtol=1e-14)


def test_the_entropic_extension_reproduces_the_rows_of_a_gibbs_plan():
    pair = make_pair()
    eps, g = 0.7, torch.linspace(-1, 1, len(pair.b), dtype=torch.float64)
    kernel = pair.b * ((g - SQEUCLIDEAN.matrix(pair.x, pair.y)) / eps).exp()
    plan = pair.a[:, None] * kernel / kernel.sum(1, keepdim=True)
    images = plan @ pair.y / pair.a[:, None]
    torch.testing.assert_close(extend(Coupling(plan, g, eps), pair)(pair.x), images)


def test_points_without_mass_are_nobodys_image():
    pair = make_pair(n=9, m=9)
    a, b = pair.a.clone(), pair.b.clone()
    a[0] = b[0] = 0
    pair = replace(pair, a=a / a.sum(), b=b / b.sum())
    nearest = extend(Coupling(pair.a.diag()), pair)(pair.x)
    assert torch.isfinite(nearest).all() and torch.allclose(nearest[1:], pair.y[1:], rtol=1e-14)
    g = torch.zeros(9, dtype=torch.float64)
    entropic = extend(
        Coupling(pair.a.diag(), g.index_fill(0, torch.tensor([0]), torch.nan), 0.5), pair
    )(pair.x)
    without = replace(pair, y=pair.y[1:], b=pair.b[1:])
    assert torch.equal(
        entropic, extend(Coupling(pair.a.diag()[:, 1:], g[1:], 0.5), without)(pair.x)
    )


@given(
    st.integers(0, 2**16),
    st.floats(1e-3, 1e3),
    st.floats(0.1, 100),
    st.sampled_from([SQEUCLIDEAN, EUCLIDEAN]),
)
def test_entropic_push_lies_in_the_convex_hull_of_the_target(seed, eps, spread, cost):
    """In every direction, no further out than the furthest point of y."""
    pair = replace(make_pair(seed=seed), cost=cost)
    generator = torch.Generator().manual_seed(seed)
    g = spread * torch.randn(len(pair.y), generator=generator, dtype=torch.float64)
    pushed = extend(Coupling(pair.a[:, None] * pair.b, g, eps), pair)(spread * pair.x)
    directions = torch.randn(2, 64, generator=generator, dtype=torch.float64)
    reach = (pair.y @ directions).max(0).values
    assert ((pushed @ directions) <= reach + 1e-9).all()


@given(st.integers(0, 2**16), st.integers(1, 20), st.integers(1, 20))
def test_nearest_extension_maps_sample_points_to_their_barycentric_image(seed, n, m):
    pair = make_pair(n=n, m=m, seed=seed)
    plan = (
        torch.rand(n, m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 1e-3
    )
    images = plan @ pair.y / plan.sum(1, keepdim=True)
    torch.testing.assert_close(extend(Coupling(plan), pair)(pair.x + 1e-9), images)


costs = pytest.mark.parametrize("cost", [SQEUCLIDEAN, EUCLIDEAN], ids=lambda cost: cost.name)


@costs
@pytest.mark.parametrize("seed", [0, 1])
def test_the_potential_of_the_linear_program_is_feasible_and_attains_its_cost(cost, seed):
    pair = replace(make_pair(n=60, m=40, dim=3, seed=seed), cost=cost)
    coupling = PotEmd().couple(pair, make_run())
    assert coupling.g is not None
    f, g = c_transform(pair, coupling.g, None), coupling.g
    primal = float((coupling.plan * cost.matrix(pair.x, pair.y)).sum())
    assert float(pair.a @ f(pair.x) + pair.b @ g) == pytest.approx(primal, rel=1e-12)
    for x in (pair.x, make_pair(n=50, m=50, dim=3, seed=seed + 10).x):
        assert float((f(x)[:, None] + g - cost.matrix(x, pair.y)).max()) <= 1e-12


@costs
def test_the_entropic_potential_gives_the_gibbs_plan_its_row_sums_and_bounds_the_hard_one(cost):
    pair = replace(make_pair(), cost=cost)
    eps, dual = 0.7, torch.linspace(-1, 1, len(pair.b), dtype=torch.float64)
    f, hard, nearly = (c_transform(pair, dual, strength)(pair.x) for strength in (eps, None, 1e-4))
    rows = (pair.b * ((f[:, None] + dual - cost.matrix(pair.x, pair.y)) / eps).exp()).sum(1)
    torch.testing.assert_close(rows, torch.ones_like(rows))
    assert (f >= hard).all()
    torch.testing.assert_close(nearly, hard, rtol=0, atol=1e-2)


@costs
@pytest.mark.parametrize("eps", [None, 0.5])
def test_autograd_goes_through_the_potential(cost, eps):
    pair = replace(make_pair(), cost=cost)
    dual = torch.linspace(-1, 1, len(pair.b), dtype=torch.float64)
    points = torch.randn(
        7, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64
    ).requires_grad_()
    assert torch.autograd.gradcheck(c_transform(pair, dual, eps), (points,))


def test_the_entropic_map_descends_the_entropic_potential():
    """For the cost |x - y|^2, T(x) = x - grad f(x) / 2."""
    pair = make_pair()
    dual = torch.linspace(-1, 1, len(pair.b), dtype=torch.float64)
    x = torch.randn(
        CHUNK + 7, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64
    ).requires_grad_()
    (slope,) = torch.autograd.grad(c_transform(pair, dual, 0.7)(x).sum(), x)
    coupling = Coupling(pair.a[:, None] * pair.b, dual, 0.7)
    torch.testing.assert_close(x.detach() - slope / 2, extend(coupling, pair)(x.detach()))


@pytest.mark.parametrize("eps", [None, 0.5])
def test_points_without_mass_do_not_shape_the_potential(eps):
    pair = make_pair(n=9, m=9)
    b = pair.b.index_fill(0, torch.tensor([0]), 0)
    pair = replace(pair, b=b / b.sum())
    dual = torch.linspace(-1, 1, 9, dtype=torch.float64).index_fill(0, torch.tensor([0]), torch.nan)
    without = replace(pair, y=pair.y[1:], b=pair.b[1:])
    points = make_pair(seed=3).x
    torch.testing.assert_close(
        c_transform(pair, dual, eps)(points), c_transform(without, dual[1:], eps)(points)
    )


def test_the_potential_between_spaces_of_different_shapes():
    pair = make_pair(n=8, m=8, dim=3)
    cost = SQEUCLIDEAN.embedded(lambda z: torch.nn.functional.pad(z.flatten(1), (0, 1)))
    pair = replace(pair, x=pair.x[:, :2].reshape(8, 1, 2), cost=cost)
    g = PotEmd().couple(pair, make_run()).g
    assert g is not None
    images = extend(Coupling(torch.eye(8).double() / 8), pair)(pair.x)
    torch.testing.assert_close(images, pair.y)
    values = c_transform(pair, g, None)(pair.x)
    assert (
        values.shape == (8,)
        and float((values[:, None] + g - cost.matrix(pair.x, pair.y)).max()) <= 1e-12
    )


def test_the_map_setting_exposes_the_potential_in_the_dtype_of_the_points_and_claims_no_saddle():
    transport = PotEmd(n=50).fit(gaussian(), make_run())
    assert transport.potential is not None and transport.target_potential is None
    x = torch.randn(CHUNK + 7, 2, generator=torch.Generator().manual_seed(0))
    values = transport.potential(x)
    assert values.dtype == torch.float32
    torch.testing.assert_close(
        values, torch.cat([transport.potential(x[:11]), transport.potential(x[11:])])
    )
    assert Ordered(n=50).fit(gaussian(), make_run()).potential is None


def test_a_sparse_plan_extends_as_the_dense_one():
    pair = make_pair()
    plan = torch.rand(12, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64).relu()
    plan[3] = 0
    points = make_pair(seed=3).x
    torch.testing.assert_close(
        extend(Coupling(plan.to_sparse_coo()), pair)(points), extend(Coupling(plan), pair)(points)
    )


def test_in_float64_keeps_everything_else():
    pair = make_pair(dtype=torch.float32)
    double = in_float64(pair)
    assert all(tensor.dtype == torch.float64 for tensor in (double.x, double.a, double.y, double.b))
    assert double.cost is pair.cost and double.truth is pair.truth


@dataclass(frozen=True)
class NoSinkhorn(SinkhornSolver):
    """Parameters only."""

    name: ClassVar[str] = "no-sinkhorn"

    def couple(self, pair: DiscreteProblem, context: FitContext) -> Coupling:
        """The independent coupling, reported as if it were a Sinkhorn plan."""
        return Coupling(pair.a[:, None] * pair.b, info=self.report(2.0, 8.0, iterations=3))


def test_sinkhorn_solvers_report_eps_both_ways():
    assert NoSinkhorn(eps=0.25).in_cost_units(make_pair(), 8.0) == 2.0
    assert NoSinkhorn(eps=0.25, eps_rule="absolute").in_cost_units(make_pair(), 8.0) == 0.25
    info = NoSinkhorn().couple(make_pair(), make_run()).info
    assert info == {"eps": 2.0, "eps_over_mean_cost": 0.25, "iterations": 3}
    assert NoSinkhorn().report(2.0, 0.0, iterations=3) == {"eps": 2.0, "iterations": 3}


@pytest.mark.parametrize(
    "bad",
    [
        {"n": 0},
        {"eps": 0.0},
        {"eps": float("nan")},
        {"eps_rule": "median"},
        {"max_iters": 0},
        {"tolerance": -1.0},
    ],
)
def test_bad_parameters_are_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        NoSinkhorn(**bad)
