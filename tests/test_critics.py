"""Potentials of the cost ||x - y||: penalties against autograd, rays against closed forms, facts
about steps, known answers.
"""

# pyright: reportMissingImports=false
# (otbench.solvers is joined to the package at run time, see otbench/__init__.py)

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import ot
import pytest
import torch
from torch.nn.functional import normalize

from otbench import (
    EUCLIDEAN,
    DivergedError,
    FitContext,
    MapProblem,
    Measure,
    Transport,
    Truth,
    metrics,
)
from otbench.errors import UserError
from otbench.families.funnels import Funnels
from otbench.methods.neural.critics import Potential, ray_length
from otbench.methods.neural.networks import MLP, SortingNetwork, SpectralMLP, Weights
from otbench.registry import registry
from otbench.scoring.maps import MapScoring
from otbench.solvers.ttc import Descent, Ttc


pytestmark = pytest.mark.usefixtures("one_thread")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def problem(text: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> MapProblem:
    built = (
        registry("task")
        .select(text)[0]
        .build()
        .problem(np.random.default_rng(seed), device="cpu", dtype=dtype)
    )
    assert isinstance(built, MapProblem)
    return built


def solver(text: str):
    return registry("solver").select(text)[0].build()


def run(seed: int = 0, dtype: torch.dtype = torch.float32, keep: list | None = None) -> FitContext:
    kept = None if keep is None else lambda step, transport: keep.append((step, transport))
    return FitContext("cpu", dtype, seed, seeded(100 + seed), kept)


def scores(task: str, text: str, seed: int = 0) -> dict[str, float]:
    """Without the push-forward's metrics, which take most of the time."""
    posed = problem(task, seed)
    scoring = MapScoring(posed, seeded(seed))
    transport = solver(text).fit(posed, run(seed))
    assert transport.push is not None
    return {
        **scoring.score_checkpoint(transport),
        **metrics.score({**scoring.known, "pushed": transport.push(scoring.x)}),
    }


# --- networks


NETWORKS = [
    MLP(5, 1, 8, 3, "leaky-relu", 0.1),
    MLP(5, 1, 8, 2, "leaky-relu", 0.0),
    MLP(5, 1, 8, 2, "silu"),
    MLP(5, 1, 8, 3, "elu"),
    SortingNetwork(5, 8, 2, 2),
    SortingNetwork(5, 8, 3, 4),
]


@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_gradients_of_potentials_are_those_of_autograd(network):
    weights = Weights.draw(network, [seeded(0), seeded(1)], torch.float64).tensors
    x = torch.randn(2, 7, 5, dtype=torch.float64, generator=seeded(2), requires_grad=True)
    (expected,) = torch.autograd.grad(network(weights, x).sum(), x)
    torch.testing.assert_close(network.gradient(weights, x), expected)


@pytest.mark.parametrize("sides", ["one", "two"])
@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_the_penalty_trains_as_by_differentiating_twice(network, sides):
    posed = problem("sphere-denoising[dim=5]", dtype=torch.float64)
    training = Descent(
        Ttc(penalty=7.0, sides=sides, pool=10), network, [posed], [run(dtype=torch.float64)]
    )
    weights = training.weights
    weights.flat.mul_(3)  # steep enough for a penalty on either side
    x, y, between = training.x.next(), training.y.next(), training.between.next()
    z = torch.lerp(x, y, between).requires_grad_()
    (slope,) = torch.autograd.grad(network(weights.tensors, z).sum(), z, create_graph=True)
    excess = slope.norm(dim=-1) - 1
    excess = excess if sides == "two" else excess.clamp(min=0)
    assert bool((excess > 0).any())
    expected = (
        network(weights.tensors, y).mean()
        - network(weights.tensors, x).mean()
        + 7 * excess.square().mean()
    )
    loss = training.penalised(weights.tensors, x, y, between)
    torch.testing.assert_close(loss, expected[None])
    for mine, other in zip(
        *(torch.autograd.grad(value.sum(), weights.tensors) for value in (loss, expected)),
        strict=True,
    ):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize(
    "network",
    [
        SortingNetwork(4, 12, 2, 2),
        SortingNetwork(4, 12, 2, 12),
        SpectralMLP(4, 1, 12, 2, "leaky-relu", 0.0),
    ],
    ids=str,
)
def test_networks_by_construction_stay_1_lipschitz(network):
    weights = Weights.draw(network, [seeded(0)], torch.float64)
    optimizer = torch.optim.Adam(weights.tensors, 1e-2)
    x, y = torch.randn(2, 1, 500, 4, dtype=torch.float64, generator=seeded(1))
    for _ in range(30):
        optimizer.zero_grad()
        (network(weights.tensors, y).mean() - network(weights.tensors, x).mean()).backward()
        optimizer.step()
        network.project(weights.tensors)
    rise = (network(weights.frozen, x) - network(weights.frozen, y)).abs()[..., 0]
    assert bool((rise <= (x - y).norm(dim=-1) * (1 + 1e-6)).all())
    for matrix in weights.frozen[::2]:
        values = torch.linalg.svdvals(matrix)
        largest = values.amax() if isinstance(network, SpectralMLP) else values
        torch.testing.assert_close(largest, torch.ones_like(largest), rtol=1e-6, atol=1e-6)


def test_a_sorting_network_sorts_and_loses_no_slope_where_it_is_square():
    network = SortingNetwork(8, 8, 3, 4)
    weights = Weights.draw(network, [seeded(0)], torch.float64).frozen
    x = torch.randn(1, 9, 8, dtype=torch.float64, generator=seeded(1))
    torch.testing.assert_close(
        network.gradient(weights, x).norm(dim=-1), torch.ones(1, 9, dtype=torch.float64)
    )
    layer = (
        torch.baddbmm(weights[1], x, weights[0]).reshape(9, 2, 4).sort(-1).values.reshape(1, 9, 8)
    )
    rest = [
        torch.eye(8, dtype=torch.float64)[None],
        torch.zeros(1, 1, 8, dtype=torch.float64),
        *weights[2:],
    ]
    torch.testing.assert_close(
        network(weights, x), network(rest, layer)
    )  # sorting what is sorted changes nothing


# --- rays


def along_rays(posed: MapProblem, x: torch.Tensor, longest: float) -> torch.Tensor:
    """The map of the theorem, from the true potential."""
    u = posed.truth.potential
    assert u is not None
    x = x.clone().requires_grad_()
    (v,) = torch.autograd.grad(u(x).sum(), x)
    with torch.no_grad():
        return (
            x
            - ray_length(u, x, v, torch.full((len(x),), longest, dtype=x.dtype), 0.99, rounds=12)[
                :, None
            ]
            * v
        )


@pytest.mark.parametrize(
    "task",
    [
        "sphere-denoising[k=1,dim=8]",
        "funnel-atoms[dim=8]",
        "funnel-circles[dim=5]",
        "hyperbola",
        "subspace-shrink",
    ],
)
def test_the_exact_potential_and_its_rays_are_the_map(task):
    posed = problem(task, dtype=torch.float64)
    x = posed.source.sample(500, seeded(0))
    assert posed.truth.map is not None
    torch.testing.assert_close(along_rays(posed, x, 10.0), posed.truth.map(x), rtol=0, atol=1e-7)


def test_rays_of_a_target_of_codimension_one_have_no_end():
    """The potential x_1 of two walls falls for ever: the bound of the search is all that ends a
    ray.
    """
    posed = problem("two-walls", dtype=torch.float64)
    x = posed.source.sample(50, seeded(0))
    torch.testing.assert_close(
        (x - along_rays(posed, x, 7.0)).norm(dim=1), torch.full((50,), 7.0, dtype=torch.float64)
    )


@pytest.mark.parametrize("slack", [0.01, 0.5, 0.99])
def test_slack_bridges_gentle_slopes_and_changes_nothing_on_a_single_ray(slack):
    x, v = (
        torch.tensor([[3.0, 0.0]], dtype=torch.float64),
        torch.tensor([[1.0, 0.0]], dtype=torch.float64),
    )
    longest = torch.tensor([20.0], dtype=torch.float64)
    cone = ray_length(lambda z: z.norm(dim=1), x, v, longest, 1 - slack, rounds=10)
    assert float(cone) == pytest.approx(3, abs=1e-6)
    gentle = ray_length(lambda z: 0.8 * z.norm(dim=1), x, v, longest, 1 - slack, rounds=10)
    assert float(gentle) == pytest.approx(0 if slack < 0.2 else 3, abs=1e-6)


# --- facts about steps (Milne, Bilocq & Nachman 2022)


@dataclasses.dataclass(frozen=True)
class Cone:
    """u(x) = w ||x|| + b, the critic of the official code's own check."""

    rates = (1.0, 1.0)

    def initial(self, generator: torch.Generator, dtype: torch.dtype) -> list[torch.Tensor]:
        return [torch.full((1, 1), 0.3, dtype=dtype), torch.zeros(1, 1, dtype=dtype)]

    def __call__(self, weights, x):
        return weights[0] * x.norm(dim=-1, keepdim=True) + weights[1]

    def gradient(self, weights, x):
        return weights[0] * normalize(x, dim=-1)


def descent(settings: Ttc, source, dim: int) -> Descent:
    """From a source to the origin, with cones for critics."""
    at_zero = Measure((dim,), lambda n, generator: torch.zeros(n, dim, dtype=torch.float64))
    posed = MapProblem(Measure((dim,), source), at_zero, EUCLIDEAN, Truth("none"))
    return Descent(settings, Cone(), [posed], [run(dtype=torch.float64)])


def on_sphere(n: int, generator: torch.Generator) -> torch.Tensor:
    return normalize(torch.randn(n, 5, generator=generator, dtype=torch.float64), dim=1)


def test_from_a_sphere_to_its_centre_it_takes_one_step():
    """The check in the official code: W1 = 1, and one step lands, up to the slope 1 + 1 / (2
    lambda) that a finite penalty leaves.
    """
    (transport,) = descent(
        Ttc(critics=1, steps=800, lr=1e-2, penalty=1000.0, decay="cosine"), on_sphere, 5
    ).solve()
    assert isinstance(transport, Transport) and transport.push is not None
    assert transport.info["eta_first"] == pytest.approx(1, abs=2e-3)
    assert float(transport.push(on_sphere(100, seeded(1))).norm(dim=1).max()) < 5e-3


@pytest.mark.parametrize("eta", [0.2, 0.5, 0.9, 1.3, 2.5])
def test_a_step_shorter_than_all_rays_lowers_w1_by_its_length(eta):
    """Exactly, for the exact potential, the rays being between .9 and 2 long; any step leaves at
    most the spread of the rays about it.
    """

    def shell(n: int, generator: torch.Generator) -> torch.Tensor:
        return on_sphere(n, generator) * (
            0.9 + 1.1 * torch.rand(n, 1, generator=generator, dtype=torch.float64)
        )

    falling = descent(Ttc(pool=200, theta=1.0), shell, 5)
    falling.weights.flat[0, 0] = 1.0
    before = falling.pools[1, 0]
    alpha = before.norm(dim=1)
    falling.settings = dataclasses.replace(falling.settings, theta=eta / float(alpha.mean()))
    falling.move()
    after, target = falling.pools[1, 0], np.zeros((1, 5))
    w1 = [
        float(ot.emd2([], [1.0], ot.dist(points.numpy(), target, metric="euclidean")))  # type: ignore[arg-type]
        for points in (before, after)
    ]
    assert float(falling.history[0][1]) == pytest.approx(eta, rel=1e-12)
    assert w1[1] <= float((alpha - eta).abs().mean()) + 1e-12
    if eta <= 0.9:
        assert w1[0] - w1[1] == pytest.approx(eta, rel=1e-12)


# --- TTC


def falling(text: str, task: str = "sphere-denoising[dim=3]", seed: int = 0) -> Descent:
    posed, settings = problem(task, seed, torch.float64), solver(text)
    return Descent(settings, settings.critic(posed), [posed], [run(seed, torch.float64)])


@pytest.mark.parametrize(
    "text",
    ["ttc[critics=3,steps=50,pool=500]", "ttc[critics=2,steps=50,moves=2,pool=500,theta=0.5]"],
)
def test_the_map_is_the_composition_of_what_moved_the_pool(text):
    descends = falling(text)
    start = descends.pools[:, 0]
    (transport,) = descends.solve()
    assert isinstance(transport, Transport) and transport.push is not None
    for pool, moved in zip(start, descends.pools[:, 0], strict=True):
        torch.testing.assert_close(transport.push(pool), moved)
    moves = [float(eta) for _, eta in descends.history]
    assert (
        transport.info["moves"] == len(moves) == descends.settings.critics * descends.settings.moves
    )
    assert transport.info["etas"] == " ".join(f"{eta:.4g}" for eta in moves)


def test_critics_begin_where_the_last_one_ended():
    descends = falling("ttc[critics=1,steps=40,pool=500]")
    descends.solve()
    first = descends.weights.flat.clone()
    descends.settings = dataclasses.replace(descends.settings, steps=1, lr=1e-9)
    descends.train(lambda *_: None)
    torch.testing.assert_close(descends.weights.flat, first, rtol=0, atol=1e-7)


def test_a_step_that_is_not_positive_ends_the_training():
    kept: list[Any] = []
    same = problem("sphere-denoising[dim=3]")
    same = dataclasses.replace(same, source=same.target)
    transport = solver("ttc[critics=8,steps=1,lr=1e-12]").fit(same, run(keep=kept))
    assert transport.info["moves"] in (0, 1) and transport.info["eta_first"] < 0.05
    x = same.source.sample(10, seeded(0))
    assert float((transport.push(x) - x).abs().max()) < 0.05


def test_a_member_that_has_ended_stays_where_it_is_while_others_move_on():
    posed = problem("sphere-denoising[dim=3]")
    done = dataclasses.replace(
        posed,
        source=Measure(posed.source.shape, lambda n, generator: torch.zeros(n, 3)),
        target=Measure((3,), lambda n, generator: torch.zeros(n, 3)),
    )
    kept: list[Any] = []
    ended, moving = solver("ttc[critics=4,steps=60]").fit_together(
        [done, posed], [run(0, keep=kept), run(1)]
    )
    assert ended.info["moves"] == 0 and moving.info["moves"] == 4
    assert [step for step, _ in kept] == [60]  # where it ended
    x = torch.randn(5, 3, generator=seeded(0))
    assert torch.equal(ended.push(x), x)


def test_steps_may_be_estimated_on_the_last_training_batches():
    for critics, steps, kept in ((1, 150, 100), (2, 20, 20)):  # of the present critic alone
        descends = falling(
            f"ttc[critics={critics},steps={steps},estimate=training,theta=0.5,pool=500]"
        )
        descends.solve()
        assert len(descends.losses) == kept
        assert float(descends.history[-1][1]) == pytest.approx(
            -0.5 * float(torch.stack(list(descends.losses)).mean())
        )


def test_steps_are_estimated_on_points_that_no_critic_has_seen():
    """In 32 dimensions a critic fits its pool of 200 points; what it then says of W1 is not so of
    other points.
    """
    descends = falling("ttc[critics=1,steps=600,pool=200,lr=0.003]", "w1-funnels[dim=32,width=64]")
    trained, unseen = descends.pools[:, 0].unbind()
    descends.solve()
    u, eta = descends.history[0][0][0], float(descends.history[0][1])
    assert float(u(trained).mean() - u(unseen).mean()) > 0.5 * abs(eta)
    target = descends.problems[0].target.sample(4000, seeded(5))
    assert eta == pytest.approx(float(u(unseen).mean() - u(target).mean()), abs=0.2)


@pytest.mark.parametrize("preset", ["lambda-1000", "2021"])
def test_presets_run(preset):
    transport = solver(f"ttc[preset={preset},critics=2,steps=3]").fit(
        problem("sphere-denoising[dim=3]"), run()
    )
    assert transport.info["moves"] <= 2


def test_checkpoints_are_the_maps_so_far():
    kept: list[Any] = []
    solver("ttc[critics=4,steps=20,pool=500]").fit(
        problem("sphere-denoising[dim=3]"), run(keep=kept)
    )
    assert [step for step, _ in kept] == [20, 40, 60, 80]
    assert [transport.info["moves"] for _, transport in kept] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ttc[theta=0]", "theta must be positive, got 0"),
        ("ttc[estimate=training,moves=2]", "moves must be 1 with estimate=training, got 2"),
        ("ttc[tolerance=1]", "tolerance must be at least 0 and less than 1, got 1"),
        ("wgan-gp[penalty=-1]", "penalty must not be negative, got -1"),
        ("ttc-ray[slack=1]", "slack must be between 0 and 1, got 1"),
        ("ttc-semidual[candidates=0]", "candidates must be positive, got 0"),
        ("sort-out[group=1]", "group must be 0 or at least 2, got 1"),
        ("ttc[penalty=0]", "penalty must be positive, got 0"),
        ("ttc[width=0]", "width must be positive, got 0"),
    ],
)
def test_settings_that_define_nothing_are_refused(text, message):
    with pytest.raises(UserError) as caught:
        solver(text)
    assert message in str(caught.value)


