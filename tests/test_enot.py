"""ENOT on the shared loop: its losses against sums by hand, its images, and what it learns."""

# pyright: reportMissingImports=false
# (otbench.solvers is joined to the package at run time, see otbench/__init__.py)

from __future__ import annotations

import math

import pytest
import torch

from otbench import FitContext, Transport
from otbench.errors import UserError
from otbench.registry import registry
from otbench.solvers.enot import ConjugateTraining, Enot
from tests.test_neural import problem


pytestmark = pytest.mark.usefixtures("one_thread")


def context(dtype: torch.dtype = torch.float64) -> FitContext:
    return FitContext("cpu", dtype, 0, torch.Generator().manual_seed(0))


def training(**settings) -> ConjugateTraining:
    """Always with the same batches and the same weights, of potentials that are not convex."""
    settings = {"batch": 16, "start": "identity", "pairs": "independent", **settings}
    solver = Enot(**settings)
    one = ConjugateTraining(solver, [problem("gaussian[dim=3]", dtype=torch.float64)], [context()])
    one.target.weights.flat.mul_(2)
    return one


@pytest.mark.parametrize("expectile", [0.5, 0.9, 1.0])
def test_the_regulariser_is_that_of_the_paper(expectile):
    """By hand in its own terms: potentials g = |y|^2 - 2 psi of ||x - y||^2, the square of what
    each pair exceeds the bound by.
    """
    plain, regular = training(weight=0), training(expectile=expectile, weight=0.3)
    start, end = regular.source, regular.target
    x, y = start.points.next(), end.points.next()
    image = regular.push(start.weights.frozen, x)

    def g(points):
        return points.square().sum(-1) - 2 * regular.value(end.weights.tensors, points)

    def slopes(loss, one):
        found = torch.autograd.grad(loss, one.target.weights.tensors, materialize_grads=True)
        return torch.cat([slope.flatten() for slope in found])

    excess = (x - image).square().sum(-1) - g(image) - (x - y).square().sum(-1) + g(y)
    assert (excess > 0).any() and (excess < 0).any()
    by_hand = 0.3 * (torch.where(excess >= 0, expectile, 1 - expectile) * excess.square()).mean()
    again = training(expectile=expectile, weight=0.3)
    losses = [one.potential_loss(one.source, one.target, 0).sum() for one in (again, plain)]
    # The paper's objective is twice the correlation's.
    assert 2 * float((losses[0] - losses[1]).detach()) == pytest.approx(float(by_hand.detach()))
    added = slopes(losses[0], again) - slopes(losses[1], plain)
    torch.testing.assert_close(2 * added, slopes(by_hand, regular))


def test_improved_images_are_nearer_to_the_conjugates_maximiser():
    one = training(network="mlp", width=16, depth=2)
    weights = one.target.weights.frozen
    x = one.source.points.next()
    y = x + torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)

    def distance(images):
        return (one.push(weights, images) - x).norm(dim=-1)

    first, few, many = (distance(one.improved(weights, y, x, steps)) for steps in (0, 2, 30))
    assert (few <= first).all() and (many <= few).all()
    assert few.mean() < 0.5 * first.mean() and many.max() < 1e-6


def test_it_learns_a_map_in_both_directions():
    posed = problem("icnn-mixture[dim=2]")
    one = ConjugateTraining(Enot(steps=400, batch=128), [posed], [context(torch.float32)])
    (transport,) = one.train()
    assert not isinstance(transport, Exception) and posed.truth.map is not None
    x = posed.source.sample(4000, torch.Generator().manual_seed(7))
    y = posed.truth.map(x)

    def uvp(images, expected):
        spread = float(expected.var(0, correction=0).sum())
        return 100 * float((images - expected).square().sum(-1).mean()) / spread

    assert transport.push is not None and uvp(transport.push(x), y) < 1
    there = one.frame.of_source(x[None])[1]
    assert uvp(one.frame.to_target(there)[0], y) > 30  # of the linear map
    back = one.push(one.psi.averaged.frozen, one.frame.of_target(y[None]))
    assert uvp(back[0], there[0]) < 1
    # The slope of a potential g of ||x - y||^2 on the target's side: 2 (y - T^{-1}(y)).
    leaf = y.clone().requires_grad_()
    assert transport.target_potential is not None
    (slope,) = torch.autograd.grad(transport.target_potential(leaf).sum(), leaf)
    assert uvp(y - slope / 2, x) < 1


@pytest.mark.slow
def test_the_regulariser_and_matched_pairs_keep_the_potentials_from_running_away():
    """Of these eight runs some leave the target by orders of magnitude without both."""
    posed = problem("log-sum-exp[dim=2]")
    assert posed.truth.map is not None
    x = posed.source.sample(1000, torch.Generator().manual_seed(7))
    y = posed.truth.map(x)

    def largest_error(**settings) -> float:
        contexts = [
            FitContext("cpu", torch.float32, seed, torch.Generator().manual_seed(seed))
            for seed in range(1000, 1008)
        ]
        transports = Enot(steps=800, batch=128, **settings).fit_together([posed] * 8, contexts)
        return max(
            float((transport.push(x) - y).square().sum(1).mean())
            if isinstance(transport, Transport) and transport.push is not None
            else math.inf
            for transport in transports
        )

    spread = float(y.var(0).sum())
    assert largest_error(weight=0, pairs="independent") > 1e3 * spread
    assert largest_error(weight=0.1, pairs="independent") < 0.02 * spread
    assert largest_error(weight=0, pairs="matched") < 0.02 * spread


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("enot[expectile=0.3]", "expectile must be between 0.5 and 1, got 0.3"),
        ("enot[weight=-1]", "weight must not be negative, got -1"),
        ("enot[steps=0]", "steps must be positive, got 0"),
    ],
)
def test_bad_settings_are_refused(text, message):
    with pytest.raises(UserError, match=message):
        registry("solver").select(text)[0].build()
