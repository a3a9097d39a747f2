"""Files of one's own with weights: every format, headers and indices, conditions on rows, images,
degrees, cells; what is refused and how; and the tasks that they give.
"""

# pyright: reportMissingImports=false
# (otbench.tasks is joined to the package at run time, see otbench/__init__.py)
from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console
from scipy.optimize import linprog
from scipy.spatial.distance import cdist

from otbench import Transport
from otbench.cli.main import main, parser
from otbench.cli.options import own_files
from otbench.cli.run import own_tasks
from otbench.data.cells import _export
from otbench.data.cloud_files import CloudFile, read_cloud, read_pair
from otbench.data.clouds import Cloud
from otbench.data.tables import INDEX, WEIGHT
from otbench.errors import UserError
from otbench.families.own_data import OPTIONS
from otbench.problem import LazyTruth, Truth
from otbench.report import couplings
from otbench.runner import plan, truths
from otbench.scoring.maps import MapScoring
from otbench.scoring.verdict import Verdict, judge
from otbench.tasks.clouds import Clouds
from otbench.tasks.samples import Samples
from tests.conftest import rows
from tests.truths import SIGMAS, build_map, generator


RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((40, 2)), RNG.standard_normal((50, 2)) + 2
A, B = RNG.uniform(0.5, 2, 40), RNG.uniform(0.5, 2, 50)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test works in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def same(cloud: Cloud, points: np.ndarray, weights: np.ndarray | None) -> None:
    assert cloud.points.dtype == np.float64
    np.testing.assert_allclose(cloud.points, points, rtol=1e-12)
    if weights is None:
        assert cloud.weights is None
    else:
        assert cloud.weights is not None
        np.testing.assert_allclose(cloud.weights, weights / weights.sum(), rtol=1e-12)


def refused(words: str, *arguments: object) -> None:
    """The command says this in one line, before anything runs."""
    with pytest.raises(UserError, match=words) as error:
        own_tasks(parser().parse_args(["run", *map(str, arguments)]), Console(quiet=True))
    assert "\n" not in str(error.value)


# Headers, indices and weights among the columns


@pytest.mark.parametrize("d", [1, 2, 11])
def test_a_header_of_numbers_is_no_point(d: int) -> None:
    points = RNG.standard_normal((20, d))
    pd.DataFrame(points).to_csv("p.csv", index=False)
    pd.DataFrame(points).to_csv("p.tsv", index=False, sep="\t")
    for name in ("p.csv", "p.tsv"):
        same(read_cloud(CloudFile(name)), points, None)


def test_a_first_line_that_may_be_a_point_is_refused_and_a_number_alone_is_a_point() -> None:
    Path("p.csv").write_text("1,2\n0.5,3\n" * 9)
    with pytest.raises(UserError, match="may be a header or a point"):
        read_cloud(CloudFile("p.csv"))
    for first in "01":
        Path("line.csv").write_text(f"{first}\n2\n-1\n3\n")
        assert read_cloud(CloudFile("line.csv")).points[:, 0].tolist() == [int(first), 2, -1, 3]
    np.save("x.npy", X[:3])
    Path("a.csv").write_text("1\n2\n1\n")
    same(read_cloud(CloudFile("x.npy", weights="a.csv")), X[:3], np.array([1.0, 2, 1]))
    Path("a.csv").write_text("0\n1\n2\n3\n")
    with pytest.raises(UserError, match="for 3 points"):
        read_cloud(CloudFile("x.npy", weights="a.csv"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x,y\n0,1.5,2.5\n10,3.5,4.5\n20,5,6\n", "more cells than its first line"),
        ("x,y\n1,2\n3,4,5\n", "cannot be read"),
        ("NA,NA\n5,6\n7,8\n", "missing, not finite"),
        ("NA\n5\n6\n", "missing, not finite"),
        ("-\n5\n6\n", "no number"),
    ],
)
def test_no_line_and_no_cell_vanishes(text: str, words: str) -> None:
    Path("p.csv").write_text(text)
    with pytest.raises(UserError, match=words):
        read_cloud(CloudFile("p.csv"))


def test_columns_are_asked_of_what_has_some() -> None:
    np.save("line.npy", A)
    for option in ({"columns": "2"}, {"weights_column": "1"}):
        with pytest.raises(UserError, match="no columns"):
            read_cloud(CloudFile("line.npy", **option))
    scipy.io.savemat("row.mat", {"x": np.arange(5.0)})
    with pytest.raises(UserError, match="save points in rows"):
        read_cloud(CloudFile("row.mat"))
    Path("twice.csv").write_text("x,x\n" + "1.5,2\n" * 9)
    with pytest.raises(UserError, match="several columns 'x'"):
        read_cloud(CloudFile("twice.csv", columns="x"))
    pd.DataFrame(X).assign(t=range(len(X))).set_index("t").to_parquet("p.parquet")
    with pytest.raises(UserError, match=r"its index \(t\)"):
        read_cloud(CloudFile("p.parquet"))


@pytest.mark.parametrize("names", ["y,x", "northing,easting", "phi,lambda"])
def test_degrees_are_not_guessed_from_other_names(names: str) -> None:
    Path("p.csv").write_text(f"{names}\n50,10\n51,11\n")
    with pytest.raises(UserError, match="not clear which columns are longitude"):
        read_cloud(CloudFile("p.csv", coords="lonlat"))
    last, first = names.split(",")
    chosen = CloudFile("p.csv", coords="lonlat", columns=f"{first},{last}")
    Path("known.csv").write_text("lats,lonDeg\n50,10\n51,11\n")
    same(read_cloud(CloudFile("known.csv", coords="lonlat")), read_cloud(chosen).points, None)


