"""The pictures of image problems: outputs that `otbench run --keep` kept, and the problems
themselves.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from otbench import SQEUCLIDEAN, MapProblem, Measure, Truth
from otbench.cli.main import main
from otbench.cli.options import image_shape
from otbench.report import gallery, images, pictures
from otbench.report.figures import plot
from otbench.report.kept import kept_couplings, kept_images, kept_maps
from otbench.store import Results
from tests.synthetic import dumps, row, write


IMAGES = [(1, 8, 8), (3, 8, 8), (1, 28, 28), (3, 28, 28)]
TASK = "restoration[sigma=0.5]"
Arrays = dict[str, np.ndarray]


def constant(image: Sequence[int], values: Sequence[float]) -> np.ndarray:
    """One image for each value, ``(n, d)``; of images in colour only the red has it, the rest is
    black.
    """
    points = np.full((len(values), *image), -1.0, np.float32)
    points[:, 0] = np.array(values)[:, None, None]
    return points.reshape(len(values), -1)


def output(
    image: Sequence[int], pushed: Sequence[float] = (0.0,) * 12, **arrays: np.ndarray
) -> Arrays:
    """What is kept of a solver that makes these constants of images of another constant each."""
    x = constant(image, np.linspace(-1, 1, len(pushed)).tolist())
    return {
        "x": x,
        "pushed": constant(image, pushed),
        "target": constant(image, [1.0] * 16),
        "image": np.array(image),
        **arrays,
    }


def colour(image: Sequence[int], value: float) -> np.ndarray:
    """As it is to be seen, 0 to 255."""
    shown = round(127.5 * (min(max(value, -1), 1) + 1))
    return np.array([shown] * 3 if image[0] == 1 else [shown, 0, 0])


def draw(solved: Mapping[str, Arrays], path: Path) -> np.ndarray:
    """The pixels of the picture, read back from its file."""
    figure = images.draw(TASK, solved)
    assert figure is not None
    figure.savefig(path, dpi=images.DPI)
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def blocks(picture: np.ndarray, image: Sequence[int], rows: int) -> np.ndarray:
    """The images in the places of the layout, ``(rows, columns, height, width, 3)``: rows end at
    the lower edge, columns at the right.
    """
    side = image[1] * (images.SIDE // image[1])
    cell = side + images.GAP
    grid = (
        picture[-rows * cell :, -images.COLUMNS * cell :]
        .reshape(rows, cell, images.COLUMNS, cell, 3)
        .swapaxes(1, 2)
    )
    assert (grid[:, :, side:] == 255).all() and (grid[:, :, :, side:] == 255).all()
    return grid[:, :, :side, :side]


def record(
    folder: Path, kept: Mapping[tuple[str, int], Arrays], task: str = TASK, **columns: Any
) -> Results:
    """A run folder with the outputs of these solvers and seeds."""
    rows = [
        row(task, solver, seed, metric_target_gap=0.1 * i, **columns)
        for i, (solver, seed) in enumerate(kept)
    ]
    results = write(folder, rows)
    outputs = next(folder.iterdir()) / "outputs"
    outputs.mkdir()
    for values, arrays in zip(rows, kept.values(), strict=True):
        np.savez(outputs / f"{values['key']}.npz", **arrays)  # pyright: ignore[reportArgumentType]
    return results


@pytest.mark.parametrize("image", IMAGES)
def test_images_stand_where_the_layout_says(image, tmp_path):
    pushed, partner = np.linspace(1, -1, 12), np.linspace(-0.5, 0.5, 12)
    solved = {
        "a": output(image, pushed.tolist(), partner=constant(image, partner.tolist())),
        "b[steps=3]": output(image, (-pushed / 2).tolist()),
    }
    shown = blocks(draw(solved, tmp_path / "picture.png"), image, rows=4)
    for values, of_row in zip((-pushed, pushed, -pushed / 2, partner), shown, strict=True):
        for value, block in zip(values, of_row, strict=False):
            assert (block == colour(image, value)).all()


@pytest.mark.parametrize("image", IMAGES)
def test_every_pixel_is_a_square_of_its_own(image, tmp_path):
    points = np.random.default_rng(0).uniform(-1, 1, (12, int(np.prod(image)))).astype(np.float32)
    first = blocks(
        draw(
            {"a": output(image, pushed=[0.0] * 12) | {"pushed": points}}, tmp_path / "picture.png"
        ),
        image,
        rows=3,
    )[1, 0]
    scale = images.SIDE // image[1]
    channels = points[0].reshape(image).transpose(1, 2, 0)
    expected = np.broadcast_to(np.round(127.5 * (channels + 1)), (*image[1:], 3))
    np.testing.assert_array_equal(first, expected.repeat(scale, 0).repeat(scale, 1))


def test_values_beyond_the_range_are_cut_off(tmp_path):
    values = [-9.0, -1.001, 1.001, 9.0] * 3
    shown = blocks(
        draw({"a": output((1, 8, 8), values)}, tmp_path / "picture.png"), (1, 8, 8), rows=3
    )
    assert [int(block.min()) for block in shown[1]] == ([0, 0, 255, 255] * 3)[:10]
    assert [int(block.max()) for block in shown[1]] == ([0, 0, 255, 255] * 3)[:10]


def labels(solved: Mapping[str, Arrays]) -> list[str]:
    figure = images.draw(TASK, solved)
    assert figure is not None
    return [text.get_text() for text in figure.texts if text.get_text() != TASK]


def test_without_partners_samples_of_the_target_stand_for_them(tmp_path):
    image = (1, 8, 8)
    solved = {"a": output(image) | {"target": constant(image, [0.25] * 16)}}
    assert labels(solved) == ["source", "a", "target samples"]
    assert (
        blocks(draw(solved, tmp_path / "picture.png"), image, rows=3)[2] == colour(image, 0.25)
    ).all()
    assert labels({"a": output(image, partner=constant(image, [0] * 12))}) == [
        "source",
        "a",
        "truth",
    ]
    assert labels({"a": output(image, optimal=constant(image, [0] * 12))}) == [
        "source",
        "a",
        "optimal map",
    ]


def test_a_source_of_another_dimension_is_left_out(tmp_path):
    image = (3, 28, 28)
    solved = {"a": output(image, [0.5] * 12) | {"x": np.zeros((12, 192), np.float32)}}
    assert labels(solved) == ["a", "target samples"]
    assert (
        blocks(draw(solved, tmp_path / "picture.png"), image, rows=2)[0] == colour(image, 0.5)
    ).all()


def test_fewer_images_than_columns_leave_them_white(tmp_path):
    image = (1, 8, 8)
    shown = blocks(draw({"a": output(image, [-1.0] * 3)}, tmp_path / "picture.png"), image, rows=3)
    assert (shown[1, :3] == 0).all() and (shown[:2, 3:] == 255).all()


def test_solvers_that_were_given_other_images_have_a_source_and_a_truth_of_their_own():
    other = output((1, 8, 8))
    other["x"] = -other["x"]
    assert labels({"a": output((1, 8, 8)), "b": other, "c": output((1, 8, 8))}) == [
        *("source", "a", "c", "target samples"),
        *("source", "b", "target samples"),
    ]


def test_long_labels_have_room_and_leave_the_layout_as_it_is(tmp_path):
    label = "otm[" + ",".join(f"parameter_{i}=0.123456" for i in range(9)) + "]\n21.3 dB"
    solved = {label: output((1, 28, 28)), "b\n1.23 dB": output((1, 28, 28), [0.5] * 12)}
    assert (
        blocks(draw(solved, tmp_path / "picture.png"), (1, 28, 28), rows=4)[2]
        == colour((1, 28, 28), 0.5)
    ).all()
    figure = images.draw(TASK, solved)
    assert figure is not None
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.texts]
    assert all(box.x0 > 0 for box in boxes)
    assert all(
        not one.overlaps(other)
        for one, other in itertools.combinations([*boxes, figure.axes[0].get_window_extent()], 2)
    )


def test_plot_draws_the_first_seed_the_most_accurate_solver_first(tmp_path, capsys):
    image = (1, 8, 8)
    kept = {
        (solver, seed): output(image, [value + 0.1 * seed] * 12)
        for seed in (1, 0)
        for solver, value in (("b", -0.5), ("a", 0.5))
    }
    results = record(tmp_path / "results", kept)
    written = plot(results, [tmp_path / "results"], tmp_path / "out")
    (path,) = (path for path in written if path.name.startswith(("images", "maps")))
    assert path.name == "images-restoration-sigma-0.5.png" and "publi" not in "".join(
        capsys.readouterr()
    )
    shown = blocks(np.asarray(Image.open(path).convert("RGB")).astype(int), image, rows=4)
    assert (shown[1] == colour(image, -0.5)).all() and (shown[2] == colour(image, 0.5)).all()


@pytest.mark.parametrize(
    ("metrics", "label"),
    [
        ({"metric_psnr_db": 21.27, "metric_transport_cost": 3.0}, "a\n21.3 dB"),
        ({"metric_transport_cost": 3.0}, "a\ncost 3.00"),
        ({}, "a"),
    ],
)
def test_the_score_of_a_run_stands_beside_its_row(metrics, label, tmp_path):
    results = record(tmp_path / "results", {("a", 0): output((1, 8, 8))}, **metrics)
    assert [name for name, _ in kept_images(results.runs, [tmp_path / "results"])] == [label]


def test_nothing_is_drawn_where_no_images_were_kept(tmp_path):
    assert images.draw(TASK, {}) is None
    points = {name: np.zeros((20, 64), np.float32) for name in ("x", "pushed", "target")}
    results = record(tmp_path / "results", {("a", 0): points})
    written = plot(results, [tmp_path / "results"], tmp_path / "out")
    assert [path.name.partition("-")[0] for path in written] == ["error_time.png", "maps"]
    bare = write(tmp_path / "bare", [row(TASK, "a", metric_target_gap=0.1)])
    assert [path.name for path in plot(bare, [tmp_path / "bare"], tmp_path / "out")] == [
        "error_time.png"
    ]


def test_vectors_are_images_of_the_shape_that_is_said(tmp_path):
    """From the least value, black, to the greatest, white."""
    points = {"x": np.linspace(3, 5, 64)[None], "pushed": np.full((1, 64), 7.0)}
    points["target"] = np.linspace(7, 11, 64)[None]
    folder = tmp_path / "results"
    results = record(folder, {("a", 0): points})
    assert not list(kept_images(results.runs, [folder], (3, 8, 8)))
    for shape in ((1, 8, 8), (1, 4, 16)):
        ((_, arrays),) = kept_images(results.runs, [folder], shape)
        assert tuple(arrays["image"]) == shape
        np.testing.assert_allclose(arrays["pushed"], 0)
        assert arrays["x"].min() == -1 and arrays["target"].max() == 1
    written = plot(results, [folder], tmp_path / "out", image=(1, 8, 8))
    assert "images" in [path.name.partition("-")[0] for path in written]


@pytest.mark.parametrize("text", ["16", "16x", "0x4", "2x4x4", "4x4x4x4", "axb"])
def test_a_shape_is_height_and_width_with_or_without_channels(text, capsys):
    assert image_shape("16x8") == (1, 16, 8) and image_shape("3x4x5") == (3, 4, 5)
    with pytest.raises(SystemExit):
        main(["plot", "--image-shape", text])
    assert "is no shape such as 16x16" in capsys.readouterr().err


def test_outputs_of_images_are_no_others(tmp_path):
    results = record(tmp_path / "results", {("a", 0): output((1, 8, 8))})
    assert not list(kept_maps(results.runs, [tmp_path / "results"])) and not list(
        kept_couplings(results.runs, [tmp_path / "results"])
    )


@pytest.mark.parametrize(
    ("task", "params"), [("restoration", dumps(data="celeba", sigma=0.3)), ("celeba-faces", "{}")]
)
def test_of_faces_that_may_not_be_published_one_line_says_so(task, params, tmp_path, capsys):
    results = record(tmp_path / "results", {("a", 0): output((3, 8, 8))}, task, task_params=params)
    written = plot(results, [tmp_path / "results"], tmp_path / "out")
    assert f"images-{task}.png" in {path.name for path in written}
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "not for publication" in said and f"images-{task}.png" in said


def uniform(dim: int, image: tuple[int, int, int] | None) -> Measure:
    def draw(n: int, generator: torch.Generator) -> torch.Tensor:
        return 2 * torch.rand(n, dim, generator=generator, dtype=torch.float64) - 1

    return Measure((dim,), draw, image=image)


def problem(image: tuple[int, int, int], **truth: Any) -> MapProblem:
    measure = uniform(int(np.prod(image)), image)
    return MapProblem(measure, measure, SQEUCLIDEAN, Truth("none", **truth))


def rows_of(posed: MapProblem, seed: int = 0) -> dict[str, np.ndarray]:
    """The rows of the picture of a problem, by label."""
    figure = pictures.draw(posed, "title", seed)
    return {
        ax.get_ylabel().replace("\n", " "): np.asarray(ax.images[0].get_array()).astype(int)
        for ax in figure.axes
    }


@pytest.mark.parametrize("image", IMAGES)
def test_the_picture_of_a_problem_shows_what_test_images_were_made_from(image):
    def partners(n: int, generator: torch.Generator) -> tuple[torch.Tensor, dict]:
        y = torch.as_tensor(constant(image, np.linspace(-1, 1, n).tolist()))
        return 3 * y, {"partner": y}

    rows = rows_of(problem(image, test_points=partners))
    assert list(rows) == ["source", "made from", "target"]
    height, width = image[1], 12 * (image[2] + 1)
    assert all(strip.shape == (height, width, 3) for strip in rows.values())
    for name, factor in (("source", 3), ("made from", 1)):
        for i, value in enumerate(np.linspace(-1, 1, 12)):
            block = rows[name][:, i * (image[2] + 1) :][:, : image[2]]
            expected = (
                colour(image, factor * value)
                if image[0] == 1
                else [colour(image, factor * value)[0], 0, 0]
            )
            assert (block == expected).all()


def test_the_optimal_map_and_plan_are_shown_where_they_are_known():
    image = (1, 8, 8)
    assert list(rows_of(problem(image))) == ["source", "target"]
    by_map = rows_of(problem(image, map=lambda x: -x))
    assert list(by_map) == ["source", "target", "the optimal map"]
    inside = np.arange(12 * 9) % 9 < 8  # less the white between images
    assert np.abs(by_map["source"] + by_map["the optimal map"] - 255)[:, inside].max() <= 1

    def pairs(n: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(n, 64), torch.ones(n, 64)

    by_plan = rows_of(problem(image, no_map="not unique: by chance", pairs=pairs))
    assert list(by_plan) == ["source", "target", "an optimal plan (map not unique)"]
    assert (by_plan["an optimal plan (map not unique)"] == 255).all() and (
        by_plan["source"][:, inside] == 128
    ).all()


def test_a_source_of_another_dimension_is_shown_embedded():
    image = (3, 8, 8)
    enlarged = SQEUCLIDEAN.embedded(
        lambda z: (
            z.unflatten(1, (3, 4, 4)).repeat_interleave(2, 2).repeat_interleave(2, 3).flatten(1)
        )
    )
    posed = replace(problem(image), source=uniform(48, (3, 4, 4)), cost=enlarged)
    source = rows_of(posed)["source, embedded by Q"][:, :8]
    np.testing.assert_array_equal(source[::2, ::2], source[1::2, 1::2])


def test_the_seed_decides_which_images_are_shown():
    posed = problem((1, 8, 8))
    one, same, other = (rows_of(posed, seed)["source"] for seed in (0, 0, 1))
    assert (one == same).all() and (one != other).any()


def test_facts_do_not_claim_a_map_that_is_not_known():
    facts = gallery._facts(problem((1, 8, 8)))
    assert (
        facts["certificate"].startswith("none (the optimal map is not known; ")
        and facts["optimal map"] == "is not known"
    )
