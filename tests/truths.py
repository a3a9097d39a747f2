"""Proofs of a map problem's truth, shared by the tests of the task families. Each takes a problem
built in float64 on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import ot
import scipy.stats
import torch

from otbench import MapProblem, Measure, Task
from otbench.families.probes import Branches
from otbench.metrics import exact_w2_squared


# Standard errors that an estimate may be off; seeds are fixed, so a test that passes once always
# does.
SIGMAS = 4.0
RELATIVE = 1e-12  # how exactly the linear program and the potential inequality must hold


def build(task: Task, seed: int = 0, dtype: torch.dtype = torch.float64):
    """The problem of a task on the CPU."""
    return task.problem(np.random.default_rng(seed), device="cpu", dtype=dtype)


def build_map(task: Task, seed: int = 0, dtype: torch.dtype = torch.float64) -> MapProblem:
    """The problem of a task in the map setting."""
    problem = build(task, seed, dtype)
    assert isinstance(problem, MapProblem)
    return problem


def branches(problem: MapProblem) -> Callable[[torch.Tensor], torch.Tensor]:
    """Both images of each point, ``(2, n, *shape)``."""
    (probe,) = problem.truth.probes
    assert isinstance(probe, Branches)
    return probe.images


def generator(seed: int) -> torch.Generator:
    """A torch generator on the CPU."""
    return torch.Generator().manual_seed(seed)


def certify(problem: MapProblem, seed: int, samples: int = 1_000_000) -> None:
    """Every proof that applies to the problem: linear program, potentials, cost, moments,
    push-forward.
    """
    assert problem.truth.map is not None or problem.truth.no_map, (
        "a truth has a map or says why not"
    )
    pairing_attains_the_linear_program(problem, seed)
    potentials_certify_the_pairs(problem, seed)
    cost_is_that_of_samples(problem, seed, samples)
    for measure in (problem.source, problem.target):
        moments_are_those_of_samples(measure, seed)
    pairs_have_the_marginals(problem, seed)


def pairs_of(problem: MapProblem, n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs from the optimal plan."""
    pairs = problem.sample_pairs(n, generator(seed))
    assert pairs is not None, "neither a map nor a sampler of an optimal plan is known"
    return pairs


def cost_matrix(x: torch.Tensor, y: torch.Tensor, problem: MapProblem) -> torch.Tensor:
    """``(n, m)`` costs by the pairwise formula, row by row: the Gram formula of `Cost.matrix`
    rounds at the size of its terms.
    """
    return torch.stack(
        [problem.cost.pairwise(point.expand(len(y), *point.shape), y) for point in x]
    )


def linear_program(x: torch.Tensor, y: torch.Tensor, problem: MapProblem) -> float:
    """Exact cost between equal-sized samples by the network simplex."""
    matrix = cost_matrix(x, y, problem).numpy()
    return float((ot.emd(np.array([]), np.array([]), matrix, numItermax=10**7) * matrix).sum())


def pairing_attains_the_linear_program(problem: MapProblem, seed: int, n: int = 400) -> None:
    """No rearrangement of optimal pairs is cheaper: their support is cyclically monotone."""
    x, y = pairs_of(problem, n, seed)
    exact = linear_program(x, y, problem)
    paired = float(problem.cost.pairwise(x, y).mean())
    assert abs(paired - exact) <= RELATIVE * exact, (paired, exact)


def potentials_certify_the_pairs(problem: MapProblem, seed: int, n: int = 500) -> None:
    """f(x) + g(y) <= c(x, y) everywhere, = c(x, y) on optimal pairs."""
    f, g = problem.truth.potential, problem.truth.target_potential
    if f is None or g is None:
        assert f is None and g is None, "give both potentials or none"
        return
    x, y = pairs_of(problem, n, seed)
    fresh_x, fresh_y = (
        problem.source.sample(n, generator(seed + 10)),
        problem.target.sample(n, generator(seed + 20)),
    )
    scale = 1 + float(problem.cost.matrix(x, y).max())
    assert float((f(x) + g(y) - problem.cost.pairwise(x, y)).abs().max()) <= RELATIVE * scale
    for a, b in ((x, y), (fresh_x, fresh_y)):
        assert float((f(a)[:, None] + g(b) - cost_matrix(a, b, problem)).max()) <= RELATIVE * scale


def cost_is_that_of_samples(problem: MapProblem, seed: int, samples: int) -> None:
    """The cost claimed is the mean over a large sample of the plan, in parts that fit memory."""
    if problem.truth.cost is None:
        return
    part = max(1, min(samples, 20_000_000 // problem.target.dim))
    costs = torch.cat(
        [problem.cost.pairwise(*pairs_of(problem, part, seed + i)) for i in range(samples // part)]
    )
    agree(costs, torch.tensor(problem.truth.cost, dtype=costs.dtype), problem.truth.cost_error)


def moments_are_those_of_samples(measure: Measure, seed: int, n: int = 50_000) -> None:
    """Mean, covariance and variance where claimed."""
    y = measure.sample(n, generator(seed))
    if measure.mean is not None:
        agree(y, measure.mean)
    if measure.cov is not None and measure.dim <= 64:
        assert measure.mean is not None
        agree(products(y, measure.mean), measure.cov)
    if measure.variance is not None:
        agree((y - y.mean(0)).flatten(1).square().sum(1), torch.tensor(measure.variance))


def pairs_have_the_marginals(problem: MapProblem, seed: int, n: int = 500) -> None:
    """Optimal pairs have the source and the target as marginals: no further from fresh samples than
    those are from each other.

    Distances are exact W2 in the plain Euclidean sense; the floor is the mean of eight, the margin
    six of their standard deviations.
    """
    x, y = pairs_of(problem, n, seed)
    for measure, points in ((problem.source, x), (problem.target, y)):
        fresh = [measure.sample(n, generator(seed + 100 + i)).flatten(1).double() for i in range(9)]
        floors = torch.tensor([exact_w2_squared(fresh[i], fresh[i + 1]) for i in range(8)])
        gap = exact_w2_squared(points.flatten(1).double(), fresh[8])
        assert gap <= float(floors.mean() + 6 * floors.std()) + 1e-12, (gap, floors)


def agree(samples: torch.Tensor, expected: torch.Tensor, error: float = 0.0) -> None:
    """Means over the first axis equal ``expected`` up to `SIGMAS` standard errors, and more of them
    where many numbers are compared.
    """
    gap = (samples.mean(0) - expected).abs()
    spread = (samples.var(0) / len(samples) + error**2).sqrt()
    allowed = scipy.stats.norm.isf(scipy.stats.norm.sf(SIGMAS) / gap.numel())
    assert (gap <= allowed * spread + 1e-12 * (1 + expected.abs())).all(), (
        samples.mean(0),
        expected,
        spread,
    )


def products(y: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """``(n, d, d)``: their mean is the covariance."""
    return (y - mean)[:, :, None] * (y - mean)[:, None, :]
