"""Every task's truth is proved again: optimality by exact linear programs, closed forms by samples,
and the contract of building.
"""

# pyright: reportMissingImports=false
# (otbench.tasks is joined to the package at run time, see otbench/__init__.py)
from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otbench import (
    SQEUCLIDEAN,
    AmortizedProblem,
    DiscreteProblem,
    MapProblem,
    Measure,
    MissingError,
    Task,
)
from otbench.data import files as data
from otbench.methods.c_transform import c_transform
from otbench.tasks.gaussian import Gaussian
from otbench.tasks.log_sum_exp import LogSumExp
from otbench.tasks.petals import Petals
from otbench.tasks.point_clouds import PointClouds
from otbench.tasks.weight_pairs import WeightPairs


MAPS: Sequence[Task] = (
    Gaussian(dim=2),
    Gaussian(dim=16, condition=100.0),
    Petals(),
    Petals(petals=3, radius=2.0, eps=1.5),
    LogSumExp(dim=2),
    LogSumExp(dim=16),
)
CLOUDS: Sequence[Task] = (PointClouds(n=60, m=80), PointClouds(n=50, m=30, dim=5, cost="euclidean"))
RANDOM: Sequence[Task] = (
    Gaussian(),
    LogSumExp(),
    PointClouds(n=20, m=20),
    WeightPairs(train=2, test=2),
)
SIGMAS = 4.5  # of the standard error of every Monte Carlo comparison; all seeds are fixed

maps = pytest.mark.parametrize("task", MAPS, ids=repr)
seeds = pytest.mark.parametrize("seed", [0, 1])


def build(task: Task, seed: int = 0, dtype: torch.dtype = torch.float64):
    return task.problem(np.random.default_rng(seed), device="cpu", dtype=dtype)


def build_map(task: Task, seed: int = 0, dtype: torch.dtype = torch.float64) -> MapProblem:
    problem = build(task, seed, dtype)
    assert isinstance(problem, MapProblem)
    return problem


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def apply(problem: MapProblem, x: torch.Tensor) -> torch.Tensor:
    assert problem.truth.map is not None
    return problem.truth.map(x)


def exact_w2_squared(x: torch.Tensor, y: torch.Tensor) -> float:
    """Exact W2^2 between equal-sized samples by the network simplex."""
    matrix = SQEUCLIDEAN.matrix(x, y)
    return float((ot.emd(np.array([]), np.array([]), matrix.numpy()) * matrix.numpy()).sum())


def agree(samples: torch.Tensor, expected: torch.Tensor) -> None:
    """Means over the first axis equal ``expected`` up to `SIGMAS` standard errors."""
    error = (samples.mean(0) - expected).abs()
    assert (error <= SIGMAS * samples.std(0) / len(samples) ** 0.5 + 1e-12).all()


def products(y: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """``(n, d, d)``: their mean is the covariance."""
    return (y - mean)[:, :, None] * (y - mean)[:, None, :]


@maps
@seeds
def test_the_identity_pairing_attains_the_linear_program(task: Task, seed: int) -> None:
    problem = build_map(task, seed)
    x = problem.source.sample(400, generator(seed))
    y = apply(problem, x)
    assert float(problem.cost.pairwise(x, y).mean()) == pytest.approx(
        exact_w2_squared(x, y), rel=1e-12
    )


def test_the_linear_program_tells_a_map_that_is_not_optimal() -> None:
    x = build_map(Petals()).source.sample(400, generator(0))
    turned = x @ torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=x.dtype)
    assert float(SQEUCLIDEAN.pairwise(x, turned).mean()) > 2 * exact_w2_squared(x, turned)


@maps
@seeds
def test_the_map_pushes_the_source_to_the_target(task: Task, seed: int) -> None:
    problem = build_map(task, seed)
    pushed = apply(problem, problem.source.sample(20_000, generator(seed)))
    target = problem.target.sample(20_000, generator(seed + 100))
    gap = (pushed.mean(0) - target.mean(0)).abs()
    assert (gap <= SIGMAS * (2 / len(target)) ** 0.5 * target.std(0)).all()
    p, q = (products(sample, target.mean(0)) for sample in (pushed, target))
    assert (
        (p.mean(0) - q.mean(0)).abs() <= SIGMAS * (p.var(0) + q.var(0)).sqrt() / len(target) ** 0.5
    ).all()


