"""The official Wasserstein-2 pairs: golden images, and the reference rows of the benchmark. Needs
its files (see `otbench.data.files`).
"""

# pyright: reportMissingImports=false
# (otbench.tasks is joined to the package at run time, see otbench/__init__.py)
from __future__ import annotations

from pathlib import Path

import numpy as np
import ot
import pytest
import torch

from otbench import FitContext, MapProblem, MissingError, metrics
from otbench.data import files as data
from otbench.scoring.maps import MapScoring
from otbench.solvers.pot_emd import PotEmd
from otbench.solvers.pot_sinkhorn import PotSinkhorn
from otbench.tasks.mix3tomix10 import DIMS, Mix3ToMix10


POINTS = 65536

# Expected rows with their standard errors at 16,384 points: L2-UVP of the linear map and of the
# identity in %, half the transport cost.
REFERENCE = {
    2: ((14.01, 0.08), 32.8, (0.3275, 0.0009)),
    4: ((14.76, 0.08), 42.2, (0.8464, 0.0021)),
    16: ((41.64, 0.08), 89.6, (7.130, 0.012)),
    64: ((63.81, 0.09), 135.5, (43.19, 0.04)),
}
reference_dims = pytest.mark.parametrize("dim", REFERENCE)


def load(dim: int, dtype: torch.dtype = torch.float64) -> tuple[MapProblem, dict[str, np.ndarray]]:
    """The problem and its frozen arrays; skips where the files are absent."""
    try:
        frozen = data.find(f"w2_benchmark/frozen_D{dim}.npz")
    except MissingError as absent:
        pytest.skip(str(absent))
    problem = Mix3ToMix10(dim).problem(np.random.default_rng(0), device="cpu", dtype=dtype)
    with np.load(frozen) as arrays:
        return problem, dict(arrays)


def apply(problem: MapProblem, x: torch.Tensor) -> torch.Tensor:
    assert problem.truth.map is not None
    return problem.truth.map(x)


def sample(problem: MapProblem, n: int, seed: int = 0) -> torch.Tensor:
    return problem.source.sample(n, torch.Generator().manual_seed(seed))


def mean_and_error(values: torch.Tensor) -> tuple[float, float]:
    """Mean and its standard error."""
    return float(values.mean()), float(values.std() / len(values) ** 0.5)


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_golden_images(dim: int, dtype: torch.dtype) -> None:
    problem, frozen = load(dim, dtype)
    images = apply(problem, torch.as_tensor(frozen["X"], dtype=dtype))
    assert images.dtype == dtype and not images.requires_grad
    assert float((images - torch.as_tensor(frozen["T"])).abs().max()) < 1e-4


@reference_dims
def test_source_moments(dim: int) -> None:
    problem, frozen = load(dim)
    x = sample(problem, POINTS)
    mean, cov = problem.source.mean, problem.source.cov
    assert mean is not None and cov is not None
    assert ((x.mean(0) - mean).abs() < 5 * cov.diag().sqrt() / POINTS**0.5).all()
    assert float((x.T.cov() - cov).norm() / cov.norm()) < 5 * (dim / POINTS) ** 0.5
    assert problem.source.variance == pytest.approx(float(frozen["var_in"]), rel=0.01)


@reference_dims
def test_golden_points_are_a_sample_of_the_source(dim: int) -> None:
    problem, frozen = load(dim)
    points = torch.as_tensor(frozen["X"]).double()
    fresh, other = (sample(problem, len(points), seed) for seed in (1, 2))
    floor = metrics.discrepancies(fresh, other)
    assert (metrics.discrepancies(points, fresh) < 2 * floor).all()


@reference_dims
def test_identity_constant_and_cost_rows(dim: int) -> None:
    problem, _ = load(dim)
    variance = problem.target.variance
    assert variance is not None
    x = sample(problem, POINTS)
    y = apply(problem, x)
    squared = (x - y).square().sum(1)

    identity, error = mean_and_error(100 * squared / variance)
    _, expected, (half_cost, half_cost_error) = REFERENCE[dim]
    assert metrics.l2_uvp(x, y, variance) == pytest.approx(identity)
    assert identity == pytest.approx(
        expected, abs=3 * error * 5**0.5 + 0.05
    )  # the row: a quarter of the points, one decimal

    constant, error = mean_and_error(100 * (y - y.mean(0)).square().sum(1) / variance)
    assert constant == pytest.approx(
        100, abs=max(3 * error, 0.5)
    )  # the official variance is an estimate itself

    half, error = mean_and_error(squared / 2)
    assert half == pytest.approx(half_cost, abs=3 * np.hypot(error, half_cost_error))


