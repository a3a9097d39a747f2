"""The families on which solvers with a learned potential fail: their truths, the spurious maps, and
what smoothing the source does.
"""

# pyright: reportMissingImports=false
# (otbench.tasks is joined to the package at run time, see otbench/__init__.py)
from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from otbench import MapProblem, Task
from otbench.families import closed_forms
from otbench.metrics import exact_w2_squared
from otbench.tasks.atom import Atom
from otbench.tasks.continuous_control import ContinuousControl
from otbench.tasks.low_dim_manifold import LowDimManifold
from otbench.tasks.one_to_many import OneToMany
from otbench.tasks.parallel_segments import ParallelSegments
from otbench.tasks.perpendicular import Perpendicular
from tests import truths
from tests.truths import branches, build_map, certify, generator


FAMILIES: Sequence[Callable[..., Task]] = (
    Perpendicular,
    OneToMany,
    ParallelSegments,
    LowDimManifold,
    Atom,
)
SIGMA = 0.3

families = pytest.mark.parametrize("family", FAMILIES)
seeds = pytest.mark.parametrize("seed", [0, 1])
sigmas = pytest.mark.parametrize("sigma", [0.0, SIGMA])


def known_cost(problem: MapProblem) -> float:
    assert problem.truth.cost is not None
    return problem.truth.cost


def smoothed_cost(problem: MapProblem, sigma: float) -> float:
    assert problem.truth.smoothed_cost is not None
    return problem.truth.smoothed_cost(sigma)


def potentials(problem: MapProblem):
    f, g = problem.truth.potential, problem.truth.target_potential
    assert f is not None and g is not None
    return f, g


@families
@pytest.mark.parametrize("dim", [2, 16])
@sigmas
@seeds
def test_the_truth_is_proved(
    family: Callable[..., Task], dim: int, sigma: float, seed: int
) -> None:
    certify(build_map(family(dim=dim, sigma=sigma), seed), seed)


FURTHER = [
    ContinuousControl(),
    ContinuousControl(dim=16, condition=30.0),
    LowDimManifold(intrinsic=8),
    OneToMany(dim=8, cube=3),
]


@pytest.mark.parametrize("task", [*FURTHER, OneToMany(dim=8, cube=3, sigma=SIGMA)], ids=repr)
@seeds
def test_the_truth_of_random_tasks_is_proved(task: Task, seed: int) -> None:
    certify(build_map(task, seed), seed)


@pytest.mark.parametrize("family", [*FAMILIES, ContinuousControl])
@pytest.mark.parametrize("dim", [4, 64, 256])
@sigmas
def test_the_truth_holds_in_other_dimensions(
    family: Callable[..., Task], dim: int, sigma: float
) -> None:
    problem = build_map(
        ContinuousControl(dim=dim) if family is ContinuousControl else family(dim=dim, sigma=sigma)
    )
    truths.pairing_attains_the_linear_program(problem, 0, n=200)
    truths.potentials_certify_the_pairs(problem, 0, n=100)
    truths.cost_is_that_of_samples(problem, 0, samples=20_000)
    for measure in (problem.source, problem.target):
        truths.moments_are_those_of_samples(measure, 0, n=4000)


@families
@pytest.mark.parametrize("dim", [2, 16, 256])
@sigmas
def test_what_is_claimed(family: Callable[..., Task], dim: int, sigma: float) -> None:
    truth = build_map(family(dim=dim, sigma=sigma)).truth
    singular = sigma == 0
    assert (truth.spurious is not None) == singular
    assert (truth.map is None) == (singular and family in (Perpendicular, OneToMany, Atom))
    assert bool(truth.probes) == (singular and family is OneToMany)