SOLVERS = ["ttc", "ttc-ray", "ttc-semidual", "wgan-gp", "wgan-lp", "sort-out", "sn-gan"]


@pytest.mark.parametrize("name", SOLVERS)
def test_other_costs_and_images_are_refused_with_the_reason(name):
    assert "euclidean cost, not sqeuclidean" in solver(name).supports(problem("gaussian"))
    flat = problem("sphere-denoising")
    image = dataclasses.replace(flat, source=dataclasses.replace(flat.source, shape=(2, 4)))
    assert "takes vectors" in solver(name).supports(image)
    assert solver(name).supports(flat) is None


def test_networks_of_the_benchmark_are_as_wide_as_it_has_them():
    widths = {dim: solver("wgan-gp").units(dim) for dim in (2, 64, 65, 128)}
    assert widths == {2: 128, 64: 128, 65: 130, 128: 256}
    assert (
        solver("sort-out[group=4]").supports(problem("sphere-denoising[dim=65]"))
        == "group=4 does not divide the width of 130"
    )


@pytest.mark.parametrize("name", SOLVERS)
def test_weights_that_are_not_finite_are_a_divergence(name):
    with pytest.raises(DivergedError, match="lower lr"):
        solver(f"{name}[steps=4,lr=1e38]").fit(problem("sphere-denoising[dim=3]"), run())


