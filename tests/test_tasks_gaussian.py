"""Tasks around the Gaussian and the quadratic cost: Gaussian to ball, rotated product, input-convex
networks, unequal dimensions, blur.
"""

# pyright: reportMissingImports=false
# (otbench.tasks is joined to the package at run time, see otbench/__init__.py)
from __future__ import annotations

import gzip
import importlib.util
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr

from otbench import SQEUCLIDEAN, DiscreteProblem, MapProblem, MissingError, Task
from otbench.data import files as data
from otbench.tasks.blur_permutation import SIZES, BlurPermutation
from otbench.tasks.gaussian import Gaussian
from otbench.tasks.gaussian_ball import GaussianBall
from otbench.tasks.icnn_mixture import CONVEXITY, IcnnMixture, _Network
from otbench.tasks.petals import Petals
from otbench.tasks.rotated_product import PEAK, QUARTILE, WIDTH, RotatedProduct, _split
from otbench.tasks.unequal_dims import UnequalDims
from tests.truths import (
    build,
    build_map,
    certify,
    generator,
    linear_program,
    potentials_certify_the_pairs,
)


MAPS: Sequence[Task] = (
    GaussianBall(),
    GaussianBall(dim=8),
    RotatedProduct(dim=2),
    RotatedProduct(),
    IcnnMixture(dim=2),
    IcnnMixture(),
    UnequalDims(),
    UnequalDims(source_dim=2, dim=3),
    UnequalDims(source_dim=4, dim=16),
    UnequalDims(kind="softmax"),
)
maps = pytest.mark.parametrize("task", MAPS, ids=repr)
seeds = pytest.mark.parametrize("seed", [0, 1])


@pytest.mark.parametrize(
    "task",
    [
        Gaussian(dim=2),
        Gaussian(dim=16, condition=100.0),
        Petals(),
        Petals(petals=3, radius=2.0, eps=1.5),
        Petals(petals=5, eps=0.0),
    ],
    ids=repr,
)
@seeds
def test_potentials_of_gaussians_and_petals_certify_their_maps(task: Task, seed: int) -> None:
    potentials_certify_the_pairs(build_map(task, seed), seed)


def apply(problem: MapProblem, x: torch.Tensor) -> torch.Tensor:
    assert problem.truth.map is not None
    return problem.truth.map(x)


def row(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float64)


@maps
@seeds
def test_truths_are_proved(task: Task, seed: int) -> None:
    certify(build_map(task, seed), seed)


@maps
def test_float32_is_the_same_problem(task: Task) -> None:
    single, double = build_map(task, dtype=torch.float32), build_map(task)
    x = single.source.sample(1000, generator(0))
    images, exact = apply(single, x), apply(double, x.double())
    assert images.dtype == x.dtype == single.target.sample(2, generator(0)).dtype == torch.float32
    assert float((images - exact).norm(dim=1).median()) < 1e-5 * float(exact.norm(dim=1).median())
    assert single.truth.cost == double.truth.cost


@settings(max_examples=60, deadline=None)
@given(
    task=st.one_of(
        st.builds(GaussianBall, dim=st.integers(1, 80), radius=st.floats(0.1, 100)),
        st.builds(RotatedProduct, dim=st.integers(1, 20)),
        st.builds(
            IcnnMixture,
            dim=st.integers(1, 6),
            components=st.integers(1, 4),
            steepness=st.floats(0.1, 10),
        ),
    ),
    seed=st.integers(0, 2**32 - 1),
    scale=st.floats(1e-3, 1e3),
)
def test_maps_are_monotone(
    task: GaussianBall | RotatedProduct | IcnnMixture, seed: int, scale: float
) -> None:
    problem = build_map(task, seed)
    x, other = (
        scale * torch.randn(64, task.dim, generator=generator(seed + i), dtype=torch.float64)
        for i in (0, 1)
    )
    image, apart = apply(problem, x), x - other
    moved = image - apply(problem, other)
    assert moved.isfinite().all()
    least = CONVEXITY if isinstance(task, IcnnMixture) else 0.0
    rounding = 1e-12 * (1 + image.norm(dim=1)) * apart.norm(dim=1)
    assert ((moved * apart).sum(1) >= least * apart.square().sum(1) - rounding).all()


