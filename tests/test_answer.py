"""One's own transport problem, answered: `otbench solve`, `otbench push` and `otbench.solve`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.sparse import load_npz

import otbench
from otbench.answer.files import save_answer
from otbench.answer.fitted_map import load
from otbench.answer.solving import Answer
from otbench.cli.main import main
from otbench.errors import UserError


SHIFT = np.array([3.0, 1.0])


def cloud(seed: int, n: int = 60, dim: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, dim))


def answer(solver: str, x: np.ndarray, y: np.ndarray, **options) -> Answer:
    return otbench.solve(solver=solver, source=x, target=y, **options)


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return status, out, err


def test_the_exact_answer_is_scipys_assignment() -> None:
    x, y = cloud(0), cloud(1) + SHIFT
    found = answer("pot-emd", x, y)
    costs = np.square(x[:, None] - y).sum(-1)
    rows, columns = linear_sum_assignment(costs)
    assert found.cost == pytest.approx(costs[rows, columns].mean(), rel=1e-12)
    assert found.bound == pytest.approx(found.cost, rel=1e-9)
    assert found.excess is not None and found.excess < 1e-9 and found.potentials is not None
    np.testing.assert_allclose(found.mapped, y[columns], atol=1e-12)
    assert found.target_gap == pytest.approx(0, abs=1e-12)
    f, g = found.potentials
    assert (f[:, None] + g <= costs + 1e-9).all()
    assert f.mean() + g.mean() == pytest.approx(found.cost, rel=1e-9)


@pytest.mark.parametrize("solver", ["pot-emd", "pot-sinkhorn", "pot-sliced-plan", "independent"])
def test_plans_have_the_weights_for_marginals_and_costs_above_the_bound(solver: str) -> None:
    x, y, a = cloud(0, 40), cloud(1, 50) + SHIFT, np.arange(40.0)
    found = answer(solver, x, y, source_weights=a)
    assert found.marginal_error is not None and found.marginal_error < 2e-3
    assert found.plan is not None and found.bound is not None and found.excess is not None
    plan = found.plan.to_dense() if found.plan.is_sparse else found.plan
    np.testing.assert_allclose(plan.sum(1), a / a.sum(), atol=2e-3)
    exact = answer("pot-emd", x, y, source_weights=a).cost
    assert found.bound <= exact * (1 + 1e-9) <= found.cost * (1 + 2e-9)
    assert found.excess >= found.cost / exact - 1 - 1e-9


@pytest.mark.parametrize("offset", [1e4, 1e8])
def test_an_offset_of_both_clouds_changes_nothing(offset: float) -> None:
    x, y = cloud(0), 0.5 * cloud(1) + SHIFT
    for solver in ("linear", "pot-emd", "pot-sinkhorn"):
        near, far = answer(solver, x, y), answer(solver, x + offset, y + offset)
        assert far.cost == pytest.approx(near.cost, rel=1e-4), solver
        np.testing.assert_allclose(far.mapped - offset, near.mapped, atol=1e-3)


def test_the_linear_map_takes_the_moments_of_all_points() -> None:
    x, y = cloud(0, 4000), cloud(1, 4000) @ np.diag([2.0, 0.5]) + SHIFT
    found = answer("linear", x, y)
    np.testing.assert_allclose(found.mapped.mean(0), y.mean(0), atol=0.03)
    np.testing.assert_allclose(np.cov(found.mapped.T), np.cov(y.T), atol=0.1)
    assert found.plan is None and found.excess is None and found.target_gap < 0.01


def test_clouds_too_large_for_a_plan_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otbench.answer.solving.SOLVED", 1000)
    monkeypatch.setattr("otbench.answer.solving.BOUNDED", 1000)
    x, y = cloud(0), cloud(1) + SHIFT
    found = answer("pot-emd[n=50]", x, y)
    assert found.plan is None and found.bound is None and found.info["n"] == 50
    assert found.mapped.shape == x.shape


SAVED = ("identity", "linear", "pot-emd", "ott-sinkhorn", "otm[steps=5]", "ot-cfm[steps=5]")


def test_saved_maps_give_the_same_values_in_a_new_process(tmp_path: Path) -> None:
    new = cloud(2)
    np.save(tmp_path / "new.npy", new)
    pushed = []
    for number, solver in enumerate(SAVED):
        found = answer(solver, cloud(0), cloud(1) + SHIFT)
        found.fitted.save(tmp_path / f"{number}.pt")
        pushed.append(found.fitted.push(new))
    code = (
        "import numpy as np, torch; torch.set_num_threads(1)\n"
        "from otbench.answer.fitted_map import load\n"
        f"for number in range({len(SAVED)}):\n"
        "    mapped = load(f'{number}.pt').push(np.load('new.npy'))\n"
        "    np.save(f'{number}.npy', mapped)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    for number, solver in enumerate(SAVED):
        np.testing.assert_array_equal(np.load(tmp_path / f"{number}.npy"), pushed[number], solver)


SAVED_W1 = ("ttc[critics=2,steps=5]", "ttc-ray[steps=5]", "ttc-semidual[steps=5]")


@pytest.mark.parametrize("solver", SAVED_W1)
def test_maps_of_critics_are_saved(solver: str, tmp_path: Path) -> None:
    found = answer(solver, cloud(0), cloud(1) + SHIFT, cost="euclidean")
    found.fitted.save(tmp_path / "map.pt")
    again = load(tmp_path / "map.pt").push(cloud(2))
    np.testing.assert_array_equal(again, found.fitted.push(cloud(2)))


def test_solve_writes_a_folder_and_push_maps_new_points(tmp_path: Path, capsys) -> None:
    x, y = tmp_path / "x.csv", tmp_path / "y.npy"
    pd.DataFrame(cloud(0), columns=["u", "v"]).to_csv(x, index=False)
    np.save(y, cloud(1) + SHIFT)
    out, options = tmp_path / "out", ("--source", x, "--target", y, "-s", "pot-emd")
    status, text, err = said(capsys, "solve", *options, "-o", out)
    assert status == 0, err
    assert "costs at most" in text and "60 points to 60" in text
    names = ("answer.json", "map.pt", "mapped.csv", "picture.png", "plan.npz", "potentials.npz")
    assert sorted(path.name for path in out.iterdir()) == list(names)
    numbers = json.loads((out / "answer.json").read_text())
    plan = load_npz(out / "plan.npz").toarray()
    np.testing.assert_allclose(plan.sum(1), 1 / 60)
    mapped = pd.read_csv(out / "mapped.csv").to_numpy()
    np.testing.assert_allclose(mapped, 60 * plan @ np.load(y), atol=1e-12)
    assert np.square(mapped - cloud(0)).sum(1).mean() == pytest.approx(numbers["cost"])

    new = tmp_path / "new.npy"
    np.save(new, cloud(0)[:5])
    status, text, err = said(capsys, "push", out, new, "-o", tmp_path / "mapped.parquet")
    assert status == 0, err
    pushed = pd.read_parquet(tmp_path / "mapped.parquet").to_numpy()
    np.testing.assert_allclose(pushed, mapped[:5], atol=1e-12)

    status, _, err = said(capsys, "solve", *options, "-o", out)
    assert status == 2 and "not empty" in err and len(err.splitlines()) == 1


def test_degrees_come_and_go_as_degrees(tmp_path: Path, capsys) -> None:
    """Cities go to the places one degree north of them."""
    rng = np.random.default_rng(0)
    lon, lat = rng.uniform(-170, 170, 30), rng.uniform(-60, 60, 30)
    people = pd.DataFrame({"lat": lat, "lon": lon, "people": rng.integers(1, 9, 30)})
    people.to_csv(tmp_path / "x.csv", index=False)
    people.assign(lat=lat + 1).to_csv(tmp_path / "y.csv", index=False)
    status, _, err = said(
        capsys,
        "solve",
        *("--source", tmp_path / "x.csv", "--target", tmp_path / "y.csv"),
        *("--coords", "lonlat", "--weights-column", "people", "-s", "pot-emd"),
        *("-o", tmp_path / "out"),
    )
    assert status == 0, err
    mapped = pd.read_csv(tmp_path / "out" / "mapped.csv")
    assert list(mapped) == ["lon", "lat"]
    np.testing.assert_allclose(mapped["lon"], lon, atol=1e-6)
    np.testing.assert_allclose(mapped["lat"], lat + 1, atol=1e-6)
    numbers = json.loads((tmp_path / "out" / "answer.json").read_text())
    assert numbers["cost_name"] == "geodesic"
    assert numbers["cost"] == pytest.approx(np.radians(1), rel=1e-6)


@pytest.mark.parametrize(
    ("solver", "cost", "reason"),
    [
        ("ra-ot", "sqeuclidean", "finds no map"),
        ("linear", "euclidean", "sqeuclidean cost only"),
        ("oracle", "sqeuclidean", "given the answer"),
        ("pot-emd", "manhattan", "unknown cost"),
    ],
)
def test_what_a_solver_cannot_do_is_said_in_a_line(solver: str, cost: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        answer(solver, cloud(0), cloud(1), cost=cost)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("x", "weights", "reason"),
    [
        (np.zeros((0, 2)), None, "0 points"),
        (cloud(0, dim=3), None, "same dimension"),
        (np.full((9, 2), np.nan), None, "not finite"),
        (cloud(0), -np.ones(60), "not negative"),
        (cloud(0), np.ones(59), "59"),
        (cloud(0) + 1e14, None, "common offset"),
        (np.array([["a", "b"]]), None, "real numbers"),
    ],
)
def test_arrays_that_are_no_clouds_are_refused(x, weights, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        answer("pot-emd", x, cloud(1), source_weights=weights)


def test_files_that_are_no_maps_are_refused(tmp_path: Path, capsys) -> None:
    np.save(tmp_path / "x.npy", cloud(0))
    torch.save({"map": 3}, tmp_path / "other.pt")
    for name, reason in (("x.npy", "no map"), ("other.pt", "holds int"), ("none", "no such")):
        into = ("-o", tmp_path / "out.npy")
        status, _, err = said(capsys, "push", tmp_path / name, tmp_path / "x.npy", *into)
        assert status == 2 and reason in err and len(err.splitlines()) == 1
    found = answer("identity", cloud(0, dim=3), cloud(1, dim=3))
    save_answer(found, tmp_path / "fit")
    status, _, err = said(capsys, "push", tmp_path / "fit", tmp_path / "x.npy", "-o", "out.npy")
    assert status == 2 and "3 coordinates" in err
    status, _, err = said(capsys, "push", tmp_path / "fit", tmp_path / "x.npy", "-o", "out.xls")
    assert status == 2 and ".parquet" in err


def test_a_map_that_cannot_be_saved_leaves_nothing(tmp_path: Path) -> None:
    found = answer("identity", cloud(0), cloud(1))
    handle = (tmp_path / "open").open("w")
    object.__setattr__(found.fitted, "function", lambda x: (handle, x)[1])
    with pytest.raises(UserError, match="cannot be saved"):
        save_answer(found, tmp_path / "out")
    handle.close()
    assert [path.name for path in tmp_path.iterdir()] == ["open"]


def test_cells_go_from_a_file_to_mapped_points(tmp_path: Path, capsys) -> None:
    """As docs/data.md has it: 20,000 cells with 50 principal components, of two conditions."""
    anndata = pytest.importorskip("anndata")
    rng, n = np.random.default_rng(0), 20_000
    treated = rng.random(n) < 0.5
    condition = pd.Categorical(np.where(treated, "treated", "control"))
    index = [f"cell{i}" for i in range(n)]
    cells = anndata.AnnData(obs=pd.DataFrame({"condition": condition}, index=index))
    cells.obsm["X_pca"] = rng.normal(size=(n, 50)) + 2 * treated[:, None]
    cells.write_h5ad(tmp_path / "cells.h5ad")
    status, _, err = said(
        capsys,
        "solve",
        *("--source", tmp_path / "cells.h5ad", "--where", 'condition == "control"'),
        *("--target", tmp_path / "cells.h5ad", "--where", 'condition == "treated"'),
        *("--key", "obsm/X_pca", "-s", "linear", "-o", tmp_path / "out"),
    )
    assert status == 0, err
    mapped = np.load(tmp_path / "out" / "mapped.npy")
    assert mapped.shape == ((~treated).sum(), 50)
    np.testing.assert_allclose(mapped.mean(0), 2, atol=0.1)
    assert json.loads((tmp_path / "out" / "answer.json").read_text())["target_gap"] < 0.01


PLUGIN = '''
from dataclasses import dataclass
from typing import ClassVar

import torch

from otbench import MapProblem, Solver, Transport
from helper import moved


class Module(torch.nn.Module):
    def forward(self, x):
        return moved(x)


@dataclass(frozen=True)
class Mine(Solver):
    """A solver in a file of the user's, with a helper beside it."""

    name: ClassVar[str] = "mine"
    kind: str = "module"

    def supports(self, problem):
        discrete = self.kind.endswith("plan")
        return None if isinstance(problem, MapProblem) != discrete else "the other setting"

    def fit(self, problem, context):
        if self.kind == "raises":
            raise RuntimeError("no\\nluck")
        if self.kind.endswith("plan"):
            n, m = len(problem.x), len(problem.y)
            plan = torch.full((n, m), 1 / (n * m), dtype=problem.x.dtype)
            plan = {
                "float-plan": plan.float(), "nan-plan": plan * float("nan"), "negative-plan": -plan,
                "zero-plan": 0 * plan, "turned-plan": plan[:, :-1], "numpy-plan": plan.numpy(),
            }[self.kind]
            return Transport(plan=lambda pair: plan)
        info = {"tensor": torch.ones(3), "nan": float("nan"), "long": 10**400}
        pushes = {"module": Module(), "shape": lambda x: x[:, :1], "nan": lambda x: x / 0}
        return Transport(push=pushes[self.kind], info=info)