@pytest.mark.parametrize("name", ["ttc[critics=2,steps=4]", "ttc-ray[steps=4]", "sn-gan[steps=4]"])
def test_a_divergence_is_that_of_one_member(name):
    posed = problem("sphere-denoising[dim=3]")
    wild = dataclasses.replace(
        posed, source=Measure((3,), lambda n, generator: torch.full((n, 3), torch.inf))
    )
    lost, fine = solver(name).fit_together([wild, posed], [run(0), run(1)])
    assert isinstance(lost, DivergedError) and isinstance(fine, Transport) and fine.push is not None
    assert bool(fine.push(posed.source.sample(5, seeded(0))).isfinite().all())


# --- known answers


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "uvp"), [("sphere-denoising[k=1,dim=4]", 3.0), ("subspace-shrink[k=2,dim=6]", 2.0)]
)
def test_ttc_comes_near_maps_of_nearly_equal_lengths(task, uvp):
    found = scores(task, "ttc[critics=12,steps=200,theta=0.7,pool=8192]")
    assert found["l2_uvp"] < uvp
    assert found["cost_ratio"] == pytest.approx(1, abs=0.05)
    assert found["grad_cos"] > 0.85


def test_the_ends_of_rays_are_right_where_one_length_for_all_is_not():
    """Two atoms, from distances that differ: a step of length W1 overshoots, and a tenth of the
    points ends at the wrong one.
    """
    scalar = scores("hyperbola", "ttc[critics=8,steps=200,pool=8192]")
    rays = scores("hyperbola", "ttc-semidual[steps=800,pool=4096]")
    assert scalar["wrong_atom"] > 0.07 and scalar["overshoot"] > 0.05
    assert (
        rays["wrong_atom"] < 0.02
        and rays["overshoot"] < 0.02
        and rays["cost_ratio"] == pytest.approx(1, abs=0.01)
    )
    assert rays["w1_estimate"] == pytest.approx(2.348, rel=0.02)