def test_columns_with_and_without_names_are_a_header() -> None:
    """As pandas writes an array to which a column was added."""
    frame = pd.DataFrame(X)
    frame["w"] = A
    frame.to_csv("p.csv", index=False)
    same(read_cloud(CloudFile("p.csv", weights_column="w")), X, A)
    frame.to_csv("p.csv", index_label="cell")
    same(read_cloud(CloudFile("p.csv", columns="0,1")), X, None)
    np.savetxt("p.csv", X, delimiter=",", header="u,v")
    same(read_cloud(CloudFile("p.csv", columns="u,v")), X, None)
    np.savetxt("p.csv", X, delimiter=",", header="0,1")
    same(read_cloud(CloudFile("p.csv")), X, None)


def test_names_may_hold_separators() -> None:
    Path("p.csv").write_text('"u, 1","v; 2"\n' + "5,6\n" * 8)
    assert len(read_cloud(CloudFile("p.csv")).points) == 8


def test_numbers_that_count_otherwise_are_a_point() -> None:
    Path("p.csv").write_text("0,2\n" + "5,6\n" * 8)
    assert len(read_cloud(CloudFile("p.csv")).points) == 9
    Path("p.csv").write_text("0.0,1.0\n" + "5,6\n" * 8)
    assert read_cloud(CloudFile("p.csv")).points[0].tolist() == [0, 1]


WRITE: dict[str, Callable[[pd.DataFrame, str], Any]] = {
    "csv": lambda frame, path: frame.to_csv(path),
    "tsv": lambda frame, path: frame.to_csv(path, sep="\t"),
    "csv without header": lambda frame, path: frame.to_csv(path, header=False),
    "parquet": lambda frame, path: frame.reset_index().to_parquet(path),
    "feather": lambda frame, path: frame.reset_index().to_feather(path),
    "npy": lambda frame, path: np.save(path, frame.reset_index().to_numpy()),
}


@pytest.mark.parametrize("names", [range(2), ["u", "v"]], ids=str)
@pytest.mark.parametrize("first", [0, 1, 40])
@pytest.mark.parametrize("kind", WRITE)
def test_an_index_is_no_coordinate(kind: str, first: int, names: Any) -> None:
    suffix = kind.split()[0]
    for name, points in (("x", X), ("y", Y)):
        index = range(first, first + len(points))
        frame = pd.DataFrame(points, index=index, columns=list(map(str, names)))
        WRITE[kind](frame, f"{name}.{suffix}")
    refused("index", "--source", f"x.{suffix}", "--target", f"y.{suffix}")


def test_the_index_of_chosen_rows_is_no_coordinate() -> None:
    for name, points in (("x", X), ("y", Y)):
        kept = np.sort(RNG.choice(200, len(points), replace=False))
        np.save(f"{name}.npy", np.column_stack([points[:, 0], kept, points[:, 1]]))
    refused("column 2 counts the rows", "--source", "x.npy", "--target", "y.npy")
    source, target = (CloudFile(f"{name}.npy", columns="1,3") for name in "xy")
    for cloud, points in zip(read_pair(source, target, "euclidean"), (X, Y), strict=True):
        same(cloud, points, None)
    # one may say that it is a coordinate after all
    source, target = (replace(file, columns="1,2,3") for file in (source, target))
    assert read_pair(source, target, "euclidean")[0].points.shape == (40, 3)


def test_the_index_of_shuffled_rows_is_no_coordinate() -> None:
    for name, points in (("x", X), ("y", Y)):
        order = 1 + RNG.permutation(len(points))
        np.save(f"{name}.npy", np.column_stack([points, order]))
    refused("column 3 counts the rows", "--source", "x.npy", "--target", "y.npy")
    ranks = [np.argsort(RNG.standard_normal((n, 2)), axis=0) for n in (40, 50)]
    np.save("x.npy", ranks[0])
    np.save("y.npy", ranks[1])
    assert read_pair(CloudFile("x.npy"), CloudFile("y.npy"), "euclidean")[0].points.shape == (40, 2)


def test_points_of_whole_numbers_are_points() -> None:
    np.save("x.npy", np.arange(40.0).reshape(20, 2))
    np.save("y.npy", RNG.integers(0, 9, (30, 2)))
    np.save("line.npy", np.arange(40))
    for name, other, m in (("x", "x", 20), ("y", "y", 30), ("x", "y", 30), ("line", "line", 40)):
        files = CloudFile(f"{name}.npy"), CloudFile(f"{other}.npy")
        assert len(read_pair(*files, "euclidean")[1].points) == m


@pytest.mark.parametrize(
    "name",
    [
        *("", "Unnamed: 0", "Unnamed: 0.1", "index", "id", "cell_id", "sample id", "level_0"),
        *("__index_level_0__", "rownames", "row.names", "row"),
    ],
)
def test_names_of_an_index(name: str) -> None:
    assert INDEX.fullmatch(name) and not WEIGHT.fullmatch(name)


@pytest.mark.parametrize(
    "name",
    ["w", "Weight", "weights", "sample_weight", "mass", "prob", "probability", "pop", "counts"],
)
def test_names_of_weights(name: str) -> None:
    assert WEIGHT.fullmatch(name) and not INDEX.fullmatch(name)


@pytest.mark.parametrize(
    "name", ["x", "u", "width", "window", "proba2d", "PC1", "grid", "mid", "0", "arrow"]
)
def test_names_of_coordinates(name: str) -> None:
    assert not WEIGHT.fullmatch(name) and not INDEX.fullmatch(name)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet", "feather"])
