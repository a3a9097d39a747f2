"""Semi-dual methods beside OTM: weak costs, relaxed marginals, displacement interpolation, a
gradient penalty, each against closed forms; and toys that such methods are shown on.
"""

# pyright: reportMissingImports=false
# (otbench.solvers is joined to the package at run time, see otbench/__init__.py)

from __future__ import annotations

import pickle
import re
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch

from otbench import EUCLIDEAN, SQEUCLIDEAN, FitContext, MapProblem, Measure, Transport, Truth
from otbench.errors import UserError
from otbench.methods.neural.maxmin_training import MaxMinTraining
from otbench.methods.neural.networks import MLP
from otbench.registry import registry
from otbench.solvers.adversarial_regularizer import AdversarialRegularizer
from otbench.solvers.diotm import Diotm, InterpolationTraining, hamilton_jacobi
from otbench.solvers.neural_ot import NotWeak, WeakTraining
from otbench.solvers.otm import Otm
from otbench.solvers.otm_gp import OtmGp, PenalisedTraining
from otbench.solvers.uotm import UnbalancedTraining, Uotm, conjugate
from otbench.tasks.circles import Circles
from otbench.tasks.perpendicular import Perpendicular

from .truths import build_map, certify, generator


pytestmark = pytest.mark.usefixtures("one_thread")

SHIFT = torch.tensor([2.0, 0.0], dtype=torch.float64)
QUICK: dict[str, Any] = {
    "steps": 200, "batch": 64, "map_updates": 2, "width": 16, "depth": 2, "lr": 1e-2,
    "lr_potential": 1e-2,
}  # fmt: skip


def run(seed: int = 0) -> FitContext:
    return FitContext("cpu", torch.float64, seed, torch.Generator().manual_seed(100 + seed))


def normal(mean: torch.Tensor, deviation: float = 1.0) -> Measure:
    """N(mean, deviation^2 I)."""

    def draw(n: int, generator: torch.Generator) -> torch.Tensor:
        return mean + deviation * torch.randn(n, len(mean), generator=generator, dtype=mean.dtype)

    return Measure((len(mean),), draw, mean=mean)


def between(source: Measure, target: Measure) -> MapProblem:
    return MapProblem(source, target, SQEUCLIDEAN, Truth("none"))


TRANSLATION = between(normal(0 * SHIFT), normal(SHIFT))
POINTS = normal(0 * SHIFT).sample(1000, torch.Generator().manual_seed(5))


def pushed(transport: Transport, x: torch.Tensor = POINTS) -> torch.Tensor:
    assert transport.push is not None
    return transport.push(x)


# --- relaxed marginals


@pytest.mark.parametrize(
    ("source", "tau", "by"), [("kl", 0.25, 1 / (1 + 4 * 0.25)), ("linear", 0.5, 1 / (1 + 2 * 0.5))]
)
def test_relaxed_marginals_come_to_meet_each_other(source, tau, by):
    """Between Gaussians a linear potential tilts each relaxed marginal into a shifted one."""
    solver = Uotm(tau=tau, tau_rule="absolute", source_conjugate=source, **QUICK)
    transport = solver.fit(TRANSLATION, run())
    moved = pushed(transport) - POINTS
    torch.testing.assert_close(moved.mean(0), by * SHIFT, rtol=0, atol=0.1)
    assert float(moved.std(0).max()) < 0.3 and transport.target_potential is None


def test_linear_conjugates_train_as_otm_does():
    linear: dict[str, Any] = {"source_conjugate": "linear", "target_conjugate": "linear"}
    relaxed = UnbalancedTraining(Uotm(tau_rule="absolute", **linear), [TRANSLATION], [run()])
    plain = MaxMinTraining(Otm(), [TRANSLATION], [run()])
    gradients = [
        torch.autograd.grad(one.potential_loss().sum(), one.potential.weights.tensors)
        for one in (relaxed, plain)
    ]
    torch.testing.assert_close(*gradients)
    assert relaxed.transport(0, 1.0).target_potential is not None


