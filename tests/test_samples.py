"""Samples of one's own: what is read, what is refused and how, the estimate of the cost, and runs
from end to end.
"""

# pyright: reportMissingImports=false
# (otbench.tasks is joined to the package at run time, see otbench/__init__.py)
from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from otbench import SQEUCLIDEAN, MapProblem, Transport, code_hashes
from otbench.cli.main import main, parser
from otbench.cli.run import own_tasks
from otbench.data.cloud_files import CloudFile, read_cloud
from otbench.errors import UserError
from otbench.job import Result, Row
from otbench.runner import plan
from otbench.scoring.maps import MapScoring
from otbench.scoring.verdict import TAU, Verdict, judge
from otbench.tasks.samples import Samples, exact_cost
from tests.conftest import rows
from tests.truths import SIGMAS, build_map, generator


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test works in an empty folder, with two good files in it."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.save("x.npy", rng.standard_normal((40, 2)))
    np.save("y.npy", rng.standard_normal((60, 2)) + 3)
    return tmp_path


def read_points(path: str) -> np.ndarray:
    return read_cloud(CloudFile(path)).points


DTYPES = (torch.float32, torch.float64)


def held_out(problem: MapProblem) -> tuple[np.ndarray, np.ndarray]:
    x, y = (
        measure.sample_test(10**6, generator(0)) for measure in (problem.source, problem.target)
    )
    return x.numpy(), y.numpy()


POINTS = np.random.default_rng(1).standard_normal((9, 3))


def test_every_format_gives_the_same_points() -> None:
    frame = pd.DataFrame(POINTS, columns=["a", "b c", "d"])
    np.save("p.npy", POINTS)
    np.savez("p.npz", points=POINTS)
    np.savez_compressed("q.npz", POINTS)
    frame.to_csv("p.csv", index=False)
    frame.to_csv("headless.csv", index=False, header=False)
    Path("q.csv").write_text(
        "\ufeff\n" + Path("p.csv").read_text()
    )  # a byte order mark, an empty line
    frame.to_parquet("p.parquet")
    for name in ("p.npy", "p.npz", "q.npz", "p.csv", "headless.csv", "q.csv", "p.parquet"):
        read = read_points(name)
        assert read.dtype == np.float64 and read.shape == POINTS.shape, name
        np.testing.assert_allclose(read, POINTS, rtol=1e-15)


def test_other_number_types_and_points_on_a_line() -> None:
    np.save("line.npy", np.arange(8, dtype=np.int16))
    Path("line.npy").rename("line.NPY")
    np.testing.assert_array_equal(read_points("line.NPY"), np.arange(8.0)[:, None])
    pd.DataFrame({"a": np.arange(10), "b": np.arange(10, dtype=np.float32)}).to_parquet(
        "mixed.parquet"
    )
    np.testing.assert_array_equal(
        read_points("mixed.parquet"), np.repeat(np.arange(10.0)[:, None], 2, 1)
    )
    Path("one.csv").write_text("3\n" * 8)  # one coordinate, no header, all points the same
    Path("spaced.csv").write_text('"first one","2 b"\n1, 2\n' + "1,2\n" * 7)
    np.testing.assert_array_equal(read_points("spaced.csv"), np.tile([1.0, 2.0], (8, 1)))
    np.testing.assert_array_equal(read_points("one.csv"), np.full((8, 1), 3.0))


def with_hole(points: np.ndarray, value: float) -> np.ndarray:
    holed = points.copy()
    holed[4, 1] = value
    return holed