def test_a_column_of_weights_is_chosen_or_left_out_by_name(suffix: str) -> None:
    frame = pd.DataFrame(X, columns=["u", "v"]).assign(mass=A, town="here")
    path = f"x.{suffix}"
    if suffix in ("csv", "tsv"):
        frame.to_csv(path, index=False, sep="\t" if suffix == "tsv" else ",")
    else:
        getattr(frame, f"to_{suffix}")(path)
    with pytest.raises(UserError, match=r"column town holds 'here'.*--columns"):
        read_cloud(CloudFile(path, weights_column="mass"))
    with pytest.raises(UserError, match=r"'mass' looks like weights.*--columns u,v"):
        read_cloud(CloudFile(path))
    same(read_cloud(CloudFile(path, columns="u,v")), X, None)
    same(read_cloud(CloudFile(path, columns="v, u", weights_column="mass")), X[:, ::-1], A)
    with pytest.raises(
        UserError, match="no column 'mas' for --weights-column; did you mean 'mass'"
    ):
        read_cloud(CloudFile(path, weights_column="mas"))
    with pytest.raises(UserError, match="no column 'w' for --columns"):
        read_cloud(CloudFile(path, columns="u,w"))


def test_an_index_that_may_hold_coordinates_is_refused() -> None:
    frame = pd.DataFrame(Y, index=Y[:, 0], columns=["u", "v"])
    frame.to_parquet("y.parquet")
    with pytest.raises(UserError, match=r"its index .* may hold coordinates.*reset_index"):
        read_cloud(CloudFile("y.parquet"))
    frame.index = pd.Index([f"cell {i}" for i in range(50)])
    frame.to_parquet("y.parquet")
    same(read_cloud(CloudFile("y.parquet")), Y, None)


# Conditions on rows


GROUPS = pd.DataFrame(X, columns=["u", "v"]).assign(
    group=np.where(np.arange(40) % 4, "treated", "control"), day=np.arange(40) % 3
)


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ('group == "control"', GROUPS.group == "control"),
        ("day > 0 and not group != 'control'", (GROUPS.day > 0) & (GROUPS.group == "control")),
        ("day in [0, 2] or u < -1", GROUPS.day.isin([0, 2]) | (GROUPS.u < -1)),
        ("0 < `day` <= 1.5", GROUPS.day == 1),
        ("u + v > 2 * day", GROUPS.u + GROUPS.v > 2 * GROUPS.day),
    ],
)
def test_a_condition_chooses_rows(where: str, kept: pd.Series) -> None:
    GROUPS.to_csv("g.csv", index=False)
    GROUPS.assign(group=GROUPS.group.astype("category")).to_parquet("g.parquet")
    for path in ("g.csv", "g.parquet"):
        read = read_cloud(CloudFile(path, where=where, columns="u,v", weights_column="day"))
        days = GROUPS.day[kept].to_numpy(float)
        same(read, X[kept], days)


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("group.str.len() > 2", "has Call|has Attribute"),
        ("u.abs() > 1", "has Call|has Attribute"),
        ("__import__('os').system('touch gone')", "has Call|has Attribute"),
        ("u > @secret", "is no condition"),
        ("group[0] == 1", "has Subscript"),
        ("9 ** 9 ** 9 > u", "has Pow"),
        ("(lambda: 1) > u", "has Lambda"),
        ("u = 1", "is no condition"),
        ("u >", "is no condition"),
        ("u + 1", "not true or false of each row"),
        ("1 > 0", "not true or false of each row"),
        ("dose > 1", "'dose' is not defined; its columns are 'u', 'v', 'group', 'day'"),
        ("group == 'ctrl'", "holds for none of the 40 rows: group is 'control', 'treated'"),
    ],
)
def test_a_condition_that_is_none_is_refused(where: str, words: str) -> None:
    GROUPS.to_csv("g.csv", index=False)
    with pytest.raises(UserError, match=words):
        read_cloud(CloudFile("g.csv", where=where, columns="u,v"))
    assert not Path("gone").exists()


# Arrays


def save_mat(path: str, **arrays: np.ndarray) -> None:
    scipy.io.savemat(path, {**arrays, **{n: v[None] for n, v in arrays.items() if v.ndim == 1}})


def save_pt(path: str, **arrays: np.ndarray) -> None:
    torch.save({name: torch.tensor(array) for name, array in arrays.items()}, path)


@pytest.mark.parametrize(
    ("path", "save"), [("p.npz", np.savez), ("p.mat", save_mat), ("p.pt", save_pt)]
)
def test_named_arrays(path: str, save: Callable[..., None]) -> None:
    save(path, points=X, weights=A)
    same(read_cloud(CloudFile(path)), X, A)
    save(path, x=X, a=A)
    same(read_cloud(CloudFile(path)), X, A)
    save(path, x=X, a=A, y=Y, b=B)
    pair = read_pair(CloudFile(path), CloudFile(path), "sqeuclidean")
    same(pair[0], X, A)
    same(pair[1], Y, B)
    same(read_cloud(CloudFile(path, key="y")), Y, B)
    with pytest.raises(UserError, match=r"holds 4 arrays .*say which are the points, --key"):
        read_cloud(CloudFile(path))
    save(path, x=X, y=Y[:40], weights=A)
    with pytest.raises(UserError, match="weights is neither x nor its weights"):
        read_pair(CloudFile(path), CloudFile(path), "sqeuclidean")
    save(path, x=X[:, 0], y=X[:, 1])  # of two files, coordinates
    save(f"other.{path}", x=Y[:, 0], y=Y[:, 1])
    with pytest.raises(UserError, match=r"holds 2 arrays \(x, y\): say which are the points"):
        read_pair(CloudFile(path), CloudFile(f"other.{path}"), "sqeuclidean")
    save(path, cells=X, mass=A)
    with pytest.raises(UserError, match=r"holds 2 arrays \(cells, mass\)"):
        read_cloud(CloudFile(path))
    with pytest.raises(UserError, match="mass is neither cells nor its weights"):
        read_cloud(CloudFile(path, key="cells"))
    same(read_cloud(CloudFile(path, weights_column="mass")), X, A)
    with pytest.raises(UserError, match="has no array 'cell' for --key; did you mean 'cells'"):
        read_cloud(CloudFile(path, key="cell"))