'''


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    (tmp_path / "helper.py").write_text("def moved(x):\n    return x + 1\n")
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    np.save(tmp_path / "x.npy", cloud(0))
    np.save(tmp_path / "y.npy", cloud(1, 50) + 1)
    return path


def test_the_map_of_a_plugin_is_pushed_where_the_plugin_is_not(
    plugin: Path, otbench, otbench_here
) -> None:
    files = "--source", "x.npy", "--target", "y.npy"
    done = otbench_here("solve", *files, "-s", "mine", "--plugins", "mine.py", "-o", "out")
    assert done.returncode == 0, done.stderr
    assert json.loads((plugin.parent / "out" / "answer.json").read_text())["info_tensor"]
    plugin.unlink()
    (plugin.parent / "helper.py").unlink()
    done = otbench("push", "out", "x.npy", "-o", "moved.npy")
    assert done.returncode == 0, done.stderr
    moved = np.load(plugin.parent / "moved.npy")
    np.testing.assert_allclose(moved, cloud(0) + 1, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("raises", "mine[kind=raises] raised RuntimeError: no"),
        ("shape", "push returned shape"),
        ("nan", "not finite"),
        ("nan-plan", "not finite"),
        ("negative-plan", "negative"),
        ("zero-plan", "no mass"),
        ("turned-plan", "plan returned shape (60, 49)"),
        ("numpy-plan", "ndarray"),
        ("float-plan", None),
    ],
)
def test_what_a_solver_does_wrong_is_one_line(
    kind: str, reason: str | None, plugin: Path, capsys
) -> None:
    folder = plugin.parent
    status, _, err = said(
        capsys,
        "solve",
        *("--source", folder / "x.npy", "--target", folder / "y.npy", "-s", f"mine[kind={kind}]"),
        *("--plugins", plugin, "-o", folder / "out"),
    )
    if reason is None:
        assert status == 0, err
        return
    assert status == 2 and reason in err and len(err.splitlines()) == 1, err
    assert not (folder / "out").exists()


def test_outputs_that_cannot_be_written_are_refused_before_the_fit(
    plugin: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(plugin.parent)
    files = "--source", "x.npy", "--target", "y.npy", "-s", "identity"
    for output in ("x.npy/b", "/proc/none"):
        status, _, err = said(capsys, "solve", *files, "-o", output)
        assert status == 2 and "written" in err and len(err.splitlines()) == 1
    (plugin.parent / "here").mkdir()
    monkeypatch.chdir(plugin.parent / "here")
    files = "--source", "../x.npy", "--target", "../y.npy", "-s", "identity"
    status, _, err = said(capsys, "solve", *files, "-o", ".")
    assert status == 0, err
    assert Path("answer.json").is_file()
    status, _, err = said(capsys, "push", ".", "../x.npy", "-o", "none/q.npy")
    assert status == 2 and "written to" in err


def test_few_points_and_no_distance_are_answered() -> None:
    for n in (1, 2, 3):
        found = answer("pot-emd", cloud(0, n), cloud(1, 3))
        assert found.mapped.shape == (n, 2)
    same = answer("pot-emd", cloud(0), cloud(0))
    assert same.cost == 0 and same.excess is None
    for scale in (1e-30, 1e15):
        small = answer("independent", scale * cloud(0), scale * cloud(1))
        unit = answer("independent", cloud(0), cloud(1))
        assert small.excess == pytest.approx(unit.excess, rel=1e-3)
    with pytest.raises(UserError, match="with mass are all the same"):
        answer("pot-emd", cloud(0), cloud(1, 3), target_weights=[0, 1, 0])


def test_a_picture_of_one_point_is_drawn(tmp_path: Path) -> None:
    save_answer(answer("pot-emd", cloud(0, 1), cloud(1, 3)), tmp_path / "out")
    assert (tmp_path / "out" / "picture.png").stat().st_size > 1000


def test_points_off_the_sphere_are_not_pushed_along_it() -> None:
    sphere = cloud(0, dim=3) / np.linalg.norm(cloud(0, dim=3), axis=1, keepdims=True)
    found = answer("pot-emd", sphere, sphere[::-1], cost="geodesic")
    with pytest.raises(UserError, match="make all norms one"):
        found.fitted.push(2 * sphere)