BAD: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "absent": ("b.npy", lambda path: None, "no such file"),
    "folder": ("b.npy", lambda path: path.mkdir(), "no such file"),
    "ending": (
        "b.txt",
        lambda path: path.write_text("1,2\n"),
        "unknown format: give a file that ends in .npy, .npz, .mat, .pt, .csv, .tsv, .parquet, "
        ".feather, .h5ad, .png, ",
    ),
    "no ending": ("b", lambda path: path.write_text("1,2\n"), "unknown format"),
    "empty npy": ("b.npy", lambda path: path.touch(), "cannot be read as .npy (EOFError"),
    "garbage npy": (
        "b.npy",
        lambda path: path.write_bytes(b"no numpy file at all"),
        "cannot be read as .npy",
    ),
    "cut npy": (
        "b.npy",
        lambda path: path.write_bytes(Path("x.npy").read_bytes()[:300]),
        "cannot be read as .npy",
    ),
    "pickle": ("b.npy", lambda path: np.save(path, np.array([{}] * 9)), "allow_pickle=False"),
    "text npy": (
        "b.npy",
        lambda path: np.save(path, np.array(["one"] * 9)),
        "holds values of type <U3: write real numbers",
    ),
    "complex npy": (
        "b.npy",
        lambda path: np.save(path, np.ones(9, complex)),
        "holds values of type complex128",
    ),
    "number": ("b.npy", lambda path: np.save(path, 3.0), "holds an array of shape (): reshape it"),
    "images": (
        "b.npy",
        lambda path: np.save(path, np.ones((9, 2, 2))),
        "holds an array of shape (9, 2, 2): reshape it",
    ),
    "no points": ("b.npy", lambda path: np.save(path, np.ones((0, 2))), "holds 0 points"),
    "no coordinates": ("b.npy", lambda path: np.save(path, np.ones((9, 0))), "holds no column of"),
    "few": (
        "b.npy",
        lambda path: np.save(path, POINTS[:7, :2]),
        "holds 7 points: give at least 8",
    ),
    "nan": (
        "b.npy",
        lambda path: np.save(path, with_hole(POINTS, np.nan)),
        "the first in row 5, column 2",
    ),
    "inf": (
        "b.npy",
        lambda path: np.save(path, with_hole(POINTS, -np.inf)),
        "1 values are missing, not finite or beyond 5.7735e+17",
    ),
    "huge": (
        "b.npy",
        lambda path: np.save(path, with_hole(POINTS, 1e30)),
        "drop those rows, or rescale",
    ),
    "long": (
        "b.npy",
        lambda path: np.save(path, np.full((9, 4), 6e17)),
        "not finite or beyond 5e+17",
    ),
    "constant": (
        "b.npy",
        lambda path: np.save(path, np.ones((9, 2))),
        "its points are all the same: give a target that varies",
    ),
    "dimension": (
        "b.npy",
        lambda path: np.save(path, POINTS),
        "x.npy has 2 columns and b.npy has 3",
    ),
    "two arrays": (
        "b.npz",
        lambda path: np.savez(path, a=POINTS, b=POINTS),
        "holds 2 arrays (a, b)",
    ),
    "no array": ("b.npz", lambda path: np.savez(path), "holds 0 arrays (none)"),
    "cut npz": (
        "b.npz",
        lambda path: (np.savez(path, POINTS), path.write_bytes(path.read_bytes()[:200])),
        "cannot be read as .npz",
    ),
    "empty csv": ("b.csv", lambda path: path.touch(), "is empty"),
    "header only": ("b.csv", lambda path: path.write_text("a,b\n"), "holds 0 points"),
    "text cell": (
        "b.csv",
        lambda path: path.write_text("a,b\n" + "1,2\n" * 9 + "3,none at all\n"),
        "column b holds 'none at all'",
    ),
    "headless text": (
        "b.csv",
        lambda path: path.write_text("1.5,2\n" * 9 + "3,x\n"),
        "column 2 holds 'x'",
    ),
    "dates": (
        "b.csv",
        lambda path: path.write_text("day,b\n" + "2026-01-01,2\n" * 9),
        "column day holds '2026-01-01'",
    ),
    "semicolons": (
        "b.csv",
        lambda path: path.write_text("1.5;2\n" * 9),
        "has '1.5;2' between commas: separate the columns by commas",
    ),
    "semicolons below a header": (
        "b.csv",
        lambda path: path.write_text("a;b\n" + "1;2\n" * 9),
        "separate the columns by commas",
    ),
    "blanks": (
        "b.csv",
        lambda path: path.write_text(" 1.5  2\n" * 9),
        "has '1.5  2' between commas: separate the columns by commas",
    ),
    "tabs": (
        "b.csv",
        lambda path: path.write_text("a\tb\n" + "1\t2\n" * 9),
        "separate the columns by commas",
    ),
    "decimal commas": (
        "b.csv",
        lambda path: path.write_text("a;b\n" + "1,5;2,5\n" * 9),
        "write decimals with a point",
    ),
    "quoted decimal commas": (
        "b.csv",
        lambda path: path.write_text('"1,5";"2,5"\n' * 9),
        "write decimals with a point",
    ),
    "hole": (
        "b.csv",
        lambda path: path.write_text("a,b\n" + "1,2\n" * 9 + "3,\n"),
        "the first in row 10, column 2",
    ),
    "index": (
        "b.csv",
        lambda path: pd.DataFrame(POINTS, columns=list("abc")).to_csv(path),
        "column 1 has no name",
    ),
    "ragged": (
        "b.csv",
        lambda path: path.write_text("a,b\n" + "1,2\n" * 9 + "1,2,3\n"),
        "cannot be read as .csv",
    ),
    "short header": (
        "b.csv",
        lambda path: path.write_text("a,b\n" + "1,2,3\n" * 9),
        "more cells than its first line",
    ),
    "utf-16": (
        "b.csv",
        lambda path: path.write_text("a,b\n" + "1,2\n" * 9, "utf-16"),
        "cannot be read as .csv (UnicodeDecodeError",
    ),
    "bad parquet": (
        "b.parquet",
        lambda path: path.write_bytes(b"PAR1 no more"),
        "cannot be read as .parquet",
    ),
    "text parquet": (
        "b.parquet",
        lambda path: pd.DataFrame({"a": ["u"] * 9}).to_parquet(path),
        "column a holds 'u'",
    ),
    "booleans": (
        "b.parquet",
        lambda path: pd.DataFrame({"a": [True] * 9}).to_parquet(path),
        "column a holds 'True'",
    ),
    "null": (
        "b.parquet",
        lambda path: pd.DataFrame({"a": pd.array([1, None] * 5, "Int64")}).to_parquet(path),
        "5 values are missing",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_one_clear_line_before_anything_runs(
    kind: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, write, words = BAD[kind]
    write(Path(name))
    assert main(["run", "--source", "x.npy", "--target", name, "--results", "out"]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("otbench: error: ") and words in printed.err, printed.err
    assert printed.err.count("\n") == 1 and name in printed.err and not printed.out
    assert not (here / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--source", "x.npy"], "--source and --target go together"),
        (["--target", "y.npy"], "--source and --target go together"),
        (["--cost", "euclidean"], "--cost euclidean is that of --source and --target"),
        (["--source", "", "--target", ""], "unknown format"),
        (["--source", "x.npy", "--target", "y.npy", "--cost", "geodesic"], "make all norms one"),
        (
            ["-t", "samples"],
            "task samples: source and target must be files of points: otbench run --source FILE "
            "--target FILE",
        ),
        (
            ["-t", "samples[source=x.npy,target=z.npy]"],
            "target must be a file of points, got 'z.npy', which is none",
        ),
    ],
)
def test_bad_options_are_one_clear_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *arguments, "--results", "out"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("otbench: error: ") and words in error and error.count("\n") == 1, error


def test_bad_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match="source and target"):
        Samples()
    with pytest.raises(
        ValueError, match="cost must be one of sqeuclidean, euclidean, geodesic, got 'l1'"
    ):
        Samples("x.npy", "y.npy", "l1")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name",
    [
        "a b.npy",
        "a,b.npy",
        "[a](b).npy",
        "a=b.npy",
        "it's.npy",
        'so "said".npy',
        'it\'s "both", [x].npy',
    ],
)
def test_any_path_can_be_named(name: str) -> None:
    Path("x.npy").rename(name)
    options = parser().parse_args(["run", "--source", name, "--target", "y.npy"])
    (selection,) = plan.select("task", own_tasks(options, Console()), ())
    given = {key: value for key, value in selection.params if value}
    assert given == {"source": name, "target": "y.npy", "cost": "sqeuclidean"}
    assert plan.select("task", [selection.label], ()) == [selection], (
        "a label selects what it names"
    )


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean"])
def test_the_cost_is_that_of_the_best_assignment(cost: Literal["sqeuclidean", "euclidean"]) -> None:
    rng = np.random.default_rng(2)
    points = rng.standard_normal((50, 3))
    np.save("a.npy", np.concatenate([points, points]))  # every point twice
    np.save("b.npy", rng.standard_normal((200, 3)))  # a sample twice as large
    problem = build_map(Samples("a.npy", "b.npy", cost))
    x, y = held_out(problem)
    assert (len(x), len(y)) == (50, 100)
    matrix = cdist(np.repeat(x, 2, 0), y, cost)
    assert problem.truth.cost == pytest.approx(
        matrix[linear_sum_assignment(matrix)].mean(), rel=1e-12
    )
    assert problem.truth.certificate == "lp" and problem.truth.no_map and problem.truth.map is None


