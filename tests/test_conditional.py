"""Draws from the plans of discrete solvers given new points: the laws that they follow, that they
are those of a seed, and where they are what is scored.
"""

# pyright: reportMissingImports=false
# (otbench/__init__.py lends the package the folders tasks/ and solvers/ of a checkout; a type
# checker does not see that.)

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otbench import EUCLIDEAN, SQEUCLIDEAN, Transport, Truth
from otbench.methods.discrete import Coupling
from otbench.methods.extension import (
    CHUNK,
    c_transform,
    conditional,
    extend,
    gibbs_row,
    nearest_row,
)
from otbench.runner.outputs import map_arrays
from otbench.scoring.maps import MapScoring
from otbench.scoring.outputs import Outputs
from otbench.solvers.ott_sinkhorn import OttSinkhorn
from otbench.solvers.pot_emd import PotEmd
from otbench.solvers.pot_sinkhorn import PotSinkhorn
from otbench.solvers.sinkhorn import Sinkhorn
from tests.test_discrete import gaussian, make_pair, make_run


LEVELS = 4000
levels = (torch.arange(LEVELS, dtype=torch.float64) + 0.5) / LEVELS  # of all laws, equally spaced


def random_plan(n: int, m: int, seed: int) -> torch.Tensor:
    """With masses far apart, many of them zero, and where there is room a row and a column of
    them.
    """
    generator = torch.Generator().manual_seed(seed)
    masses = torch.rand(n, m, generator=generator, dtype=torch.float64) ** 8
    plan = masses * (torch.rand(n, m, generator=generator) < 0.6)
    plan[-1, -1] = 0.1
    plan[: n // 4], plan[:, : m // 4] = 0, 0
    return plan / plan.sum()


def frequencies(drawn: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """``(n, m)``: how often each target point was drawn, of draws ``(n, k, *shape)``."""
    same = drawn.flatten(2)[:, :, None] == y.flatten(1)
    assert same.all(-1).any(-1).all(), "what is drawn are target points"
    return same.all(-1).double().mean(1)


@given(st.integers(0, 2**16), st.integers(1, 12), st.integers(1, 12), st.booleans())
def test_the_law_given_a_sample_point_is_its_row_of_the_plan(seed, n, m, sparse):
    pair, plan = make_pair(n, m, seed=seed), random_plan(n, m, seed)
    moved = plan.sum(1) > 0
    row = nearest_row(plan.to_sparse_coo() if sparse else plan, pair)
    drawn = pair.y[row(pair.x[moved] + 1e-9, levels.expand(int(moved.sum()), -1))]
    laws = (plan / plan.sum(1, keepdim=True))[moved]
    seen = frequencies(drawn, pair.y)
    torch.testing.assert_close(seen, laws, rtol=0, atol=1.01 / LEVELS)
    assert (seen[laws == 0] == 0).all()


@given(st.integers(0, 2**16), st.integers(2, 12), st.integers(1, 6))
def test_sample_points_at_one_place_share_their_rows(seed, n, m):
    pair, plan = make_pair(n, m, seed=seed), random_plan(n, m, seed)
    places = torch.arange(n) % ((n + 1) // 2)
    pair = replace(pair, x=pair.x[places])
    together = torch.zeros((n + 1) // 2, m, dtype=torch.float64).index_add_(0, places, plan)
    moved = together.sum(1) > 0
    x = pair.x[: len(together)][moved]
    drawn = pair.y[nearest_row(plan, pair)(x, levels.expand(len(x), -1))]
    laws = (together / together.sum(1, keepdim=True))[moved]
    torch.testing.assert_close(frequencies(drawn, pair.y), laws, rtol=0, atol=2.01 / LEVELS)


@given(
    st.integers(0, 2**16),
    st.integers(1, 12),
    st.integers(1, 12),
    st.floats(0.05, 10),
    st.sampled_from([SQEUCLIDEAN, EUCLIDEAN]),
)
def test_the_entropic_law_is_the_row_of_the_plan_and_off_the_sample_that_of_the_potentials(
    seed, n, m, eps, cost
):
    pair = replace(make_pair(n, m, seed=seed), cost=cost)
    b = pair.b.index_fill(0, torch.arange(m // 4), 0)
    pair = replace(pair, b=b / b.sum())
    coupling = Sinkhorn(eps=eps, tolerance=1e-10).couple(pair, make_run())
    assert coupling.g is not None and coupling.eps is not None
    row = gibbs_row(pair, coupling.g, coupling.eps)
    on_sample = frequencies(pair.y[row(pair.x, levels.expand(n, -1))], pair.y)
    laws = coupling.plan / coupling.plan.sum(1, keepdim=True)
    torch.testing.assert_close(on_sample, laws, rtol=0, atol=1.01 / LEVELS)
    new = make_pair(7, 1, seed=seed + 1).x
    f = c_transform(pair, coupling.g, coupling.eps)(new)
    plan = pair.b * ((f[:, None] + coupling.g - cost.matrix(new, pair.y)) / coupling.eps).exp()
    seen = frequencies(pair.y[row(new, levels.expand(7, -1))], pair.y)
    torch.testing.assert_close(seen, plan, rtol=0, atol=1.01 / LEVELS)
    assert (seen[:, : m // 4] == 0).all()


@pytest.mark.parametrize("eps", [None, 0.5])
def test_draws_are_independent_follow_the_plan_and_have_the_map_for_their_mean(eps):
    pair, k = make_pair(), 40_000
    plan = random_plan(12, 9, 0)
    pair = replace(pair, x=pair.x[plan.sum(1) > 0])
    coupling = Coupling(plan[plan.sum(1) > 0], None if eps is None else 0 * pair.b, eps)
    drawn = conditional(coupling, pair, seed=5)(pair.x, k)
    assert drawn.shape == (len(pair.x), k, 2)
    row = nearest_row(coupling.plan, pair) if eps is None else gibbs_row(pair, 0 * pair.b, eps)
    laws = frequencies(pair.y[row(pair.x, levels.expand(len(pair.x), -1))], pair.y)
    error = (laws * (1 - laws) / k).sqrt()
    assert ((frequencies(drawn, pair.y) - laws).abs() <= 5 * error + 1 / LEVELS).all()
    means = drawn.mean(1) - extend(coupling, pair)(pair.x)
    assert float(means.abs().max()) <= 5 * float(drawn.std(1).max()) / k**0.5
    centred = drawn - drawn.mean(1, keepdim=True)
    along = (centred[:, 1:] * centred[:, :-1]).mean(1) / centred.square().mean(1).clamp(min=1e-9)
    assert float(along.abs().max()) <= 5 / k**0.5


def test_draws_are_those_of_the_seed_whatever_is_asked_at_once():
    transport = PotSinkhorn(n=50).fit(gaussian(), make_run(3))
    sample, x = transport.sample, torch.randn(CHUNK + 7, 2)
    assert sample is not None and transport.estimates_map
    drawn = sample(x, 3)
    assert drawn.dtype == torch.float32
    assert torch.equal(sample(x, 3), drawn) and torch.equal(sample(x[:11], 3), drawn[:11])
    again = PotSinkhorn(n=50).fit(gaussian(), make_run(3))
    assert again.sample is not None and torch.equal(again.sample(x, 3), drawn)
    other_seed = replace(make_run(3), seed=4)  # the same fit, other draws
    sample = PotSinkhorn(n=50).fit(gaussian(), other_seed).sample
    assert sample is not None and not torch.equal(sample(x, 3), drawn)


def test_a_plan_that_is_a_map_is_drawn_as_it_is_pushed():
    transport = PotEmd(n=50).fit(gaussian(), make_run())
    x = torch.randn(200, 2)
    assert transport.sample is not None and transport.push is not None
    drawn = transport.sample(x, 4)
    assert torch.equal(drawn, transport.push(x)[:, None].expand_as(drawn))


def test_the_draws_of_ott_are_those_of_pot():
    """Of one seed and nearly one law, though OTT pushes by a map of its own."""
    pot, ott = (
        solver(n=128, tolerance=1e-5).fit(gaussian(), make_run()).sample
        for solver in (PotSinkhorn, OttSinkhorn)
    )
    x = torch.randn(2000, 2, generator=torch.Generator().manual_seed(1))
    assert pot is not None and ott is not None
    assert (pot(x, 2) == ott(x, 2)).all(-1).double().mean() > 0.99


def test_points_that_are_no_vectors_are_drawn_whole():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(6, *shape, generator=generator).double() for shape in [(4,), (3, 2, 2)])
    cost = SQEUCLIDEAN.embedded(lambda z: z.reshape(-1, 1, 2, 2).expand(-1, 3, 2, 2))
    pair = replace(make_pair(6, 6), x=x, y=y, cost=cost)
    drawn = conditional(Coupling(torch.eye(6).double() / 6), pair, 0)(x.float(), 5)
    assert torch.equal(drawn, y.float()[:, None].expand(6, 5, 3, 2, 2))


@pytest.mark.parametrize(
    ("no_map", "drawn"),
    [
        ("does not exist: each point has two images", True),
        ("not unique: every coupling is optimal", True),
        ("is not known", False),
        ("unknown: known by samples only", False),
        ("", False),
    ],
)
def test_a_plan_is_scored_on_draws_where_the_optimal_plan_is_no_map(no_map, drawn):
    problem = replace(gaussian(), truth=Truth("none", 1.0, no_map=no_map))
    both = Transport(
        push=lambda x: 0 * x, sample=lambda x, k: x[:, None].expand(-1, k, -1), estimates_map=True
    )
    scoring = MapScoring(problem, torch.Generator().manual_seed(0))
    x = scoring.x
    outputs, means = Outputs(problem, both, 0), 0 * x
    assert outputs.stochastic is drawn
    assert torch.equal(outputs.mapped(x, means), x if drawn else means)
    kept = map_arrays(scoring, both, means)["pushed"]
    assert torch.equal(torch.from_numpy(kept), x if drawn else means)
    assert Outputs(problem, replace(both, estimates_map=False), 0).stochastic


def test_a_truth_without_a_map_says_whether_its_plan_is_one():
    with pytest.raises(ValueError, match="must begin with one of 'does not exist', 'not unique'"):
        Truth("none", no_map="no idea")