def test_a_tensor_alone_and_single_precision() -> None:
    torch.save(torch.tensor(X, dtype=torch.bfloat16), "x.pt")
    same(read_cloud(CloudFile("x.pt")), torch.tensor(X).bfloat16().double().numpy(), None)
    torch.save({"model": [1, 2]}, "x.pt")
    with pytest.raises(UserError, match="holds list as model, which is no tensor"):
        read_cloud(CloudFile("x.pt"))


def test_a_sparse_matrix_is_made_dense_within_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    scipy.io.savemat("x.mat", {"points": scipy.sparse.csc_matrix(X)})
    same(read_cloud(CloudFile("x.mat")), X, None)
    monkeypatch.setattr("otbench.data.cloud_files.DENSE", 79)
    with pytest.raises(UserError, match="sparse matrix of 40 x 2 entries"):
        read_cloud(CloudFile("x.mat"))


# Weights in a file of their own


def test_weights_of_a_file_of_their_own() -> None:
    np.save("x.npy", X)
    np.save("a.npy", A)
    np.savetxt("a.csv", A)
    np.save("column.npy", A[:, None] * 1e300)
    for name in ("a.npy", "a.csv", "column.npy"):
        same(read_cloud(CloudFile("x.npy", weights=name)), X, A)
    np.save("wide.npy", np.column_stack([A, X]))
    same(read_cloud(CloudFile("wide.npy", weights_column="1", columns="2,3")), X, A)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (A[:-1], r"weights of shape \(39,\) for 40 points"),
        (X, r"weights of shape \(40, 2\) for 40 points"),
        (np.where(np.arange(40) == 3, -1, A), "weight 4 is -1: weights are finite and not neg"),
        (np.where(np.arange(40) == 3, np.nan, A), "weight 4 is nan"),
        (np.where(np.arange(40) == 3, np.inf, A), "weight 4 is inf"),
        (np.zeros(40), "all weights are zero"),
        (A.astype(str), "weights of type <U"),
        (A + 0j, "weights of type complex128"),
    ],
)
def test_weights_that_are_none_are_refused(weights: np.ndarray, words: str) -> None:
    np.save("x.npy", X)
    np.save("y.npy", Y)
    np.save("a.npy", weights)
    refused(
        f"a.npy: .*{words}", "--source", "x.npy", "--source-weights", "a.npy", "--target", "y.npy"
    )


@given(st.lists(st.floats(0, 1e300), min_size=1, max_size=40).filter(any))
def test_weights_sum_to_one(weights: list[float]) -> None:
    np.savez("p.npz", points=np.arange(len(weights)), weights=weights)
    read = read_cloud(CloudFile("p.npz")).weights
    assert read is not None and read.min() >= 0 and read.sum() == pytest.approx(1)


# Images


def test_pixels_are_points_and_brightness_is_mass() -> None:
    image = np.zeros((2, 4), np.uint8)
    image[0, 3], image[1, 0] = 10, 30  # the upper right corner, the lower left one
    np.save("im.npy", image)
    Image.fromarray(image).save("im.png")
    Image.fromarray(255 - image).save("dark.png")
    expected = np.array([[3.5, 1.5], [0.5, 0.5]]) / 4
    for file in (
        CloudFile("im.npy", kind="image"),
        CloudFile("im.png"),
        CloudFile("im.png", kind="image"),
        CloudFile("dark.png", kind="dark-image"),
    ):
        same(read_cloud(file), expected, np.array([1.0, 3.0]))
    np.save("dark.npy", 30 - image.astype(float))
    same(read_cloud(CloudFile("dark.npy", kind="dark-image")), expected, np.array([1.0, 3.0]))


def test_colours_depths_and_transparency() -> None:
    grey = np.array([[0, 40], [80, 120]], np.uint8)
    mass = np.array([40.0, 80, 120])
    Image.fromarray(np.repeat(grey[..., None], 3, 2)).save("rgb.png")
    Image.fromarray(grey.astype(np.uint16) * 256).save("deep.png")
    Image.fromarray(grey).convert("P").save("palette.gif")
    for name in ("rgb.png", "deep.png", "palette.gif"):
        same(read_cloud(CloudFile(name)), read_cloud(CloudFile("rgb.png")).points, mass)
    alpha = np.array([[255, 255], [0, 255]], np.uint8)
    Image.fromarray(np.dstack([grey, alpha]), "LA").save("clear.png")
    kept = read_cloud(CloudFile("clear.png"))
    same(kept, read_cloud(CloudFile("rgb.png")).points[[0, 2]], mass[[0, 2]])


