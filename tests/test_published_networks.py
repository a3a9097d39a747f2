"""Networks of papers are what torch builds of the same layers; batch normalisation is that of torch
in training, and no matter of the batch afterwards.
"""

# pyright: reportMissingImports=false
# (otbench.solvers is joined to the package at run time, see otbench/__init__.py)
from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from otbench import FitContext, MapProblem, Transport
from otbench.errors import UserError
from otbench.methods.neural import convolutions
from otbench.methods.neural.convolutions import ImageCritic, ImageMap, UNet
from otbench.methods.neural.networks import Weights
from otbench.methods.neural.normalisation import BatchNorm
from otbench.methods.neural.published_networks import (
    Decoder,
    InstanceNormCritic,
    otm_critic,
    ttc_critic,
)
from otbench.registry import registry


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def drawn(network: ImageMap | ImageCritic, stack: int = 1) -> Weights:
    generators = [torch.Generator().manual_seed(seed) for seed in range(stack)]
    return Weights.draw(network, generators, torch.float64)  # type: ignore[arg-type]


def points(stack: int, n: int, d: int) -> torch.Tensor:
    return torch.randn(stack, n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(9))


def loaded(module: nn.Module, parts: list[nn.Module], weights: Weights) -> nn.Module:
    """A module with the weights of a stack of one, which its parts take in this order; linear
    layers are transposed here.
    """
    tensors = iter(weights.tensors)
    for part in parts:
        for parameter in part.parameters():
            tensor = next(tensors)[0].detach()
            if isinstance(part, nn.Linear):
                tensor = tensor.T.reshape(parameter.shape)
            parameter.data = tensor.reshape(parameter.shape)
    assert next(tensors, None) is None
    return module.double()


def plain(
    image: tuple[int, int, int], layers: list[tuple[int, int, int]], hidden: list[int],
    slope: float, pool: bool,
) -> nn.Sequential:  # fmt: skip
    modules: list[nn.Module] = []
    channels = image[0]
    for outputs, size, stride in layers:
        padding = {3: 1, 4: 1, 5: 2}[size]
        modules += [nn.Conv2d(channels, outputs, size, stride, padding), nn.LeakyReLU(slope)]
        modules += [nn.AvgPool2d(3, 2, 1)] * pool
        channels = outputs
    modules.append(nn.Flatten())
    features = nn.Sequential(*modules)(torch.zeros(1, *image)).shape[1]
    for i, o in pairwise([features, *hidden, 1]):
        modules += [nn.Linear(i, o), nn.LeakyReLU(slope)]
    return nn.Sequential(*modules[:-1])


CRITICS = {
    "infogan": (
        ttc_critic("infogan", (1, 32, 32), 64, 0.1),
        plain((1, 32, 32), [(64, 4, 2), (128, 4, 2)], [1024], 0.1, False),
    ),
    "ar-convnet": (
        ttc_critic("ar-convnet", (3, 128, 128), 16, 0.1),
        plain(
            (3, 128, 128),
            [(16, 5, 1), (32, 5, 1), (32, 5, 2), (64, 5, 2), (64, 5, 2), (128, 5, 2)],
            [256],
            0.1,
            False,
        ),
    ),
    "sndcgan": (
        ttc_critic("sndcgan", (3, 64, 64), 8, 0.1),
        plain(
            (3, 64, 64),
            [(8, 3, 1), (16, 4, 2), (16, 3, 1), (32, 4, 2), (32, 3, 1), (64, 4, 2), (64, 3, 1)],
            [],
            0.1,
            False,
        ),
    ),
    "otm": (
        otm_critic((3, 64, 64), 8, 4),
        plain((3, 64, 64), [(8, 3, 1)] * 4, [], 0.2, True),
    ),
    "otm, odd sides": (
        otm_critic((1, 28, 28), 4, 4),
        plain((1, 28, 28), [(4, 3, 1)] * 4, [], 0.2, True),
    ),
}


