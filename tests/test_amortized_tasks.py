"""Pairs on the globe and pairs of palettes: plans proved by their form, what pairs share and what
they must not.
"""

# pyright: reportMissingImports=false
# (otbench.tasks is joined to the package at run time, see otbench/__init__.py)
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from otbench import GEODESIC, SQEUCLIDEAN, AmortizedProblem, DiscreteProblem, MissingError, Task
from otbench.data import files as data
from otbench.families.globe import RASTER
from otbench.tasks.palette_pairs import (
    BUILT_IN,
    HELD_OUT,
    PHOTOGRAPHS,
    PalettePairs,
    picture_and_labels,
)
from otbench.tasks.supply_demand import SupplyDemand
from otbench.tasks.supply_demand_pairs import SupplyDemandPairs
from tests.conftest import rows
from tests.truths import SIGMAS, build


MARGINAL = 1e-9  # error of a truth in the l1 norm
SMALLEST = 1e-200  # entry of a plan that has not lost digits on its way

needs_raster = pytest.mark.skipif(not data.present([RASTER]), reason=f"no data file {RASTER}")
photographs = list(PHOTOGRAPHS.values())
needs_photographs = pytest.mark.skipif(
    len(data.present(photographs)) < len(photographs),
    reason=f"no data files {', '.join(photographs)}",
)

seeds = pytest.mark.parametrize("seed", [0, 1])
populations = pytest.mark.parametrize(
    "population", ["synthetic", pytest.param("raster", marks=needs_raster)]
)
kinds = pytest.mark.parametrize(
    "held_out", ["built-in", pytest.param("photographs", marks=needs_photographs)]
)

GLOBE = {"supply": 30, "demand": 200, "train": 4, "test": 3}
PALETTES = {"colours": 40, "train": 8, "test": 4}
SMALL = (SupplyDemandPairs(**GLOBE), PalettePairs(**PALETTES))
small = pytest.mark.parametrize("task", SMALL, ids=lambda task: task.name)


def build_pairs(task: Task, seed: int = 0, dtype: torch.dtype = torch.float64) -> AmortizedProblem:
    problem = build(task, seed, dtype)
    assert isinstance(problem, AmortizedProblem)
    return problem


def same(pair: DiscreteProblem, other: DiscreteProblem) -> bool:
    return all(
        torch.equal(getattr(pair, name), getattr(other, name)) for name in ("x", "a", "y", "b")
    )


def check_entropic(pair: DiscreteProblem) -> None:
    """P = a b' exp((f + g - C) / eps) with marginals a and b is the only optimum: rows of eps log(P
    / a b') + C differ by constants.
    """
    plan, cost = pair.truth.plan, pair.truth.cost
    assert plan is not None and cost is not None and pair.truth.certificate == "entropic"
    assert (
        float((plan.sum(1) - pair.a).abs().sum() + (plan.sum(0) - pair.b).abs().sum()) <= MARGINAL
    )
    matrix = pair.cost.matrix(pair.x, pair.y)
    assert float((plan * matrix).sum()) == pytest.approx(cost, rel=1e-9)
    i, j = pair.a > 0, pair.b > 0
    assert float(plan[~i].sum()) == float(plan[:, ~j].sum()) == 0
    used = plan[i][:, j]
    sums = pair.eps * (used / pair.a[i][:, None] / pair.b[j]).log() + matrix[i][:, j]
    steps, known = sums[1:] - sums[:-1], (used[1:] > SMALLEST) & (used[:-1] > SMALLEST)
    assert float(known.double().mean()) > 0.8 and known.any(1).all()
    high, low = (
        steps.where(known, steps.new_tensor(-np.inf)).amax(1),
        steps.where(known, steps.new_tensor(np.inf)).amin(1),
    )
    assert float((high - low).max()) <= 1e-9