def test_translation_changes_the_cost_by_its_formula() -> None:
    """W2^2(X, Y + s) = W2^2(X, Y) + 2 <s, mean Y - mean X> + |s|^2, point for point."""
    x, shift = np.load("x.npy"), np.array([3.0, -4.0])
    np.save("same.npy", x)
    np.save("moved.npy", x + shift)
    still, moved = (build_map(Samples("x.npy", name)) for name in ("same.npy", "moved.npy"))
    a, b = held_out(still)
    assert still.truth.cost is not None and moved.truth.cost is not None
    assert moved.truth.cost == pytest.approx(
        still.truth.cost + 2 * shift @ (b.mean(0) - a.mean(0)) + 25, rel=1e-12
    )


def test_the_standard_error_is_that_of_repeated_samples() -> None:
    """Two Gaussians at distance 3: the estimates scatter as they say, above the true cost 9 by the
    cost between samples of one Gaussian.
    """
    rng = np.random.default_rng(3)
    repeats, costs, errors, floors = 100, [], [], []
    for _ in range(repeats):
        x, y = (torch.as_tensor(rng.standard_normal((n, 2))) for n in (100, 150))
        floors.append(exact_cost(x, y, SQEUCLIDEAN)[0])
        value, error = exact_cost(x, y + torch.tensor([3.0, 0.0]), SQEUCLIDEAN)
        costs.append(value)
        errors.append(error)
    scatter = np.std(costs, ddof=1)
    assert abs(scatter / np.mean(errors) - 1) <= SIGMAS / np.sqrt(2 * repeats)
    assert abs(np.mean(costs) - np.mean(floors) - 9) <= SIGMAS * scatter / np.sqrt(repeats)


