"""Targets on manifolds and atoms: the truths proved again, golden values, and what only W1 has, the
rays of a potential.
"""

# pyright: reportMissingImports=false
# (otbench.tasks is joined to the package at run time, see otbench/__init__.py)
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import chi, ncx2, rice

from otbench import EUCLIDEAN, SQEUCLIDEAN, MapProblem, Task
from otbench.tasks.clifford_torus import CliffordTorus
from otbench.tasks.funnel_atoms import FunnelAtoms
from otbench.tasks.funnel_circles import FunnelCircles
from otbench.tasks.hyperbola import Hyperbola
from otbench.tasks.sphere_denoising import SphereDenoising
from otbench.tasks.subspace_shrink import SubspaceShrink
from otbench.tasks.two_walls import TwoWalls
from tests.truths import agree, build_map, certify, generator, linear_program


W1_TASKS: Sequence[Task] = (
    SphereDenoising(k=1, dim=2),
    SphereDenoising(k=2, dim=6, sigma=0.2),
    CliffordTorus(dim=4),
    CliffordTorus(dim=7, circles=3, sigma=0.5),
    SubspaceShrink(k=1, dim=3, sigma=1.0),
    SubspaceShrink(k=4, dim=8),
    FunnelAtoms(dim=2),
    FunnelAtoms(),
    FunnelCircles(),
    FunnelCircles(dim=5),
    Hyperbola(),
    Hyperbola(offset=-0.8, dim=5),
)
CERTIFIED: Sequence[Task] = (
    SphereDenoising(k=1, dim=2),
    SphereDenoising(k=2, dim=6, cost="sqeuclidean"),
    CliffordTorus(dim=4, cost="sqeuclidean"),
    CliffordTorus(dim=7, circles=3, sigma=0.5),
    SubspaceShrink(k=1, dim=3, sigma=1.0),
    SubspaceShrink(k=2, dim=6, cost="sqeuclidean"),
    FunnelAtoms(dim=2),
    FunnelAtoms(),
    FunnelCircles(),
    FunnelCircles(dim=5),
    Hyperbola(),
    Hyperbola(offset=0.8, dim=4, cost="sqeuclidean"),
    TwoWalls(),
)

seeds = pytest.mark.parametrize("seed", [0, 1])
w1_tasks = pytest.mark.parametrize("task", W1_TASKS, ids=repr)


def apply(problem: MapProblem, x: torch.Tensor) -> torch.Tensor:
    assert problem.truth.map is not None
    return problem.truth.map(x)


def u(problem: MapProblem, x: torch.Tensor) -> torch.Tensor:
    assert problem.truth.potential is not None
    return problem.truth.potential(x)


def direction(problem: MapProblem, x: torch.Tensor) -> torch.Tensor:
    """The gradient of the potential."""
    x = x.clone().requires_grad_()
    return torch.autograd.grad(u(problem, x).sum(), x)[0]


@pytest.mark.parametrize("task", CERTIFIED, ids=repr)
@seeds
def test_truths_are_proved_again(task: Task, seed: int) -> None:
    certify(build_map(task, seed), seed)


@pytest.mark.parametrize(
    ("task", "parameters", "w1", "w2_squared"),
    [
        (SphereDenoising, {"k": 1, "dim": 2, "sigma": 0.3}, 0.2361, 0.0874),
        (SphereDenoising, {"k": 1, "dim": 8, "sigma": 0.3}, 0.7647, 0.6280),
        (SphereDenoising, {"k": 2, "dim": 16, "sigma": 0.2}, 0.7353, 0.5603),
        (SubspaceShrink, {"k": 1, "dim": 3, "sigma": 1.0}, 1.2533, 2.0),
        (SubspaceShrink, {"k": 2, "dim": 8, "sigma": 0.5}, 1.1750, 1.5),
        (SubspaceShrink, {"k": 4, "dim": 16, "sigma": 0.5}, 1.6964, 3.0),
        (Hyperbola, {"offset": 0.8}, 2.1395, 6.0629),
        (Hyperbola, {"offset": 1.6}, 2.3481, 6.9903),
    ],
)
def test_costs_are_those_of_an_earlier_simulation(
    task: Callable[..., Task], parameters: dict[str, float], w1: float, w2_squared: float
) -> None:
    assert build_map(task(**parameters)).truth.cost == pytest.approx(w1, rel=1e-3)
    assert build_map(task(**parameters, cost="sqeuclidean")).truth.cost == pytest.approx(
        w2_squared, rel=2e-3
    )


