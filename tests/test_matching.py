"""Matched pairs of batches: every point once, neighbours in one batch, less noise."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otbench.methods.neural import matching
from otbench.methods.neural.matching import LEAF, MatchedPairs, matched_orders


pytestmark = pytest.mark.usefixtures("one_thread")


def normal(dim: int, seen: list[torch.Tensor] | None = None):
    """Draws of a standard normal law, which are noted down."""

    def draw(n: int, generator: torch.Generator) -> torch.Tensor:
        points = torch.randn(n, dim, generator=generator)
        if seen is not None and n > 1:
            seen.append(points)
        return points

    return draw


def pairs(dim: int, batch: int, stack: int = 1, seen=(None, None), shift: float = 0.0):
    """Of equal laws, the source's points moved by the map x + shift."""
    generators = [torch.Generator().manual_seed(seed) for seed in range(stack)]
    source, target = ([normal(dim, notes)] * stack for notes in seen)
    return MatchedPairs(source, target, generators, batch, lambda x, y: (x + shift, y))


@pytest.mark.parametrize(("batch", "points"), [(64, 1024), (100, 1000), (7, 64), (300, 64)])
def test_every_point_is_drawn_once(monkeypatch, batch, points):
    monkeypatch.setattr(matching, "POINTS", points)
    seen: tuple[list[torch.Tensor], ...] = ([], [])
    one = pairs(3, batch, stack=2, seen=seen)
    drawn = [one.next()]
    while one.batches:
        drawn.append(one.next())
    assert len(drawn) >= 2 and len(drawn) % 2 == 0
    x, y = torch.cat([part.unflatten(1, (2, batch)) for part in drawn], 2).unbind(1)
    for found, notes in ((x, seen[0]), (y, seen[1])):
        for member, expected in zip(found, notes, strict=True):
            assert torch.equal(member.unique(dim=0), expected.unique(dim=0))
            assert len(member) == len(expected)


def test_means_over_matched_batches_differ_far_less():
    """Of functions that were not asked about, in two dimensions; and by what they should differ
    where the laws differ.
    """
    batch, one, other = 128, pairs(2, 128), pairs(2, 128, shift=1.0)
    functions = (torch.sin, torch.square, lambda p: p.prod(-1, keepdim=True).tanh())
    generator = torch.Generator().manual_seed(5)
    for function in functions:
        matched, independent = (
            torch.stack([gap(function, *draw()) for _ in range(200)])
            for draw in (
                lambda: one.next()[0].split(batch),
                lambda: torch.randn(2, batch, 2, generator=generator).unbind(),
            )
        )
        assert matched.std() < 0.2 * independent.std()
        assert float(matched.mean().abs()) < 0.02
    moved = torch.stack(
        [gap(torch.sin, x + 1, y) for x, y in (other.next()[0].split(batch) for _ in range(200))]
    )
    expected = torch.sin(torch.tensor(1.0)) * torch.exp(torch.tensor(-0.5))  # E sin(z + 1)
    assert float(moved.mean()) == pytest.approx(float(expected), abs=0.02)


def gap(function, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Between two means."""
    return function(x).mean() - function(y).mean()


def test_points_of_a_batch_are_in_no_order():
    """Neighbours are in one batch, not in one place: a loss of pairs takes independent points."""
    one = pairs(1, 256)
    products = torch.cat([(x * y)[:, 0] for x, y in (one.next()[0].split(256) for _ in range(20))])
    assert abs(float(products.mean())) < 0.06  # in their order it would be near one


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.sampled_from([1, 6, 64, 96]), st.integers(1, 4), st.integers(0, 99))
def test_orders_are_of_all_points_and_do_not_depend_on_scale(stack, n, dim, seed):
    x, y = torch.randn(2, stack, n, dim, generator=torch.Generator().manual_seed(seed)).unbind()
    orders = matched_orders(x, y)
    for order in orders:
        assert torch.equal(order.sort(1).values, torch.arange(n).expand(stack, n))
    moved = matched_orders(4 * x, 4 * y)
    assert all(torch.equal(one, other) for one, other in zip(orders, moved, strict=True))
    alone = matched_orders(x[:1], y[:1])
    assert all(torch.equal(one[:1], other) for one, other in zip(orders, alone, strict=True))


def test_orders_on_a_line_are_those_of_the_points():
    x, y = torch.randn(2, 1, 64, 1, generator=torch.Generator().manual_seed(0)).unbind()
    for cloud, order in zip((x, y), matched_orders(x, y), strict=True):
        cells = cloud[0, order[0], 0].view(-1, LEAF)
        assert (cells[:-1].max(1).values <= cells[1:].min(1).values).all()
