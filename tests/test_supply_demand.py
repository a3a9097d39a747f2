"""Supply and demand: the linear program proved by its dual, the entropic plan by its form, the
populations by their moments and facts.
"""

# pyright: reportMissingImports=false
# (otbench.tasks is joined to the package at run time, see otbench/__init__.py)
from __future__ import annotations

from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import ot
import pytest
import torch

from otbench import GEODESIC, DiscreteProblem, MissingError
from otbench.data import files as data
from otbench.families.globe import RASTER, REGIONS, draw_von_mises_fisher, population_density
from otbench.methods.entropic import entropic_truth
from otbench.tasks.supply_demand import SupplyDemand
from tests.conftest import rows
from tests.truths import RELATIVE, SIGMAS, build


needs_raster = pytest.mark.skipif(not data.present([RASTER]), reason=f"no data file {RASTER}")
POPULATIONS = ["synthetic", pytest.param("raster", marks=needs_raster)]

populations = pytest.mark.parametrize("population", POPULATIONS)
seeds = pytest.mark.parametrize("seed", [0, 1])


def build_pair(
    task: SupplyDemand, seed: int = 0, dtype: torch.dtype = torch.float64
) -> DiscreteProblem:
    pair = build(task, seed, dtype)
    assert (
        isinstance(pair, DiscreteProblem)
        and pair.truth.plan is not None
        and pair.truth.cost is not None
    )
    return pair


def cost_matrix(pair: DiscreteProblem) -> torch.Tensor:
    """Angles by the haversine formula, which is exact where the arc cosine rounds."""
    return (
        2
        * (torch.cdist(pair.x, pair.y, compute_mode="donot_use_mm_for_euclid_dist") / 2)
        .clamp(max=1)
        .arcsin()
    )


def on_sphere(longitude: float, latitude: float) -> np.ndarray:
    a, b = np.deg2rad(longitude), np.deg2rad(latitude)
    return np.array([np.cos(b) * np.cos(a), np.cos(b) * np.sin(a), np.sin(b)])


@populations
@seeds
def test_points_are_on_the_sphere_and_weights_are_histograms(population, seed: int) -> None:
    pair = build_pair(SupplyDemand(demand=500, population=population), seed)
    assert pair.cost == GEODESIC and pair.x.shape == (100, 3) and pair.y.shape == (500, 3)
    for points, weights in ((pair.x, pair.a), (pair.y, pair.b)):
        assert float((points.norm(dim=1) - 1).abs().max()) < 1e-12
        assert float(weights.min()) >= 0 and float(weights.sum()) == pytest.approx(1, abs=1e-12)
    assert float(pair.b.min()) > 0
    assert abs(int((pair.a == 0).sum()) - 50) <= SIGMAS * 5  # Bernoulli(1/2), a hundred times
    assert not torch.equal(
        pair.x, build_pair(SupplyDemand(demand=500, population=population), seed + 2).x
    )


@populations
@seeds
def test_the_linear_program_is_proved_by_its_dual(population, seed: int) -> None:
    pair = build_pair(SupplyDemand(supply=50, demand=400, population=population), seed)
    plan, cost = pair.truth.plan, pair.truth.cost
    assert plan is not None and cost is not None
    matrix = cost_matrix(pair)
    log = ot.emd(pair.a, pair.b, matrix, log=True)[1]
    f, g = log["u"], log["v"]
    assert float((f[:, None] + g - matrix).max()) <= RELATIVE * float(matrix.max()), (
        "the potentials are feasible"
    )
    assert float(pair.a @ f + pair.b @ g) == pytest.approx(cost, rel=RELATIVE)
    assert float((plan * matrix).sum()) == pytest.approx(cost, rel=RELATIVE)
    assert (
        float((plan.sum(1) - pair.a).abs().sum() + (plan.sum(0) - pair.b).abs().sum()) <= RELATIVE
    )
    assert float(plan.min()) >= 0 and pair.truth.certificate == "lp" and pair.eps == 0