@pytest.mark.parametrize(("k", "dim", "sigma"), [(1, 3, 0.3), (2, 6, 0.2), (3, 8, 1.5)])
def test_the_cost_of_a_sphere_is_that_of_another_quadrature(k: int, dim: int, sigma: float) -> None:
    """Midpoints in the plane of |a| and |b|."""
    h = sigma / 200
    a, b = (
        (torch.arange(0, end, h, dtype=torch.float64) + h / 2).numpy()
        for end in (1 + 10 * sigma, 10 * sigma)
    )
    density = 2 * a / sigma**2 * ncx2.pdf((a / sigma) ** 2, k + 1, sigma**-2)
    mass = np.outer(density, chi.pdf(b / sigma, dim - k - 1) / sigma) * h**2
    exact = float((mass * np.hypot(a[:, None] - 1, b)).sum())
    assert build_map(SphereDenoising(k=k, dim=dim, sigma=sigma)).truth.cost == pytest.approx(
        exact, rel=1e-5
    )


def test_the_cost_of_a_circle_in_the_plane_is_that_of_another_quadrature() -> None:
    exact = quad(lambda r: abs(r - 1) * float(rice.pdf(r, 1 / 0.3, scale=0.3)), 0, 4, points=[1])[0]
    assert build_map(SphereDenoising(k=1, dim=2, sigma=0.3)).truth.cost == pytest.approx(
        exact, rel=1e-9
    )


@pytest.mark.parametrize("sigma", [0.01, 0.3, 4.0])
@pytest.mark.parametrize("cost", ["euclidean", "sqeuclidean"])
def test_a_torus_of_one_circle_is_a_circle(
    sigma: float, cost: Literal["euclidean", "sqeuclidean"]
) -> None:
    torus = build_map(CliffordTorus(dim=5, circles=1, sigma=sigma, cost=cost))
    circle = build_map(SphereDenoising(k=1, dim=5, sigma=sigma, cost=cost))
    x = torus.source.sample(50, generator(0))
    assert torus.truth.cost == pytest.approx(circle.truth.cost, rel=1e-10)
    assert torch.equal(apply(torus, x), apply(circle, x)) and torch.equal(u(torus, x), u(circle, x))


@pytest.mark.parametrize(
    ("task", "percent", "relative"),
    [
        (SphereDenoising(k=1, dim=2, sigma=0.3), 9.1, 0.05),
        (SphereDenoising(k=1, dim=8, sigma=0.3), 62.4, 0.02),
        (SphereDenoising(k=2, dim=16, sigma=0.2), 56.3, 0.02),
        (SubspaceShrink(k=4, dim=16, sigma=0.5), 222.8, 0.02),
        (FunnelCircles(), 80.8, 0.03),
        (Hyperbola(offset=1.6), 1371.6, 0.1),
    ],
    ids=repr,
)
def test_the_unexplained_variance_of_the_identity_is_that_of_an_earlier_simulation(
    task: Task, percent: float, relative: float
) -> None:
    problem = build_map(task)
    x = problem.source.sample(100_000, generator(0))
    y = apply(problem, x)
    variance = problem.target.variance or float(y.var(0).sum())
    assert 100 * float(SQEUCLIDEAN.pairwise(x, y).mean()) / variance == pytest.approx(
        percent, rel=relative
    )