@families
@pytest.mark.parametrize("dim", [2, 16])
@seeds
def test_the_spurious_map_is_optimal_against_the_true_potential_and_misses_the_target(
    family: Callable[..., Task], dim: int, seed: int
) -> None:
    problem = build_map(family(dim=dim), seed)
    f, g = potentials(problem)
    assert problem.truth.spurious is not None and problem.target.variance is not None
    x = problem.source.sample(500, generator(seed))
    pushed = problem.truth.spurious(x)
    inner_gap = problem.cost.pairwise(x, pushed) - g(pushed) - f(x)
    assert float(inner_gap.abs().max()) <= 1e-12 * dim
    y, again = (problem.target.sample(500, generator(seed + i)) for i in (1, 2))
    assert exact_w2_squared(pushed, y) - exact_w2_squared(again, y) > 0.1 * problem.target.variance


@families
@pytest.mark.parametrize("dim", [2, 16, 64])
def test_the_target_potential_holds_off_the_target_and_the_source_potential_off_the_source(
    family: Callable[..., Task], dim: int
) -> None:
    problem = build_map(family(dim=dim))
    f, g = potentials(problem)
    anywhere = torch.cat(
        [
            s * torch.randn(500, dim, generator=generator(1), dtype=torch.float64)
            for s in (0.1, 1, 3)
        ]
    )
    x, y = problem.source.sample(1500, generator(0)), problem.target.sample(1500, generator(0))
    for a, b in ((x, anywhere), (anywhere, y)):
        cost = problem.cost.pairwise(a, b)
        assert (f(a) + g(b) <= cost + 1e-12 * (1 + cost)).all()


@pytest.mark.parametrize("dim", [2, 16])
def test_potentials_of_the_control_hold_everywhere(dim: int) -> None:
    problem = build_map(ContinuousControl(dim=dim))
    f, g = potentials(problem)
    x, y = (3 * torch.randn(1500, dim, generator=generator(i), dtype=torch.float64) for i in (0, 1))
    cost = problem.cost.pairwise(x, y)
    assert (f(x) + g(y) <= cost + 1e-12 * (1 + cost)).all()


@pytest.mark.parametrize("family", [Perpendicular, Atom])
def test_off_the_cube_the_smooth_target_potential_is_minus_infinity(
    family: Callable[..., Task],
) -> None:
    _, g = potentials(build_map(family(dim=2, sigma=SIGMA)))
    edge = torch.tensor([[0.0, 1.0], [0.0, -1.0], [0.0, 1.001]], dtype=torch.float64)
    # Twice the density's peak: what a coordinate at zero adds.
    centre = 2 * SIGMA * math.sqrt(2 / math.pi)
    expected = 1.0 if family is Perpendicular else 1.0 + centre
    assert g(edge).tolist() == pytest.approx([expected, expected, -math.inf], rel=1e-12)


@families
@pytest.mark.parametrize("dim", [2, 16, 256])
def test_smoothed_costs_are_those_of_the_smoothed_tasks(
    family: Callable[..., Task], dim: int
) -> None:
    sharp, smooth, smoother = (
        build_map(family(dim=dim, sigma=sigma), 3) for sigma in (0.0, 0.3, 0.5)
    )
    assert smoothed_cost(sharp, 0) == pytest.approx(known_cost(sharp), rel=1e-12)
    assert smoothed_cost(sharp, 0.3) == pytest.approx(known_cost(smooth), rel=1e-12)
    assert smoothed_cost(smooth, 0.4) == pytest.approx(known_cost(smoother), rel=1e-12)
    gaps = [abs(smoothed_cost(sharp, sigma) - known_cost(sharp)) for sigma in (1e-1, 1e-3, 1e-5)]
    assert gaps[2] < gaps[1] < gaps[0] and gaps[2] < 3e-5 * dim


@pytest.mark.parametrize("sigma", [0.0, 0.2, 1.0])
@pytest.mark.parametrize(
    ("task", "stretch"),
    [(ContinuousControl(dim=1), 1 / 2), (ContinuousControl(dim=3, condition=1.0), 1.0)],
)
def test_the_smoothed_cost_of_the_control_along_the_axes_of_the_cube(
    task: ContinuousControl, stretch: float, sigma: float
) -> None:
    """There it is that of d pairs U * N(0, sigma^2) to the interval ``stretch`` U, and the shift:
    moments, less twice the correlation.
    """
    one = (1 + stretch**2) / 3 + sigma**2 - 2 * stretch * closed_forms.smoothed_correlation(sigma)
    assert smoothed_cost(build_map(task), sigma) == pytest.approx(1 + task.dim * one, rel=1e-12)


