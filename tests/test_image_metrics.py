"""Metrics of images and of circles of images against closed forms, and the scoring of problems
whose target is images.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from otbench import SQEUCLIDEAN, MapProblem, Measure, Transport, Truth, metrics
from otbench.families.probes import Circle
from otbench.metrics import METRICS
from otbench.metrics.distances import frechet_distance
from otbench.metrics.images import (
    frechet_scattering,
    frechet_scattering_floor,
    psnr_db,
    psnr_input_db,
    scattering_defect,
    scattering_visible,
    ssim,
    transport_cost,
)
from otbench.metrics.one_to_many import (
    circle_defect,
    circle_diversity,
    circle_entropy,
    circle_off,
    circle_tv,
    circle_visible,
)
from otbench.scoring.features import networks
from otbench.scoring.features.scattering import Scattering, scattered
from otbench.scoring.maps import MapScoring
from otbench.scoring.samples import IMAGES, VECTORS
from otbench.scoring.verdict import judge
from tests.truths import generator


SIDE = 8
OF_IMAGES = [
    name
    for name, metric in METRICS.items()
    if metric.function.__module__ == "otbench.metrics.images"
]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def digits() -> torch.Tensor:
    """``(1797, 1, 8, 8)``, pixels from -1 to 1, in random order."""
    images = torch.as_tensor(load_digits().images)[:, None] / 8 - 1  # type: ignore[union-attr]
    return images[torch.randperm(len(images), generator=generator(0))]


# Likeness to the partner


@pytest.mark.parametrize(
    ("sigma", "expected"), [(0.4, 13.98), (0.2, 20.0), (0.3, 16.48), (2.0, 0.0)]
)
def test_psnr_of_noise_is_that_of_its_variance(sigma: float, expected: float) -> None:
    partner = normal(50, 3, 32, 32).clamp(-1, 1)
    noisy = partner + sigma * normal(50, 3, 32, 32, seed=1)  # beyond the range too
    assert (
        psnr_db(noisy, partner)
        == pytest.approx(expected, abs=0.02)
        == psnr_input_db(noisy, partner)
    )


def test_psnr_is_a_mean_over_images_and_at_most_100_db() -> None:
    partner = normal(2, 1, 8, 8)
    off = partner + torch.tensor([0.2, 0.02])[:, None, None, None]
    assert psnr_db(off, partner) == pytest.approx((20 + 40) / 2)
    assert psnr_db(partner, partner) == pytest.approx(100)


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_of_equal_images_is_one_and_of_flat_ones_that_of_their_means(channels: int) -> None:
    images = normal(5, channels, 9, 12).clamp(-1, 1)
    assert ssim(images, images) == pytest.approx(1)
    assert -0.2 < ssim(images, images.roll(1, 0)) < 0.2
    flat, other = torch.full((2, channels, 8, 8), 0.5), torch.full((2, channels, 8, 8), -0.2)
    constant = (0.01 * 2) ** 2
    assert ssim(flat, other) == pytest.approx(
        (2 * 0.5 * -0.2 + constant) / (0.5**2 + 0.2**2 + constant)
    )
    assert math.isnan(ssim(images[..., :6], images[..., :6]))


def test_the_transport_cost_is_the_mean() -> None:
    assert transport_cost(torch.tensor([1.0, 2.0, 6.0])) == 3


# Frechet distance


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(3, 40), dim=st.integers(2, 12))
def test_the_frechet_distance_is_that_of_a_matrix_root_for_any_rank(
    seed: int, n: int, dim: int
) -> None:
    x, y = normal(n, dim, seed=seed), 2 * normal(n + 5, dim, seed=seed + 1) ** 2
    a, b = (torch.cov(z.T).numpy() for z in (x, y))
    root = scipy.linalg.sqrtm(a + 1e-12 * np.eye(dim))
    fidelity = np.sqrt(np.linalg.eigvalsh(root @ b @ root).clip(min=0)).sum()
    expected = (
        float((x.mean(0) - y.mean(0)).square().sum()) + np.trace(a) + np.trace(b) - 2 * fidelity
    )
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert frechet_distance(y, x) == pytest.approx(frechet_distance(x, y))
    assert frechet_distance(x, x.flip(0)) == pytest.approx(0, abs=1e-12)


def test_the_frechet_distance_of_a_shift_and_a_scaling() -> None:
    x = normal(500, 6)
    shift = normal(6, seed=1)
    assert frechet_distance(x, x + shift) == pytest.approx(float(shift.square().sum()))
    centred = x - x.mean(0)
    assert frechet_distance(centred, 3 * centred) == pytest.approx(
        4 * float(torch.cov(x.T).trace())
    )
    assert frechet_distance(x / 0, x) == math.inf and math.isnan(frechet_distance(x[:1], x))


# Scattering


def test_a_wave_is_seen_by_the_wavelet_of_its_frequency_and_direction() -> None:
    """cos(w (k + 1/2)) is its own mirror image; half of it is the analytic wave, whose modulus is
    1/2.
    """
    wave = (0.75 * math.pi * (torch.arange(16, dtype=torch.float64) + 0.5)).cos()
    across, down = wave.expand(16, 16), wave[:, None].expand(16, 16)
    _, first, _ = scattered(torch.stack([across, down])[:, None])
    responses = first.reshape(2, 3, 4, 4).mean(-1)  # image, scale, orientation
    assert responses[0, 0, 0] == responses[1, 0, 2] == pytest.approx(0.5, rel=0.05)
    others = responses.clone()
    others[0, 0, 0] = others[1, 0, 2] = 0
    assert others.max() < 0.2


@pytest.mark.parametrize(
    "shape", [(1, 8, 8), (3, 32, 32), (1, 28, 28), (3, 7, 9), (1, 12, 20), (2, 2, 2)]
)
def test_flat_images_have_no_texture_in_any_shape(shape: tuple[int, int, int]) -> None:
    mean, *textures = scattered(torch.full((2, *shape), 0.3, dtype=torch.float64))
    assert mean.shape == (2, 4 * shape[0]) and mean[:, :4].sub(0.3).abs().max() < 1e-12
    assert all(texture.abs().max() < 1e-12 for texture in textures)
    images = normal(40, *shape)
    features = Scattering.of(images)
    assert torch.isfinite(features(images)).all()
    single = features(images.float())
    assert single.dtype == torch.float64 and torch.allclose(single, features(images), atol=1e-4)


def test_features_have_the_variance_of_the_reference_and_do_not_depend_on_how_many_are_taken(
    digits, monkeypatch
) -> None:
    features = Scattering.of(digits[:600])
    found = features(digits[:600])
    assert found.shape == (600, 32)
    assert found.mean(0).abs().max() < 1e-9 and 0.85 < float(found.var(0).sum()) < 1
    monkeypatch.setattr("otbench.scoring.features.scattering.PIXELS", 1000)
    assert torch.allclose(features(digits[:600]), found, atol=1e-12)


@pytest.fixture(scope="module")
def distance(digits) -> Callable[[torch.Tensor], float]:
    """`frechet_scattering` to digits that are not among the first 400."""
    features = Scattering.of(digits[1200:])
    target = features(digits[800:1200])
    return lambda images: frechet_scattering(features(images), target)


def test_the_frechet_distance_grows_with_noise_and_with_blanks(digits, distance) -> None:
    clean, noise = digits[:400], normal(400, 1, SIDE, SIDE)
    floor = distance(digits[400:800])
    noisy = [distance(clean + sigma * noise) for sigma in (0.0, 0.1, 0.2, 0.4, 1.0)]
    assert (
        noisy == sorted(noisy)
        and noisy[0] < 1.5 * floor
        and noisy[2] > 1.5 * floor
        and noisy[3] > 5 * floor
    )
    half = clean.clone()
    half[:200, ..., SIDE // 2 :] = 0
    blank = clean.clone()
    blank[..., SIDE // 2 :] = 0
    assert 5 * floor < distance(half) < distance(blank)
    assert 5 * floor < distance((clean + clean.roll(1, -1)) / 2)  # blurred
    assert 3 * floor < distance(clean + 0.1)  # brighter


def test_few_images_repeated_are_far_from_all(digits, distance) -> None:
    floor = distance(digits[400:800])
    one, ten = (distance(digits[:k].repeat(400 // k, 1, 1, 1)) for k in (1, 10))
    assert 10 * floor < ten < one and one > 1  # all variance is lost
    assert distance(digits[:400].mean(0).expand(400, -1, -1, -1)) > 1


def test_the_order_of_images_does_not_matter_but_that_of_channels_does(digits) -> None:
    coloured = torch.cat([digits, digits.roll(1, -1), -digits], 1)
    features = Scattering.of(coloured[:600])
    target, pushed = features(coloured[600:1000]), features(coloured[1000:1400])
    expected = frechet_scattering(pushed, target)
    assert frechet_scattering(pushed.flip(0), target[torch.randperm(400)]) == pytest.approx(
        expected, rel=1e-9
    )
    assert frechet_scattering(features(coloured[1000:1400].flip(1)), target) > 10 * expected


def test_other_digits_stay_below_what_is_visible(digits) -> None:
    features = Scattering.of(digits)(digits)
    found = []
    for seed in range(20):
        pushed, fresh, target = features[torch.randperm(len(digits), generator=generator(seed))][
            :900
        ].split(300)
        assert scattering_visible(fresh, target) == frechet_scattering_floor(fresh, target)
        found.append(scattering_defect(pushed, fresh, target) / scattering_visible(fresh, target))
    assert max(found) < 1 and abs(np.mean(found)) < 0.2


# Circles


def on_circle(angles: torch.Tensor) -> torch.Tensor:
    return torch.stack([angles.cos(), angles.sin()], -1).double()


def test_places_all_around_the_circle_at_one_hue_at_two_and_at_the_centre() -> None:
    turn = 2 * math.pi * torch.arange(960).double() / 960
    scores = {
        name: tuple(
            float(metric(places))
            for metric in (circle_entropy, circle_tv, circle_off, circle_defect)
        )
        for name, places in {
            "all": on_circle(turn + 0.001),
            "one": on_circle(torch.full((960,), 1.0)),
            "opposite": on_circle(1 + math.pi * (torch.arange(960) % 2)),
            "centre": torch.zeros(960, 2),
        }.items()
    }
    assert scores["all"] == pytest.approx((1, 0, 0, 0), abs=1e-5)
    assert scores["one"] == pytest.approx((0, 11 / 12, 0, 2))
    assert scores["opposite"] == pytest.approx(
        (math.log(2) / math.log(12), 10 / 12, 0, 2 - 4 / math.pi), abs=1e-5
    )
    assert scores["centre"] == pytest.approx((0, 1, 1, 1))


def test_uniform_draws_stay_below_what_is_visible() -> None:
    draws = on_circle(2 * math.pi * torch.rand(200, 256, generator=generator(0)))
    found = np.array([circle_defect(places) for places in draws])
    visible = circle_visible(draws[0])
    assert (found > visible).mean() <= 0.03 and (found > 0.5 * visible).mean() > 0.03
    assert circle_visible(torch.zeros(5000, 2)) == circle_visible(torch.zeros(1024, 2)) < 0.011


def test_the_diversity_given_x_is_that_of_the_draws() -> None:
    random = on_circle(2 * math.pi * torch.rand(500, 64, generator=generator(0)))
    assert circle_diversity(random) == pytest.approx(0.964, abs=0.005)
    assert circle_diversity(random[:, :1]) == 0
    fixed = random[:, :1].expand(-1, 64, -1)  # every x its own hue
    assert circle_diversity(fixed) == 0 and circle_entropy(fixed[:, 0]) > 0.95


# Scoring


def restoration(digits: torch.Tensor, **changes: Any) -> MapProblem:
    """Digits under noise of 0.4, to digits; the held-out target images are the partners of the
    later half of the test points.
    """
    clean = digits.flatten(1)
    kept = clean[-400:]

    def some(rows: torch.Tensor, n: int, stream: torch.Generator) -> torch.Tensor:
        return rows[torch.randint(len(rows), (n,), generator=stream)]

    def noisy(y: torch.Tensor, stream: torch.Generator) -> torch.Tensor:
        return y + 0.4 * torch.randn(y.shape, generator=stream, dtype=y.dtype)

    def partners(n: int, stream: torch.Generator) -> tuple[torch.Tensor, dict]:
        y = kept[:n]
        return noisy(y, stream), {"partner": y}

    image = (1, SIDE, SIDE)
    source = Measure(
        (SIDE * SIDE,), lambda n, stream: noisy(some(clean[:700], n, stream), stream), image=image
    )
    target = Measure(
        (SIDE * SIDE,),
        lambda n, stream: some(clean[700:1397], n, stream),
        held_out=lambda n, stream: kept[200:][torch.randperm(200, generator=stream)[:n]],
        image=image,
    )
    return MapProblem(
        source,
        target,
        SQEUCLIDEAN,
        Truth("none", no_map="is not known", **{"test_points": partners, **changes}),
    )


@pytest.fixture
def no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTBENCH_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def identity(x: torch.Tensor) -> torch.Tensor:
    return x.clone()


@pytest.mark.usefixtures("no_weights")
def test_what_a_map_that_does_nothing_scores(digits) -> None:
    scoring = MapScoring(restoration(digits), generator(1))
    scores = scoring.score(Transport(push=identity), scoring.x)
    for name in ("psnr_db", "ssim", "frechet_scattering"):
        assert scores[name] == scores["psnr_input_db" if name == "psnr_db" else f"{name}_input"]
    assert scores["psnr_db"] == pytest.approx(13.98, abs=0.1) and scores["transport_cost"] == 0
    assert scores["frechet_scattering"] > 2 * scores["frechet_scattering_floor"]
    assert scores["target_defect"] < 0.1 and judge(scores) is None  # the optimal cost is unknown
    assert (
        judge({**scores, "cost_defect": 0.0}) == "inaccurate"
    )  # slices hardly see the noise, the features do
    assert scoring.notes.keys() == {"fid", "lpips"} and not {"fid", "lpips"} & scores.keys()
    assert "no data file weights/pt_inception-2015-12-05-6726825d.pth" in scoring.notes["fid"]

    right = scoring.score(Transport(push=identity), scoring.known["partner"])
    assert right["psnr_db"] == pytest.approx(100) and right["ssim"] == pytest.approx(1)
    assert (
        right["frechet_scattering"] < 1.5 * right["frechet_scattering_floor"]
        and judge({**right, "cost_defect": 0.0}) == "ok"
    )
    assert right["transport_cost"] == pytest.approx(SIDE**2 * 0.4**2, rel=0.05)


@pytest.mark.usefixtures("no_weights")
def test_images_of_the_earlier_half_alone_meet_the_target(digits, monkeypatch) -> None:
    """The later half are made from the very images that the target is scored on."""
    scoring = MapScoring(restoration(digits), generator(1))
    marked = torch.arange(len(scoring.x)).double()[:, None].expand(scoring.x.shape) / 1000
    arrays: dict[str, Any] = {}
    monkeypatch.setattr(
        metrics, "score", lambda given, curve_only=False: arrays.update(given) or {}
    )
    transport = Transport(push=lambda x: marked, path=lambda x: torch.stack([x, marked[: len(x)]]))
    scoring.score(transport, marked.clone())
    assert len(scoring.x) == 400
    assert [
        len(arrays[name]) for name in ("mapped_sample", "flow_mapped", "scattering_mapped")
    ] == [100] * 3
    assert max(float(arrays[name].max()) for name in ("mapped_sample", "flow_mapped")) < 0.2
    assert len(arrays["scattering_target"]) == len(arrays["scattering_fresh"]) == 100
    assert len(arrays["mapped_images"]) == len(arrays["partner_images"]) == 400


@pytest.mark.usefixtures("no_weights")
def test_images_are_scored_on_fewer_points_and_curves_on_fewer_still(digits) -> None:
    pushes: list[int] = []

    def push(x: torch.Tensor) -> torch.Tensor:
        pushes.append(len(x))
        return x / 2

    problem = restoration(digits, test_points=None, target_potential=lambda y: y.sum(1), cost=10.0)
    scoring = MapScoring(problem, generator(1))
    assert len(scoring.x) == IMAGES.test and len(scoring.pool) == 200
    transport = Transport(push=push, target_potential=problem.truth.target_potential)
    curve = scoring.score_checkpoint(transport)
    assert pushes == [IMAGES.checkpoint]
    assert curve.keys() == {"cost_ratio", "saddle_value", "transport_cost"}
    first = scoring.x[: IMAGES.checkpoint]
    assert curve["transport_cost"] == pytest.approx(float((first / 2).square().sum(1).mean()))
    final = scoring.score(transport, scoring.x / 2)
    assert final["saddle_value"] == pytest.approx(
        curve["saddle_value"], rel=1e-9
    )  # of the same points
    assert curve.keys() < final.keys()


@pytest.mark.usefixtures("no_weights")
def test_curves_have_the_likeness_to_the_partners_of_the_first_points(digits, monkeypatch) -> None:
    monkeypatch.setattr("otbench.scoring.maps.IMAGES", IMAGES._replace(checkpoint=30))
    scoring = MapScoring(restoration(digits), generator(1))
    curve = scoring.score_checkpoint(Transport(push=identity))
    pictures = (
        points[:30].unflatten(1, (1, SIDE, SIDE))
        for points in (scoring.x, scoring.known["partner"])
    )
    assert curve["psnr_db"] == pytest.approx(psnr_db(*pictures)) and curve["transport_cost"] == 0


def test_vectors_are_scored_as_ever() -> None:
    plane = Measure(
        (2,),
        lambda n, stream: torch.randn(n, 2, generator=stream, dtype=torch.float64),
        variance=2.0,
    )
    scoring = MapScoring(
        MapProblem(plane, plane, SQEUCLIDEAN, Truth("closed_form", 0.0, identity)), generator(0)
    )
    assert (
        scoring.sizes == VECTORS
        and len(scoring.x) == scoring.apart == 16384
        and scoring.notes == {}
    )
    assert not set(OF_IMAGES) & scoring.score(Transport(push=identity), scoring.x).keys()
    assert list(METRICS)[-len(OF_IMAGES) :] == OF_IMAGES and OF_IMAGES[0] == "psnr_db"


def circle_problem() -> MapProblem:
    """A point of a line to the circle of radius 1 around it in a plane across it."""

    def line(n: int, stream: torch.Generator) -> torch.Tensor:
        x = torch.zeros(n, 3, dtype=torch.float64)
        x[:, 0] = torch.rand(n, generator=stream, dtype=torch.float64)
        return x

    def tube(n: int, stream: torch.Generator) -> torch.Tensor:
        around = on_circle(2 * math.pi * torch.rand(n, generator=stream, dtype=torch.float64))
        return torch.cat([line(n, stream)[:, :1], around], 1)

    truth = Truth(
        "closed_form", 1.0, no_map="does not exist", probes=(Circle(lambda x, y: (y - x)[:, 1:]),)
    )
    return MapProblem(Measure((3,), line), Measure((3,), tube), SQEUCLIDEAN, truth)


def test_a_map_to_one_point_of_each_circle_is_told_from_the_plan() -> None:
    scoring = MapScoring(circle_problem(), generator(0))
    noise = generator(5)

    def sample(x: torch.Tensor, k: int) -> torch.Tensor:
        around = on_circle(
            2 * math.pi * torch.rand(len(x), k, generator=noise, dtype=torch.float64)
        )
        return torch.cat([x[:, None, :1].expand(-1, k, 1), around], 2)

    plan = scoring.score(Transport(push=identity, sample=sample), scoring.x)
    assert plan["circle_defect"] < plan["circle_visible"] < 0.011 and judge(plan) == "ok"
    assert (
        plan["circle_diversity"] > 0.95
        and plan["circle_entropy"] > 0.99
        and plan["circle_off"] == 0
    )
    one = scoring.score(Transport(push=identity), scoring.x + torch.tensor([0.0, 1, 0]))
    assert (
        one["circle_defect"] == pytest.approx(2)
        and one["circle_diversity"] == one["circle_entropy"] == 0
    )
    right_elsewhere = {
        "target_defect": 0.01,
        "cost_defect": 0.01,
        "dual_gap": 0.0,
        "inner_gap": 0.0,
    }
    assert (
        judge(
            right_elsewhere
            | {"circle_defect": one["circle_defect"], "circle_visible": one["circle_visible"]}
        )
        == "spurious"
    )


def test_an_explosion_of_images_is_scored(digits, no_weights) -> None:
    scoring = MapScoring(restoration(digits.float()), generator(0))
    scores = scoring.score(Transport(push=identity), 1e18 * scoring.x)
    assert scores["psnr_db"] < -300 and scores["transport_cost"] > 1e35
    assert judge({**scores, "cost_defect": 0.0}) == "inaccurate"


# Trained networks


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with weights of the right names and shapes, but random."""
    try:
        import torchvision  # pyright: ignore[reportMissingImports]
        from torchmetrics.image.fid import NoTrainInceptionV3  # pyright: ignore[reportMissingImports]
    except (ImportError, RuntimeError) as error:
        pytest.skip(
            f"the packages of FID and LPIPS cannot be used here: {str(error).splitlines()[0]}"
        )
    folder = tmp_path_factory.mktemp("data")
    (folder / "weights").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "load", lambda *_, **__: {})
        patch.setattr(torch.nn.Module, "load_state_dict", lambda *_: None)
        inception = NoTrainInceptionV3("inception-v3-compat", ["2048"], "none")
    torch.save(inception.state_dict(), folder / networks.INCEPTION)
    with torch.device("meta"):
        shapes = torchvision.models.vgg16(weights=None).state_dict()
    stream = generator(0)
    convolutions = {
        name: torch.randn(like.shape, generator=stream) * (2 / max(1, like[0].numel())) ** 0.5
        for name, like in shapes.items()
        if name.startswith("features")
    }
    unused = {
        name: torch.zeros(1).expand(like.shape)
        for name, like in shapes.items()
        if name not in convolutions
    }
    torch.save({**convolutions, **unused}, folder / networks.VGG)
    return folder