@pytest.mark.parametrize("name", CRITICS)
def test_plain_critics_are_those_of_torch(name):
    critic, module = CRITICS[name]
    weights = drawn(critic)
    parts = [part for part in module if list(part.parameters())]
    loaded(module, parts, weights)
    x = points(1, 2, int(np.prod(critic.image)))
    expected = module(x[0].unflatten(1, critic.image))
    assert torch.allclose(critic(weights.tensors, x)[0], expected, atol=1e-12)
    assert weights.flat.shape[1] == sum(p.numel() for p in module.parameters())


def test_initial_weights_have_the_spread_of_those_of_torch():
    critic, module = CRITICS["infogan"]
    matrices = [parameter for parameter in module.parameters() if parameter.dim() > 1]
    for tensor, parameter in zip(drawn(critic).tensors[::2], matrices, strict=True):
        bound = parameter[0].numel() ** -0.5  # of a unit's inputs
        assert float(tensor.detach().abs().max()) == pytest.approx(bound, rel=0.05)


class Doubling(nn.Module):
    """Four copies side by side, shuffled into images of twice the side."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.pixel_shuffle(torch.cat([x] * 4, 1), 2)


@pytest.mark.parametrize("levels", [3, 4])
def test_the_decoder_is_that_of_torch(levels):
    """In training, where both normalise by the batch; from 192 numbers to digits and faces."""
    widths = {3: [16, 32, 32, 16], 4: [16, 32, 32, 16, 16]}[levels]
    decoder = Decoder(192, 3, 8, levels, norm=True)
    convolved: list[nn.Module] = [nn.Conv2d(192, 8, 1), nn.ConvTranspose2d(8, 16, 4)]
    convolved += [nn.Conv2d(i, o, 3, padding=1) for i, o in pairwise(widths)]
    last = nn.Conv2d(widths[-1], 3, 3, padding=1)
    norms = [nn.BatchNorm2d(n, track_running_stats=False) for n in [8, *widths]]
    modules: list[nn.Module] = []
    for k, (convolution, norm) in enumerate(zip(convolved, norms, strict=True)):
        modules += [Doubling()] * (k > 1) + [convolution, norm, nn.LeakyReLU(0.2)]
    module = nn.Sequential(*modules, last, nn.Tanh())
    weights = drawn(decoder)
    loaded(module, [*convolved, last, *norms], weights)
    z = points(1, 3, 192)
    images = decoder(weights.tensors, z)
    assert images.shape == (1, 3, 3 * (4 * 2**levels) ** 2)
    expected = module(z[0, :, :, None, None]).flatten(1)
    assert torch.allclose(images[0], expected, atol=1e-10)
    assert weights.flat.shape[1] == sum(p.numel() for p in module.parameters())


def test_networks_of_the_presets_have_as_many_weights_as_there():
    """Counted by hand from the layers of the official code."""

    def count(network: ImageMap | ImageCritic) -> int:
        weights = network.initial(torch.Generator().manual_seed(0), torch.float32)  # type: ignore[union-attr]
        return sum(tensor.numel() for tensor in weights)

    def conv(inputs: int, outputs: int, size: int = 3) -> int:
        return (inputs * size**2 + 1) * outputs

    norms = 2 * (256 + 512 + 1024 + 1024 + 512)
    mnist = conv(192, 256, 1) + 256 * 512 * 16 + 512 + conv(512, 1024) + conv(1024, 1024)
    mnist += conv(1024, 512) + conv(512, 3) + norms
    assert count(Decoder(192, 3, 256, 3, norm=True)) == mnist
    assert count(Decoder(192, 3, 256, 4, norm=True)) == mnist + conv(512, 512) + 2 * 512
    unet = UNet((3, 64, 64), 3, 256, 4, norm=True, published=True)
    assert count(unet) == conv(3, 256) + 8 * conv(256, 256) + conv(256, 3) + 5 * 2 * 256
    assert count(otm_critic((3, 64, 64), 256, 4)) == conv(3, 256) + 3 * conv(256, 256) + 4097

    def block(i: int, o: int) -> int:
        return conv(i, i) + conv(i, o) + conv(i, o, 1) + 6 * i

    digits = conv(3, 128) + block(128, 256) + block(256, 256) + block(256, 128) + conv(128, 1, 4)
    assert count(InstanceNormCritic((3, 32, 32), 128, 3)) == digits
    assert InstanceNormCritic((3, 64, 64), 128, 4).widths == [128, 256, 512, 256, 128]
    infogan = conv(1, 64, 4) + conv(64, 128, 4) + (128 * 64 + 1) * 1024 + 1025
    assert count(ttc_critic("infogan", (1, 32, 32), 64, 0.1)) == infogan


def test_a_published_unet_pools_normalises_and_is_bounded():
    """One level, written out in torch."""
    unet = UNet((3, 8, 8), 3, 4, 1, norm=True, published=True)
    first, down, up, last = (
        nn.Conv2d(i, o, 3, padding=1) for i, o in ((3, 4), (4, 8), (8, 4), (4, 3))
    )
    norms = [nn.BatchNorm2d(4, track_running_stats=False) for _ in range(2)]
    weights = drawn(unet)
    parts = [first, down, up, last, *norms]
    loaded(nn.ModuleList(parts), parts, weights)
    x = points(1, 5, 192)
    h = nn.functional.leaky_relu(norms[0](first(x[0].unflatten(1, (3, 8, 8)))), 0.2)
    small = nn.functional.avg_pool2d(nn.functional.leaky_relu(down(h), 0.2), 3, 2, 1)
    large = nn.functional.interpolate(small, scale_factor=2)
    expected = last(torch.relu(norms[1](up(large))) + h).tanh().flatten(1)
    assert torch.allclose(unet(weights.tensors, x)[0], expected, atol=1e-10)


class InstanceNormPlus(nn.Module):
    """Of one image at a time, in plain loops of torch."""

    def __init__(self, between: torch.Tensor, gain: torch.Tensor, bias: torch.Tensor) -> None:
        super().__init__()
        self.between, self.gain, self.bias = between, gain, bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        means = x.mean((2, 3))
        scaled = (means - means.mean(1, keepdim=True)) / (means.var(1, keepdim=True) + 1e-5).sqrt()
        h = nn.functional.instance_norm(x) + (scaled * self.between)[:, :, None, None]
        return self.gain[:, None, None] * h + self.bias[:, None, None]


def test_the_critic_with_instance_normalisation_is_that_of_torch():
    critic = InstanceNormCritic((3, 16, 16), 4, 2)
    weights = drawn(critic)
    x = points(1, 3, 768)
    rest = iter([tensor[0].detach() for tensor in weights.tensors])

    def convolved(h: torch.Tensor) -> torch.Tensor:
        matrix, bias = next(rest), next(rest)
        return nn.functional.conv2d(h, matrix, bias, padding=matrix.shape[-1] // 2)

    def normalised(h: torch.Tensor) -> torch.Tensor:
        return InstanceNormPlus(next(rest), next(rest), next(rest))(h).relu()

    h = convolved(x[0].unflatten(1, (3, 16, 16)))
    for _ in range(2):
        hidden = convolved(normalised(h))
        hidden = nn.functional.avg_pool2d(convolved(normalised(hidden)), 2)
        h = nn.functional.avg_pool2d(convolved(h), 2) + hidden
    expected = h.flatten(1) @ next(rest) + next(rest)
    assert torch.allclose(critic(weights.tensors, x)[0], expected, atol=1e-10)


NETWORKS: list[tuple[ImageMap | ImageCritic, int]] = [
    (UNet((1, 8, 8), 1, 4, 2, norm=True), 64),
    (UNet((3, 8, 8), 3, 4, 2, random=5, norm=True, published=True), 197),
    (Decoder(7, 3, 4, 2, norm=True), 7),
    (Decoder(7, 1, 4, 0), 7),
    (otm_critic((3, 7, 9), 4, 3), 189),
    (ttc_critic("infogan", (1, 8, 8), 4, 0.1), 64),
    (ttc_critic("ar-convnet", (1, 7, 9), 4, 0.1), 63),
    (InstanceNormCritic((3, 8, 8), 4, 2), 192),
]


@pytest.mark.parametrize(("network", "inputs"), NETWORKS, ids=lambda value: str(value)[:40])
def test_members_of_a_stack_are_kept_apart(network, inputs):
    weights, x = drawn(network, 3), points(3, 6, inputs)
    together = network(weights.tensors, x)
    assert len(network.rates) == len(weights.tensors)
    for member in range(3):
        alone = network(weights.member(member), x[member : member + 1])
        assert torch.allclose(alone, together[member : member + 1], atol=1e-12)
    assert not torch.allclose(together[0], together[1])


@pytest.mark.parametrize(
    ("network", "inputs"),
    [pair for pair in NETWORKS if isinstance(pair[0], ImageCritic)],
    ids=lambda value: str(value)[:40],
)
def test_gradients_of_critics_are_those_of_finite_differences_and_train(network, inputs):
    weights, x = drawn(network, 2), points(2, 4, inputs)
    step = 1e-6 * points(2, 4, inputs).flip(2)
    with torch.no_grad():
        gradient = network.gradient(weights.tensors, x)
        change = (network(weights.tensors, x + step) - network(weights.tensors, x - step)) / 2
    assert torch.allclose((gradient * step).sum(-1), change[..., 0], rtol=1e-4, atol=1e-12)
    penalty = network.gradient(weights.tensors, x).square().sum()
    assert float(torch.autograd.grad(penalty, weights.tensors[0])[0].abs().max()) > 0


@pytest.mark.parametrize(
    ("network", "inputs"),
    [pair for pair in NETWORKS if isinstance(pair[0], ImageMap) and pair[0].norm],
    ids=lambda value: str(value)[:40],
)
def test_fixed_statistics_are_those_of_the_population(network, inputs, monkeypatch):
    """With them an image depends on no other, whatever chunk it is in; in training it does."""
    weights, x = drawn(network), points(1, 64, inputs)
    fixed = network.statistics(weights.tensors, x.split(16, 1))
    seen: list = []
    network.run(weights.tensors, x, BatchNorm(seen=seen))
    mean, variance = fixed[0]  # of the first layer, which sees the same in all batches
    assert torch.allclose(mean.double(), seen[0][0].double(), atol=1e-5)
    assert torch.allclose(variance.double(), seen[0][1].double(), rtol=1e-4)
    whole = network(weights.tensors, x, fixed).detach()
    for part in (slice(5, 6), slice(3, 9)):
        images = network(weights.tensors, x[:, part], fixed)
        assert torch.allclose(images, whole[:, part], atol=1e-12)
    monkeypatch.setattr(convolutions, "COORDINATES", 3 * network.outputs)
    with torch.no_grad():
        assert torch.allclose(network(weights.tensors, x, fixed), whole, atol=1e-12)
        in_training = network(weights.tensors, x)
        assert torch.allclose(in_training, network.run(weights.tensors, x, BatchNorm()))
    assert not torch.allclose(network(weights.tensors, x[:, :4])[:, 0], in_training[:, 0])


def fitted(solver: str, task: str, seeds: int = 1) -> tuple[MapProblem, list[Transport]]:
    problem = registry("task").select(task)[0].build().problem(
        np.random.default_rng(0), device="cpu", dtype=torch.float32
    )  # fmt: skip
    contexts = [
        FitContext("cpu", torch.float32, seed, torch.Generator().manual_seed(5 + seed))
        for seed in range(seeds)
    ]
    (selected,) = registry("solver").select(solver)
    built = selected.build()
    assert built.supports(problem) is None
    return problem, built.fit_together([problem] * seeds, contexts)


NORMALISED = [
    ("otm[network=convolutions,norm=batch,width=4,depth=1", "image-restoration"),
    ("otm[preset=paper-restoration,width=4,depth=2", "image-restoration"),
    ("otm-s[network=convolutions,norm=batch,width=4,depth=1", "image-restoration"),
    ("otp[network=convolutions,norm=batch,width=4,depth=1", "image-restoration"),
    ("otm[preset=paper-generation,width=4,depth=1", "image-generation[latent=4]"),
]


@pytest.mark.parametrize(("solver", "task"), NORMALISED)
def test_maps_with_batch_normalisation_act_point_by_point(solver, task):
    """Alone, among others, again, and as one of a stack of seeds."""
    settings = "batch=8,steps=3,map_updates=2]"
    problem, (transport,) = fitted(f"{solver},{settings}", task)
    x = problem.source.sample(20, torch.Generator().manual_seed(0))
    pushed = transport.push(x)  # type: ignore[misc]
    assert torch.equal(pushed, transport.push(x))  # type: ignore[misc]
    for others in (x[3:4], x[2:9], torch.cat([x, 100 * x])):
        index = 3 if len(others) > 7 else len(others) // 6
        alone = transport.push(others)[index]  # type: ignore[misc]
        assert torch.allclose(alone, pushed[3], atol=1e-4)
    _, (first, second) = fitted(f"{solver},{settings}", task, 2)
    assert torch.allclose(first.push(x), pushed, atol=1e-3)  # type: ignore[misc]
    assert not torch.allclose(second.push(x), pushed, atol=1e-2)  # type: ignore[misc]


def test_checkpoints_of_a_normalised_map_do_not_change_the_training():
    """Their statistics come from batches of their own."""
    problem, (plain_fit,) = fitted(
        "otm[preset=paper-restoration,width=4,depth=1,batch=8,steps=4]", "image-restoration"
    )
    kept: list[int] = []
    watched = FitContext(
        "cpu",
        torch.float32,
        0,
        torch.Generator().manual_seed(5),
        on_checkpoint=lambda step, transport: kept.append(step),
    )
    (selected,) = registry("solver").select(
        "otm[preset=paper-restoration,width=4,depth=1,batch=8,steps=4]"
    )
    transport = selected.build().fit(problem, watched)
    x = problem.source.sample(5, torch.Generator().manual_seed(0))
    assert len(kept) > 1 and torch.equal(transport.push(x), plain_fit.push(x))  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("otm[norm=batch]", "norm=batch is for maps of images"),
        ("otm[preset=paper-restoration,batch=1]", "batch must be at least 2 with norm=batch"),
        ("otm[preset=paper-generation,width=1]", "width must be at least 2"),
        ("otm[network=otm-generation,form=convex]", "network=otm-generation has no form=convex"),
        ("ttc[moves_until=-1]", "moves_until must not be negative"),
    ],
)
def test_settings_that_networks_have_not_are_refused(text, words):
    with pytest.raises(UserError, match=words):
        registry("solver").select(text)[0].build()


@pytest.mark.parametrize(
    ("solver", "task", "reason"),
    [
        ("otm[preset=paper-restoration]", "gaussian", "network=otm-restoration takes images only"),
        ("ttc[preset=paper-denoising]", "sphere-denoising", "network=ar-convnet takes images only"),
        (
            "otm[preset=paper-generation]",
            "image-generation[latent=4]",
            "network=otm-generation with depth=3 makes images of 32 x 32 pixels, not of 8 x 8",
        ),
    ],
)
def test_problems_that_networks_do_not_take_are_skipped(solver, task, reason):
    problem = registry("task").select(task)[0].build().problem(
        np.random.default_rng(0), device="cpu", dtype=torch.float32
    )  # fmt: skip
    assert registry("solver").select(solver)[0].build().supports(problem) == reason