@pytest.mark.parametrize("sigma", [0.2, 0.7])
@seeds
def test_the_smoothed_cost_of_the_control_is_that_of_a_plan_that_is_all_but_optimal(
    seed: int, sigma: float
) -> None:
    """The linear program on pairs of the plan is cheaper by less than 2 % of the target's variance,
    a fifth of the threshold of a saddle's residuals.
    """
    problem, stream = build_map(ContinuousControl(), seed), generator(seed)
    push = problem.truth.map
    assert push is not None and problem.target.variance is not None
    x = problem.source.sample(200_000, stream)
    x += sigma * torch.randn(len(x), 2, generator=stream, dtype=torch.float64)
    y = push(closed_forms.smoothed_to_uniform(x, sigma))
    costs = problem.cost.pairwise(x, y)
    truths.agree(costs, torch.tensor(smoothed_cost(problem, sigma), dtype=torch.float64))
    cheaper = float(costs[:1500].mean()) - truths.linear_program(x[:1500], y[:1500], problem)
    assert 0 <= cheaper + 1e-12 < 0.02 * problem.target.variance


@pytest.mark.parametrize("dim", [2, 16, 256])
def test_the_smoothed_cost_of_the_control_is_between_its_bounds(dim: int) -> None:
    """At the noise that `otp` ends with they are a hundredth of the cost's scale apart."""
    problem, sigma = build_map(ContinuousControl(dim=dim)), 0.2
    values = np.geomspace(0.5, 2, dim)
    beyond = closed_forms.smoothed_cost(sigma)
    low = known_cost(problem) + sigma**2 * (dim - values.sum()) + beyond * dim * values.min()
    high = low + beyond * (values - values.min()).sum()
    assert low <= smoothed_cost(problem, sigma) <= high
    assert problem.target.variance is not None
    assert high - low < 0.01 * max(known_cost(problem), problem.target.variance / 2)


@families
@pytest.mark.parametrize("sigma", [0.05, 1.0, 20.0])
def test_smoothing_moves_the_distance_by_no_more_than_the_noise(
    family: Callable[..., Task], sigma: float
) -> None:
    problem = build_map(family(dim=16))
    moved = math.sqrt(smoothed_cost(problem, sigma)) - math.sqrt(known_cost(problem))
    assert abs(moved) <= sigma * math.sqrt(16)


@pytest.mark.parametrize("family", [ParallelSegments, LowDimManifold])
@pytest.mark.parametrize("dim", [2, 16])
def test_the_map_of_little_noise_is_the_map_of_none_inside(
    family: Callable[..., Task], dim: int
) -> None:
    sharp, smooth = build_map(family(dim=dim)), build_map(family(dim=dim, sigma=1e-6))
    assert sharp.truth.map is not None and smooth.truth.map is not None
    x = 0.99 * sharp.source.sample(200, generator(0))
    assert torch.allclose(smooth.truth.map(x), sharp.truth.map(x), atol=1e-12)


@pytest.mark.parametrize("dim", [2, 16, 256])
def test_costs_by_hand(dim: int) -> None:
    assert known_cost(build_map(Perpendicular(dim=dim))) == pytest.approx(dim / 3)
    assert known_cost(build_map(Atom(dim=dim))) == pytest.approx(dim / 3)
    assert known_cost(build_map(OneToMany(dim=dim))) == pytest.approx(1)
    assert known_cost(build_map(ParallelSegments(dim=dim))) == pytest.approx(1)


