"""What `otbench run --keep` keeps of couplings, and the pictures of it."""

# pyright: reportMissingImports=false

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection
from PIL import Image

import otbench
from otbench import GEODESIC, SQEUCLIDEAN, DiscreteProblem, Truth
from otbench.report import couplings, pictures
from otbench.report.drawing import longitude_latitude
from otbench.report.figures import plot
from otbench.report.kept import kept_couplings, kept_maps
from otbench.report.selected import select
from otbench.runner import outputs
from tests.conftest import call_here
from tests.synthetic import row, write


TASKS = {
    "interpolation": "digit-pairs[data=digits,train=4,test=2]",
    "geodesics": "supply-demand-pairs[supply=10,demand=50,train=2,test=1]",
    "recoloured": "palette-pairs[colours=20,train=2,test=1]",
    "paths": "few-points",
}
FLOW = '''
"""Few points: a problem that is scored at once, and a flow."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from otbench import SQEUCLIDEAN, MapProblem, Solver, Task, Transport, Truth, empirical


@dataclass(frozen=True)
class FewPoints(Task):
    """Shifted."""

    name: ClassVar[str] = "few-points"

    def problem(self, rng, *, device, dtype):
        drawn = (torch.as_tensor(rng.normal(mean, 1, (2, 250, 2))) for mean in (0, 5))
        source, target = (empirical(*points.to(device, dtype)) for points in drawn)
        return MapProblem(source, target, SQEUCLIDEAN, Truth("closed_form", map=lambda x: x + 5))


@dataclass(frozen=True)
class Bent(Solver):
    """Goes there on parabolas, in 30 steps, and writes into what it is given."""

    name: ClassVar[str] = "bent"

    def supports(self, problem):
        return None if isinstance(problem, MapProblem) else "takes maps only"

    def fit(self, problem, run):
        def path(x):
            t = torch.linspace(0, 1, 31)[:, None, None]
            points = x + torch.cat([5 * t, 5 * t**2], -1)
            x.zero_()
            return points

        return Transport(lambda x: x + 5, path=path)
'''


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one kept run of each solver on each task."""
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "flow.py").write_text(FLOW)
    solvers = ("-s", "independent", "mean-slice", "bent", "--plugins", "flow.py")
    where = ("--seeds", 1, "--keep", "--results", "results")
    done = call_here("run", "-t", *TASKS.values(), *solvers, *where, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "results"


def arrays_of(recorded: Path, kind: str) -> dict[str, dict[str, np.ndarray]]:
    """By solver."""
    runs = select(otbench.load(recorded).runs, [TASKS[kind].partition("[")[0]])
    return dict(kept_couplings(runs, [recorded]))


def palettes(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, **more: Any) -> DiscreteProblem:
    """A picture of 3 x 2 pixels and its palette, twice."""
    pixels = torch.tensor([[0, 1], [2, 2], [1, 2]])
    return DiscreteProblem(
        x, a, x, b, SQEUCLIDEAN, Truth("none"), pixels=pixels, target_pixels=pixels, **more
    )


def pictures_of(pair: DiscreteProblem, plan: torch.Tensor) -> Mapping[str, np.ndarray]:
    return couplings._pictures({"solver": outputs.pair_arrays(pair, plan)})


COLOURS = torch.tensor([[0.9, 0.1, 0.2], [0.0, 0.5, 0.5], [1.0, 1.0, 0.0]])
SHARES = torch.tensor([1, 2, 3]) / 6


def test_every_kind_of_coupling_is_drawn(recorded, tmp_path):
    written = {
        path.name.partition("-")[0]: path
        for path in plot(otbench.load(recorded), [recorded], tmp_path)
    }
    for kind in TASKS:
        with Image.open(written[kind]) as image:
            assert min(image.size) > 200 and np.asarray(image.convert("L")).std() > 10
    assert "maps" in written


def test_without_kept_outputs_nothing_is_drawn_of_them(recorded, tmp_path):
    shutil.copytree(recorded, tmp_path / "results", ignore=shutil.ignore_patterns("outputs"))
    written = plot(
        otbench.load(tmp_path / "results"),
        [tmp_path / "results"],
        tmp_path / "out",
        ["palette-pairs", "few-points"],
    )
    assert not {path.name.partition("-")[0] for path in written} & {*TASKS, "maps"}


def test_outputs_of_maps_and_of_couplings_do_not_meet(recorded):
    runs = otbench.load(recorded).runs
    assert [solver for solver, _ in kept_maps(runs, [recorded])] == ["bent"]
    assert list(arrays_of(recorded, "recoloured")) == [
        "mean-slice",
        "independent",
    ]  # the more accurate first


def test_digits_begin_as_the_source_and_end_as_the_target(recorded):
    arrays = couplings._pair(arrays_of(recorded, "interpolation")["independent"], 1)
    for prefix in ("", "optimal_"):
        start, *between, end = couplings.displaced(*couplings._moves(arrays, prefix), arrays["x"])
        for frame, weights in ((start, arrays["a"]), (end, arrays["b"])):
            assert frame.sum() == couplings.SAMPLES
            error = np.abs(frame.ravel() / couplings.SAMPLES - weights).sum()
            assert error < 4 * np.sqrt(weights * (1 - weights) / couplings.SAMPLES).sum()
        assert len(between) == 5 and all(frame.sum() == couplings.SAMPLES for frame in between)
        mean = arrays["b"] @ arrays["x"] * 0.5 + arrays["a"] @ arrays["x"] * 0.5
        np.testing.assert_allclose(
            between[2].ravel() @ arrays["x"] / couplings.SAMPLES, mean, atol=0.005
        )


def test_a_translation_of_a_uniform_square_is_without_stripes():
    x = np.stack(np.meshgrid(*[np.linspace(0, 1, 21)] * 2, indexing="ij"), -1).reshape(-1, 2)
    start = x[(x <= 0.5).all(1)]
    _, _, _, middle, *_ = couplings.displaced(start, start + 0.05, np.ones(len(start)), x)
    inside = middle[1:10, 1:10]
    assert inside.min() > 0.7 * inside.max()


def test_images_are_known_by_their_grid(recorded):
    arrays = couplings._pair(arrays_of(recorded, "interpolation")["independent"], 0)
    x = arrays["x"]
    assert couplings.are_images(x, x)
    assert (
        not couplings.are_images(x, x[::-1])
        and not couplings.are_images(x[:-1], x[:-1])
        and not couplings.are_images(x**2, x**2)
    )
    assert not couplings.are_images(np.zeros((4, 3)), np.zeros((4, 3)))


def test_the_identity_leaves_a_picture_as_it_is():
    drawn = pictures_of(palettes(COLOURS, SHARES, SHARES), SHARES.diag())
    assert list(drawn) == ["source", "target", "solver"]
    np.testing.assert_array_equal(drawn["source"][1, 0], COLOURS[2])
    np.testing.assert_allclose(drawn["solver"], drawn["source"], atol=1e-6)


def test_a_plan_to_one_colour_recolours_uniformly():
    one = torch.tensor([0.0, 1.0, 0.0])
    drawn = pictures_of(palettes(COLOURS, SHARES, one), SHARES[:, None] * one)
    np.testing.assert_allclose(drawn["solver"], COLOURS[1].expand(3, 2, 3), atol=1e-6)


def test_a_plan_of_wrong_marginals_is_rounded_before_it_recolours():
    drawn = pictures_of(palettes(COLOURS, SHARES, SHARES), 0.1 * SHARES.diag())
    np.testing.assert_allclose(
        drawn["solver"], 0.1 * drawn["source"] + 0.9 * (SHARES @ COLOURS).numpy(), atol=1e-6
    )


def test_palettes_come_with_the_picture(recorded):
    arrays = couplings._pair(arrays_of(recorded, "recoloured")["independent"], 0)
    shares = np.bincount(arrays["pixels"].ravel(), minlength=20) / arrays["pixels"].size
    np.testing.assert_allclose(shares, arrays["a"], atol=1e-6)
    assert max(arrays["pixels"].shape) == max(arrays["target_pixels"].shape) == 256
    of_independent = couplings._pictures({"independent": arrays})["independent"]
    np.testing.assert_allclose(
        of_independent, np.broadcast_to(arrays["b"] @ arrays["y"], of_independent.shape), atol=1e-5
    )


def test_the_picture_of_a_palette_task_is_of_its_pictures():
    pair = palettes(COLOURS, SHARES, SHARES)
    figure = pictures.draw(replace(pair, truth=Truth("lp", 0.0, plan=SHARES.diag())), "title")
    assert [ax.get_title() for ax in figure.axes] == [
        "source",
        "target",
        "recoloured by\nthe optimal plan",
    ]
    source, _, recoloured = (np.asarray(ax.images[0].get_array()) for ax in figure.axes)
    np.testing.assert_allclose(source, recoloured, atol=1e-6)


def test_geodesics_lead_from_suppliers_to_consumers(recorded):
    solved = {
        solver: couplings._pair(arrays, 0)
        for solver, arrays in arrays_of(recorded, "geodesics").items()
    }
    figure = couplings.draw("title", arrays_of(recorded, "geodesics"))["geodesics"]
    assert [ax.get_title() for ax in figure.axes] == ["truth", *solved]
    pair = next(iter(solved.values()))
    (moves,) = [
        artist for artist in figure.axes[0].collections if isinstance(artist, LineCollection)
    ]
    paths = [np.asarray(path.vertices) for path in moves.get_paths()]
    assert len(paths) == min(couplings.MOVES, len(pair["optimal_i"]))
    for path, i, j in zip(paths, pair["optimal_i"], pair["optimal_j"], strict=False):
        np.testing.assert_allclose(path[0], longitude_latitude(pair["x"][i]), atol=1e-3)
        if np.isfinite(path[-1]).all():
            np.testing.assert_allclose(path[-1], longitude_latitude(pair["y"][j]), atol=1e-3)
    assert (np.diff(pair["optimal_mass"]) <= 0).all()
    assert all((pair["a"][pair[f"{prefix}i"]] > 0).all() for prefix in ("", "optimal_"))


def test_paths_lead_from_test_points_to_their_images(recorded):
    ((solver, arrays),) = arrays_of(recorded, "paths").items()
    assert arrays["path"].shape == (21, 200, 2)
    np.testing.assert_array_equal(arrays["path"][0], arrays["x"][:200])
    np.testing.assert_allclose(arrays["path"][-1], arrays["pushed"][:200], atol=1e-5)
    np.testing.assert_allclose(
        arrays["path"][10], arrays["x"][:200] + np.array([2.5, 1.25]), atol=1e-5
    )
    (ax,) = couplings.draw("title", {solver: arrays})["paths"].axes
    (lines,) = [artist for artist in ax.collections if isinstance(artist, LineCollection)]
    assert len(lines.get_paths()) == 200


@pytest.mark.parametrize("entries", [4, 2**16])
def test_sparse_and_dense_plans_keep_the_same(entries, monkeypatch):
    monkeypatch.setattr(outputs, "KEPT_ENTRIES", entries)
    generator = torch.Generator().manual_seed(0)
    plan = torch.rand(5, 7, generator=generator) * (torch.rand(5, 7, generator=generator) < 0.4)
    plan /= plan.sum()
    x, y = (
        torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=1)
        for n in plan.shape
    )
    pair = DiscreteProblem(x, plan.sum(1), y, plan.sum(0), GEODESIC, Truth("lp", plan=plan))
    dense, sparse = outputs.pair_arrays(pair, plan), outputs.pair_arrays(pair, plan.to_sparse())
    assert dense.keys() == sparse.keys() and dense["cost"] == "geodesic" and "pixels" not in dense
    for name, values in dense.items():
        assert name == "cost" or values.dtype in (np.float32, np.int32)
        np.testing.assert_array_equal(
            values, sparse[name]
        ) if name != "mapped" else np.testing.assert_allclose(values, sparse[name])
    heaviest = np.sort(plan[plan > 0].numpy())[::-1][:entries]
    np.testing.assert_array_equal(dense["mass"], heaviest)
    np.testing.assert_array_equal(plan[dense["i"], dense["j"]], heaviest)
    np.testing.assert_array_equal(dense["optimal_i"], dense["i"])


def test_the_most_accurate_solvers_of_one_seed_are_shown(tmp_path):
    gaps = {"a": 0.3, "b": 0.1, "c": 0.2}
    rows = [
        row("t", solver, seed, metric_cost_gap=gap)
        for seed in (0, 1)
        for solver, gap in gaps.items()
    ]
    results = write(tmp_path / "results", rows)
    outputs = next((tmp_path / "results").iterdir()) / "outputs"
    outputs.mkdir()
    for solver in gaps:
        for seed in (0, 1):
            if (solver, seed) != ("c", 0):
                path = outputs / f"t-{solver}-{seed}-cpu-float32.npz"
                np.savez(path, **{"0_x": np.full(2, seed)})  # pyright: ignore[reportArgumentType]
    kept = dict(kept_couplings(results.runs, [tmp_path / "results"]))
    assert list(kept) == ["b", "a"] and all((arrays["0_x"] == 0).all() for arrays in kept.values())