@small
@seeds
def test_plans_of_held_out_pairs_are_optimal(
    task: SupplyDemandPairs | PalettePairs, seed: int
) -> None:
    problem = build_pairs(task, seed)
    assert problem.truth.certificate == "entropic"
    assert len(problem.train) == task.train and len(problem.test) == task.test
    assert all(pair.truth.plan is None and pair.truth.cost is None for pair in problem.train)
    for pair in (*problem.train, *problem.test):
        assert pair.eps == task.eps and pair.cost == problem.cost
        for points, weights in ((pair.x, pair.a), (pair.y, pair.b)):
            assert points.shape == (len(weights), 3) and float(weights.min()) >= 0
            assert float(weights.sum()) == pytest.approx(1, abs=1e-12)
    for pair in problem.test:
        check_entropic(pair)


@small
def test_without_an_eps_it_is_the_linear_program(task: SupplyDemandPairs | PalettePairs) -> None:
    exact, entropic = build_pairs(type(task)(**vars(task) | {"eps": 0.0})), build_pairs(task)
    assert exact.truth.certificate == "lp"
    for pair, blurred in zip(exact.test, entropic.test, strict=True):
        plan, cost, more = pair.truth.plan, pair.truth.cost, blurred.truth.cost
        assert plan is not None and cost is not None and more is not None and same(pair, blurred)
        assert pair.eps == 0 and pair.truth.certificate == "lp" and cost < more
        assert int((plan > 0).sum()) < len(pair.a) + len(pair.b), (
            "a vertex of the polytope of plans"
        )


@small
def test_pairs_are_those_of_the_seed_however_many_others_there_are(
    task: SupplyDemandPairs | PalettePairs,
) -> None:
    problem = build_pairs(task)
    fewer = build_pairs(type(task)(**vars(task) | {"train": 1, "test": 2}))
    none = build_pairs(type(task)(**vars(task) | {"train": 0}))
    assert (
        not none.train
        and all(map(same, none.test, problem.test))
        and all(map(same, fewer.test, problem.test))
    )
    assert same(fewer.train[0], problem.train[0])
    assert all(map(same, build_pairs(task).train, problem.train))
    assert not all(map(same, build_pairs(task, 1).train, problem.train))
    every = [*problem.train, *problem.test]
    assert not any(same(pair, other) for k, pair in enumerate(every) for other in every[:k])


@small
def test_single_precision_is_solved_as_rounded(task: SupplyDemandPairs | PalettePairs) -> None:
    single, double = (build_pairs(task, 0, dtype) for dtype in (torch.float32, torch.float64))
    for pair, exact in zip(single.test, double.test, strict=True):
        tensors = (pair.x, pair.a, pair.y, pair.b, pair.truth.plan)
        assert all(tensor is not None and tensor.dtype == torch.float32 for tensor in tensors)
        assert pair.truth.cost == pytest.approx(exact.truth.cost, rel=1e-5)


@populations
@seeds
def test_places_are_those_of_supply_demand_and_shared_by_all_pairs(population, seed: int) -> None:
    problem = build_pairs(SupplyDemandPairs(**GLOBE, population=population), seed)
    single = build(SupplyDemand(supply=30, demand=200, population=population), seed)
    assert isinstance(single, DiscreteProblem)
    assert (
        problem.cost == GEODESIC
        and torch.equal(problem.train[0].x, single.x)
        and torch.equal(problem.train[0].y, single.y)
    )
    assert {(id(pair.x), id(pair.y)) for pair in (*problem.train, *problem.test)} == {
        (id(problem.train[0].x), id(problem.train[0].y))
    }


def test_stocks_and_needs_are_new_for_every_pair() -> None:
    problem = build_pairs(SupplyDemandPairs(supply=100, demand=50, train=200, test=1))
    a, b = (torch.stack([getattr(pair, name) for pair in problem.train]) for name in ("a", "b"))
    empty = (a == 0).double()
    assert (abs(float(empty.mean()) - 0.5)) <= SIGMAS * 0.5 / empty.numel() ** 0.5
    assert float((empty.mean(0) - 0.5).abs().max()) <= (SIGMAS + 1) * 0.5 / 200**0.5, (
        "any supplier may have nothing"
    )
    assert (
        float((b.corrcoef() - torch.eye(200, dtype=b.dtype)).abs().max()) <= (SIGMAS + 2) / 50**0.5
    ), "pairs are independent"


