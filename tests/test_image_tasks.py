"""Tasks on images: parts without a common image, degradations that are what they say, hidden
partners, the known law of hues.
"""

# pyright: reportMissingImports=false
# (otbench.tasks is joined to the package at run time, see otbench/__init__.py)
from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from otbench import MapProblem, MissingError
from otbench.data.images import load
from otbench.data.pools import split
from otbench.errors import UserError
from otbench.families.probes import Circle
from otbench.registry import registry
from tests.truths import cost_is_that_of_samples, pairs_of, potentials_certify_the_pairs


REAL = ("digits", "mnist", "celeba")


def build(text: str, seed: int = 0, dtype: torch.dtype = torch.float64) -> MapProblem:
    (selection,) = registry("task").select(text)
    try:
        problem = selection.build().problem(np.random.default_rng(seed), device="cpu", dtype=dtype)
    except MissingError as error:
        pytest.skip(str(error))
    assert isinstance(problem, MapProblem)
    return problem


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def partners(problem: MapProblem, n: int = 2000) -> tuple[torch.Tensor, torch.Tensor]:
    assert problem.truth.test_points is not None
    x, made_with = problem.truth.test_points(n, generator())
    return x, made_with["partner"]


@pytest.mark.parametrize("data", REAL)
def test_no_image_is_in_two_parts(data):
    try:
        parts = split(data, 0, 500, np.random.default_rng(3), "cpu", torch.float32)
    except MissingError as error:
        pytest.skip(str(error))
    images, rows = load(data), [set(part.rows.tolist()) for part in parts]
    a, b, c = rows
    assert not (a & b or a & c or b & c)
    assert (
        len(a) == len(parts[0])
        and abs(len(a) - len(b)) <= 1
        and len(c) == min(500, len(images.pixels) - images.learnt)
    )
    assert (
        max(a | b) < images.learnt <= min(c)
    )  # what is scored on is never learnt from, whatever the seed
    halves = [set(half.rows.tolist()) for half in parts[2].halves()]
    assert not (halves[0] & halves[1]) and halves[0] | halves[1] == c
    other = split(data, 0, 500, np.random.default_rng(4), "cpu", torch.float32)
    assert set(other[0].rows.tolist()) != a


