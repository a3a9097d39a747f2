"""Images under the gradient of a convex function of convolutions: the map is that gradient, convex
as it says, far from linear, the same for every seed; no solver is given pairs.
"""

# pyright: reportMissingImports=false
# (otbench.tasks is joined to the package at run time, see otbench/__init__.py)
from __future__ import annotations

import numpy as np
import pytest
import torch

from otbench import MapProblem, MissingError, get_solver
from otbench.data.images import load
from otbench.errors import UserError
from otbench.registry import registry
from otbench.tasks.brenier_images import CALIBRATION, BrenierImages, Potential
from tests.truths import build_map, generator, pairing_attains_the_linear_program


REAL = [
    BrenierImages(),
    BrenierImages(uvp=40.0, sigma=0.2),
    BrenierImages(data="mnist"),
    BrenierImages(data="celeba", side=16),
]


def build(task: BrenierImages, seed: int = 0, dtype: torch.dtype = torch.float64) -> MapProblem:
    try:
        return build_map(task, seed, dtype)
    except MissingError as error:
        pytest.skip(str(error))


def learnt(data: str, side: int = 0, n: int = CALIBRATION) -> torch.Tensor:
    """The first images to learn from, without noise, ``(n, channels, side, side)``."""
    try:
        images = load(data, side)  # type: ignore[arg-type]
    except MissingError as error:
        pytest.skip(str(error))
    pixels = images.pixels[: min(n, images.learnt)].astype(np.float64)
    return torch.as_tensor(pixels) * (2 / images.white) - 1


def apply(problem: MapProblem, x: torch.Tensor) -> torch.Tensor:
    assert problem.truth.map is not None
    return problem.truth.map(x)


@pytest.mark.parametrize("task", REAL, ids=str)
def test_no_rearrangement_of_images_and_their_images_is_cheaper(task):
    pairing_attains_the_linear_program(build(task), 0, n=300)


@pytest.mark.parametrize(("data", "side"), [("digits", 0), ("digits", 11), ("celeba", 8)])
def test_the_map_is_the_gradient_of_a_strongly_convex_potential(data, side):
    """By automatic differentiation: T = grad u, its Jacobian is symmetric with eigenvalues of at
    least a > 0; so it is with odd sides and strides that leave pixels over.
    """
    images = learnt(data, side)
    potential = Potential.of(images, 0.2)
    x = images[:4].flatten(1) + 0.1 * torch.randn(4, images[0].numel(), generator=generator(0))
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(potential.value(x).sum(), x)
    assert torch.allclose(potential.gradient(x), gradient, rtol=1e-12, atol=1e-13)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda p: potential.gradient(p[None])[0]))(
        x.detach()
    )
    assert float((jacobian - jacobian.mT).abs().max()) < 1e-13 * float(jacobian.abs().max())
    eigenvalues = torch.linalg.eigvalsh(jacobian)
    assert float(eigenvalues.min()) >= potential.convexity - 1e-12 and potential.convexity > 0.3
    assert float(eigenvalues.max()) > 4 * potential.convexity  # the layers do bend


@pytest.mark.parametrize("uvp", [5.0, 40.0])
@pytest.mark.parametrize("data", ["digits", "mnist"])
def test_the_identity_leaves_what_is_asked_for_and_the_moments_are_kept(data, uvp):
    x = learnt(data)
    y = Potential.of(x, uvp / 100).gradient(x.flatten(1))
    x = x.flatten(1)
    variance = x.var(0, correction=0).sum()
    assert torch.allclose(y.mean(0), x.mean(0), atol=1e-10)
    assert torch.allclose(y.var(0, correction=0).sum(), variance)
    moved = (y - x).square().sum(1).mean() / variance
    assert float(100 * moved) == pytest.approx(uvp)


@pytest.mark.parametrize(
    "task", [BrenierImages(), BrenierImages(data="mnist", side=14)], ids=["digits", "mnist"]
)
def test_no_affine_map_comes_close(task):
    """Least squares on pairs, which no solver has, leave a fifth of what the identity does."""
    problem = build(task, dtype=torch.float32)
    x, test = problem.source.sample(8000, generator(0)), problem.source.sample(2000, generator(1))

    def affine(points: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(points, (0, 1), value=1.0).double()

    fitted = torch.linalg.lstsq(affine(x), apply(problem, x).double()).solution
    y = apply(problem, test).double()
    left = (affine(test) @ fitted - y).square().sum(1).mean() / y.var(0).sum()
    assert 4 < float(100 * left) < 15


def test_the_map_is_the_same_for_every_seed_and_the_split_is_not():
    first, second = build(BrenierImages(), 0), build(BrenierImages(), 1)
    x = first.source.sample_test(100, generator(0))
    assert torch.equal(apply(first, x), apply(second, x))
    assert not torch.equal(x, second.source.sample_test(100, generator(0)))
    single = apply(build(BrenierImages(), dtype=torch.float32), x.float())
    assert single.dtype == torch.float32
    assert float((single.double() - apply(first, x)).abs().max()) < 1e-4
    inputs = x.repeat(11, 1).requires_grad_()  # more than are mapped at a time
    assert torch.allclose(apply(first, inputs)[-100:], apply(first, x), rtol=1e-12)
    assert not apply(first, inputs).requires_grad


def test_source_target_and_what_is_scored_on_have_no_image_in_common():
    """By content, the noise being too little to hide it."""
    problem = build(BrenierImages(sigma=1e-6))
    seen = learnt("digits", n=1500).flatten(1)
    images = load("digits")
    kept = torch.as_tensor(images.pixels[images.learnt :]).double().flatten(1) / 8 - 1

    def among(points: torch.Tensor, pool: torch.Tensor) -> set[int]:
        distances, places = torch.cdist(points, pool).min(1)
        assert distances.max() < 1e-3
        return set(places.tolist())

    source, target = problem.source, problem.target
    drawn = among(source.sample(3000, generator(0)), seen)
    aimed = among(target.sample(3000, generator(1)), apply(problem, seen))
    assert len(drawn) > 700 and len(aimed) > 700 and not drawn & aimed
    tests = among(source.sample_test(1000, generator(0)), kept)
    held_out = among(target.sample_test(1000, generator(0)), apply(problem, kept))
    assert len(tests) == 148 and len(held_out) == 149 and not tests & held_out
    noisy = build(BrenierImages(sigma=0.3)).source.sample(2000, generator(0))
    noise = torch.cdist(noisy, seen).min(1).values.square().mean() / 64
    assert float(noise) ** 0.5 == pytest.approx(0.3, rel=0.05)


@pytest.mark.parametrize("network", ["mlp", "convolutions"])
def test_neural_solvers_of_images_take_it(network):
    problem = build(BrenierImages(), dtype=torch.float32)
    assert problem.source.image == problem.target.image == (1, 8, 8)
    assert get_solver(f"otm[network={network}]").supports(problem) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("uvp=0.5", "uvp must be from 1 to 40, got 0.5"),
        ("uvp=50", "uvp must be from 1 to 40, got 50"),
        ("sigma=0", "sigma must be positive"),
        ("side=4", "side must be from 8"),
        ("test=3", "test must be at least"),
    ],
)
def test_parameters_that_make_no_task_are_refused(text, words):
    with pytest.raises(UserError, match=words):
        registry("task").select(f"brenier-images[{text}]")


def test_images_that_no_convex_map_moves_so_far_are_refused():
    with pytest.raises(ValueError, match="uvp must be less than 100 for these images"):
        Potential.of(learnt("digits"), 1.0)