def test_a_picture_is_as_it_is_shown_and_one() -> None:
    picture = Image.fromarray(np.array([[0, 9, 0, 0]], np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6  # the right side of what is stored is the bottom of what is shown
    picture.save("turned.png", exif=turned)
    same(read_cloud(CloudFile("turned.png")), np.array([[0.125, 0.625]]), np.ones(1))
    picture.save("two.gif", save_all=True, append_images=[picture.rotate(180)])
    with pytest.raises(UserError, match="holds 2 pictures"):
        read_cloud(CloudFile("two.gif"))


@pytest.mark.parametrize(
    ("array", "kind", "words"),
    [
        (np.zeros((3, 4)), "image", "no pixel has mass"),
        (np.ones((3, 4)), "dark-image", "no pixel has mass"),
        (np.ones((3, 4, 3)), "image", r"shape \(3, 4, 3\): an image is \(height, width\)"),
        (-np.ones((3, 4)), "image", "negative or not finite"),
        (np.full((3, 4), np.nan), "image", "negative or not finite"),
        (np.ones((3, 4)), "picture", "unknown kind 'picture': choose image, dark-image"),
    ],
)
def test_images_that_are_none_are_refused(array: np.ndarray, kind: str, words: str) -> None:
    np.save("im.npy", array)
    with pytest.raises(UserError, match=words):
        read_cloud(CloudFile("im.npy", kind=kind))


# Degrees


def test_degrees_are_points_on_the_sphere() -> None:
    degrees = np.array([[0, 0], [90, 0], [-90, 0], [12, 90], [200, -90], [180, 0], [0, 45], [1, 1]])
    np.save("ll.npy", degrees)
    pd.DataFrame(degrees, columns=["Longitude", "lat_deg"]).iloc[:, ::-1].assign(
        town="here", mass=1.0 + np.arange(8)
    ).to_csv("ll.csv", index=False)
    read = read_cloud(CloudFile("ll.npy", coords="lonlat")).points
    half = 0.5**0.5
    expected = [
        [1, 0, 0],
        [0, 1, 0],
        [0, -1, 0],
        [0, 0, 1],
        [0, 0, -1],
        [-1, 0, 0],
        [half, 0, half],
    ]
    np.testing.assert_allclose(read[:7], expected, atol=1e-15)
    named = CloudFile("ll.csv", coords="lonlat", weights_column="mass")
    same(read_cloud(named), read, 1.0 + np.arange(8))
    same(read_cloud(replace(named, columns="lat_deg,Longitude", weights_column="")), read, None)
    with pytest.raises(UserError, match="'mass' looks like weights"):
        read_cloud(replace(named, weights_column=""))


def test_degrees_that_are_none_are_refused() -> None:
    np.save("swapped.npy", np.array([[48.0, 151.0]] * 9))
    np.save("x.npy", X)
    pd.DataFrame(X, columns=["lon", "b"]).to_csv("half.csv", index=False)
    with pytest.raises(UserError, match=r"row 1 has latitude 151, .*longitude, then latitude"):
        read_cloud(CloudFile("swapped.npy", coords="lonlat"))
    with pytest.raises(UserError, match="not clear which columns are longitude and latitude"):
        read_cloud(CloudFile("half.csv", coords="lonlat"))
    refused("say --coords lonlat", "--source", "x.npy", "--target", "x.npy", "--cost", "geodesic")


def test_degrees_are_of_the_geodesic_cost() -> None:
    """A quarter of the equator."""
    np.save("a.npy", np.tile([[0.0, 0.0]], (8, 1)))
    np.save("b.npy", np.array([[90.0, 0.0]] * 7 + [[90.0, 1e-7]]))
    options = ["run", "--source", "a.npy", "--target", "b.npy", "--coords", "lonlat"]
    files = own_files(parser().parse_args(options))
    assert files is not None and files[2] == "geodesic"
    task = Clouds("a.npy", "b.npy", "geodesic", source_coords="lonlat", target_coords="lonlat")
    truth = task.problem(np.random.default_rng(0), device="cpu", dtype=torch.float64).truth
    assert truth.cost == pytest.approx(np.pi / 2, rel=1e-9)


# Cells


def test_cells_without_the_package_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    Path("cells.h5ad").touch()
    file = CloudFile("cells.h5ad", key="obsm/X_pca", where="day > 1")
    with pytest.raises(UserError) as error:
        read_cloud(file)
    words = str(error.value)
    assert "pip install 'otmapbench[anndata]'" in words
    line = words.partition("where you have it: ")[2]
    compile(line, "", "exec")
    assert "a.obsm['X_pca'][a.obs.eval('day > 1')]" in line


def test_cells() -> None:
    anndata = pytest.importorskip("anndata")
    groups = GROUPS.set_index(GROUPS.index.astype(str))
    cells = anndata.AnnData(scipy.sparse.csr_matrix(Y[:40]), obs=groups)
    cells.obsm["X_pca"] = X.astype(np.float32)
    cells.layers["log"] = 2 * cells.X
    cells.write_h5ad("cells.h5ad")
    kept = GROUPS.group.to_numpy() == "control"
    file = CloudFile("cells.h5ad", key="obsm/X_pca", where='group == "control"')
    same(
        read_cloud(replace(file, weights_column="day")),
        X[kept].astype(np.float32),
        GROUPS.day[kept],
    )
    same(read_cloud(replace(file, key="X", where="")), Y[:40], None)
    same(read_cloud(replace(file, key="layers/log")), 2 * Y[:40][kept], None)
    for key, expected in (("X", Y[:40]), ("layers/log", 2 * Y[:40]), ("obsm/X_pca", X)):
        exec(_export(Path("cells.h5ad"), key, file.where))
        np.testing.assert_allclose(read_cloud(CloudFile("cells.npy")).points, expected[kept], 1e-6)
    for wrong, words in (
        (replace(file, key=""), "choose with --key: X, obsm/X_pca, layers/log"),
        (replace(file, key="X_pca"), "did you mean 'obsm/X_pca'"),
        (replace(file, where="group == 'c'"), "group is 'control', 'treated'"),
        (replace(file, weights_column="dy"), "obs has no column 'dy'.*did you mean 'day'"),
    ):
        with pytest.raises(UserError, match=words):
            read_cloud(wrong)
    del cells.X
    cells.write_h5ad("reduced.h5ad")
    same(read_cloud(CloudFile("reduced.h5ad", key="obsm/X_pca")), cells.obsm["X_pca"], None)
    with pytest.raises(UserError, match="choose with --key: obsm/X_pca, layers/log"):
        read_cloud(CloudFile("reduced.h5ad", key="X"))


# Options


def test_options_hold_for_both_files_or_one() -> None:
    options = [
        *("run", "--source", "s.h5ad", "--where", "a > 1", "--key", "X", "--coords", "lonlat"),
        *(
            "--target",
            "t.npz",
            "--where",
            "b > 2",
            "--target-key",
            "y",
            "--target-weights",
            "w.npy",
        ),
    ]
    source, target, cost = own_files(parser().parse_args(options)) or pytest.fail()
    assert source == CloudFile("s.h5ad", key="X", where="a > 1", coords="lonlat")
    assert target == CloudFile("t.npz", "y", "b > 2", "w.npy", coords="lonlat")
    assert cost == "geodesic"
    assert own_files(parser().parse_args(["run", "-t", "gaussian"])) is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--where", "u > 1", "--source", "x.csv", "--target", "x.csv"], "before any file"),
        (
            ["--source", "x.csv", "--where", "u > 1", "--where", "v > 1", "--target", "x.csv"],
            "second of the source: join both by and",
        ),
        (["--key", "X"], "--key X is that of --source and --target"),
        (["--target-weights", "a.npy"], "--target-weights a.npy is that of"),
        (["--setting", "map"], "--setting map is that of"),
        (["--source", "x.csv", "--target", "x.csv", "--key", "x"], "--key x does not go with .csv"),
        (
            ["--source", "x.npy", "--target", "x.npy", "--where", "u > 1"],
            "--where u > 1 does not go",
        ),
        (
            ["--source", "x.csv", "--target", "x.csv", "--as", "image"],
            "--as image does not go with",
        ),
        (
            ["--source", "x.npy", "--target", "x.npy", "--as", "image", "--columns", "1"],
            "read as an image",
        ),
        (
            [
                *("--source", "x.npy", "--target", "x.npy"),
                *("--source-weights", "x.npy", "--source-weights-column", "1"),
            ],
            "give one of both",
        ),
    ],
)
def test_options_that_do_not_go_together(arguments: list[str], words: str) -> None:
    np.save("x.npy", X)
    pd.DataFrame(X, columns=["u", "v"]).to_csv("x.csv", index=False)
    refused(words, *arguments)