def test_smoothed_perpendicular_segments() -> None:
    """Half of the squared distance is 0.2605 at sigma = 0.2: (1 / 3 + 2 / 25) / 2 + 1 / 6 - 1 / (5
    sqrt(pi)).
    """
    assert known_cost(build_map(Perpendicular(sigma=0.2))) / 2 == pytest.approx(0.2605, abs=1e-4)


def test_the_branches_are_both_images() -> None:
    problem = build_map(OneToMany(dim=4))
    x = problem.source.sample(1000, generator(0))
    images = branches(problem)(x)
    assert images.shape == (2, 1000, 4)
    assert torch.equal(images[:, :, :-1], x[:, :-1].expand(2, -1, -1))
    assert images[:, :, -1].unique(dim=1).tolist() == [[-1.0], [1.0]]
    pairs = problem.sample_pairs(1000, generator(1))
    assert pairs is not None
    image_of_pairs = branches(problem)(pairs[0])
    upper = pairs[1][:, -1] > 0
    assert torch.equal(pairs[1], torch.where(upper[:, None], image_of_pairs[1], image_of_pairs[0]))
    assert 440 < int(upper.sum()) < 560


def test_the_plane_of_the_target_is_tilted() -> None:
    problem = build_map(LowDimManifold(dim=16, intrinsic=3))
    x, y = problem.source.sample(100, generator(0)), problem.target.sample(100, generator(1))
    assert int(torch.linalg.matrix_rank(x)) == int(torch.linalg.matrix_rank(y)) == 3
    assert int(torch.linalg.matrix_rank(torch.cat([x, y]))) == 6
    other = build_map(LowDimManifold(dim=16, intrinsic=3), seed=1)
    assert known_cost(other) != known_cost(problem)


@pytest.mark.parametrize(("dim", "rank"), [(2, 1), (3, 1), (4, 2), (256, 2)])
def test_planes_leave_room_for_as_many_normals(dim: int, rank: int) -> None:
    x = build_map(LowDimManifold(dim=dim)).source.sample(50, generator(0))
    assert int(torch.linalg.matrix_rank(x)) == rank


# Mean W2^2 between two samples of n points, computed apart from this code: Unif([-1, 1]^128), then
# with one more coordinate of +-1.
FLOORS = (
    (Perpendicular(dim=256), 256, 65.1),
    (Perpendicular(dim=256), 512, 63.8),
    (Perpendicular(dim=256), 1000, 62.2),
    (Perpendicular(dim=256), 2000, 60.6),
    (OneToMany(dim=129), 1000, 63.4),
    (OneToMany(dim=129), 1500, 62.5),
)


@pytest.mark.parametrize(("task", "n", "floor"), FLOORS)
def test_noise_floors_in_high_dimension(task: Task, n: int, floor: float) -> None:
    target = build_map(task).target
    x, y = (target.sample(n, generator(seed)) for seed in (0, 1))
    assert exact_w2_squared(x, y) == pytest.approx(floor, rel=0.03)


@pytest.mark.parametrize("sigma", [0.05, 0.3, 2.0])
def test_one_dimensional_closed_forms_are_the_integrals(sigma: float) -> None:
    def cdf(t: float) -> float:  # of U * N(0, sigma^2)
        return quad(
            lambda u: math.erfc((u - t) / (sigma * math.sqrt(2))) / 4,
            -1,
            1,
            points=[min(max(t, -1), 1)],
            epsabs=1e-12,
        )[0]

    reach = 1 + 9 * sigma
    points = np.linspace(-reach, reach, 21)
    mapped = closed_forms.smoothed_to_uniform(torch.tensor(points), sigma)
    assert mapped.tolist() == pytest.approx([2 * cdf(t) - 1 for t in points], abs=1e-9)
    gini = 2 * quad(lambda t: 2 * cdf(t) * (1 - cdf(t)), -reach, 0, points=[-1], epsabs=1e-10)[0]
    assert closed_forms.smoothed_correlation(sigma) == pytest.approx(gini / 2, rel=1e-8)
    moments = [
        quad(lambda z, t=t: abs(t + sigma * z) * math.exp(-z * z / 2), -np.inf, np.inf, limit=200)[
            0
        ]
        for t in points
    ]
    distances = np.array(moments) / math.sqrt(2 * math.pi)
    assert closed_forms.mean_distance(torch.tensor(points), sigma).tolist() == pytest.approx(
        distances.tolist(), abs=1e-6
    )