@seeds
@pytest.mark.parametrize("eps", [0.5, 0.05])
def test_the_entropic_plan_is_proved_by_its_form_and_marginals(eps: float, seed: int) -> None:
    """P = a b' exp((f + g - C) / eps) with marginals a and b is the only optimum."""
    pair = build_pair(SupplyDemand(supply=40, demand=300, eps=eps), seed)
    plan = pair.truth.plan
    assert plan is not None and pair.truth.certificate == "entropic" and pair.eps == eps
    assert float((plan.sum(1) - pair.a).abs().sum()) <= RELATIVE
    assert float((plan.sum(0) - pair.b).abs().sum()) <= 1e-9
    matrix, used = cost_matrix(pair), pair.a > 0
    assert float(plan[~used].abs().sum()) == 0
    sums = eps * (plan[used] / pair.a[used, None] / pair.b).log() + matrix[used]
    assert float((sums - sums[:1] - sums[:, :1] + sums[0, 0]).abs().max()) <= 1e-9
    assert float((plan * matrix).sum()) == pytest.approx(pair.truth.cost, rel=1e-9)


def test_entropic_costs_fall_to_that_of_the_linear_program() -> None:
    task = {"supply": 30, "demand": 200}
    costs = [
        build_pair(SupplyDemand(**task, eps=eps)).truth.cost or 0.0
        for eps in (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)
    ]
    assert costs[0] > 0 and all(low < high for low, high in pairwise(costs))
    assert costs[1] == pytest.approx(costs[0], rel=0.02)


def test_an_eps_out_of_reach_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "otbench.methods.discrete.entropic_truth", partial(entropic_truth, max_iters=3)
    )
    with pytest.raises(
        ValueError, match=r"does not converge in 3 iterations at eps 0\.01: take a larger eps, or 0"
    ):
        _ = build(SupplyDemand(supply=10, demand=20, eps=0.01)).truth.cost


@pytest.mark.parametrize("kappa", [0.01, 1.0, 30.0, 2000.0])
def test_von_mises_fisher_has_its_mean_and_is_uniform_about_it(kappa: float) -> None:
    n, mean = 200_000, on_sphere(30, 50)
    x = draw_von_mises_fisher(np.random.default_rng(0), np.tile(mean, (n, 1)), np.full(n, kappa))
    assert np.abs(np.linalg.norm(x, axis=1) - 1).max() < 1e-12
    length = 1 / np.tanh(kappa) - 1 / kappa
    error = SIGMAS * x.std(0) / np.sqrt(n)
    assert (np.abs(x.mean(0) - length * mean) <= error).all()
    east = np.cross([0, 0, 1], mean) / np.linalg.norm(np.cross([0, 0, 1], mean))
    angle = np.arctan2(x @ np.cross(mean, east), x @ east)
    for k in (1, 2, 3):  # the angle about the mean has no Fourier coefficients
        assert abs(np.exp(1j * k * angle).mean()) <= SIGMAS / np.sqrt(n)
    assert 1 - 1e-5 < (x @ mean).max() <= 1 + 1e-12


@seeds
def test_the_synthetic_population_has_the_moments_declared(seed: int) -> None:
    assert sum(share for *_, share in REGIONS) == pytest.approx(1)
    expected = sum(
        share * (1 / np.tanh(kappa) - 1 / kappa) * on_sphere(lon, lat)
        for lon, lat, kappa, share in REGIONS
    )
    y = build_pair(SupplyDemand(supply=1, demand=100_000), seed).y.numpy()
    assert (np.abs(y.mean(0) - expected) <= SIGMAS * y.std(0) / np.sqrt(len(y))).all()
    x = build_pair(SupplyDemand(supply=100_000, demand=1), seed).x.numpy()
    assert (np.abs(x.mean(0)) <= SIGMAS / np.sqrt(3 * len(x))).all()
    assert (np.abs((x**2).mean(0) - 1 / 3) <= SIGMAS * np.sqrt(4 / 45 / len(x))).all()


@needs_raster
def test_the_raster_is_the_right_way_round() -> None:
    """The densest cell is Beirut's; there are many people in Delhi and none in the Atlantic or at
    the south pole.
    """
    density = population_density()
    assert density.shape == (720, 1440) and int((density >= 0).sum()) == 266090

    def at(longitude: float, latitude: float) -> float:
        return density[int((90 - latitude) * 4), int((longitude + 180) * 4)]

    assert at(35.48, 33.89) == density.max() == pytest.approx(29819.701)
    assert at(77.2, 28.6) > 10_000 and at(-46.63, -23.55) > 5_000
    assert at(-30.0, 30.0) < 0 and at(0.0, -89.9) < 0