@pytest.mark.parametrize(
    ("k", "dim", "sigma", "error"), [(1, 2, 0.3, 0.0979), (1, 8, 0.3, 0.0986), (2, 16, 0.2, 0.0800)]
)
def test_the_map_denoises(k: int, dim: int, sigma: float, error: float) -> None:
    problem = build_map(SphereDenoising(k=k, dim=dim, sigma=sigma))
    clean = problem.target.sample(200_000, generator(0))
    noisy = clean + sigma * torch.randn(clean.shape, generator=generator(1), dtype=clean.dtype)
    assert float(SQEUCLIDEAN.pairwise(apply(problem, noisy), clean).mean()) == pytest.approx(
        error, rel=0.015
    )


@w1_tasks
@seeds
def test_maps_go_down_the_gradient_to_the_end_of_the_ray(task: Task, seed: int) -> None:
    """T(x) = x - alpha grad u(x), alpha the largest t with u(x) - u(x - t grad u(x)) = t; |grad u|
    = 1.
    """
    problem = build_map(task, seed)
    x = problem.source.sample(300, generator(seed))
    y, gradient = apply(problem, x), direction(problem, x)
    alpha = EUCLIDEAN.pairwise(x, y)[:, None]
    assert torch.allclose(
        gradient.norm(dim=1), torch.ones(len(x), dtype=x.dtype), rtol=0, atol=1e-12
    )
    assert torch.allclose(x - alpha * gradient, y, rtol=0, atol=1e-9)
    for t in (0.5, 1.0):
        assert torch.allclose(
            u(problem, x) - u(problem, x - t * alpha * gradient),
            t * alpha[:, 0],
            rtol=0,
            atol=1e-12,
        )
    assert (
        u(problem, x) - u(problem, x - (alpha + 0.1) * gradient) < alpha[:, 0] + 0.1 - 1e-9
    ).all()


@settings(max_examples=80, deadline=None)
@given(
    task=st.one_of(
        st.builds(SphereDenoising, k=st.integers(1, 3), dim=st.integers(4, 7)),
        st.builds(CliffordTorus, circles=st.integers(1, 3), dim=st.integers(6, 8)),
        st.builds(SubspaceShrink, k=st.integers(1, 3), dim=st.integers(4, 6)),
        st.builds(
            FunnelAtoms, dim=st.integers(2, 9), atoms=st.integers(8, 20), offset=st.floats(0, 0.5)
        ),
        st.builds(FunnelCircles, dim=st.integers(3, 6)),
        st.builds(Hyperbola, offset=st.floats(-1.7, 1.7), dim=st.integers(2, 4)),
        st.builds(TwoWalls),
    ),
    seed=st.integers(0, 2**32 - 1),
    scale=st.floats(1e-3, 1e3),
)
def test_potentials_of_w1_are_one_lipschitz(task: Task, seed: int, scale: float) -> None:
    problem = build_map(task, seed)
    x, other = (
        scale
        * torch.randn(64, problem.source.dim, generator=generator(seed + i), dtype=torch.float64)
        for i in (0, 1)
    )
    slope = (u(problem, x) - u(problem, other)).abs() - EUCLIDEAN.pairwise(x, other)
    assert float(slope.max()) <= 1e-12 * (1 + scale)


def test_many_points_do_not_go_to_the_nearest_atom() -> None:
    shares = []
    for seed in range(4):
        problem = build_map(FunnelAtoms(), seed)
        x, atoms = problem.source.sample(20_000, generator(seed)), problem.truth.atoms
        assert atoms is not None
        shares.append(
            float(
                (atoms[torch.cdist(x, atoms).argmin(1)] != apply(problem, x)).any(1).double().mean()
            )
        )
    assert 0.2 < sum(shares) / 4 < 0.4 and min(shares) > 0.1


def test_without_offsets_every_point_goes_to_the_nearest_atom() -> None:
    problem = build_map(FunnelAtoms(dim=3, offset=0.0))
    x, atoms = problem.source.sample(1000, generator(0)), problem.truth.atoms
    assert atoms is not None
    assert torch.equal(apply(problem, x), atoms[torch.cdist(x, atoms).argmin(1)])


