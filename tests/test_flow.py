"""Flow matching: toy distributions against their moments, batches against their truth, flows
against known maps.
"""

# pyright: reportMissingImports=false
# (otbench.tasks and otbench.solvers are joined to the package at run time, see otbench/__init__.py)

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from otbench import AmortizedProblem, FitContext, MapProblem, Measure, Transport, Truth
from otbench.errors import UserError
from otbench.families.toys import TOYS, Toy, normal, toy
from otbench.methods.neural.networks import MLP, Weights
from otbench.metrics import exact_w2_squared
from otbench.problem import SQEUCLIDEAN
from otbench.registry import registry
from otbench.runner.contract import findings
from otbench.solvers.ot_cfm import OtCfm, _Matching
from otbench.tasks.flow_toy import FlowToy
from otbench.tasks.minibatch_flow import TARGETS, MinibatchFlow

from .truths import agree, build, build_map, generator, moments_are_those_of_samples


pytestmark = pytest.mark.usefixtures("one_thread")

WHERE = {"device": "cpu", "dtype": torch.float64}


def run(seed: int, dtype: torch.dtype = torch.float32) -> FitContext:
    return FitContext("cpu", dtype, seed, torch.Generator().manual_seed(100 + seed))


def translation(by: float, dtype: torch.dtype = torch.float32) -> MapProblem:
    """A Gaussian and the same moved along the diagonal."""
    source = normal(device="cpu", dtype=dtype)
    target = Measure((2,), lambda n, generator: source.draw(n, generator) + by, variance=2.0)
    return MapProblem(
        source, target, SQEUCLIDEAN, Truth("closed_form", 2 * by**2, lambda x: x + by)
    )


def fitted(
    problem: MapProblem, solver: OtCfm
) -> tuple[Callable[[torch.Tensor], torch.Tensor], Transport]:
    """The paths of a fit, and all of it."""
    transport = solver.fit(problem, run(0))
    assert transport.push is not None and transport.path is not None
    return transport.path, transport


def batches(task: MinibatchFlow) -> AmortizedProblem:
    problem = build(task)
    assert isinstance(problem, AmortizedProblem)
    return problem


# --- toys


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", TOYS)
def test_the_moments_of_toys_are_those_of_samples(name, seed):
    moments_are_those_of_samples(toy(name, **WHERE), seed, 400_000)


def test_eight_gaussians_have_the_variance_of_the_protocol():
    y = toy("8gaussians", **WHERE).sample(100_000, generator(0))
    angles = torch.arange(8) * math.pi / 4
    centres = 5 * torch.stack([angles.cos(), angles.sin()], 1).double()
    squared = torch.cdist(y, centres).square()
    cluster = squared.argmin(1)
    agree(
        torch.nn.functional.one_hot(cluster, 8).double(),
        torch.full((8,), 1 / 8, dtype=torch.float64),
    )
    assert float(squared.amin(1).mean()) == pytest.approx(
        2 * math.sqrt(0.1), rel=0.01
    )  # few points are nearer to another centre


def test_moons_and_the_s_curve_lie_along_their_curves():
    t = torch.linspace(0, math.pi, 2000, dtype=torch.float64)
    upper = torch.stack([t.cos(), t.sin()], 1)
    moons = torch.cat([upper, torch.stack([1 - t.cos(), 0.5 - t.sin()], 1)])
    t = torch.linspace(-1.5 * math.pi, 1.5 * math.pi, 4000, dtype=torch.float64)
    s_curve = torch.stack([t.sin(), t.sign() * (t.cos() - 1)], 1)
    curves: list[tuple[Toy, torch.Tensor, float]] = [
        ("moons", 3 * moons - 1, 0.6),
        ("s-curve", s_curve, 0.1),
    ]
    for name, curve, noise in curves:
        y = toy(name, **WHERE).sample(4000, generator(0))
        off = torch.cdist(y, curve).amin(1)
        assert float(off.square().mean()) == pytest.approx(
            noise**2, rel=0.25
        )  # of two coordinates the one across, but for ends and bends
        assert float(torch.cdist(curve, y).amin(1).max()) < 2.5 * noise, "some of the curve is bare"


def test_toys_are_deterministic_and_of_the_dtype_asked_for():
    for name in TOYS:
        measure = toy(name, device="cpu", dtype=torch.float32)
        y = measure.sample(7, generator(3))
        assert y.dtype == torch.float32 and y.shape == (7, 2)
        assert torch.equal(y, measure.sample(7, generator(3)))


# --- tasks