@pytest.mark.parametrize("sigma", [0.05, 1.0])
def test_the_conjugate_is_the_supremum(sigma: float) -> None:
    y = torch.linspace(-0.99, 0.99, 23, dtype=torch.float64)
    t = sigma * torch.linspace(-4, 4, 100_001, dtype=torch.float64)
    supremum = (t * y[:, None] - closed_forms.mean_distance(t, sigma)).max(1).values
    assert torch.allclose(closed_forms.mean_distance_conjugate(y, sigma), supremum, atol=1e-8)


@families
@pytest.mark.parametrize("dim", [2, 16])
@pytest.mark.parametrize("sigma", [0.1, 0.7])
def test_smooth_maps_are_gradients_of_convex_functions(
    family: Callable[..., Task], dim: int, sigma: float
) -> None:
    """Their derivative is symmetric and positive semi-definite everywhere."""
    push = build_map(family(dim=dim, sigma=sigma)).truth.map
    assert push is not None
    for x in torch.randn(5, dim, generator=generator(0), dtype=torch.float64):
        jacobian = torch.autograd.functional.jacobian(lambda point: push(point[None])[0], x)
        assert isinstance(jacobian, torch.Tensor)
        assert torch.allclose(jacobian, jacobian.T, atol=1e-12)
        assert float(torch.linalg.eigvalsh(jacobian).min()) > -1e-12


@pytest.mark.parametrize("family", [*FAMILIES, ContinuousControl])
@pytest.mark.parametrize("sigma", [0.0, SIGMA])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_everything_has_the_dtype_asked_for(
    family: Callable[..., Task], sigma: float, dtype: torch.dtype
) -> None:
    problem = build_map(
        family(dim=4) if family is ContinuousControl else family(dim=4, sigma=sigma), dtype=dtype
    )
    x, y = truths.pairs_of(problem, 7, 0)
    truth = problem.truth
    tensors = [x, y, problem.source.sample(7, generator(0)), problem.target.sample(7, generator(0))]
    tensors += [
        value
        for measure in (problem.source, problem.target)
        for value in (measure.mean, measure.cov)
        if value is not None
    ]
    tensors += [
        function(x)
        for function in (truth.map, truth.potential, truth.spurious)
        if function is not None
    ]
    tensors += [tensor for probe in truth.probes for tensor in probe.measure(x, x).values()]
    if truth.target_potential is not None:
        tensors.append(truth.target_potential(y))
    assert {(t.dtype, t.requires_grad) for t in tensors} == {(dtype, False)}
    assert all(bool(t.isfinite().all()) for t in tensors)


@pytest.mark.parametrize(
    ("family", "parameters", "message"),
    [
        *(
            (family, {"sigma": sigma}, message)
            for family in FAMILIES
            for sigma, message in ((-0.1, "must not be negative"), (math.nan, "must be finite"))
        ),
        *((Perpendicular, {"dim": dim}, "dim must be even and at least 2") for dim in (0, 3, -2)),
        *(
            (family, {"dim": 1}, "dim must be at least 2")
            for family in (OneToMany, ParallelSegments, LowDimManifold)
        ),
        *((family, {"dim": 0}, "dim must be at least 1") for family in (Atom, ContinuousControl)),
        (LowDimManifold, {"intrinsic": 0}, "intrinsic must be at least 1"),
        (ContinuousControl, {"condition": 0.5}, "condition must be at least 1"),
    ],
)
def test_bad_parameters_are_refused(
    family: Callable[..., Task], parameters: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        family(**parameters)