def test_a_funnel_that_takes_all_the_mass_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^offset must leave mass to two atoms, got 100.0"):
        build_map(FunnelAtoms(offset=100.0))


@seeds
def test_the_atoms_are_the_support_of_the_target(seed: int) -> None:
    for task in (FunnelAtoms(dim=2), FunnelAtoms(), Hyperbola(), Hyperbola(cost="sqeuclidean")):
        problem = build_map(task, seed)
        assert problem.truth.atoms is not None
        assert torch.equal(
            problem.target.sample(100_000, generator(seed)).unique(dim=0), problem.truth.atoms
        )


@pytest.mark.parametrize(
    ("offset", "weight", "share", "w2_squared_of_w1_map", "w1_of_w2_map"),
    [(0.8, 0.3398, 0.061, 6.1260, 2.1534), (1.6, 0.1679, 0.1035, 7.2295, 2.3750)],
)
def test_the_two_costs_cut_the_plane_differently(
    offset: float, weight: float, share: float, w2_squared_of_w1_map: float, w1_of_w2_map: float
) -> None:
    w1, w2 = (
        build_map(Hyperbola(offset=offset)),
        build_map(Hyperbola(offset=offset, cost="sqeuclidean")),
    )
    x = w1.source.sample(1_000_000, generator(0))
    y, z = apply(w1, x), apply(w2, x)
    for measure in (w1.target, w2.target):
        assert measure.mean is not None
        assert float(1 + measure.mean[0]) / 2 == pytest.approx(weight, abs=5e-4)
        agree(y, measure.mean)
        agree(z, measure.mean)
    assert float((y != z).any(1).double().mean()) == pytest.approx(share, rel=0.02)
    assert float(SQEUCLIDEAN.pairwise(x, y).mean()) == pytest.approx(w2_squared_of_w1_map, rel=4e-3)
    assert float(EUCLIDEAN.pairwise(x, z).mean()) == pytest.approx(w1_of_w2_map, rel=4e-3)


@pytest.mark.parametrize(("offset", "dim", "sigma"), [(1.6, 2, 2.0), (0.5, 9, 0.4), (1.2, 3, 0.5)])
@pytest.mark.parametrize("cost", ["euclidean", "sqeuclidean"])
def test_a_reflection_exchanges_the_atoms(
    offset: float, dim: int, sigma: float, cost: Literal["euclidean", "sqeuclidean"]
) -> None:
    """The two quadratures run over different ranges of the offset, so this proves the integral."""
    right, left = (
        build_map(Hyperbola(offset=b, dim=dim, sigma=sigma, cost=cost)) for b in (offset, -offset)
    )
    mirror = torch.ones(dim, dtype=torch.float64)
    mirror[0] = -1
    x = right.source.sample(1000, generator(0))
    assert torch.equal(apply(right, x) * mirror, apply(left, x * mirror))
    assert right.truth.cost == pytest.approx(left.truth.cost, rel=1e-8)
    assert right.target.variance == pytest.approx(left.target.variance, rel=1e-12)


def test_without_an_offset_the_nearest_atom_is_optimal_for_both_costs() -> None:
    w1, w2 = build_map(Hyperbola(offset=0.0)), build_map(Hyperbola(offset=0.0, cost="sqeuclidean"))
    x = w1.source.sample(1000, generator(0))
    assert torch.equal(apply(w1, x)[:, 0], x[:, 0].sign()) and torch.equal(
        apply(w2, x), apply(w1, x)
    )


def test_walls_may_be_served_by_any_half_of_the_square() -> None:
    problem = build_map(TwoWalls())
    assert problem.truth.map is None and problem.truth.no_map.startswith("not unique")
    x, y = problem.sample_pairs(400, generator(0)) or (torch.empty(0), torch.empty(0))
    walls = {
        "near half to the near wall": -(x[:, 0] > 1.5).double(),
        "near half to the far wall": -(x[:, 0] < 1.5).double(),
        "alternate strips": -((8 * x[:, 0]).floor() % 2),
    }
    for wall in walls.values():
        other = torch.stack([wall, x[:, 1]], 1)
        agree(wall, torch.tensor(-0.5))
        cost = float(EUCLIDEAN.pairwise(x, other).mean())
        assert cost == pytest.approx(linear_program(x, other, problem), rel=1e-12)
        agree(EUCLIDEAN.pairwise(x, other), torch.tensor(2.0))
        assert torch.allclose(u(problem, x) - u(problem, other), EUCLIDEAN.pairwise(x, other))
    assert torch.equal(y[:, 0], walls["near half to the near wall"])