def test_the_error_of_the_cost_holds_a_third_of_the_cost_between_halves() -> None:
    """From one place to two, equally far: no standard error. Halves of the target, of which k
    points of 10 differ, cost 4 k / 10.
    """
    np.save("a.npy", np.zeros((40, 1)))
    np.save("b.npy", np.tile([[-1.0], [1.0]], (20, 1)))
    problem = build_map(Samples("a.npy", "b.npy"))
    _, y = held_out(problem)
    assert problem.truth.cost == pytest.approx(1) and len(y) == 20
    k = problem.truth.cost_error * 3 * 2 * 10 / 4
    assert k == pytest.approx(round(k), abs=1e-9) and 0 < round(k) <= 10


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean"])
@pytest.mark.parametrize("n", [200, 2000])
@pytest.mark.parametrize("dim", [2, 5, 10])
def test_the_identity_is_not_wrong_between_samples_of_one_measure(
    dim: int, n: int, cost: Literal["sqeuclidean", "euclidean"]
) -> None:
    """The linear program between them is far from zero, its true value; its error says so. Where
    that is as large as the cost nothing can be said.
    """
    for seed in range(4):
        rng = np.random.default_rng(seed)
        np.save("a.npy", rng.standard_normal((n, dim)))
        np.save("b.npy", rng.standard_normal((n, dim)))
        scores = scores_of_the_identity(build_map(Samples("a.npy", "b.npy", cost), seed))
        assert scores["cost_defect"] <= max(TAU, scores["cost_visible"]), scores
        assert judge(scores) in (Verdict.OK, None), scores


