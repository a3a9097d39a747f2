"""Pictures of tasks and the page that shows them."""

# pyright: reportMissingImports=false

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from PIL import Image

from otbench.cli.main import main
from otbench.data import files as data
from otbench.registry import absent, registry
from otbench.report import gallery, pictures
from otbench.report.drawing import longitude_latitude
from tests import synthetic


UNDRAWN = {"samples", "clouds"}  # points of the user's own

FACES = '''
"""Faces: a map between images that may not be shown."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from otbench import SQEUCLIDEAN, MapProblem, Measure, Task, Truth


@dataclass(frozen=True)
class Faces(Task):
    """Noise, in fact."""

    name: ClassVar[str] = "faces"

    @property
    def files(self):
        return ("celeba/faces.zip",)

    def problem(self, rng, *, device, dtype):
        draw = lambda n, generator: torch.rand(n, 3, 8, 8, generator=generator, dtype=dtype)
        measure = Measure((3, 8, 8), draw)
        truth = Truth("closed_form", map=lambda x: x)
        return MapProblem(measure, measure, SQEUCLIDEAN, truth)
'''


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of every task."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        # Clustering whole pictures takes twenty seconds.
        patch.setattr("otbench.tasks.palette_pairs.SIDE", 48)
        assert main(["gallery", "--out", str(folder)]) == 0
    return folder