def test_rays_of_a_critic_find_the_atoms_and_stop_short_of_a_thin_target():
    found = scores("hyperbola", "ttc-ray[steps=1500]")
    assert found["wrong_atom"] < 0.1 and found["grad_cos"] > 0.97
    assert 0.85 < found["cost_ratio"] < 1.02


def test_too_much_slack_jumps_to_a_deeper_end_behind_the_nearer():
    """Down from the atom e_1, 1.6 high, the line goes on to -e_1 at a distance of 2: worth it from
    a slack of .2 on.
    """
    posed = problem("hyperbola", dtype=torch.float64)
    u, x = posed.truth.potential, torch.tensor([[4.0, 0.0]], dtype=torch.float64)
    assert u is not None
    lengths = [
        float(ray_length(u, x, x / 4, torch.tensor([9.0], dtype=torch.float64), 1 - slack))
        for slack in (0.15, 0.25)
    ]
    assert lengths == pytest.approx([3, 5], abs=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "least"),
    [
        ("wgan-gp[steps=1000]", 0.85),
        ("wgan-lp[steps=1000]", 0.85),
        ("sort-out[steps=400]", 0.7),
        ("sn-gan[steps=400]", 0.2),
    ],
)
def test_critics_find_the_directions_of_funnels(text, least):
    found = scores("w1-funnels[dim=4]", text)
    assert found["grad_cos"] > least
    assert found["w1_estimate"] > 0 and found["cost_ratio"] > 0.1
    assert "l2_uvp" not in found and "overshoot" not in found