def test_the_identity_is_wrong_between_samples_of_two_measures() -> None:
    rng = np.random.default_rng(0)
    np.save("a.npy", rng.standard_normal((2000, 5)))
    np.save("b.npy", rng.standard_normal((2000, 5)) + 2)
    scores = scores_of_the_identity(build_map(Samples("a.npy", "b.npy")))
    assert scores["cost_defect"] > 2 * scores["cost_visible"]
    assert judge(scores | {"target_defect": 0.0}) is judge(scores) is Verdict.INACCURATE


def scores_of_the_identity(problem: MapProblem) -> dict[str, float]:
    judged = MapScoring(problem, generator(1))
    return judged.score(Transport(push=lambda x: x), judged.x.clone())


def test_the_source_may_be_one_point_and_the_target_may_not() -> None:
    np.save("atom.npy", np.zeros((40, 2)))
    problem = build_map(Samples("atom.npy", "y.npy"), dtype=torch.float32)
    assert judge(scores_of_the_identity(problem)) is Verdict.INACCURATE
    np.save("far.npy", 1e9 + np.load("y.npy"))
    costs = [build_map(Samples("x.npy", "far.npy"), dtype=d).truth.cost for d in DTYPES]
    assert costs[0] == pytest.approx(costs[1], rel=1e-6)
    np.save("few.npy", np.eye(60, 2))
    with pytest.raises(UserError, match=r"few.npy: its points are all the same in torch.float32"):
        for seed in range(20):  # until both points that differ are held out
            build_map(Samples("x.npy", "few.npy"), seed, dtype=torch.float32)


def test_half_of_each_sample_is_held_out_at_random() -> None:
    np.save("a.npy", np.arange(41.0))
    halves = []
    for seed in (0, 1):
        source = build_map(Samples("a.npy", "a.npy"), seed).source
        train = set(source.sample(2000, generator(0)).flatten().tolist())
        test = source.sample_test(1000, generator(0)).flatten().tolist()
        assert len(test) == 20 and len(train) == 21 and train.isdisjoint(test)
        halves.append(frozenset(test))
    assert halves[0] != halves[1]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_sphere(dtype: torch.dtype) -> None:
    """Rounded unit vectors are normalised; turning a cap to the other pole costs nearly pi."""
    rng = np.random.default_rng(4)
    cap = np.concatenate([1e-3 * rng.standard_normal((100, 2)), np.ones((100, 1))], 1)
    np.save(
        "a.npy",
        cap
        / np.linalg.norm(cap, axis=1, keepdims=True)
        * (1 + 5e-4 * rng.uniform(-1, 1, (100, 1))),
    )
    np.save("b.npy", -cap)
    problem = build_map(Samples("a.npy", "b.npy", "geodesic"), dtype=dtype)
    x, _ = held_out(problem)
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, rtol=2e-7)
    assert x.dtype == str(dtype).removeprefix("torch.")
    assert problem.truth.cost == pytest.approx(np.pi, abs=5e-3)