# The tasks that files give


@pytest.mark.parametrize(
    ("options", "tasks"),
    [
        ([], ["samples"]),
        (["--setting", "discrete"], ["clouds"]),
        (["--source-weights", "a.npy"], ["samples", "clouds"]),
        (["--target-weights", "b.npy", "--setting", "map"], ["samples"]),
    ],
)
def test_weighted_points_are_a_problem_of_both_settings(
    options: list[str], tasks: list[str]
) -> None:
    for name, array in {"x": X, "y": Y, "a": A, "b": B}.items():
        np.save(f"{name}.npy", array)
    arguments = ["run", "--source", "x.npy", "--target", "y.npy", *options]
    selected = plan.select("task", own_tasks(parser().parse_args(arguments), Console()), ())
    assert [selection.entry.name for selection in selected] == tasks
    assert plan.select("task", [selection.label for selection in selected], ()) == selected
    for selection in selected:
        files = selection.build().clouds
        assert files[0].weights == ("a.npy" if "a.npy" in options else "")
        assert all(Path(path).is_absolute() for path in selection.build().files)


def test_every_way_of_reading_is_a_parameter_of_both_tasks() -> None:
    np.save("x.npy", X)
    values = {
        f"{side}_{name}": f"{side} {name}" for side in ("source", "target") for name in OPTIONS
    }
    values |= {"source_weights": "x.npy", "target_weights": "x.npy"}
    values |= {"source_coords": "lonlat", "target_kind": "dark-image", "target_coords": ""}
    values |= {"source_kind": "image"}
    given: dict[str, Any] = values
    for task in (Clouds("x.npy", "x.npy", **given), Samples("x.npy", "x.npy", **given)):
        source, target = task.clouds
        for side, file in (("source", source), ("target", target)):
            assert vars(file) == {"path": "x.npy"} | {n: values[f"{side}_{n}"] for n in OPTIONS}


def test_ways_of_reading_that_there_are_not_are_refused_as_parameters() -> None:
    np.save("x.npy", X)
    with pytest.raises(UserError, match="'source_kind' of clouds must be one of , image, dark"):
        plan.select("task", ["clouds[source=x.npy,target=x.npy,source_kind=picture]"], ())


def test_what_is_left_out_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez("p.npz", x=X, a=A, y=Y, b=B)
    options = parser().parse_args(["run", "--source", "p.npz", "--target", "p.npz"])
    monkeypatch.setattr("otbench.cli.run.LP_POINTS", 24)
    monkeypatch.setattr("otbench.cli.run.SOLVED", 1999)
    assert len(own_tasks(options, Console(width=200))) == 2
    said = capsys.readouterr().out
    assert "source p.npz: 40 points in dimension 2 with weights" in said
    assert "40 x 50 costs are too many for the exact plan" in said
    assert "estimated from 24 held-out points" in said
    monkeypatch.setattr("otbench.cli.run.BOUNDED", 1999)
    assert len(own_tasks(options, Console(width=200))) == 1
    assert "too many for the discrete setting, which is left out" in capsys.readouterr().out
    options.setting = "discrete"
    with pytest.raises(UserError, match="too many for the discrete setting: take fewer points"):
        own_tasks(options, Console())


