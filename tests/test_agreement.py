"""Solvers of one problem agree, whatever library they are of: exact ones on the cost, Sinkhorns of
one eps on the plan, on clouds that are random, tied, weighted, of unequal sizes and badly scaled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

import otbench
from otbench import SQEUCLIDEAN, DiscreteProblem, FitContext, Truth
from otbench.methods.discrete import DiscreteSolver
from otbench.methods.entropic import Entropic
from otbench.methods.exact import exact_plan
from otbench.registry import absent
from otbench.scoring.convergence import certify
from otbench.statuses import Stopped


pytestmark = pytest.mark.filterwarnings("ignore:JAXopt is no longer maintained:DeprecationWarning")

EXACT = ("pot-emd", "pot-lazy-emd", "scipy-assignment", "ott-hungarian")
TIGHT = "tolerance=1e-10,max_iters=20000"
SINKHORNS = (
    f"sinkhorn[{TIGHT}]",
    f"pot-sinkhorn[{TIGHT}]",
    f"pot-lazy-sinkhorn[{TIGHT}]",
    f"pot-batch[{TIGHT}]",
    f"ott-sinkhorn[{TIGHT}]",
    "geomloss[max_iters=10000]",
    "geomloss-online[max_iters=5000]",
)


def pair(
    n: int = 24,
    m: int = 24,
    dim: int = 2,
    weighted: bool = False,
    grid: bool = False,
    scale: float = 1.0,
    offset: float = 0.0,
) -> DiscreteProblem:
    """Two clouds, those of equal size of equal weights."""
    stream = torch.Generator().manual_seed(3)
    x, y = (torch.randn(k, dim, generator=stream, dtype=torch.float64) for k in (n, m))
    if grid:
        x, y = x.round(), y.round()
    a, b = (torch.rand(k, generator=stream, dtype=torch.float64) + 0.1 for k in (n, m))
    if not weighted:
        a, b = torch.ones_like(a), torch.ones_like(b)
    elif n > 5:
        a[:2], b[-2:] = 0, 0
    x, y = scale * x + offset, scale * (y + 0.5) + offset
    return DiscreteProblem(x, a / a.sum(), y, b / b.sum(), SQEUCLIDEAN, Truth("none"))


CLOUDS: dict[str, Callable[[], DiscreteProblem]] = {
    "random": pair,
    "tied": lambda: pair(grid=True),
    "on a line": lambda: pair(dim=1),
    "weighted": lambda: pair(20, 15, weighted=True),
    "small": lambda: pair(scale=1e-6),
    "large": lambda: pair(scale=1e6),
    "far away": lambda: pair(offset=1e6),
}


def solver(text: str) -> DiscreteSolver:
    found = otbench.get_solver(text)
    assert isinstance(found, DiscreteSolver)
    if lacking := absent(found.needs):
        pytest.skip(lacking)
    return found


def context() -> FitContext:
    return FitContext("cpu", torch.float64, 2**31, torch.Generator().manual_seed(0))


def cost_of(problem: DiscreteProblem, plan: torch.Tensor) -> float:
    return float((plan * SQEUCLIDEAN.matrix(problem.x, problem.y)).sum())


@pytest.mark.parametrize("clouds", CLOUDS)
@pytest.mark.parametrize("text", EXACT)
def test_exact_solvers_agree_on_the_cost(text: str, clouds: str) -> None:
    problem, found = CLOUDS[clouds](), solver(text)
    if found.supports(problem):
        assert clouds == "weighted" and text in ("scipy-assignment", "ott-hungarian")
        return
    given = [part.clone() for part in (problem.x, problem.a, problem.y, problem.b)]
    coupled = found.coupled(problem, context())
    matrix = SQEUCLIDEAN.matrix(problem.x, problem.y).numpy()
    best = exact_plan(matrix, problem.a.numpy(), problem.b.numpy()).cost
    assert cost_of(problem, coupled.coupling.plan) == pytest.approx(best, rel=1e-10)
    assert certify(coupled).stopped in (Stopped.CONVERGED, Stopped.FEASIBLE)
    for part, was in zip((problem.x, problem.a, problem.y, problem.b), given, strict=True):
        assert torch.equal(part, was)


@pytest.mark.parametrize("clouds", CLOUDS)
@pytest.mark.parametrize("text", SINKHORNS)
def test_sinkhorns_agree_on_the_plan_at_one_eps(text: str, clouds: str) -> None:
    problem = CLOUDS[clouds]()
    mean = float(problem.a @ SQEUCLIDEAN.matrix(problem.x, problem.y) @ problem.b)
    problem = replace(problem, eps=0.1 * mean)
    coupled = solver(text).coupled(problem, context())
    entropic = Entropic(problem)
    truth = entropic.on_all_points(entropic.solve(tolerance=1e-12, max_iters=20000).plan)
    plan = coupled.coupling.plan
    # GeomLoss has no stopping rule: its error falls as one over the iterations.
    near = 2e-3 if text.startswith("geomloss") else 1e-6
    assert float((plan - truth).abs().max()) < near
    assert cost_of(problem, plan) == pytest.approx(cost_of(problem, truth), rel=near)
    if near == 1e-6:
        assert certify(coupled).stopped == Stopped.CONVERGED


ANY = (*EXACT[:2], "sinkhorn", "pot-sinkhorn", "ott-sinkhorn", "pot-sliced-plan", "independent")


@pytest.mark.parametrize("text", ANY)
def test_clouds_at_one_place_cost_nothing_and_are_coupled(text: str) -> None:
    problem = pair(6, 4)
    problem = replace(problem, x=problem.x * 0 + 7, y=problem.y * 0 + 7)
    coupled = solver(text).coupled(problem, context())
    plan = coupled.coupling.plan.to_dense()
    torch.testing.assert_close(plan.sum(1), problem.a, rtol=0, atol=1e-3)
    torch.testing.assert_close(plan.sum(0), problem.b, rtol=0, atol=1e-3)
    assert not certify(coupled).stopped.short


@pytest.mark.parametrize("text", ANY)
def test_single_precision_gives_the_plan_of_double(text: str) -> None:
    single = pair(20, 15, weighted=True)
    single = replace(
        single, x=single.x.float(), a=single.a.float(), y=single.y.float(), b=single.b.float()
    )
    double = replace(
        single, x=single.x.double(), a=single.a.double(), y=single.y.double(), b=single.b.double()
    )
    plans: list[torch.Tensor] = []
    for problem in (single, double):
        found = solver(text).fit(problem, context()).plan
        assert found is not None
        plans.append(found(problem).to_dense())
    assert plans[0].dtype == torch.float32
    torch.testing.assert_close(plans[0].double(), plans[1], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("text", ["pot-emd", "ott-sinkhorn"])
def test_integers_are_points(text: str) -> None:
    points: Sequence[np.ndarray] = [np.arange(12).reshape(6, 2), np.arange(10).reshape(5, 2)]
    of_integers = otbench.solve(solver=text, source=points[0], target=points[1])
    of_floats = otbench.solve(solver=text, source=points[0] * 1.0, target=points[1] * 1.0)
    assert of_integers.cost == of_floats.cost > 0