def test_the_hash_of_a_task_covers_its_files() -> None:
    (selection,) = plan.select("task", ["samples[source=x.npy,target=y.npy]"], ())
    before = code_hashes.task_hash(selection)
    assert before == code_hashes.task_hash(selection) != selection.entry.source_hash
    np.save("y.npy", np.load("y.npy") + 1e-9)
    after = code_hashes.task_hash(selection)
    assert after != before
    solvers = plan.select("solver", ["identity"], ())
    (run,) = plan.expand([selection], solvers, [0], "cpu", "float32")
    row = Row.of(run, Result("ok"), "", "")
    assert row.task_hash == after and not plan.pending([run], {run.key: row}, "changed")
    assert plan.pending([replace(run, task_hash=before)], {run.key: row}, "changed")
    (gaussian,) = plan.select("task", ["gaussian"], ())
    assert code_hashes.task_hash(gaussian) == gaussian.entry.source_hash
    Path("y.npy").unlink()
    with pytest.raises(ValueError, match="target must be a file"):
        code_hashes.task_hash(selection)


@pytest.mark.slow
def test_the_solvers_of_the_suites_run_on_it_and_changed_data_is_run_again(
    otbench_here, here: Path
) -> None:
    rng = np.random.default_rng(5)
    x = rng.standard_normal((1000, 2))
    np.save("x.npy", x)
    np.save("y.npy", rng.standard_normal((800, 2)) + np.array([3, 0]))
    command = [
        "run",
        "--source",
        "x.npy",
        "--target",
        "y.npy",
        "--suite",
        "smoke",
        "--jobs",
        "2",
        "--results",
        "out",
    ]
    done = otbench_here(*command)
    assert done.returncode == 0, done.stderr
    recorded = {row["solver"]: row for row in rows(here / "out")}
    assert recorded.pop("ttc")["status"] == "skipped"  # it is for the cost euclidean
    assert recorded.pop("ra-ot")["status"] == "skipped"  # it learns from pairs
    assert {row["status"] for row in recorded.values()} == {"ok"}, [
        row["message"] for row in recorded.values()
    ]
    assert set(recorded) == {
        "identity",
        "constant",
        "linear",
        "pot-emd",
        "pot-sinkhorn",
        "ott-sinkhorn",
        "pot-sliced-plan",
        "otm",
    }
    assert recorded["linear"]["metric_cost_ratio"] == pytest.approx(1, abs=0.1)
    (provenance,) = (
        json.loads(path.read_text()) for path in (here / "out").rglob("provenance.json")
    )
    assert set(provenance["data_sha256"]) == {"x.npy", "y.npy"}

    assert "0 to do" in otbench_here(*command).stdout
    np.save("x.npy", x + 1)
    again = otbench_here(*command, "-s", "identity", "linear")
    assert again.returncode == 0 and "already recorded" not in again.stdout
    last = [row for row in rows(here / "out") if row["solver"] == "linear"]
    assert (
        len(last) == 2
        and last[0]["key"] == last[1]["key"]
        and last[0]["task_hash"] != last[1]["task_hash"]
    )


def test_tables_run_from_end_to_end_beside_other_tasks(otbench_here, here: Path) -> None:
    (here / "my points").mkdir()
    rng = np.random.default_rng(6)
    x, y = (
        pd.DataFrame(rng.standard_normal((300, 2)) + shift, columns=["u", "v"]) for shift in (0, 2)
    )
    paths = ["my points/x.csv", "my points/y.parquet"]
    x.to_csv(paths[0], index=False)
    y.to_parquet(paths[1])
    own = ("--source", paths[0], "--target", paths[1], "--cost", "euclidean")
    tasks = (*own, "-t", "point-clouds[n=20,m=20]")
    done = otbench_here("run", *tasks, "-s", "sinkhorn", "--seeds", 1, "--results", "out")
    assert done.returncode == 0, done.stderr
    clouds, samples = sorted(rows(here / "out"), key=lambda row: row["task"])
    assert clouds["task"] == "point-clouds" and clouds["status"] == samples["status"] == "ok"
    given = {name: v for name, v in json.loads(samples["task_params"]).items() if v}
    assert given == {"source": paths[0], "target": paths[1], "cost": "euclidean"}