@needs_raster
@seeds
def test_draws_from_the_raster_have_its_shares(seed: int) -> None:
    """Shares of people by hemisphere and in Asia, of land by hemisphere: known values, and those of
    the file counted cell by cell.
    """
    task = {"population": "raster"}
    y = build_pair(SupplyDemand(supply=1, demand=100_000, **task), seed).y.numpy()  # type: ignore[arg-type]
    x = build_pair(SupplyDemand(supply=100_000, demand=1, **task), seed).x.numpy()  # type: ignore[arg-type]
    latitude, longitude = 90 - (np.arange(720) + 0.5) / 4, (np.arange(1440) + 0.5) / 4 - 180
    density, area = population_density(), np.cos(np.deg2rad(latitude))[:, None]
    people = density.clip(0) * area

    def in_asia(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
        return (np.abs(latitude - 25) < 35) & (np.abs(longitude - 105) < 45)

    of_points = np.rad2deg(np.arcsin(y[:, 2])), np.rad2deg(np.arctan2(y[:, 1], y[:, 0]))
    asia = (people * in_asia(latitude[:, None], longitude)).sum() / people.sum()
    shares = [(y[:, 2] > 0, 0.8514), (x[:, 2] > 0, 0.7394), (in_asia(*of_points), asia)]
    assert people[:360].sum() / people.sum() == pytest.approx(0.8514, abs=1e-4)
    assert asia > 0.5
    for drawn, share in shares:
        assert (
            abs(drawn.mean() - share) <= SIGMAS * np.sqrt(share * (1 - share) / len(drawn)) + 1e-4
        )
    rows_of_points = ((90 - of_points[0]) * 4).astype(int), ((of_points[1] + 180) * 4).astype(int)
    assert (density[rows_of_points] > 0).all(), "nobody is drawn where nobody lives"


def test_without_the_raster_its_name_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OTBENCH_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(
        MissingError,
        match=r"no data file world_population/gpw_v4_population_density_rev11_2020_15_min\.tif",
    ):
        build(SupplyDemand(population="raster"))
    assert SupplyDemand().files == () and SupplyDemand(population="raster").files == (RASTER,)
    build(SupplyDemand(demand=10))


@pytest.mark.parametrize("eps", [0.0, 0.5])
def test_single_precision_is_solved_as_rounded(eps: float) -> None:
    single, double = (
        build_pair(SupplyDemand(demand=300, eps=eps), 0, dtype)
        for dtype in (torch.float32, torch.float64)
    )
    tensors = (single.x, single.a, single.y, single.b, single.truth.plan)
    assert all(tensor is not None and tensor.dtype == torch.float32 for tensor in tensors)
    assert single.truth.cost == pytest.approx(double.truth.cost, rel=1e-5)


def test_a_lone_supplier_has_everything() -> None:
    for seed in range(8):
        pair = build_pair(SupplyDemand(supply=1, demand=3), seed)
        assert float(pair.a) == 1.0
        assert pair.truth.cost == pytest.approx(float(cost_matrix(pair)[0] @ pair.b), rel=RELATIVE)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"supply": 0}, "supply must be at least 1, got 0"),
        ({"demand": -1}, "demand must be at least 1, got -1"),
        ({"eps": -0.1}, "eps must not be negative, got -0.1"),
        ({"eps": float("nan")}, "eps must be finite"),
        (
            {"supply": 401, "demand": 10_000},
            "at most 4000000 for the linear program, got 4010000: give an eps above 0",
        ),
        ({"population": "mars"}, "population must be synthetic or raster, got 'mars'"),
    ],
)
def test_bad_parameters_are_refused(parameters: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SupplyDemand(**parameters)


def test_discrete_solvers_run_on_it(otbench_here, tmp_path: Path) -> None:
    options = [
        "-t",
        "supply-demand[supply=30,demand=100]",
        "-s",
        "pot-emd",
        "pot-sinkhorn",
        "--seeds",
        1,
        "--results",
        "out",
    ]
    done = otbench_here("run", *options)
    assert done.returncode == 0, done.stderr
    recorded = {row["solver"]: row for row in rows(tmp_path / "out")}
    assert {row["status"] for row in recorded.values()} == {"ok"}, [
        row["message"] for row in recorded.values()
    ]
