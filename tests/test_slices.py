"""Potentials along lines: valid whatever the masses, and where the derivative of the quantile
formula is not.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otbench import GEODESIC, SQEUCLIDEAN, DiscreteProblem, Truth
from otbench.methods.amortized.slices import Slices, coordinates, line_potential, line_potentials
from otbench.methods.amortized.solver import Remembered
from otbench.methods.entropic import Entropic


masses = st.lists(st.integers(0, 3), min_size=1, max_size=9).filter(any)


def clouds(a: list[int], b: list[int], seed: int, spread: int) -> tuple[torch.Tensor, ...]:
    """Sorted points on a coarse grid, so that they coincide, and masses of equal sum with many ties
    and zeros.
    """
    rng = np.random.default_rng(seed)
    x, y = (
        torch.as_tensor(np.sort(rng.integers(0, spread, len(weights))), dtype=torch.float64)
        for weights in (a, b)
    )
    first, second = (torch.tensor(weights, dtype=torch.float64) for weights in (a, b))
    return x, first / first.sum(), y, second / second.sum()


def excess(x: torch.Tensor, y: torch.Tensor, f: torch.Tensor, g: torch.Tensor) -> float:
    """By how much f_i + g_j is above the cost, at most."""
    return float(
        (f[..., :, None] + g[..., None, :] - (x[..., :, None] - y[..., None, :]).square()).max()
    )


@settings(max_examples=300)
@given(masses, masses, st.integers(0, 2**16), st.integers(1, 12))
def test_potentials_are_feasible_and_attain_the_cost_with_ties_and_points_without_mass(
    a, b, seed, spread
):
    x, a, y, b = clouds(a, b, seed, spread)
    f, g = line_potentials(x, a, y, b)
    assert excess(x, y, f, g) <= 1e-9
    cost = ot.emd2(a, b, (x[:, None] - y).square())
    assert float(a @ f + b @ g) == pytest.approx(float(torch.as_tensor(cost)), abs=1e-9)


@pytest.mark.parametrize("n", [2, 64, 512])
def test_equal_weights_are_all_ties_where_only_valid_potentials_are_feasible(n):
    """As in mini-batches: every knot of one distribution function is one of the other."""
    generator = torch.Generator().manual_seed(n)
    x, y = (
        torch.randn(n, generator=generator, dtype=torch.float64).sort().values + shift
        for shift in (0, 1)
    )
    weights = x.new_full((n,), 1 / n)
    f, g = line_potentials(x, weights, y, weights)
    assert excess(x, y, f, g) <= 1e-9
    assert float((f + g) @ weights) == pytest.approx(float((x - y).square().mean()), rel=1e-12)
    if n > 2:
        columns = (values[:, None] for values in (x, y, weights, weights))
        derivative, other, _ = ot.lp.solver_1d.emd_1d_dual_backprop(*columns, p=2)  # type: ignore[misc]
        assert excess(x, y, derivative[:, 0], other[:, 0]) > 0.1


@given(masses, masses, st.integers(0, 2**16))
def test_a_point_without_mass_has_the_c_transform_from_the_mass_of_the_target(a, b, seed):
    x, a, y, b = clouds(a, b, seed, 50)
    f, g = line_potentials(x, a, y, b)
    held = b > 0
    torch.testing.assert_close(f, ((x[:, None] - y[held]).square() - g[held]).min(1).values)


def test_many_lines_and_pairs_at_once_are_as_one_by_one():
    generator = torch.Generator().manual_seed(0)
    x, y = (
        torch.randn(3, 5, n, generator=generator, dtype=torch.float64).sort(-1).values
        for n in (7, 4)
    )
    a, b = (torch.rand(3, 5, n, generator=generator, dtype=torch.float64) for n in (7, 4))
    a, b = a / a.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True)
    for whole, part in zip(
        line_potentials(x, a, y, b),
        line_potentials(x[1, 2], a[1, 2], y[1, 2], b[1, 2]),
        strict=True,
    ):
        torch.testing.assert_close(whole[1, 2], part)
    torch.testing.assert_close(line_potential(x, a, y, b), line_potentials(x, a, y, b)[0])


def pair(n: int = 9, m: int = 7, dim: int = 2, zeros: int = 3) -> DiscreteProblem:
    """Random clouds, the first points of both without mass."""
    generator = torch.Generator().manual_seed(n)
    x, y = (torch.randn(k, dim, generator=generator, dtype=torch.float64) for k in (n, m))
    a, b = (
        torch.rand(k, generator=generator, dtype=torch.float64).index_fill_(
            0, torch.arange(zeros), 0
        )
        for k in (n, m)
    )
    return DiscreteProblem(x, a / a.sum(), y, b / b.sum(), SQEUCLIDEAN, Truth("none"), 0.1)


def test_features_are_the_potentials_of_each_line_in_the_order_of_the_points():
    problem = Entropic(pair())
    slices = Slices.draw(6, problem.pair, torch.Generator().manual_seed(1))
    features = slices.features(problem)
    assert features.shape == (6, 6)
    for line in range(6):
        x, y = (
            points @ slices.directions[line]
            for points in (problem.pair.x[problem.rows], problem.pair.y[problem.columns])
        )
        costs = (x[:, None] - y).square()
        g = (costs - features[:, line, None]).min(0).values
        assert float(problem.a @ features[:, line] + problem.b @ g) == pytest.approx(
            float(torch.as_tensor(ot.emd2(problem.a, problem.b, costs))), rel=1e-9
        )
    torch.testing.assert_close(
        features.mean(0), torch.zeros(6, dtype=torch.float64), rtol=0, atol=1e-12
    )


def test_points_without_mass_change_nothing_and_have_potentials_when_asked():
    problem = Entropic(pair())
    slices = Slices.draw(5, problem.pair, torch.Generator().manual_seed(1))
    some, everything = slices.features(problem), slices.features(problem, everywhere=True)
    assert len(everything) == 9
    among = everything[problem.rows]
    torch.testing.assert_close(among - among.mean(0), some)
    omega = torch.randn(5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    combined = slices.potential(problem, omega)
    torch.testing.assert_close(combined - combined.mean(), some @ omega)


def test_derivatives_agree_where_there_is_mass_and_no_tie_and_only_there():
    """The defect of the derivatives is off the mass: on it they are potentials as well."""
    problem = Entropic(pair(20, 15))
    slices, derivatives = (
        Slices.draw(4, problem.pair, torch.Generator().manual_seed(1), autograd)
        for autograd in (False, True)
    )
    torch.testing.assert_close(slices.features(problem), derivatives.features(problem))
    off = slices.features(problem, everywhere=True) - derivatives.features(problem, everywhere=True)
    assert float((off - off[-1])[:3].abs().max()) > 0.1


def test_the_sphere_is_projected_stereographically():
    points = torch.tensor([[0.0, 0, -1], [1, 0, 0], [0, 0.6, 0.8], [0, 0, 1]], dtype=torch.float64)
    flat = coordinates(points, GEODESIC)
    torch.testing.assert_close(
        flat[:3], torch.tensor([[0.0, 0], [2, 0], [0, 6]], dtype=torch.float64)
    )
    assert bool(torch.isfinite(flat).all())


def test_sorted_projections_are_remembered_for_the_same_points_and_no_others():
    calls = []
    remembered = Remembered(lambda x: calls.append(1) or x.sum())
    x = torch.ones(3)
    assert float(remembered(x)) == float(remembered(x)) == 3 and len(calls) == 1
    assert float(remembered(torch.ones(2))) == 2 and len(calls) == 2
    assert float(remembered(x)) == 3 and len(calls) == 3
    x.mul_(2)
    assert float(remembered(x)) == 6, "changed in place"


def test_another_pair_on_the_same_points_is_not_taken_for_the_first():
    first = pair(zeros=0)
    weights = torch.linspace(1, 2, 9, dtype=torch.float64)
    second = replace(first, a=weights / weights.sum())
    slices = Slices.draw(5, first, torch.Generator().manual_seed(1))
    slices.features(Entropic(first))
    fresh = Slices(slices.directions, first.cost)
    torch.testing.assert_close(slices.features(Entropic(second)), fresh.features(Entropic(second)))