def test_fid_and_lpips_are_those_of_torchmetrics(random_weights, digits, monkeypatch) -> None:
    monkeypatch.setenv("OTBENCH_DATA", str(random_weights))
    monkeypatch.setattr(networks, "checksum", lambda path: path.stem.rpartition("-")[2])
    scoring = MapScoring(restoration(digits, test_points=None), generator(1))
    monkeypatch.setattr("otbench.scoring.pictures.PERCEPTUAL_IMAGES", 66)
    monkeypatch.setattr("otbench.scoring.maps.FRECHET_IMAGES", 40)
    arrays: dict[str, Any] = {}
    score = metrics.score
    monkeypatch.setattr(metrics, "score", lambda given: arrays.update(given) or score(given))
    before = torch.hub.get_dir()
    scores = scoring.score(Transport(push=identity), scoring.x / 2)
    assert scoring.notes == {} and torch.hub.get_dir() == before
    assert scores["fid"] > scores["fid_floor"] > 0 and scores["lpips"] > 0
    assert (
        networks.perceptual_distance(arrays["mapped_images"][:3], arrays["mapped_images"][:3]) == 0
    )

    from torchmetrics.image.fid import FrechetInceptionDistance  # pyright: ignore[reportMissingImports]

    network = FrechetInceptionDistance(
        2048, feature_extractor_weights_path=str(random_weights / networks.INCEPTION)
    ).inception
    rounded = (
        ((arrays["mapped_images"][:40].clamp(-1, 1) + 1) * 127.5)
        .round()
        .to(torch.uint8)
        .expand(-1, 3, -1, -1)
    )
    assert torch.allclose(network(rounded), arrays["inception_mapped"], rtol=1e-4)

    few = torch.nn.Identity()
    few.num_features = 64  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]
    fid = FrechetInceptionDistance(few)
    x, y = 10 * normal(100, 64), 20 * normal(100, 64, seed=1) + 3
    fid.update(x, real=True)
    fid.update(y, real=False)
    assert frechet_distance(x, y) == pytest.approx(float(fid.compute()), rel=1e-6)


def test_weights_that_are_not_the_official_ones_are_refused(tmp_path, digits, monkeypatch) -> None:
    monkeypatch.setenv("OTBENCH_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "weights").mkdir()
    for name in (networks.INCEPTION, networks.VGG):
        (tmp_path / name).write_bytes(b"others")
    scoring = MapScoring(restoration(digits), generator(1))
    scoring.score(Transport(push=identity), scoring.x)
    assert all(
        "is not the file expected (its SHA-256 does not begin with" in note
        for note in scoring.notes.values()
    )
    assert scoring.notes.keys() == {"fid", "lpips"}