def test_the_plan_of_weighted_points_is_that_of_the_linear_program() -> None:
    np.savez("p.npz", x=X, a=A, y=Y, b=B)
    task = Clouds("p.npz", "p.npz", "euclidean")
    problem = task.problem(np.random.default_rng(0), device="cpu", dtype=torch.float64)
    np.testing.assert_allclose(problem.a, A / A.sum())
    marginals = np.vstack([np.kron(np.eye(40), np.ones(50)), np.kron(np.ones(40), np.eye(50))])
    masses = np.concatenate([A / A.sum(), B / B.sum()])
    best = linprog(cdist(X, Y).ravel(), A_eq=marginals, b_eq=masses)
    assert problem.truth.cost == pytest.approx(best.fun, rel=1e-9)
    assert problem.truth.plan is not None
    np.testing.assert_allclose(problem.truth.plan.sum(1), A / A.sum())


def test_clouds_beyond_all_bounds_have_no_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    np.save("x.npy", X)
    monkeypatch.setattr("otbench.tasks.clouds.BOUNDED", 1599)
    problem = Clouds("x.npy", "x.npy").problem(
        np.random.default_rng(0), device="cpu", dtype=torch.float32
    )
    assert problem.truth.cost is None and problem.truth.cost_bound is None
    assert "40 x 40 costs are too many" in problem.truth.unsolved


# Weighted samples