@pytest.mark.parametrize("target", TOYS)
def test_the_cost_of_flow_toys_is_that_of_linear_programs(target):
    problem = build_map(FlowToy(target))
    cost, n, number = problem.truth.cost, 512, 12
    assert cost is not None and problem.truth.no_map.startswith("unknown")
    g = generator(0)
    values = torch.tensor(
        [
            exact_w2_squared(problem.source.sample(n, g), problem.target.sample(n, g))
            for _ in range(number)
        ]
    )
    error = math.hypot(float(values.std()) / number**0.5, problem.truth.cost_error)
    excess = {"8gaussians": 0.113, "moons": 0.090, "s-curve": 0.028, "swirl": 0.070}[
        target
    ]  # of as many points, from 240 linear programs, 188 of the swirl
    assert abs(float(values.mean()) - excess - cost) < 4 * error


def test_unknown_targets_are_refused():
    for task in ("flow-toy", "minibatch-flow"):
        with pytest.raises(UserError, match="8gaussians, moons, s-curve"):
            registry("task").select(f"{task}[target=moon]")
    with pytest.raises(ValueError, match="target must be one of"):
        FlowToy("moon")  # type: ignore[arg-type]
    wrongs: list[dict[str, Any]] = [
        {"batch": 1},
        {"test": 0},
        {"train": -1},
        {"eps": -0.1},
        {"target": "moon"},
    ]
    for wrong in wrongs:
        with pytest.raises(ValueError, match="must"):
            MinibatchFlow(**wrong)


@pytest.mark.parametrize("target", TARGETS)
def test_batches_have_entropic_plans(target):
    problem = batches(MinibatchFlow(target, batch=48, train=3, test=2))
    assert problem.truth.certificate == "entropic"
    assert len(problem.train) == 3 and all(pair.truth.plan is None for pair in problem.train)
    for pair in problem.test:
        plan, cost = pair.truth.plan, pair.truth.cost
        assert plan is not None and cost is not None and pair.eps == 0.1
        assert float((plan.sum(1) - pair.a).abs().sum()) < 1e-8
        assert float((plan.sum(0) - pair.b).abs().sum()) < 1e-8
        assert cost > exact_w2_squared(pair.x, pair.y)
        scaled = plan.log() + pair.cost.matrix(pair.x, pair.y) / pair.eps
        rest = scaled - scaled.mean(1, keepdim=True) - scaled.mean(0) + scaled.mean()
        assert float(rest[plan > 1e-200].abs().max()) < 1e-6, "a sum of two potentials"


def test_batches_without_eps_have_the_plan_of_the_linear_program():
    (pair, _) = batches(MinibatchFlow("moons", batch=40, train=0, test=2, eps=0.0)).test
    assert pair.truth.certificate == "lp" and pair.truth.plan is not None
    assert pair.truth.cost == pytest.approx(exact_w2_squared(pair.x, pair.y), rel=1e-9)
    assert int((pair.truth.plan > 0).sum()) == 40


def test_held_out_batches_do_not_depend_on_the_number_of_training_pairs():
    few, many = (batches(MinibatchFlow(batch=16, train=train, test=2)) for train in (0, 5))
    for one, other in zip(few.test, many.test, strict=True):
        assert torch.equal(one.x, other.x) and torch.equal(one.y, other.y)
    assert not torch.equal(few.test[0].x, few.test[1].x)


# --- the solver


def test_the_gradient_of_a_selu_network_is_that_of_autograd():
    network = MLP(3, 1, 16, 3, "selu")
    weights = Weights.draw(network, [generator(0), generator(1)], torch.float64).tensors
    x = torch.randn(2, 9, 3, dtype=torch.float64, generator=generator(2)).requires_grad_()
    (expected,) = torch.autograd.grad(network(weights, x).sum(), x)
    torch.testing.assert_close(network.gradient(weights, x), expected)