@populations
def test_the_sizes_of_the_paper(population) -> None:
    problem = build_pairs(SupplyDemandPairs(population=population))
    assert len(problem.train) == 50 and len(problem.test) == 20
    for pair in problem.test:
        assert pair.truth.plan is not None and pair.truth.plan.shape == (100, 10_000)
        assert float((pair.truth.plan.sum(0) - pair.b).abs().sum()) <= MARGINAL


@kinds
@seeds
def test_no_picture_is_both_trained_on_and_held_out(held_out, seed: int) -> None:
    task = PalettePairs(**PALETTES, held_out=held_out)
    learnt, unseen = (
        {name for pair in pairs for name in pair}
        for pairs in task.draw_names(np.random.default_rng(seed))
    )
    assert (
        learnt <= set(BUILT_IN)
        and unseen <= set(HELD_OUT if held_out == "built-in" else PHOTOGRAPHS)
        and not learnt & unseen
    )
    problem = build_pairs(task, seed)
    train, test = (
        [cloud for pair in pairs for cloud in (pair.x, pair.y)]
        for pairs in (problem.train, problem.test)
    )
    assert len(set(map(id, train))) == len(learnt) and len(set(map(id, test))) == len(unseen), (
        "a palette is one tensor"
    )
    assert not any(torch.equal(x, y) for x in train for y in test)
    for pair in problem.test:
        check_entropic(pair)


def test_all_ordered_pairs_can_be_had() -> None:
    train, test = PalettePairs(train=42, test=6).draw_names(np.random.default_rng(0))
    assert len(set(train)) == 42 and len(set(test)) == 6
    assert all(first != second for first, second in (*train, *test))
    train, test = PalettePairs(train=90, test=20, held_out="photographs").draw_names(
        np.random.default_rng(0)
    )
    assert len(set(train)) == 90 and len(set(test)) == 20


@kinds
def test_palettes_are_shares_of_the_nearest_colours_and_recolour_pictures(held_out) -> None:
    """The average of a recoloured picture is that of the other, as the plan has its marginals."""
    task = PalettePairs(**PALETTES, held_out=held_out)
    problem, (_, names) = build_pairs(task), task.draw_names(np.random.default_rng(0))
    assert problem.cost == SQEUCLIDEAN
    for pair, (source, _) in zip(problem.test, names, strict=True):
        picture, labels = picture_and_labels(source, task.colours)
        assert (
            max(picture.shape) == 256
            and picture.shape == (*labels.shape, 3)
            and 0 <= picture.min() < picture.max() <= 1
        )
        colours, shares = pair.x.numpy(), pair.a.numpy()
        assert np.allclose(
            np.bincount(labels.ravel(), minlength=40) / labels.size, shares, rtol=0, atol=1e-15
        )
        distances = np.linalg.norm(picture.reshape(-1, 1, 3) - colours, axis=2)
        assert np.allclose(
            distances.min(1), distances[np.arange(labels.size), labels.ravel()], rtol=0, atol=1e-9
        )
        assert np.sqrt((distances.min(1) ** 2).mean()) < 0.3 * picture.std((0, 1)).max(), (
            "few colours do"
        )
        assert pair.truth.plan is not None
        images = (pair.truth.plan @ pair.y / pair.a[:, None]).nan_to_num()
        assert np.allclose(
            images.numpy()[labels].mean((0, 1)), (pair.b @ pair.y).numpy(), rtol=0, atol=1e-8
        )


def test_palettes_do_not_depend_on_the_seed() -> None:
    task = PalettePairs(**PALETTES | {"train": 42, "test": 6})
    palettes = []
    for seed in (0, 1):
        problem, (train, test) = (
            build_pairs(task, seed),
            task.draw_names(np.random.default_rng(seed)),
        )
        named = zip((*train, *test), (*problem.train, *problem.test), strict=True)
        palettes.append({name: (pair.x, pair.a) for (name, _), pair in named})
    assert set(palettes[0]) == set(BUILT_IN)
    assert all(
        torch.equal(p, q)
        for name in BUILT_IN
        for p, q in zip(palettes[0][name], palettes[1][name], strict=True)
    )