@pytest.mark.parametrize("degradation", ["denoise", "inpaint", "deblur"])
def test_what_is_scored_on_was_never_drawn_for_training(degradation):
    """By content: clean test images are among those kept, training targets among the others."""
    problem = build(f"image-restoration[degradation={degradation}]")
    images = load("digits")
    clean = torch.as_tensor(images.pixels).double().flatten(1) / 8 - 1
    learnt, kept = clean[: images.learnt], clean[images.learnt :]

    def within(points: torch.Tensor, pool: torch.Tensor) -> torch.Tensor:
        return (torch.cdist(points, pool).min(1).values < 1e-6).all()

    _, y = partners(problem)
    assert len(y) == len(kept) == 297 and within(y, kept)
    assert within(problem.target.sample(200, generator()), learnt)
    held_out = problem.target.sample_test(1000, generator())
    assert (
        within(held_out, kept) and torch.cdist(held_out, y[: len(y) // 2]).min() > 0
    )  # independent of the earlier half


@pytest.mark.parametrize("sigma", [0.2, 0.4])
def test_noise_has_the_deviation_that_is_asked_for(sigma):
    x, y = partners(build(f"image-restoration[sigma={sigma}]"))
    assert float((x - y).std()) == pytest.approx(sigma, rel=0.02)
    assert (
        float((x - y).mean()) == pytest.approx(0, abs=0.01)
        and float(y.min()) == -1
        and float(y.max()) == 1
    )
    again, _ = partners(build(f"image-restoration[sigma={sigma}]"))
    assert torch.equal(x, again)


def test_the_right_half_is_grey_and_the_left_is_kept():
    x, y = (
        images.unflatten(1, (8, 8))
        for images in partners(build("image-restoration[degradation=inpaint]"))
    )
    assert (
        (x[:, :, 4:] == 0).all()
        and torch.equal(x[:, :, :4], y[:, :, :4])
        and (y[:, :, 4:] != 0).any()
    )


def test_blur_keeps_means_away_from_the_border_and_is_the_gaussian():
    problem = build("image-restoration[degradation=deblur]")
    x, y = (images.unflatten(1, (8, 8)) for images in partners(problem))
    line = torch.exp(-torch.tensor([4.0, 1, 0, 1, 4], dtype=torch.float64) / 8)
    kernel = torch.outer(line, line) / line.sum() ** 2
    assert torch.allclose(x[:, 3, 3], (y[:, 1:6, 1:6] * kernel).sum((1, 2)))
    reflected = y[:, [2, 1, 0, 1, 2]][:, :, [2, 1, 0, 1, 2]]
    assert torch.allclose(x[:, 0, 0], (reflected * kernel).sum((1, 2)))


def test_colours_become_their_luma():
    problem = build(
        "image-restoration[data=celeba,side=32,test=64,degradation=colorize]", dtype=torch.float32
    )
    x, y = (images.unflatten(1, (3, 32, 32)) for images in partners(problem))
    assert torch.equal(x[:, 0], x[:, 1]) and torch.equal(x[:, 0], x[:, 2])
    assert torch.allclose(x[:, 0], 0.299 * y[:, 0] + 0.587 * y[:, 1] + 0.114 * y[:, 2], atol=1e-6)


@pytest.mark.parametrize("latent", [0, 4])
def test_noise_is_that_of_its_moments_and_is_enlarged(latent):
    problem = build(f"image-generation[latent={latent}]")
    z = problem.source.sample(4000, generator())
    assert z.shape[1] == (latent or 8) ** 2 and float(z.var()) == pytest.approx(1, rel=0.02)
    q = problem.cost.embed(z)
    assert q.shape[1] == 64 and torch.linalg.matrix_rank(q) == (16 if latent else 64)
    assert problem.truth.test_points is None and "not known" in problem.truth.no_map
    assert len(problem.target.sample_test(10_000, generator())) == 297


@pytest.mark.parametrize(
    ("data", "source", "target"),
    [("digits", "2", "3"), ("mnist", "7", "1"), ("celeba", "male", "female")],
)
def test_translation_joins_two_classes_without_a_common_image(data, source, target):
    side = ",side=32" if data == "celeba" else ""
    problem = build(
        f"image-translation[data={data},source={source},target={target}{side}]", dtype=torch.float32
    )
    back = build(
        f"image-translation[data={data},source={target},target={source}{side}]", dtype=torch.float32
    )
    x, y = (
        problem.source.sample_test(300, generator()),
        problem.target.sample_test(300, generator()),
    )
    assert len(x) > 20 and len(y) > 20 and torch.cdist(x, y).min() > 0
    swapped = back.target.sample_test(10_000, generator())
    assert (torch.cdist(x, swapped).min(1).values < 0.1).all()  # the same class, from either side


def test_the_law_of_hues_is_proved():
    problem = build("hue-colorization")
    potentials_certify_the_pairs(problem, 0)
    cost_is_that_of_samples(problem, 0, samples=100_000)
    x, y = pairs_of(problem, 4000, 0)
    (probe,) = problem.truth.probes
    assert isinstance(probe, Circle) and problem.truth.spurious is not None
    place = probe.place(x, y)
    assert torch.allclose(place.norm(dim=1), torch.ones(4000, dtype=torch.float64))
    assert float(place.mean(0).norm()) < 4 / math.sqrt(4000) and y.min() >= -1 and y.max() <= 1
    assert probe.place(x, x).abs().max() < 1e-12  # grey is at the centre
    assert (
        problem.truth.potential is not None and (problem.truth.potential(y) < 0).all()
    )  # no bound is broken off the source either
    one_hue = problem.truth.spurious(x)
    assert probe.place(x, one_hue).std(0).max() < 1e-6
    assert torch.allclose(
        problem.cost.pairwise(x, one_hue), problem.cost.pairwise(x, y)
    )  # as cheap as the plan
    grey = y.unflatten(1, (3, 64)).mean(1)
    assert torch.allclose(grey.repeat(1, 3), x)  # the digit is kept


def test_hues_do_not_depend_on_the_digit():
    problem = build("hue-colorization")
    y = problem.target.sample(6000, generator())
    x = y.unflatten(1, (3, 64)).mean(1).repeat(1, 3)
    (probe,) = problem.truth.probes
    place = probe.measure(x, y)["circle_places"]
    first = (x[:, :64] - x[:, :64].mean(0)) @ torch.linalg.svd(
        x[:, :64] - x[:, :64].mean(0), full_matrices=False
    ).Vh[0]
    correlation = torch.corrcoef(torch.cat([first[None], place.T]))[0, 1:]
    assert correlation.abs().max() < 4 / math.sqrt(6000)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image-restoration[sigma=0]", "sigma must be positive"),
        ("image-restoration[degradation=colorize]", "whose images are grey"),
        ("image-restoration[side=4]", "side must be from 8"),
        ("image-generation[latent=4,cost=euclidean]", "cost must be sqeuclidean"),
        ("image-generation[latent=1]", "latent must be from 2"),
        ("image-translation[source=3]", "another class"),
        ("image-translation[source=11]", "source must be one of 0, 1"),
        ("image-translation[data=celeba]", "source must be one of male, female"),
        ("hue-colorization[test=10]", "test must be at least"),
    ],
)
def test_parameters_that_make_no_task_are_refused(text, words):
    with pytest.raises(UserError, match=words):
        registry("task").select(text)


@pytest.mark.parametrize(
    "name",
    [
        "brenier-images",
        "hue-colorization",
        "image-generation",
        "image-restoration",
        "image-translation",
    ],
)
def test_without_the_files_a_task_is_missing_and_says_what_to_do(name, monkeypatch, tmp_path):
    monkeypatch.setenv("OTBENCH_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (selection,) = registry("task").select(f"{name}[data=mnist]")
    with pytest.raises(
        MissingError, match=r"no data file mnist/.*put it there, or set OTBENCH_DATA"
    ) as caught:
        selection.build().problem(np.random.default_rng(0), device="cpu", dtype=torch.float32)
    assert "\n" not in str(caught.value)