def is_drawn(path: Path) -> bool:
    """Whether the file is a PNG that shows something and is small enough for a page."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"), dtype=float)
        return (
            image.format == "PNG"
            and min(image.size) > 100
            and bool(pixels.std() > 10)
            and path.stat().st_size < 150_000
        )


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("gaussian", ["Gaussian to Gaussian", "closed_form", "optimal cost:", "known and unique"]),
        ("gaussian[dim=1]", []),
        ("gaussian[dim=3]", []),
        ("petals", ["brenier"]),
        ("one-to-many", ["does not exist", "spurious map:"]),
        ("two-walls", ["not unique"]),
        ("hyperbola[offset=0.5,dim=3]", []),
        ("unequal-dims", ["x = Q(z)"]),
        ("point-clouds", ["lp", "300 to 300"]),
        ("point-clouds[dim=1]", []),
        ("point-clouds[n=20,m=30,dim=5]", []),
        ("w1-funnels[dim=5]", ["not unique"]),
        ("supply-demand", ["arccos"]),
        ("weight-pairs", ["10 held out"]),
    ],
)
def test_show_draws_a_task_and_describes_it(task, words, tmp_path, capsys):
    assert main(["show", task, "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    (path,) = tmp_path.iterdir()
    assert is_drawn(path)
    for word in [str(path), task, "certificate:", *words]:
        assert word in shown


def test_pictures_are_reproducible_and_depend_on_the_seed(tmp_path):
    for folder, seed in (("one", 0), ("two", 0), ("three", 1)):
        assert (
            main(
                [
                    "show",
                    "gaussian",
                    "point-clouds",
                    "--seed",
                    str(seed),
                    "--out",
                    str(tmp_path / folder),
                ]
            )
            == 0
        )
    for name in ("gaussian.png", "point-clouds.png"):
        one, two, three = (
            (tmp_path / folder / name).read_bytes() for folder in ("one", "two", "three")
        )
        assert one == two != three


def test_several_selections_are_drawn_once_each(tmp_path):
    assert main(["show", "petals[petals=[3,5]]", "petals[petals=5]", "--out", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "petals-petals-3.png",
        "petals-petals-5.png",
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "gausian"], "unknown task 'gausian'; did you mean 'gaussian'?"),
        (["show", "samples"], "source and target must be files of points"),
        (["show", "mix3tomix10"], "mix3tomix10: no data file w2_benchmark/"),
        (["show", "petals", "--out", __file__], "name another folder"),
        (["gallery", "--task", "petal"], "unknown task 'petal'; did you mean 'petals'?"),
        (["gallery", "nowhere"], "no results folder nowhere"),
    ],
)
def test_bad_input_is_one_clear_line(arguments, words, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OTBENCH_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert (
        main(arguments if "--out" in arguments else [*arguments, "--out", str(tmp_path / "out")])
        == 2
    )
    said = capsys.readouterr().err
    assert said.startswith("otbench: error: ") and words in said and said.count("\n") == 1


def test_the_page_has_every_task_with_its_picture_and_certificate(whole):
    page = (whole / "README.md").read_text()
    pictured = dict(re.findall(r"!\[([a-z0-9-]+)\]\(([^)]+)\)", page))
    for name, entry in registry("task").entries.items():
        (section,) = re.findall(
            rf"^## {re.escape(name)}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL
        )
        assert f"(#{name})" in page
        assert all(
            f"| `{parameter}` | `{value}` | " in section
            for parameter, value in entry.parameters.items()
        )
        if (
            name in UNDRAWN
            or len(data.present(entry.cls().files)) < len(entry.cls().files)
            or absent(entry.cls.needs)
        ):
            assert "*No picture: " in section
        else:
            assert is_drawn(whole / pictured[name])
            certificates = (
                r"^- certificate: (closed\\?_form|brenier|dual_certificate|lp|entropic|none) \("
            )
            assert re.search(certificates, section, re.MULTILINE), section
            assert "optimal map" in section or entry.cls.setting != "map"
    assert "/work" not in page and str(Path.home()) not in page


def test_the_text_of_the_page_is_that_of_the_docstrings(whole):
    page = re.sub(r"\\(?=[\\*_<|])", "", (whole / "README.md").read_text()).replace("```", "")
    words = " ".join(page.replace("`", "").split())
    for entry in registry("task").entries.values():
        text = re.sub(
            r"^\* ",
            "- ",
            (sys.modules[entry.cls.__module__].__doc__ or "").replace("`", ""),
            flags=re.MULTILINE,
        )
        for paragraph in text.partition("\n\n")[2].split("\n\n"):
            assert " ".join(paragraph.split()) in words, paragraph


def test_the_page_is_made_identically_again(tmp_path):
    arguments = [
        "gallery",
        "--task",
        "petals",
        "--task",
        "weight-pairs",
        "--task",
        "subspace-shrink",
    ]
    for folder in ("one", "two"):
        assert main([*arguments, "--out", str(tmp_path / folder)]) == 0
    files = {
        path.relative_to(tmp_path / "one")
        for path in (tmp_path / "one").rglob("*")
        if path.is_file()
    }
    assert {str(file) for file in files} == {
        "README.md",
        *(f"pictures/{task}.png" for task in arguments[2::2]),
    }
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_task_without_its_data_is_on_the_page_and_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OTBENCH_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert (
        main(
            [
                "gallery",
                "--task",
                "mix3tomix10",
                "--task",
                "samples",
                "--out",
                str(tmp_path / "page"),
            ]
        )
        == 0
    )
    page = (tmp_path / "page" / "README.md").read_text()
    assert (
        "*No picture: absent when this page was made: w2_benchmark/" in page.replace("\\", "")
        and str(tmp_path) not in page
    )
    assert "mix3tomix10: no picture" in capsys.readouterr().out


def test_unpublishable_images_are_drawn_on_request_only(tmp_path):
    plugin = tmp_path / "faces.py"
    plugin.write_text(FACES)
    assert (
        main(
            [
                "gallery",
                "--task",
                "faces",
                "--plugins",
                str(plugin),
                "--out",
                str(tmp_path / "page"),
            ]
        )
        == 0
    )
    assert (
        not list(tmp_path.rglob("*.png"))
        and "the terms of its data forbid" in (tmp_path / "page" / "README.md").read_text()
    )
    assert main(["show", "faces", "--plugins", str(plugin), "--out", str(tmp_path)]) == 0
    assert is_drawn(tmp_path / "faces.png")


def test_scores_of_the_trivial_solvers_stand_beside_with_the_verdict_of_today(tmp_path):
    defaults = synthetic.dumps(**registry("task").entries["petals"].parameters)
    defects = {"metric_target_defect": 0.0, "metric_cost_defect": 0.0}
    common = {"task_params": defaults, "verdict": "ok", **defects}
    rows = synthetic.uvp("petals", "identity", [70.0, 80.0], trivial=True, **common)
    rows += synthetic.uvp("petals", "oracle", [0.5], **common)
    rows += synthetic.uvp("petals", "method", [1.0], **common)
    rows += synthetic.uvp(
        "petals[petals=5]", "constant", [9.0], trivial=True, task_params=defaults.replace("8", "5")
    )
    synthetic.write(tmp_path / "results", rows)
    tasks = ["--task", "gaussian", "--task", "petals"]
    assert (
        main(["gallery", str(tmp_path / "results"), *tasks, "--out", str(tmp_path / "page")]) == 0
    )
    (table,) = (tmp_path / "page" / "README.md").read_text().split("| solver |")[1:]
    assert table.splitlines() == [
        " seeds | l2_uvp | verdict |",
        "| --- | --- | --- | --- |",
        "| identity | 2 | 75.0 | inaccurate |",
        "| oracle | 1 | 0.500 | ok |",
    ]


def test_docstrings_become_markdown():
    text = (
        "Flows\n- 1 on: |x|_1 <= phi*(y) and <a, x>,\n\n    T(x) = x_1 *\n      2\n\n* ``one``: "
        "first\n  line\n* two_x"
    )
    lines = [
        r"Flows - 1 on: |x|\_1 <= phi\*(y) and \<a, x>,",
        "",
        "```",
        "T(x) = x_1 *",
        "  2",
        "```",
        "",
        "- `one`: first line",
        "- two_x",
    ]
    assert gallery.as_markdown(text).splitlines() == lines


@pytest.mark.parametrize(
    ("task", "drawn"),
    [
        ("w1-funnels", "w1-funnels[dim=2]"),
        ("clifford-torus", "clifford-torus[dim=4]"),
        ("funnel-circles", "funnel-circles"),
        ("petals", "petals"),
    ],
)
def test_a_task_of_many_dimensions_is_drawn_in_the_fewest_it_allows(task, drawn):
    tasks = registry("task")
    assert gallery._clearest(tasks, tasks.entries[task]).label == drawn


@pytest.mark.parametrize(("longitude", "is_cut"), [(0.5, False), (3.0, True), (-2.0, False)])
def test_great_circles_are_cut_at_the_date_line(longitude, is_cut):
    ax = Figure().subplots()
    start, end = (
        np.array([[np.cos(angle), np.sin(angle), 0.0]]) for angle in (longitude, longitude + 0.6)
    )
    pictures._lines(ax, longitude_latitude, start, end, np.zeros((1, 4)))
    (path,) = ax.collections[0].get_paths()
    longitudes = np.asarray(path.vertices)[:, 0]
    assert np.nanmax(np.abs(np.diff(longitudes))) < 3 and np.isnan(longitudes).any() == is_cut


def test_dots_that_coincide_are_one_of_their_joint_weight():
    ax = Figure().subplots()
    pictures._dots(
        ax,
        np.array([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]),
        np.array([0.01, 0.01, 0.005]),
        np.eye(4)[:3],
    )
    (dots,) = ax.collections
    assert isinstance(dots, PathCollection)
    np.testing.assert_allclose(np.asarray(dots.get_offsets()), [[0, 0], [1, 0]])
    np.testing.assert_allclose(dots.get_sizes(), [40, 60])
    np.testing.assert_allclose(np.asarray(dots.get_facecolor()), np.eye(4)[[1, 0]])