def test_the_potential_of_a_c_transform_is_1_lipschitz_and_tight_on_its_map():
    posed = problem("funnel-circles", dtype=torch.float64)
    transport = solver("ttc-semidual[steps=200,pool=500]").fit(posed, run(dtype=torch.float64))
    u = transport.potential
    assert u is not None and transport.push is not None
    x = posed.source.sample(300, seeded(0))
    images = transport.push(x)
    points = torch.cat([x, images])
    values = u(points)
    assert (
        float(
            (
                values[:, None]
                - values
                - torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
            ).max()
        )
        < 1e-12
    )
    torch.testing.assert_close(u(x) - u(images), (x - images).norm(dim=1))


def test_a_potential_of_one_member_is_a_copy():
    descends = falling("ttc[critics=1,steps=5,pool=100]")
    potential, x = (
        descends.potential(0),
        torch.randn(4, 3, dtype=torch.float64, generator=seeded(0)),
    )
    before = potential(x)
    descends.train(lambda *_: None)
    assert isinstance(potential, Potential)
    assert torch.equal(potential(x), before) and not torch.equal(descends.potential(0)(x), before)


def test_sixteen_funnels_in_eight_dimensions_by_rays():
    """The theorem in floating point: the lower ends of all rays are the centres."""
    funnels = Funnels(
        4 * torch.rand(16, 8, generator=seeded(0), dtype=torch.float64) - 2,
        0.3 * torch.randn(16, generator=seeded(1), dtype=torch.float64),
    )
    x = 1.5 * torch.randn(500, 8, generator=seeded(2), dtype=torch.float64)
    ends = funnels.centers[funnels.active(x)]
    v = normalize(x - ends, dim=1)
    length = ray_length(
        funnels.potential, x, v, torch.full((500,), 20.0, dtype=torch.float64), 0.99, rounds=12
    )
    torch.testing.assert_close(x - length[:, None] * v, ends, rtol=0, atol=1e-7)
