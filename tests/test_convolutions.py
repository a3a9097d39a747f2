"""Convolutional networks of a stack: each member is as if alone, each image too, gradients are
right, and they learn.
"""

# pyright: reportMissingImports=false
# (otbench.solvers is joined to the package at run time, see otbench/__init__.py)
from __future__ import annotations

import numpy as np
import pytest
import torch

from otbench import FitContext
from otbench.errors import UserError
from otbench.methods.neural import convolutions
from otbench.methods.neural.convolutions import ResidualCritic, UNet
from otbench.methods.neural.networks import Weights
from otbench.registry import registry


NETWORKS = [
    UNet((1, 8, 8), 1, 6, 2),
    UNet((3, 7, 9), 3, 4, 3),
    UNet((1, 8, 8), 2, 4, 1, random=5),
    ResidualCritic((1, 8, 8), 6, 2),
]
NETWORKS += [ResidualCritic((3, 7, 9), 4, 3)]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def drawn(network: UNet | ResidualCritic, stack: int, n: int = 5) -> tuple[Weights, torch.Tensor]:
    generators = [torch.Generator().manual_seed(seed) for seed in range(stack)]
    weights = Weights.draw(network, generators, torch.float64)
    channels, height, width = network.image
    inputs = channels * height * width + (network.random if isinstance(network, UNet) else 0)
    return weights, torch.randn(
        stack, n, inputs, dtype=torch.float64, generator=torch.Generator().manual_seed(9)
    )


@pytest.mark.parametrize("network", NETWORKS, ids=repr)
def test_members_and_images_are_kept_apart(network):
    weights, x = drawn(network, 3)
    together = network(weights.tensors, x)
    outputs = (
        network.channels * network.image[1] * network.image[2] if isinstance(network, UNet) else 1
    )
    assert together.shape == (3, 5, outputs) and len(network.rates) == len(weights.tensors)
    for member in range(3):
        alone = network(weights.member(member), x[member : member + 1])
        assert torch.allclose(alone, together[member : member + 1], atol=1e-12)
        one = network(weights.member(member), x[member : member + 1, 2:3])
        assert torch.allclose(one, together[member : member + 1, 2:3], atol=1e-12)
    assert not torch.allclose(together[0], together[1])


@pytest.mark.parametrize("network", NETWORKS, ids=repr)
def test_chunks_change_nothing(network, monkeypatch):
    weights, x = drawn(network, 2)
    whole = network(weights.tensors, x).detach()
    monkeypatch.setattr(convolutions, "COORDINATES", 2 * x.shape[2])
    with torch.no_grad():
        assert torch.allclose(network(weights.tensors, x), whole, atol=1e-12)


@pytest.mark.parametrize(
    "network", [network for network in NETWORKS if isinstance(network, ResidualCritic)], ids=repr
)
def test_gradients_are_those_of_finite_differences(network):
    weights, x = drawn(network, 2)
    with torch.no_grad():
        gradient = network.gradient(weights.tensors, x)
        step = 1e-6 * torch.randn(
            x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(1)
        )
        change = (network(weights.tensors, x + step) - network(weights.tensors, x - step))[
            ..., 0
        ] / 2
    assert torch.allclose((gradient * step).sum(-1), change, rtol=1e-4, atol=1e-12)
    slopes = torch.autograd.grad(
        network.gradient(weights.tensors, x).square().sum(), weights.tensors[0]
    )  # a penalty trains
    assert slopes[0].abs().max() > 0


def test_a_residual_map_begins_near_the_identity():
    network = UNet((1, 28, 28), 1, 16, 2)
    weights, x = drawn(network, 1)
    assert network(weights.tensors, x).std() < 0.3 * x.std()


def fitted(solver: str, task: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Test images, the same after the map, and their partners."""
    problem = (
        registry("task")
        .select(task)[0]
        .build()
        .problem(np.random.default_rng(0), device="cpu", dtype=torch.float32)
    )
    run = FitContext("cpu", torch.float32, 0, torch.Generator().manual_seed(5))
    transport = registry("solver").select(solver)[0].build().fit(problem, run)
    x, made_with = problem.truth.test_points(200, torch.Generator().manual_seed(1))
    return x, transport.push(x), made_with["partner"]


def psnr(x: torch.Tensor, y: torch.Tensor) -> float:
    return float((-10 * torch.log10((x - y).square().mean(1) / 4)).mean())


@pytest.mark.parametrize(
    ("solver", "task"),
    [
        (
            "otm[network=convolutions,width=8,depth=2,batch=32,steps=60,map_updates=4,lr_potential=2e-3]",
            "image-restoration[sigma=0.4]",
        ),
        (
            "ttc[network=convolutions,width=8,depth=2,batch=32,critics=4,steps=40,lr=2e-3,pool=512]",
            "image-restoration[sigma=0.4,cost=euclidean]",
        ),
    ],
)
def test_convolutions_take_noise_away(solver, task):
    x, pushed, y = fitted(solver, task)
    assert psnr(pushed, y) > psnr(x, y) + 1


@pytest.mark.parametrize(
    "solver",
    ["otm[network=convolutions]", "otp[network=convolutions]", "otm-s[network=convolutions]"],
)
def test_convolutions_take_images_only(solver):
    gaussian = (
        registry("task")
        .select("gaussian")[0]
        .build()
        .problem(np.random.default_rng(0), device="cpu", dtype=torch.float32)
    )
    assert (
        registry("solver").select(solver)[0].build().supports(gaussian)
        == "network=convolutions takes images only"
    )


def test_noise_that_is_enlarged_and_random_inputs_go_through_convolutions():
    for solver in ("otm", "otm-s", "otp"):
        settings = "network=convolutions,width=4,depth=1,batch=8,steps=3,map_updates=1"
        problem = registry("task").select("image-generation[latent=4]")[0].build()
        built = problem.problem(np.random.default_rng(0), device="cpu", dtype=torch.float32)
        run = FitContext("cpu", torch.float32, 0, torch.Generator().manual_seed(5))
        transport = registry("solver").select(f"{solver}[{settings}]")[0].build().fit(built, run)
        assert transport.push(built.source.sample(3, torch.Generator().manual_seed(0))).shape == (
            3,
            64,
        )


@pytest.mark.parametrize("setting", ["form=convex", "form=gradient", "start=linear"])
def test_settings_that_convolutions_have_not_are_refused(setting):
    with pytest.raises(UserError, match="network=convolutions has no"):
        registry("solver").select(f"otm[network=convolutions,{setting}]")