def test_tau_is_relative_to_the_mean_cost_or_absolute():
    for rule, expected in (("relative", 0.3 / 8), ("absolute", 0.3)):
        training = UnbalancedTraining(Uotm(tau=0.3, tau_rule=rule), [TRANSLATION], [run()])
        assert float(training.tau) == pytest.approx(expected, rel=0.02)


def test_conjugates_begin_at_zero_with_slope_one():
    t = torch.linspace(-2, 2, 5, dtype=torch.float64, requires_grad=True)
    for name, at_two in (("linear", 2.0), ("kl", 6.38905609893), ("softplus", 2.86756165967)):
        values = conjugate(name, t)
        (slopes,) = torch.autograd.grad(values.sum(), t)
        values = values.detach()
        assert (float(values[2]), float(slopes[2])) == pytest.approx((0, 1), abs=1e-12)
        assert float(values[4]) == pytest.approx(at_two)
        assert (slopes > 0).all() and (slopes.diff() >= 0).all()


# --- weak costs


def test_images_spread_as_the_weak_optimal_plan():
    """From N(0, I) to N(0, 4 I) conditional means are x / gamma, and the rest of the variance is
    that of the images of one point.
    """
    posed = between(normal(0 * SHIFT), normal(0 * SHIFT, 2.0))
    settings = {**QUICK, "steps": 300, "map_updates": 3, "lr": 5e-3}
    transport = NotWeak(gamma=2 / 3, **settings).fit(posed, run())
    assert transport.sample is not None
    slope = (pushed(transport) * POINTS).mean() / POINTS.square().mean()
    assert float(slope) == pytest.approx(1.5, abs=0.2)
    spread = transport.sample(POINTS, 100).var(1).mean()
    assert float(spread) == pytest.approx(4 - 1.5**2, abs=0.5)


@pytest.mark.parametrize("gamma", [0.0, 0.4])
def test_the_inner_slope_is_that_of_the_weak_objective(gamma):
    training = WeakTraining(NotWeak(gamma=gamma, images=3, batch=6), [TRANSLATION], [run()])
    x, q = training.draw()
    assert torch.equal(q[:, 0], q[:, 2]) and not torch.equal(q[:, 2], q[:, 3])
    assert not torch.equal(x[:, 0], x[:, 1])  # of one point, with its own z
    y = torch.randn_like(q, requires_grad=True)
    g = y.square().sum(-1) - 2 * training.networks.psi(training.potential.weights.frozen, y, 1.0)
    cost = (q - y).square().sum(-1) - g
    weak = cost.sum() - 3 * gamma * y.unflatten(1, (2, 3)).var(2).sum()
    (slope,) = torch.autograd.grad(weak / 2, y)
    torch.testing.assert_close(training.inner_slope(y.detach(), q), slope)
    assert (training.transport(0, 1.0).target_potential is None) == (gamma > 0)


def test_the_potential_of_the_direct_form_is_its_network_times_the_dimension():
    training = MaxMinTraining(Otm(form="direct"), [TRANSLATION], [run()])
    weights, y = training.potential.weights.frozen, POINTS[None]
    g = y.square().sum(-1) - 2 * training.networks.psi(weights, y, 1.0)
    torch.testing.assert_close(g, 2 * training.networks.potential(weights, y)[..., 0])
    image = training.networks.push(training.map.weights.frozen, y, y, 1.0)
    assert isinstance(training.networks.map, MLP)
    assert torch.equal(image, training.networks.map(training.map.weights.frozen, y))


# --- displacement interpolation


def test_displacement_interpolation_finds_map_and_potentials():
    """Of a translation by m: V_t(z) = 2 <m, z> - t |m|^2."""
    transport = Diotm(**QUICK).fit(TRANSLATION, run())
    torch.testing.assert_close((pushed(transport) - POINTS).mean(0), SHIFT, rtol=0, atol=0.1)
    for potential, sign, points in (
        (transport.potential, -1, POINTS),
        (transport.target_potential, 1, POINTS + SHIFT),
    ):
        assert potential is not None
        points = points.clone().requires_grad_()
        (slope,) = torch.autograd.grad(potential(points).sum(), points)
        torch.testing.assert_close(slope.mean(0), sign * 2 * SHIFT, rtol=0, atol=0.3)