def test_colours_that_no_pixel_has_take_no_part(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Pictures of three colours have palettes of six, some of them empty."""
    rng = np.random.default_rng(0)
    for name in BUILT_IN:
        colours = rng.integers(0, 256, (3, 3), dtype=np.uint8)
        Image.fromarray(colours[rng.integers(0, 3, (256, 200))]).save(tmp_path / f"{name}.png")
    monkeypatch.setattr("otbench.tasks.palette_pairs._path", lambda name: tmp_path / f"{name}.png")
    problem = build_pairs(PalettePairs(colours=6, eps=0.05, train=2, test=6))
    assert all(int((pair.a > 0).sum()) == int((pair.b > 0).sum()) == 3 for pair in problem.test)
    for pair in problem.test:
        check_entropic(pair)


def test_absent_pictures_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OTBENCH_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(MissingError, match=r"no data file color_transfer/pot_\w+\.jpg"):
        build(PalettePairs(**PALETTES, held_out="photographs"))
    assert PalettePairs().files == () and PalettePairs(held_out="photographs").files == tuple(
        photographs
    )
    build(PalettePairs(**PALETTES))
    with pytest.raises(MissingError, match="no data file world_population"):
        build(SupplyDemandPairs(**GLOBE, population="raster"))
    assert SupplyDemandPairs().files == () and SupplyDemandPairs(population="raster").files == (
        RASTER,
    )
    monkeypatch.setitem(BUILT_IN, "china", ("sklearn", "datasets/images/england.jpg"))
    with pytest.raises(
        MissingError, match=r"no picture .*england\.jpg: install a release of sklearn that ships it"
    ):
        picture_and_labels("china")


@pytest.mark.parametrize(
    ("task", "parameters", "words"),
    [
        (SupplyDemandPairs, {"supply": 0}, "supply must be at least 1, got 0"),
        (SupplyDemandPairs, {"demand": 0}, "demand must be at least 1, got 0"),
        (SupplyDemandPairs, {"train": -1}, "train must be at least 0, got -1"),
        (SupplyDemandPairs, {"test": 0}, "test must be at least 1, got 0"),
        (SupplyDemandPairs, {"eps": float("nan")}, "eps must be finite"),
        (
            SupplyDemandPairs,
            {"eps": 0.0, "supply": 401},
            "at most 4000000 for the linear program, got 4010000: give an eps above 0",
        ),
        (
            SupplyDemandPairs,
            {"population": "mars"},
            "population must be synthetic or raster, got 'mars'",
        ),
        (PalettePairs, {"colours": 1}, "colours must be from 2 to 4096, got 1"),
        (PalettePairs, {"colours": 4097}, "colours must be from 2 to 4096, got 4097"),
        (PalettePairs, {"eps": -1.0}, "eps must not be negative, got -1.0"),
        (PalettePairs, {"train": -1}, "train must be at least 0, got -1"),
        (PalettePairs, {"test": 0}, "test must be at least 1, got 0"),
        (
            PalettePairs,
            {"train": 43},
            "train must be at most 42, the number of ordered pairs of 7 pictures, got 43",
        ),
        (
            PalettePairs,
            {"test": 7},
            "test must be at most 6, the number of ordered pairs of 3 pictures, got 7",
        ),
        (
            PalettePairs,
            {"held_out": "photographs", "train": 91},
            "train must be at most 90, the number of ordered pairs of 10 pictures, got 91",
        ),
        (
            PalettePairs,
            {"held_out": "photographs", "test": 21},
            "test must be at most 20, the number of ordered pairs of 5 pictures, got 21",
        ),
        (
            PalettePairs,
            {"held_out": "paintings"},
            "held_out must be built-in or photographs, got 'paintings'",
        ),
    ],
)
def test_bad_parameters_are_refused(task: type, parameters: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        task(**parameters)


def test_solvers_run_on_them(otbench_here, tmp_path: Path) -> None:
    tasks = [
        "-t",
        "supply-demand-pairs[supply=20,demand=50,train=2,test=2]",
        "palette-pairs[colours=20,train=2,test=2]",
    ]
    done = otbench_here(
        "run", *tasks, "-s", "pot-sinkhorn", "--seeds", 1, "--jobs", 2, "--results", "out"
    )
    assert done.returncode == 0, done.stderr
    recorded = rows(tmp_path / "out")
    assert [row["status"] for row in recorded] == ["ok", "ok"], [row["message"] for row in recorded]