@settings(max_examples=60, deadline=None)
@given(
    task=st.builds(
        UnequalDims,
        source_dim=st.integers(1, 4),
        dim=st.integers(5, 8),
        kind=st.sampled_from(["affine", "softmax"]),
    ),
    seed=st.integers(0, 2**32 - 1),
)
def test_maps_between_unequal_dimensions_are_monotone_in_the_embedding(
    task: UnequalDims, seed: int
) -> None:
    problem = build_map(task, seed)
    z, other = (problem.source.sample(64, generator(seed + i)) for i in (0, 1))
    inner = (
        (apply(problem, z) - apply(problem, other))
        * (problem.cost.embed(z) - problem.cost.embed(other))
    ).sum(1)
    assert (inner >= -1e-12).all()


@pytest.mark.parametrize(("dim", "cost"), [(2, 0.62018), (8, 0.20115), (16, 1.55115)])
def test_golden_costs_of_the_ball(dim: int, cost: float) -> None:
    assert build_map(GaussianBall(dim=dim)).truth.cost == pytest.approx(cost, abs=5e-6)


def test_the_ball_by_hand() -> None:
    """F(r) = 1 - exp(-r^2 / 2) in two dimensions; in one, T(x) = radius (2 Phi(x) - 1)."""
    plane, line = (
        build_map(GaussianBall(dim=2, radius=2.0)),
        build_map(GaussianBall(dim=1, radius=2.0)),
    )
    r = math.sqrt(2 * math.log(4 / 3))  # F(r) = 1/4, whose root is 1/2
    assert torch.allclose(apply(plane, row(r, 0.0)), row(1.0, 0.0), rtol=1e-14)
    x = torch.linspace(-8, 8, 101, dtype=torch.float64)[:, None]
    assert torch.allclose(apply(line, x), 2 * torch.erf(x / math.sqrt(2)), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("dim", [1, 2, 64, 512])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_map_to_the_ball_is_smooth_at_the_origin_and_bounded_far_off(
    dim: int, dtype: torch.dtype
) -> None:
    """Where F underflows too: T(x) -> radius x / (sqrt(2) Gamma(d / 2 + 1)^(1 / d)) as x -> 0."""
    problem = build_map(GaussianBall(dim=dim), dtype=dtype)
    direction = torch.nn.functional.normalize(
        torch.randn(1, dim, generator=generator(0), dtype=dtype)
    )
    slope = 3 / (math.sqrt(2) * math.exp(math.lgamma(dim / 2 + 1) / dim))
    assert torch.equal(apply(problem, 0 * direction), 0 * direction)
    for size in (1e-30, 1e-6, 1e-3):
        assert torch.allclose(
            apply(problem, size * direction), slope * size * direction, rtol=2e-6, atol=0
        )
    assert torch.allclose(apply(problem, 1e6 * direction), 3 * direction)
    if dtype == torch.float64:
        radii = torch.logspace(-8, 3, 5000, dtype=dtype)[:, None]
        assert (apply(problem, radii * direction).norm(dim=1).diff() >= -1e-14).all()


@pytest.mark.parametrize("dim", [1, 2, 16, 64])
def test_the_map_to_the_ball_is_the_gradient_of_its_potential(dim: int) -> None:
    """T = x - grad f / 2, by central differences along random directions."""
    problem = build_map(GaussianBall(dim=dim))
    f = problem.truth.potential
    assert f is not None
    x = 1.5 * problem.source.sample(200, generator(0))
    v = torch.nn.functional.normalize(problem.source.sample(200, generator(1)))
    step = 1e-4
    slope = (f(x + step * v) - f(x - step * v)) / (2 * step)
    assert torch.allclose(slope, (2 * (x - apply(problem, x)) * v).sum(1), atol=1e-6)


@pytest.mark.parametrize("dim", [2, 64])
def test_potentials_of_the_ball_far_off(dim: int) -> None:
    problem = build_map(GaussianBall(dim=dim))
    f, g = problem.truth.potential, problem.truth.target_potential
    assert f is not None and g is not None
    x = (
        torch.nn.functional.normalize(problem.source.sample(50, generator(0)))
        * torch.linspace(0, 40, 50, dtype=torch.float64)[:, None]
    )
    y = apply(problem, x)
    assert float((f(x) + g(y) - problem.cost.pairwise(x, y)).abs().max()) < 1e-12 * 40**2
    assert (g(1.01 * torch.nn.functional.normalize(x[1:]) * 3) == -math.inf).all()


@pytest.mark.parametrize("dim", [1, 8, 30])
def test_the_golden_cost_of_the_rotated_product(dim: int) -> None:
    assert build_map(RotatedProduct(dim=dim)).truth.cost == pytest.approx(
        1.50417 * dim, abs=5e-6 * dim
    )


def test_the_split_inverts_the_distribution_function() -> None:
    """G(h(z)) = Phi(z), on the upper tail by survival functions; h is odd and increasing."""
    z = torch.cat(
        [
            torch.logspace(-6, 0, 300, dtype=torch.float64),
            torch.linspace(1, 37, 300, dtype=torch.float64),
        ]
    ).unique()
    h = _split(z)
    tail = (ndtr(((-PEAK - h) / WIDTH).numpy()) + ndtr(((PEAK - h) / WIDTH).numpy())) / 2
    np.testing.assert_allclose(tail, ndtr(-z.numpy()), rtol=1e-12)
    assert torch.equal(_split(-z), -h) and (h.diff() > 0).all()
    assert torch.equal(_split(row(0.0)), row(0.0))
    seam = torch.linspace(QUARTILE - 1e-6, QUARTILE + 1e-6, 2001, dtype=torch.float64)
    assert (_split(seam).diff() > 0).all()


def test_the_split_at_known_points() -> None:
    """Phi(QUARTILE) = 3/4 = G(PEAK) up to the far peak's tail, and h(z) -> PEAK + WIDTH (z - log(2)
    / z) far off.
    """
    assert float(_split(row(QUARTILE))) == pytest.approx(PEAK, abs=1e-15)
    assert float(_split(row(1e4))) == pytest.approx(PEAK + WIDTH * 1e4, rel=1e-7)
    assert float(_split(row(1e-9)) / 1e-9) == pytest.approx(
        math.exp((PEAK / WIDTH) ** 2 / 2) * WIDTH, rel=1e-6
    )


@pytest.mark.parametrize("dim", [2, 16])
def test_the_network_map_is_the_gradient_of_its_potential(dim: int) -> None:
    sample = torch.randn(1000, dim, generator=generator(0), dtype=torch.float64)
    network = _Network(np.random.default_rng(3), sample, 5.0)
    x = sample[:50].clone().requires_grad_()
    quadratics = [
        (x @ a).square() + x @ w.T + b
        for a, w, b in zip(network.a, network.w, network.b, strict=True)
    ]
    hidden = quadratics[0]
    for u, quadratic in zip(network.u, quadratics[1:], strict=True):
        assert (u >= 0).all()
        hidden = torch.nn.functional.celu(hidden @ u.T + quadratic)
    assert (network.final >= 0).all()
    (expected,) = torch.autograd.grad((hidden @ network.final).sum(), x)
    assert torch.allclose(network.gradient(x.detach()), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dim", [2, 16])
def test_the_network_map_has_a_symmetric_jacobian(dim: int) -> None:
    problem = build_map(IcnnMixture(dim=dim))
    x, step = problem.source.sample(20, generator(0)), 1e-6
    columns = [
        (apply(problem, x + step * e) - apply(problem, x - step * e)) / (2 * step)
        for e in torch.eye(dim, dtype=x.dtype)
    ]
    jacobian = torch.stack(columns, 2)
    assert float((jacobian - jacobian.mT).abs().max()) < 1e-6 * float(jacobian.abs().max())
    assert float(torch.linalg.eigvalsh((jacobian + jacobian.mT) / 2).min()) > CONVEXITY - 1e-6


@pytest.mark.parametrize("dim", [2, 4, 8, 16, 32, 64])
def test_the_network_map_is_far_from_linear(dim: int) -> None:
    problem = build_map(IcnnMixture(dim=dim))
    mean, cov = problem.source.mean, problem.source.cov
    assert mean is not None and cov is not None
    x = problem.source.sample(16_384, generator(1))
    y = apply(problem, x)
    matrix, shift = ot.gaussian.bures_wasserstein_mapping(mean, y.mean(0), cov, y.T.cov())[:2]
    variance = float(y.var(0).sum())
    assert 10 < 100 * float((x @ matrix + shift - y).square().sum(1).mean()) / variance < 65
    assert 0.8 * dim < variance < 2 * dim


def test_the_network_map_takes_large_inputs_in_parts() -> None:
    problem = build_map(IcnnMixture(dim=2))
    x = problem.source.sample(20_000, generator(0))
    images = apply(problem, x.requires_grad_())
    assert not images.requires_grad
    assert torch.allclose(images[[0, 9000, -1]], apply(problem, x[[0, 9000, -1]]), rtol=1e-12)


@pytest.mark.parametrize("kind", ["affine", "softmax"])
def test_unequal_dimensions_have_the_shapes_and_the_cost_they_claim(kind: str) -> None:
    problem = build_map(UnequalDims(source_dim=3, dim=7, kind=kind))  # type: ignore[arg-type]
    assert problem.source.shape == (3,) and problem.target.shape == (7,)
    z = problem.source.sample(11, generator(0))
    y = apply(problem, z)
    assert y.shape == (11, 7)
    assert torch.allclose(problem.cost.pairwise(z, y), (problem.cost.embed(z) - y).square().sum(1))
    assert float(linear_program(z, y, problem)) == pytest.approx(
        float(problem.cost.pairwise(z, y).mean()), rel=1e-12
    )


def test_the_target_of_unequal_dimensions_is_degenerate() -> None:
    cov = build_map(UnequalDims(source_dim=4)).target.cov
    assert cov is not None and int(torch.linalg.matrix_rank(cov)) == 4


def test_one_pair_of_gaussian_potentials_by_hand() -> None:
    """Equal covariances on the line: T(x) = x + m, f(x) = -2 m x, g(y) = 2 m y - m^2, for means 0
    and m.
    """
    problem = build_map(Gaussian(dim=1, condition=1.0, shift=3.0))
    f, g, m = problem.truth.potential, problem.truth.target_potential, problem.target.mean
    assert f is not None and g is not None and m is not None
    x = torch.tensor([[-1.0], [0.0], [2.0]], dtype=torch.float64)
    assert torch.allclose(f(x), -2 * (x * m).sum(1))
    assert torch.allclose(g(x), 2 * (x * m).sum(1) - m.square().sum())


def blurred(
    task: BlurPermutation, seed: int = 0, dtype: torch.dtype = torch.float64
) -> DiscreteProblem:
    """The problem; skips where its data or packages are absent."""
    package = {"digits": "sklearn", "celeba": "PIL", "mnist": "numpy"}[task.data]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    try:
        for file in task.files:
            data.find(file)
    except MissingError as absent:
        pytest.skip(str(absent))
    problem = build(task, seed, dtype)
    assert isinstance(problem, DiscreteProblem)
    return problem


images = pytest.mark.parametrize("name", ["digits", "mnist", "celeba"])
N_EXACT = 300


@images
@seeds
@pytest.mark.parametrize("sigma", [0.7, 2.0])
def test_each_image_is_matched_with_its_own_blur(name: str, seed: int, sigma: float) -> None:
    pair = blurred(BlurPermutation(data=name, n=N_EXACT, sigma=sigma), seed)  # type: ignore[arg-type]
    plan, cost = pair.truth.plan, pair.truth.cost
    assert plan is not None and cost is not None and not plan.is_sparse
    matrix = SQEUCLIDEAN.matrix(pair.x, pair.y)
    exact = ot.emd(pair.a, pair.b, matrix)
    scale = float(
        pair.x.flatten(1).square().sum(1).mean()
    )  # the matrix rounds at the size of its terms
    assert abs(float((exact * matrix).sum()) - cost) <= 1e-12 * scale
    assert torch.equal(exact > 0, plan > 0)
    assert torch.allclose(plan.sum(0), pair.b, rtol=1e-14) and torch.allclose(
        plan.sum(1), pair.a, rtol=1e-14
    )


@images
def test_blurring_keeps_the_mean_and_contracts(name: str) -> None:
    pair = blurred(BlurPermutation(data=name, n=50, sigma=1.5))  # type: ignore[arg-type]
    plan = pair.truth.plan
    assert plan is not None
    own, blur = pair.x[plan.argmax(0)].flatten(1), pair.y.flatten(1)
    assert float(pair.x.min()) >= -1 and float(pair.x.max()) <= 1
    assert torch.allclose(blur.mean(1), own.mean(1), atol=1e-13)
    assert (blur.var(1) < own.var(1)).all() and (blur.abs().amax(1) <= 1 + 1e-12).all()


def test_the_blur_is_the_heat_flow() -> None:
    """exp(-sigma^2 L / 2) with L the Laplacian of the path of pixels, by matrix exponential."""
    pair = blurred(BlurPermutation(n=200, sigma=1.3))
    edges = torch.eye(8, dtype=torch.float64).diff(dim=0)
    kernel = torch.linalg.matrix_exp(-(1.3**2) / 2 * edges.T @ edges)
    plan = pair.truth.plan
    assert plan is not None
    own = pair.x[plan.argmax(0)]
    assert torch.allclose(kernel @ own @ kernel, pair.y, atol=1e-12)


def test_colours_are_blurred_apart() -> None:
    """A channel's mean is kept: no colour leaks into another."""
    pair = blurred(BlurPermutation(data="celeba", n=20, sigma=2.0))
    plan = pair.truth.plan
    assert plan is not None and pair.x.shape == (20, 3, 32, 32)
    own = pair.x[plan.argmax(0)]
    assert torch.allclose(pair.y.mean((2, 3)), own.mean((2, 3)), atol=1e-13)


def test_all_digits_are_distinct_and_shuffled() -> None:
    pair, other = blurred(BlurPermutation()), blurred(BlurPermutation(), seed=1)
    assert len(pair.x.unique(dim=0)) == len(pair.x) == SIZES["digits"]
    assert torch.equal(pair.x, other.x) and not torch.equal(pair.y, other.y)
    assert pair.truth.cost == pytest.approx(other.truth.cost, rel=1e-12)
    plan = pair.truth.plan
    assert plan is not None and int(plan.diag().count_nonzero()) < 10


def test_twenty_thousand_images_have_a_sparse_plan() -> None:
    n = 20_000
    pair = blurred(BlurPermutation(data="mnist", n=n), dtype=torch.float32)
    plan, cost = pair.truth.plan, pair.truth.cost
    assert plan is not None and cost is not None and plan.is_sparse and plan.is_coalesced()
    rows, columns = plan.indices()
    assert (
        plan.shape == (n, n)
        and torch.equal(rows, torch.arange(n))
        and torch.equal(columns.sort().values, torch.arange(n))
    )
    assert torch.equal(plan.values(), pair.a)
    assert float(
        SQEUCLIDEAN.pairwise(pair.x.double(), pair.y[columns].double()).mean()
    ) == pytest.approx(cost, rel=1e-12)


def test_the_nearest_blur_is_often_not_ones_own() -> None:
    pair = blurred(BlurPermutation(n=500, sigma=2.0))
    plan = pair.truth.plan
    assert plan is not None
    nearest = SQEUCLIDEAN.matrix(pair.x, pair.y).argmin(1)
    assert float((nearest == plan.argmax(1)).double().mean()) < 0.3


def fake_mnist(folder: Path, images: np.ndarray) -> None:
    """A training file of the IDX format."""
    (folder / "mnist").mkdir()
    header = np.array([2051, *images.shape], ">i4").tobytes()
    (folder / "mnist" / "train-images-idx3-ubyte.gz").write_bytes(
        gzip.compress(header + images.tobytes())
    )


def test_repeated_images_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTBENCH_DATA", str(tmp_path))
    images = np.random.default_rng(0).integers(256, size=(5, 6, 6), dtype=np.uint8)
    fake_mnist(tmp_path, images[[0, 1, 0, 2, 1, 3, 4]])
    pair = build(BlurPermutation(data="mnist", n=4))
    assert isinstance(pair, DiscreteProblem)
    assert torch.allclose(pair.x, torch.as_tensor(images[:4, None]).double() / 127.5 - 1)
    with pytest.raises(ValueError, match=r"n must be at most 5, .* got 6"):
        build(BlurPermutation(data="mnist", n=6))


def test_files_are_those_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert BlurPermutation().files == ()
    assert len(BlurPermutation(data="mnist", n=60_000).files) == 1
    assert len(BlurPermutation(data="mnist", n=60_001).files) == 2
    assert BlurPermutation(data="celeba", n=5).files == (
        "celeba/celeba_half_89x109_first10000.zip",
    )
    monkeypatch.setenv("OTBENCH_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(MissingError, match="mnist/train-images"):
        build(BlurPermutation(data="mnist", n=5))


@pytest.mark.parametrize(
    ("task", "field", "value"),
    [
        (GaussianBall, "dim", 0),
        (GaussianBall, "radius", 0.0),
        (GaussianBall, "radius", math.inf),
        (GaussianBall, "radius", math.nan),
        (RotatedProduct, "dim", 0),
        (IcnnMixture, "dim", 0),
        (IcnnMixture, "components", 0),
        (IcnnMixture, "steepness", 0.0),
        (UnequalDims, "source_dim", 0),
        (UnequalDims, "dim", -1),
        (UnequalDims, "kind", "quadratic"),
        (BlurPermutation, "data", "cifar"),
        (BlurPermutation, "n", 0),
        (BlurPermutation, "n", 1798),
        (BlurPermutation, "sigma", 0.0),
        (BlurPermutation, "sigma", 11.0),
    ],
)
def test_bad_parameters_are_refused_by_name(
    task: Callable[..., Task], field: str, value: object
) -> None:
    with pytest.raises(ValueError, match=f"^{field} must .*{value}"):
        task(**{field: value})


@pytest.mark.parametrize(
    "task",
    [RotatedProduct(dim=3), IcnnMixture(dim=3), UnequalDims(), UnequalDims(kind="softmax")],
    ids=repr,
)
def test_the_seed_decides_the_problem(task: Task) -> None:
    images = [
        apply(problem, problem.source.sample(20, generator(5)))
        for problem in (build_map(task, seed) for seed in (3, 3, 4))
    ]
    assert torch.equal(images[0], images[1]) and not torch.allclose(images[0], images[2])