def test_the_rays_of_the_walls_never_end() -> None:
    problem = build_map(TwoWalls())
    x = problem.source.sample(50, generator(0))
    for t in (1.0, 100.0):
        assert torch.allclose(
            u(problem, x) - u(problem, x - t * direction(problem, x)),
            torch.full((50,), t, dtype=x.dtype),
        )


@pytest.mark.parametrize("task", CERTIFIED, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_everything_has_the_dtype_asked_for(task: Task, dtype: torch.dtype) -> None:
    problem = build_map(task, dtype=dtype)
    pairs = problem.sample_pairs(7, generator(0))
    assert pairs is not None and problem.truth.target_potential is not None
    x, y = pairs
    assert (
        x.shape
        == y.shape
        == (7, *problem.source.shape)
        == problem.target.sample(7, generator(1)).shape
    )
    moments = [
        t
        for m in (problem.source, problem.target)
        for t in (m.mean, m.cov, problem.truth.atoms)
        if t is not None
    ]
    tensors = [
        x,
        y,
        *moments,
        problem.target.sample(7, generator(1)),
        u(problem, x),
        problem.truth.target_potential(y),
    ]
    assert {t.dtype for t in tensors} == {dtype}


@pytest.mark.parametrize("task", CERTIFIED[:-1], ids=repr)
def test_float32_is_the_same_problem(task: Task) -> None:
    single, double = build_map(task, dtype=torch.float32), build_map(task)
    x = double.source.sample(1000, generator(0))
    assert float((apply(single, x.float()) - apply(double, x)).norm(dim=1).quantile(0.99)) < 1e-4
    assert torch.allclose(u(single, x.float()).double(), u(double, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("task", CERTIFIED[:-1], ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_singular_points_give_no_nan(task: Task, dtype: torch.dtype) -> None:
    """The origin, and the target itself, where u has no gradient."""
    problem = build_map(task, dtype=dtype)
    x = torch.cat(
        [torch.zeros(1, problem.source.dim, dtype=dtype), problem.target.sample(50, generator(0))]
    )
    for values in (apply(problem, x), u(problem, x), direction(problem, x)):
        assert values.isfinite().all()


@pytest.mark.parametrize(
    ("task", "field", "value"),
    [
        (SphereDenoising, "k", 0),
        (SphereDenoising, "dim", 1),
        (SphereDenoising, "sigma", 0.0),
        (SphereDenoising, "cost", "geodesic"),
        (CliffordTorus, "circles", 0),
        (CliffordTorus, "dim", 3),
        (CliffordTorus, "sigma", float("nan")),
        (CliffordTorus, "cost", "geodesic"),
        (SubspaceShrink, "k", 0),
        (SubspaceShrink, "dim", 4),
        (SubspaceShrink, "sigma", -1.0),
        (SubspaceShrink, "cost", "geodesic"),
        (FunnelAtoms, "dim", 1),
        (FunnelAtoms, "atoms", 1),
        (FunnelAtoms, "offset", -0.1),
        (FunnelCircles, "dim", 2),
        (Hyperbola, "offset", 2.0),
        (Hyperbola, "offset", -1.99),
        (Hyperbola, "offset", float("nan")),
        (Hyperbola, "dim", 1),
        (Hyperbola, "sigma", 0.0),
        (Hyperbola, "cost", "geodesic"),
    ],
)
def test_bad_parameters_are_refused_by_name(task: type, field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{field} must .*{value}"):
        task(**{field: value})