def weighted(n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points of the line from 0 to 1 with weights proportional to them, whose mean is 2/3."""
    points = np.random.default_rng(seed).uniform(0, 1, n)
    return points[:, None], points


def test_weighted_samples_are_drawn_with_their_weights() -> None:
    points, weights = weighted(4000)
    np.savez("p.npz", x=points, a=weights, y=points, b=np.ones(4000))
    problem = build_map(Samples("p.npz", "p.npz"))
    for measure, mean in ((problem.source, 2 / 3), (problem.target, 1 / 2)):
        drawn = measure.sample(4000, generator(0)).numpy()
        held_out = measure.sample_test(10**6, generator(0)).numpy()
        assert set(drawn.ravel()).isdisjoint(held_out.ravel())
        for sample in (drawn, held_out):
            assert abs(sample.mean() - mean) <= SIGMAS * points.std() / 2000**0.5
    assert len(problem.target.sample_test(10**6, generator(0))) == 2000


def test_held_out_points_are_as_many_as_their_weights_are_worth() -> None:
    """Halves of them are of different points."""
    points, weights = weighted()
    np.savez("p.npz", points=points, weights=weights)
    problem = build_map(Samples("p.npz", "p.npz"))
    held_out = problem.source.sample_test(10**6, generator(3)).numpy().ravel()
    # E[w]^2 / E[w^2] of a uniform weight
    assert abs(len(held_out) / 200 - 3 / 4) < 0.1
    first, rest = np.array_split(held_out, 2)
    assert len(set(first) & set(rest)) <= 1
    assert len(problem.source.sample_test(7, generator(3))) == 7


def test_equal_weights_are_no_weights() -> None:
    """The same halves, and each held-out point once."""
    np.savez("p.npz", x=X, a=np.ones(40), y=Y, b=np.full(50, 7.0))
    np.savez("q.npz", x=X, y=Y)
    with_weights, without = (build_map(Samples(name, name)) for name in ("p.npz", "q.npz"))
    for name in ("source", "target"):
        held_out = [
            getattr(problem, name).sample_test(10**6, generator(0)).numpy()
            for problem in (with_weights, without)
        ]
        a, b = (points[np.lexsort(points.T)] for points in held_out)
        np.testing.assert_array_equal(a, b)
    assert with_weights.truth.cost == pytest.approx(without.truth.cost)
    assert with_weights.truth.cost_error == pytest.approx(without.truth.cost_error)


def test_points_without_mass_are_never_drawn() -> None:
    np.savez("p.npz", points=np.concatenate([X, X + 100]), weights=np.repeat([1.0, 0], 40))
    source = build_map(Samples("p.npz", "p.npz")).source
    assert source.sample(1000, generator(0)).max() < 50
    assert source.sample_test(1000, generator(0)).max() < 50
    np.savez("few.npz", points=X, weights=np.arange(40) < 7)
    refused("7 points with mass: give at least 8", "--source", "few.npz", "--target", "p.npz")


def test_the_cost_of_weighted_samples_scatters_as_it_says() -> None:
    """Shifted by 3: the true cost is 9, and the weighted estimates scatter about theirs."""
    errors, costs = [], []
    for seed in range(60):
        (x, a), (y, b) = weighted(200, seed), weighted(200, seed + 1000)
        np.savez("p.npz", x=x, a=a, y=y + 3, b=b)
        truth = build_map(Samples("p.npz", "p.npz"), seed).truth
        costs.append(truth.cost)
        errors.append(truth.cost_error)
    assert abs(np.mean(costs) - 9) <= SIGMAS * np.std(costs) / 60**0.5 + 0.01
    assert np.std(costs) == pytest.approx(np.mean(errors), rel=0.4)


@pytest.mark.parametrize("n", [200, 1000])
def test_the_identity_between_samples_of_one_measure_is_judged_by_the_weights(n: int) -> None:
    """Points of N(0, I) with weights exp(x_1) and points of N(e_1, I) are samples of one measure;
    without the weights they are of two.
    """
    for seed in range(2):
        rng = np.random.default_rng(seed)
        x, y = rng.standard_normal((n, 2)), rng.normal([1, 0], size=(n, 2))
        np.savez("with.npz", x=x, a=np.exp(x[:, 0]), y=y)
        np.savez("without.npz", x=x, y=y)
        verdicts = []
        for name in ("with.npz", "without.npz"):
            judged = MapScoring(build_map(Samples(name, name), seed), generator(1))
            scores = judged.score(Transport(push=lambda x: x), judged.x.clone())
            verdicts.append(judge(scores))
        assert verdicts[0] in (Verdict.OK, None) and verdicts[1] is Verdict.INACCURATE


# Truths are solved for once


def test_a_truth_is_solved_for_by_the_first_run(tmp_path: Path) -> None:
    solved = []

    def solve(cost: float) -> Truth:
        solved.append(cost)
        return Truth("lp", cost, cost_error=0.5, plan=torch.eye(3) / 3)

    np.save("x.npy", X)
    problem = Clouds("x.npy", "x.npy").problem(
        np.random.default_rng(0), device="cpu", dtype=torch.float32
    )
    problem = replace(problem, truth=LazyTruth("lp", solve, 2.0))
    first, second = (truths.shared(problem, tmp_path / "t.pt") for _ in range(2))
    assert not solved
    for each in (first, second):
        assert each.truth.cost == 2.0 and each.truth.cost_error == 0.5
        assert each.truth.plan is not None and not each.truth.plan.is_sparse
        assert torch.equal(each.truth.plan, torch.eye(3) / 3)
    assert solved == [2.0]


def test_a_plan_that_is_too_large_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("otbench.runner.truths.ENTRIES", 2)
    truth = LazyTruth("lp", lambda: Truth("lp", 1.0, plan=torch.eye(3)))
    assert truths.read_or_solved(tmp_path / "t.pt", truth).cost == 1.0
    assert not (tmp_path / "t.pt").exists()


# From end to end


def test_weighted_files_run_from_end_to_end(otbench_here, here: Path) -> None:
    np.savez("p.npz", x=X, a=A, y=Y, b=B)
    done = otbench_here(
        *("run", "--source", "p.npz", "--target", "p.npz", "--results", "out", "--seeds", 1),
        *("-s", "pot-emd", "linear", "--keep"),
    )
    assert done.returncode == 0, done.stderr
    drawn = otbench_here("plot", "out", "--out", "drawn")
    assert drawn.returncode == 0, drawn.stderr
    assert {path.name.partition("-")[0] for path in (here / "drawn").iterdir()} == {
        *("error_time.png", "maps", "moves")
    }
    found = {(row["task"], row["solver"]): row for row in rows(here / "out")}
    assert found["clouds", "linear"]["status"] == "skipped"
    assert found["clouds", "pot-emd"]["metric_cost_gap"] == pytest.approx(0, abs=1e-6)
    assert found["samples", "linear"]["status"] == found["samples", "pot-emd"]["status"] == "ok"
    assert json.loads(found["clouds", "linear"]["task_params"])["source"] == "p.npz"


@pytest.mark.parametrize("d", [2, 3, 5])
def test_the_moves_of_a_plan_lead_from_the_points_to_those_of_the_target(d: int) -> None:
    x, y = RNG.standard_normal((6, d)), RNG.standard_normal((9, d))
    plan_of_six = {"i": np.arange(6), "j": np.arange(6)[::-1], "mass": np.full(6, 1 / 6)}
    clouds = {"x": x, "a": np.full(6, 1 / 6), "y": y, "b": np.full(9, 1 / 9)}
    arrays = {**clouds, **plan_of_six, "cost": np.array("euclidean")}
    kept = {f"0_{name}": array for name, array in arrays.items()}
    drawn = couplings.draw("own", {"one": kept, "two": kept})
    assert set(drawn) == {"moves"}
    assert [ax.get_title() for ax in drawn["moves"].axes] == ["one", "two"]
    target, lines, source = drawn["moves"].axes[0].collections
    starts, ends = (np.asarray(dots.get_offsets()) for dots in (source, target))
    assert starts.shape == (6, 2) and ends.shape == (9, 2)
    ways = [np.asarray(path.vertices) for path in lines.get_paths()]
    np.testing.assert_allclose([way[0] for way in ways], starts)
    np.testing.assert_allclose([way[-1] for way in ways], ends[5::-1])
    if d == 2:
        np.testing.assert_allclose(starts, x)


def test_errors_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    pd.DataFrame(X).to_csv("x.csv")
    assert main(["run", "--source", "x.csv", "--target", "x.csv"]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("otbench: error: x.csv: column 1 has no name")
    assert printed.err.count("\n") == 1 and not printed.out


PEAK = """
import resource, sys
from otbench.data.cloud_files import CloudFile, read_cloud
import numpy, pandas
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
cloud = read_cloud(CloudFile(sys.argv[1]))
assert cloud.points.shape == (200_000, 50)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / cloud.points.nbytes)
"""


@pytest.mark.parametrize(("suffix", "most"), [("npy", 1.2), ("npz", 1.5), ("parquet", 2.3)])
def test_points_are_not_copied_twice(suffix: str, most: float) -> None:
    points = np.random.default_rng(0).standard_normal((200_000, 50))
    path = f"x.{suffix}"
    if suffix == "parquet":
        pd.DataFrame(points, columns=[f"x{i}" for i in range(50)]).to_parquet(path)
    else:
        np.save(path, points) if suffix == "npy" else np.savez(path, points)
    done = subprocess.run([sys.executable, "-c", PEAK, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < most