@reference_dims
def test_linear_row(dim: int) -> None:
    problem, _ = load(dim)
    mean, cov, variance = problem.source.mean, problem.source.cov, problem.target.variance
    assert mean is not None and cov is not None and variance is not None
    fitted = apply(problem, sample(problem, 4 * POINTS if dim < 64 else POINTS, seed=1))
    matrix, shift = ot.gaussian.bures_wasserstein_mapping(
        mean, fitted.mean(0), cov, fitted.T.cov()
    )[:2]
    x = sample(problem, POINTS, seed=2)
    value, error = REFERENCE[dim][0]
    assert metrics.l2_uvp(x @ matrix + shift, apply(problem, x), variance) == pytest.approx(
        value, abs=3 * error
    )


@pytest.mark.parametrize(
    ("dim", "emd", "entropic"),
    [(16, 74.6, 16.4), pytest.param(64, 125.4, 24.7, marks=pytest.mark.slow)],
)
def test_discrete_rows(dim: int, emd: float, entropic: float) -> None:
    """1,024 points: EMD with the nearest neighbour, and the best entropic map (eps .01 of the mean
    cost), within ten percent.
    """
    torch.set_num_threads(1)
    problem, _ = load(dim, torch.float32)
    scoring = MapScoring(problem, torch.Generator().manual_seed(1))
    for solver, expected in ((PotEmd(), emd), (PotSinkhorn(eps=0.01), entropic)):
        transport = solver.fit(
            problem, FitContext("cpu", torch.float32, 0, torch.Generator().manual_seed(0))
        )
        assert transport.push is not None
        assert scoring.score(transport, transport.push(scoring.x))["l2_uvp"] == pytest.approx(
            expected, rel=0.1
        )


@pytest.mark.parametrize("dim", [2, 16])
def test_the_identity_pairing_attains_the_linear_program(dim: int) -> None:
    problem, _ = load(dim)
    x = sample(problem, 400)
    y = apply(problem, x)
    _, log = ot.emd(np.array([]), np.array([]), problem.cost.matrix(x, y).numpy(), log=True)
    assert float(problem.cost.pairwise(x, y).mean()) == pytest.approx(log["cost"], rel=1e-12)


def test_the_target_is_the_push_forward() -> None:
    problem, _ = load(4)
    assert problem.truth.certificate == "brenier"
    drawn = problem.target.sample(1000, torch.Generator().manual_seed(7))
    assert torch.equal(drawn, apply(problem, sample(problem, 1000, seed=7)))


def test_the_map_leaves_no_trace_of_gradients() -> None:
    problem, _ = load(2)
    x = sample(problem, 5).requires_grad_()
    assert not apply(problem, x).requires_grad and torch.is_grad_enabled()


@pytest.mark.parametrize("dim", [0, 3, 512])
def test_other_dimensions_are_refused(dim: int) -> None:
    with pytest.raises(ValueError, match=f"^dim must be one of 2, 4, .* got {dim}"):
        Mix3ToMix10(dim)


def test_absent_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTBENCH_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(MissingError, match=r"w2_benchmark/Mix3toMix10/8_v1\.pt"):
        Mix3ToMix10(8).problem(np.random.default_rng(0), device="cpu", dtype=torch.float32)


def test_other_files_under_the_official_names_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTBENCH_DATA", str(tmp_path))
    (tmp_path / "w2_benchmark" / "Mix3toMix10").mkdir(parents=True)
    for i in (1, 2):
        (tmp_path / "w2_benchmark" / "Mix3toMix10" / f"2_v{i}.pt").write_bytes(
            b"not the published network"
        )
    (tmp_path / "w2_benchmark" / "frozen_D2.npz").write_bytes(b"not the frozen arrays")
    with pytest.raises(MissingError, match="not the file expected"):
        Mix3ToMix10(2).problem(np.random.default_rng(0), device="cpu", dtype=torch.float32)