@maps
@seeds
@pytest.mark.parametrize("side", ["source", "target"])
def test_closed_form_moments_are_those_of_a_large_sample(task: Task, seed: int, side: str) -> None:
    measure: Measure = getattr(build_map(task, seed), side)
    y = measure.sample(50_000, generator(seed))
    if measure.mean is not None:
        agree(y, measure.mean)
    if measure.cov is not None:
        assert measure.mean is not None
        agree(products(y, measure.mean), measure.cov)
    if measure.variance is not None:
        agree((y - y.mean(0)).square().sum(1), torch.tensor(measure.variance))


@pytest.mark.parametrize("task", [*MAPS[:4], Petals(petals=5, eps=0.0)], ids=repr)
@seeds
def test_the_closed_form_cost_is_that_of_a_large_sample(task: Task, seed: int) -> None:
    problem = build_map(task, seed)
    assert problem.truth.cost is not None
    x = problem.source.sample(200_000 if problem.source.dim > 2 else 1_000_000, generator(seed))
    agree(
        problem.cost.pairwise(x, apply(problem, x)), torch.tensor(problem.truth.cost, dtype=x.dtype)
    )


def test_one_dimensional_gaussians_by_hand() -> None:
    problem = build_map(Gaussian(dim=1, condition=4.0, shift=3.0))
    x = torch.tensor([[-1.0], [0.0], [2.0]], dtype=torch.float64)
    assert problem.target.mean is not None
    assert torch.allclose(apply(problem, x), x + problem.target.mean)
    assert problem.truth.cost == pytest.approx(9)


def test_the_log_sum_exp_map_is_the_gradient_of_its_potential() -> None:
    task = LogSumExp(dim=3, atoms=5)
    rng = np.random.default_rng(4)
    a = rng.standard_normal((5, 3))
    a = torch.as_tensor(task.radius * a / np.linalg.norm(a, axis=1, keepdims=True))
    b = torch.as_tensor(task.offset * rng.standard_normal(5))
    problem = build_map(task, seed=4)
    x = problem.source.sample(50, generator(0)).requires_grad_()
    potential = task.eps * x.square().sum(1) / 2 + task.tau * ((x @ a.T + b) / task.tau).logsumexp(
        1
    )
    (gradient,) = torch.autograd.grad(potential.sum(), x)
    assert torch.allclose(apply(problem, x.detach()), gradient, rtol=1e-12)


@pytest.mark.parametrize("points", [8, 3])
def test_petals_move_sectors_outwards(points: int) -> None:
    problem = build_map(Petals(petals=points, radius=10.0, eps=0.5))
    angles = 2 * torch.pi * torch.arange(points, dtype=torch.float64) / points
    rays = torch.stack([angles.cos(), angles.sin()], 1)
    assert torch.allclose(apply(problem, 2 * rays), 11 * rays)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("radius", [0.1, 10.0, 1000.0])
def test_petals_without_extent_are_atoms_to_their_potential(
    radius: float, dtype: torch.dtype
) -> None:
    """Off the atoms the potential is minus infinity, so the c-transform over the plane is f."""
    problem = build_map(Petals(petals=5, radius=radius, eps=0.0), dtype=dtype)
    f, g = problem.truth.potential, problem.truth.target_potential
    assert f is not None and g is not None
    x = problem.source.sample(500, generator(0))
    y = problem.target.sample(500, generator(1))
    assert torch.allclose(g(y), g(y).new_tensor(radius**2)) and g(y).dtype == dtype
    assert torch.isneginf(g(y + 0.01 * radius)).all() and torch.isneginf(g(x * 0)).all()
    transform = c_transform(problem.cost, g, x, apply(problem, x), y)
    assert float((transform - f(x)).abs().max()) <= 1e-3 * (radius + radius**2)


@settings(max_examples=60, deadline=None)
@given(
    task=st.one_of(
        st.builds(
            Gaussian, dim=st.integers(1, 6), condition=st.floats(1, 1e4), shift=st.floats(0, 5)
        ),
        st.builds(
            LogSumExp,
            dim=st.integers(1, 6),
            atoms=st.integers(1, 9),
            tau=st.floats(0.01, 10),
            eps=st.floats(0, 2),
        ),
    ),
    seed=st.integers(0, 2**32 - 1),
    scale=st.floats(1e-3, 1e3),
)
def test_maps_are_monotone(task: Gaussian | LogSumExp, seed: int, scale: float) -> None:
    problem = build_map(task, seed)
    x, other = (
        scale * torch.randn(64, task.dim, generator=generator(seed + i), dtype=torch.float64)
        for i in (0, 1)
    )
    inner = ((apply(problem, x) - apply(problem, other)) * (x - other)).sum(1)
    assert (inner >= -1e-10 * (1 + scale**2)).all()