def test_the_saddle_is_worth_the_optimal_cost():
    """Of x -> 2 x the potential is V_t(z) = |z|^2 / (1 + t), and W2^2 = E|x|^2."""
    posed = between(normal(0 * SHIFT), normal(0 * SHIFT, 2.0))
    training = InterpolationTraining(Diotm(batch=100_000), [posed], [run()])
    training.v = lambda weights, z, t: z.square().sum(-1) / (1 + t[..., 0])
    training.image = lambda weights, x: (
        2 * x if weights is training.there.weights.tensors else x / 2
    )
    value = training.loss_there() + training.loss_back()
    assert float(value) == pytest.approx(2.0, abs=0.05)


def test_the_potential_of_a_dilation_solves_the_hamilton_jacobi_equation():
    points = torch.rand(20, 3, dtype=torch.float64, requires_grad=True)  # z, and t last
    values = points[:, :2].square().sum(1) / (1 + points[:, 2])
    (slope,) = torch.autograd.grad(values.sum(), points)
    torch.testing.assert_close(hamilton_jacobi(slope), torch.zeros(20, dtype=torch.float64))
    assert float(hamilton_jacobi(2 * slope).min()) > 0


# --- the gradient penalty


def test_the_gradient_penalty_is_two_sided_around_the_dimension():
    """Source and target a point p, psi = |y|^2 / 2: the slope is p everywhere between them."""
    for point, expected in ((3 * SHIFT, 0.7 * 2 * (6 / 2 - 1) ** 2), (SHIFT, 0.0)):
        posed = between(normal(point, 0.0), normal(point, 0.0))
        losses = []
        for gp in (0.7, 0.0):
            training = PenalisedTraining(OtmGp(gp=gp), [posed], [run()])
            for player in (training.map, training.potential):
                player.weights.flat.zero_()
            losses.append(float(training.potential_loss().detach()))
        assert losses[0] - losses[1] == pytest.approx(expected, abs=1e-12)


# --- descent on a critic


def test_points_descend_as_far_as_the_critic_says_the_target_is():
    """From N(0, I) to the same moved by m: u(x) = -<m, x> / |m|, and all points move by m."""
    posed = MapProblem(TRANSLATION.source, TRANSLATION.target, EUCLIDEAN, Truth("none"))
    settings = AdversarialRegularizer(steps=300, batch=64, width=16, depth=2, lr=1e-2)
    transport = settings.fit(posed, run())
    moved = pushed(transport) - POINTS
    torch.testing.assert_close(moved.mean(0), SHIFT, rtol=0, atol=0.1)
    assert float(moved.std(0).max()) < 0.3
    assert transport.info["w1_estimate"] == pytest.approx(2.0, abs=0.1)


# --- all of them


@pytest.mark.parametrize("name", ["not-strong", "not-weak", "uotm", "diotm", "otm-gp", "otp"])
def test_a_member_of_a_stack_learns_what_it_learns_alone(name):
    point = normal(SHIFT, 0.0)
    posed = [between(point, point), between(normal(SHIFT, 3.0), normal(0 * SHIFT))]
    (selection,) = registry("solver").select(f"{name}[steps=5,width=8]")
    solver = selection.build()
    of_point, stacked = solver.fit_together(posed, [run(0), run(1)])
    assert isinstance(stacked, Transport) and isinstance(of_point, Transport)
    assert pushed(of_point).isfinite().all()
    alone = solver.fit(posed[1], run(1))
    torch.testing.assert_close(pushed(stacked), pushed(alone), rtol=1e-9, atol=1e-9)
    saved = pickle.dumps(alone)
    assert len(saved) < 1e6, "networks, and nothing that they were trained with"
    assert torch.equal(pushed(pickle.loads(saved)), pushed(alone))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("not-weak[gamma=1.5]", "gamma must be between 0 and 1, got 1.5"),
        ("not-weak[images=1]", "images must be at least 2 and divide batch = 256, got 1"),
        ("not-weak[images=3]", "images must be at least 2 and divide batch = 256, got 3"),
        ("not-weak[form=convex]", "form=convex is a function of x alone"),
        ("not-weak[form=residual,start=linear]", "start=linear changes what the variance"),
        ("not-strong[start=linear]", "form=direct has no start"),
        ("uotm[tau=0]", "tau must be positive, got 0"),
        ("uotm[start=linear]", "start=linear changes what the cost weighs"),
        ("diotm[hjb=-1]", "hjb must not be negative, got -1"),
        ("otm-gp[gp=-1]", "gp must not be negative, got -1"),
        ("adversarial-regularizer[rate=1]", "rate must be at least 0 and less than 1, got 1"),
    ],
)
def test_settings_that_define_no_training_are_refused(text, words):
    with pytest.raises(UserError, match=re.escape(words)):
        registry("solver").select(text)