def test_coupled_batches_make_a_translation_straight():
    problem = translation(3.0)
    x = problem.source.sample(500, generator(0))
    excess, error = {}, {}
    for coupling, steps, batch in (("independent", 600, 256), ("pot-emd", 250, 64)):
        follow, transport = fitted(
            problem, OtCfm(coupling, steps=steps, batch=batch, lr=5e-3, decay="cosine")
        )
        path = follow(x)
        assert path.shape == (101, 500, 2)
        assert torch.equal(path[0], x)
        assert transport.push is not None
        torch.testing.assert_close(path[-1], transport.push(x))
        energy = 100 * float(path.double().diff(dim=0).square().sum((0, 2)).mean())
        assert transport.info["path_energy"] == pytest.approx(energy, rel=0.05)  # on other points
        assert 8 <= int(transport.info["nfe"]) < 500
        excess[coupling] = energy - exact_w2_squared(x.double(), path[-1].double())
        error[coupling] = float((path[-1] - (x + 3)).square().sum(1).mean())
    assert max(error.values()) < 0.05
    # lines between independent Gaussians cross: beside the translation their flow scales by ((1 -
    # t)^2 + t^2)^(1/2), there and back
    assert excess["independent"] == pytest.approx(2 * (2 - math.pi / 2), rel=0.2)
    assert excess["pot-emd"] < excess["independent"] / 3


@pytest.mark.parametrize("coupling", ["independent", "pot-sinkhorn", "ra-ot", "oa-ot"])
def test_the_solver_keeps_the_contract_with_every_coupling(coupling):
    solver = OtCfm(coupling, steps=5, batch=64, pretrain=2, ode_steps=10)
    problem = build_map(FlowToy("moons"), dtype=torch.float32)
    assert solver.supports(problem) is None
    assert findings(solver, problem, "cpu", torch.float32) == []


def test_amortized_couplings_are_between_the_independent_and_the_exact():
    problem = build_map(FlowToy(), dtype=torch.float64)
    costs = {}
    for coupling in ("independent", "ra-ot", "oa-ot", "pot-emd"):
        matching = _Matching(
            OtCfm(coupling, batch=256, pretrain=10), [problem], [run(0, torch.float64)]
        )
        coupled = [matching.pairs.next() for _ in range(8)]
        assert all(x.shape == y.shape == (1, 256, 2) for x, y in coupled)
        costs[coupling] = sum(float((x - y).square().sum(-1).mean()) for x, y in coupled) / 8
    assert problem.truth.cost is not None
    assert costs["independent"] == pytest.approx(2 + 25 + 2 * math.sqrt(0.1), rel=0.05)
    assert costs["pot-emd"] == pytest.approx(problem.truth.cost, rel=0.05)
    for coupling in ("ra-ot", "oa-ot"):
        assert (
            costs["pot-emd"] - 0.1 < costs[coupling] < (costs["pot-emd"] + costs["independent"]) / 2
        )


def test_the_noise_around_the_lines_stays_around_a_point():
    """With one target point v*(x, t) = E[x_1 - x_0 | x_t = x] is known: its flow scales the source
    by sigma / (1 + sigma^2)^(1/2).
    """
    point = torch.tensor([2.0, -1.0])
    source = normal(device="cpu", dtype=torch.float32)
    target = Measure((2,), lambda n, generator: point.expand(n, 2), variance=0.0)
    problem = MapProblem(
        source, target, SQEUCLIDEAN, Truth("closed_form", 7.0, lambda x: point.expand_as(x))
    )
    follow, _ = fitted(
        problem, OtCfm("independent", steps=600, batch=256, sigma=0.2, lr=5e-3, decay="cosine")
    )
    x = source.sample(500, generator(0))
    off = follow(x)[-1] - (point + 0.2 / math.sqrt(1 + 0.2**2) * x)
    assert float(off.square().sum(1).mean().sqrt()) < 0.06


def test_couplings_that_are_none_are_one_clear_error():
    with pytest.raises(UserError, match="did you mean 'pot-emd'") as unknown:
        registry("solver").select("ot-cfm[coupling=pot-emdd]")
    assert "\n" not in str(unknown.value)
    with pytest.raises(UserError, match="must be one solver"):
        registry("solver").select("ot-cfm[coupling='ra-ot[slices=[10,20]]']")
    with pytest.raises(ValueError, match="takes map problems only"):
        OtCfm("identity", steps=1).fit(translation(1.0), run(0))
    assert (
        registry("solver").select("ot-cfm[coupling=ra-ot[slices=10]]")[0].build().coupling
        == "ra-ot[slices=10]"
    )


def test_other_problems_are_refused():
    solver = OtCfm()
    for task, reason in (
        ("weight-pairs[side=3,train=1,test=1]", "map problems"),
        ("sphere-denoising[dim=3]", "not euclidean"),
        ("unequal-dims[dim=5]", "not embedded-sqeuclidean"),
    ):
        problem = (
            registry("task")
            .select(task)[0]
            .build()
            .problem(np.random.default_rng(0), device="cpu", dtype=torch.float32)
        )
        refusal = solver.supports(problem)
        assert refusal is not None and reason in refusal