@pytest.mark.parametrize("task", [*MAPS, *CLOUDS, WeightPairs(train=2, test=2)], ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_everything_lives_where_it_was_asked_for(task: Task, dtype: torch.dtype) -> None:
    problem = build(task, dtype=dtype)
    if isinstance(problem, MapProblem):
        x = problem.source.sample(7, generator(0))
        tensors = [x, apply(problem, x), problem.target.sample(7, generator(0))]
        tensors += [
            t for m in (problem.source, problem.target) for t in (m.mean, m.cov) if t is not None
        ]
        assert x.shape == (7, *problem.source.shape) and apply(problem, x).shape == (
            7,
            *problem.target.shape,
        )
        assert not apply(problem, x).requires_grad
    else:
        pairs = (
            [problem] if isinstance(problem, DiscreteProblem) else [*problem.train, *problem.test]
        )
        tensors = [t for p in pairs for t in (p.x, p.a, p.y, p.b, p.truth.plan) if t is not None]
    assert {(t.dtype, t.device.type) for t in tensors} == {(dtype, "cpu")}


@maps
def test_float32_is_the_same_problem(task: Task) -> None:
    single, double = build_map(task, dtype=torch.float32), build_map(task)
    x = double.source.sample(200, generator(0))
    gap = (apply(single, x.float()) - apply(double, x)).norm(dim=1)
    assert float(gap.median()) < 1e-4 * float(apply(double, x).norm(dim=1).median())


@maps
def test_maps_act_point_by_point(task: Task) -> None:
    problem = build_map(task)
    x = problem.source.sample(10, generator(0))
    assert torch.allclose(apply(problem, x)[3:4], apply(problem, x[3:4]), rtol=1e-12)


def fingerprint(task: Task, seed: int) -> torch.Tensor:
    """What a problem looks like from outside."""
    problem = build(task, seed)
    if isinstance(problem, MapProblem):
        return apply(problem, problem.source.sample(20, generator(5)))
    pairs = [problem] if isinstance(problem, DiscreteProblem) else [*problem.train, *problem.test]
    return torch.cat([torch.cat([p.x.flatten(), p.y.flatten(), p.a, p.b]) for p in pairs])


@pytest.mark.parametrize("task", RANDOM, ids=repr)
def test_the_seed_decides_the_problem(task: Task) -> None:
    assert torch.equal(fingerprint(task, 3), fingerprint(task, 3))
    assert not torch.allclose(fingerprint(task, 3), fingerprint(task, 4))


def check_plan(pair: DiscreteProblem) -> None:
    """Marginals, cost, and optimality by dual potentials that are feasible and attain it: a proof
    whoever found them.
    """
    plan, cost = pair.truth.plan, pair.truth.cost
    assert plan is not None and cost is not None
    assert (plan >= 0).all()
    assert torch.allclose(plan.sum(1), pair.a, rtol=0, atol=1e-14) and torch.allclose(
        plan.sum(0), pair.b, rtol=0, atol=1e-14
    )
    assert float(plan.sum()) == pytest.approx(1, abs=1e-13)
    matrix = pair.cost.matrix(pair.x, pair.y)
    assert float((plan * matrix).sum()) == pytest.approx(cost, rel=1e-12)
    _, log = ot.emd(pair.a, pair.b, matrix, log=True)
    assert float((log["u"][:, None] + log["v"] - matrix).max()) <= 1e-12
    assert float(log["u"] @ pair.a + log["v"] @ pair.b) == pytest.approx(cost, rel=1e-10)
    assert cost < 0.95 * float(pair.a @ matrix @ pair.b)


@pytest.mark.parametrize("task", CLOUDS, ids=repr)
@seeds
def test_plans_of_point_clouds_are_optimal(task: PointClouds, seed: int) -> None:
    pair = build(task, seed)
    assert isinstance(pair, DiscreteProblem) and pair.cost.name == task.cost
    assert pair.x.shape == (task.n, task.dim) and pair.y.shape == (task.m, task.dim)
    check_plan(pair)


@pytest.mark.parametrize(
    "task", [WeightPairs(train=3, test=2), WeightPairs(side=5, train=0, test=3)], ids=repr
)
@seeds
def test_plans_of_held_out_weight_pairs_are_optimal(task: WeightPairs, seed: int) -> None:
    problem = build(task, seed)
    assert isinstance(problem, AmortizedProblem)
    assert len(problem.train) == task.train and len(problem.test) == task.test
    assert all(pair.truth.plan is None and pair.truth.cost is None for pair in problem.train)
    for pair in problem.test:
        assert pair.x is problem.test[0].x and pair.x.shape == (task.side**2, 2)
        assert ((pair.x > 0) & (pair.x < 1)).all() and (pair.a > 0).all()
        check_plan(pair)


def test_held_out_pairs_do_not_depend_on_the_number_of_training_pairs() -> None:
    few, many = build(WeightPairs(train=1, test=2)), build(WeightPairs(train=9, test=2))
    assert isinstance(few, AmortizedProblem) and isinstance(many, AmortizedProblem)
    assert all(
        torch.equal(p.a, q.a) and torch.equal(p.b, q.b)
        for p, q in zip(few.test, many.test, strict=True)
    )


def test_weight_pairs_are_smooth() -> None:
    """Neighbouring cells carry nearly the same weight, unlike cells taken at random."""
    problem = build(WeightPairs(side=16, train=20, test=1))
    assert isinstance(problem, AmortizedProblem)
    logs = torch.stack([pair.a.log().reshape(16, 16) for pair in problem.train])
    assert float((logs[:, 1:] - logs[:, :-1]).square().mean()) < 0.1 * float(
        2 * logs.flatten(1).var(1).mean()
    )


@pytest.mark.parametrize(
    ("task", "field", "value"),
    [
        (Gaussian, "dim", 0),
        (Gaussian, "condition", 0.5),
        (Gaussian, "condition", float("nan")),
        (Petals, "petals", 2),
        (Petals, "radius", 0.0),
        (Petals, "eps", -0.1),
        (LogSumExp, "dim", 0),
        (LogSumExp, "atoms", 0),
        (LogSumExp, "radius", -1.0),
        (LogSumExp, "tau", 0.0),
        (LogSumExp, "eps", -0.1),
        (LogSumExp, "offset", -0.1),
        (PointClouds, "n", 0),
        (PointClouds, "m", 0),
        (PointClouds, "dim", 0),
        (PointClouds, "cost", "geodesic"),
        (WeightPairs, "side", 1),
        (WeightPairs, "train", -1),
        (WeightPairs, "test", 0),
    ],
)
def test_bad_parameters_are_refused_by_name(task: type, field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{field} must .*{value}"):
        task(**{field: value})


def test_tasks_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Gaussian().dim = 3  # type: ignore[misc]


def test_data_files_are_found_in_the_named_folder_before_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named, cache = tmp_path / "named", tmp_path / "cache"
    monkeypatch.setenv("OTBENCH_DATA", str(named))
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    for folder in (cache / "otbench" / "a", named / "a"):
        folder.mkdir(parents=True)
        (folder / "b.txt").write_text("otbench")
        assert data.find("a/b.txt") == folder / "b.txt"
    monkeypatch.delenv("OTBENCH_DATA")
    assert data.find("a/b.txt") == cache / "otbench" / "a" / "b.txt"


def test_an_absent_data_file_is_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTBENCH_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "a").mkdir()  # a folder is no data file
    for name in ("a", "a/b.txt"):
        with pytest.raises(MissingError) as error:
            data.find(name)
        message = str(error.value)
        assert "\n" not in message and "OTBENCH_DATA" in message
        assert all(
            part in message for part in (name, str(tmp_path), str(tmp_path / "cache" / "otbench"))
        )


def test_a_data_file_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTBENCH_DATA", str(tmp_path))
    (tmp_path / "empty").touch()
    empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert data.find("empty", empty) == tmp_path / "empty"
    (tmp_path / "empty").write_text("no longer")
    with pytest.raises(MissingError, match="is not the file expected"):
        data.find("empty", empty)