def test_diotm_needs_one_space_and_its_own_cost():
    line = Measure((1,), lambda n, generator: torch.zeros(n, 1))
    embedded = MapProblem(
        line, TRANSLATION.target, SQEUCLIDEAN.embedded(lambda x: x), Truth("none")
    )
    assert Diotm().supports(embedded) == (
        "trains for the sqeuclidean cost in one space, not embedded-sqeuclidean"
    )
    images = Measure((1, 2, 3), lambda n, generator: torch.zeros(n, 1, 2, 3))
    assert Diotm().supports(between(images, images)) == "takes vectors, not shape (1, 2, 3)"
    other = MapProblem(TRANSLATION.source, TRANSLATION.target, EUCLIDEAN, Truth("none"))
    assert Diotm().supports(other) == (
        "trains for the sqeuclidean cost in one space, not euclidean"
    )


# --- toys


@pytest.mark.parametrize(
    "task",
    [Circles(), Circles(2.0, 0.1), Perpendicular(segments=3), Perpendicular(4, 0.3, segments=2)],
    ids=repr,
)
def test_the_truth_is_proved(task):
    certify(build_map(task), 0, samples=100_000)


def test_points_of_a_circle_keep_their_rays_and_the_quantiles_of_their_radii():
    problem = build_map(Circles(0.5, 0.04))
    x = problem.source.sample(50, generator(0))
    assert problem.truth.map is not None
    y = problem.truth.map(x)
    levels = [
        scipy.stats.rice(centre / 0.04).cdf(points.norm(dim=1).numpy() / 0.04)
        for centre, points in ((0.5, x), (1.0, y))
    ]
    np.testing.assert_allclose(levels[1], levels[0], rtol=1e-7)
    torch.testing.assert_close(y / y.norm(dim=1, keepdim=True), x / x.norm(dim=1, keepdim=True))
    assert torch.equal(problem.truth.map(0 * x), 0 * x)


@pytest.mark.parametrize("task", [Circles(), Perpendicular(segments=3)], ids=repr)
def test_the_cost_from_a_smoothed_source_is_that_in_one_coordinate(task):
    """Of the radius; of each coordinate. In one dimension sorted samples are coupled optimally."""
    problem, added, n = build_map(task), 0.3, 400_000
    noise = added * torch.randn(n, 2, generator=generator(2), dtype=torch.float64)
    x, y = problem.source.sample(n, generator(0)) + noise, problem.target.sample(n, generator(1))
    if isinstance(task, Circles):
        x, y = x.norm(dim=1, keepdim=True), y.norm(dim=1, keepdim=True)
    coupled = (x.sort(0).values - y.sort(0).values).square().sum(1).mean()
    assert problem.truth.smoothed_cost is not None
    assert float(coupled) == pytest.approx(problem.truth.smoothed_cost(added), rel=0.01)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("circles[radius=0]", "radius must be positive, got 0"),
        (
            "circles[sigma=0]",
            "sigma must be between 0.0005 and 0.05, a tenth of the smaller radius",
        ),
        ("circles[radius=3,sigma=0.2]", "sigma must be between 0.001 and 0.1"),
        ("perpendicular[segments=0]", "segments must be at least 1, got 0"),
    ],
)
def test_toys_that_are_none_are_refused(text, words):
    with pytest.raises(UserError, match=re.escape(words)):
        registry("task").select(text)
