"""Convergence of discrete solvers, told from plans and potentials: closed forms, solvers that lie,
and what rows and boards say.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otbench import SQEUCLIDEAN, DiscreteProblem, FitContext, Truth, get_solver
from otbench.errors import InvalidOutputError
from otbench.methods.discrete import DiscreteSolver
from otbench.methods.entropic import Entropic
from otbench.report.leaderboard import leaderboard
from otbench.scoring.convergence import certified, certify
from otbench.solver import Coupled, Coupling
from otbench.statuses import Stopped
from otbench.store import load


seeds = st.integers(0, 10**6)


def make_pair(seed: int = 0, n: int = 12, m: int = 9, scale: float = 1.0) -> DiscreteProblem:
    """Two weighted clouds; one point of each has no weight."""
    stream = torch.Generator().manual_seed(seed)
    x, y = (scale * torch.randn(k, 2, generator=stream, dtype=torch.float64) for k in (n, m))
    a, b = (torch.rand(k, generator=stream, dtype=torch.float64) + 0.1 for k in (n, m))
    a[0], b[0] = 0, 0
    return DiscreteProblem(x, a / a.sum(), y, b / b.sum(), SQEUCLIDEAN, Truth("none"))


def context() -> FitContext:
    return FitContext("cpu", torch.float64, 0, torch.Generator())


def solved(name: str, pair: DiscreteProblem) -> Coupled:
    solver = get_solver(name)
    assert isinstance(solver, DiscreteSolver)
    return solver.coupled(pair, context())


@settings(max_examples=25, deadline=None)
@given(seed=seeds, scale=st.floats(-6, 6).map(lambda power: 10.0**power))
def test_optimal_plans_are_certified_at_every_scale(seed: int, scale: float) -> None:
    pair = make_pair(seed, scale=scale)
    for name in ("pot-emd", "sinkhorn", "sinkhorn[eps=0.2,tolerance=1e-8]"):
        found = certify(solved(name, pair))
        assert found.stopped == Stopped.CONVERGED, f"{name}: {found}"


@settings(max_examples=25, deadline=None)
@given(seed=seeds, shift=st.floats(0.1, 1))
def test_the_gap_of_an_entropic_plan_is_its_divergence_from_that_of_the_potentials(
    seed: int, shift: float
) -> None:
    """For P with marginals a and b, the gap is eps KL(P | P(f, g))."""
    pair = make_pair(seed)
    problem = Entropic(pair, eps=2.0)
    found = problem.solve()
    g = pair.b.new_zeros(len(pair.b)).index_copy_(0, problem.columns, found.g)
    g[1] += shift
    plan = problem.on_all_points(found.plan)
    f = problem.source_potential(g[problem.columns])
    divergence = torch.xlogy(found.plan, found.plan / problem.plan(f, g[problem.columns])).sum()
    certificate = certify(Coupled(pair, Coupling(plan, g, 2.0), tolerance=1e-9))
    cost = float((plan * SQEUCLIDEAN.matrix(pair.x, pair.y)).sum())
    assert certificate.stopped == Stopped.EARLY
    assert certificate.duality_gap == pytest.approx(
        2.0 * float(divergence) / cost, rel=1e-6, abs=1e-8
    )


def test_a_plan_that_is_not_that_of_its_potentials_is_not_converged() -> None:
    pair = make_pair()
    honest = solved("pot-emd", pair)
    independent = pair.a[:, None] * pair.b
    for coupling in (
        replace(honest.coupling, plan=independent),
        Coupling(independent, honest.coupling.g, eps=1e-3),
        replace(honest.coupling, g=torch.zeros_like(pair.b)),
    ):
        found = certify(replace(honest, coupling=coupling))
        assert found.stopped == Stopped.EARLY and found.marginal_error < 1e-12
        assert found.duality_gap is not None and found.duality_gap > 0.01


@pytest.mark.parametrize("exhausted", [False, True])
def test_marginals_that_are_not_met_are_not_converged(exhausted: bool) -> None:
    honest = replace(solved("pot-emd", make_pair()), exhausted=exhausted)
    found = certify(
        replace(honest, coupling=replace(honest.coupling, plan=honest.coupling.plan * 0.9))
    )
    assert found.stopped == (Stopped.LIMIT if exhausted else Stopped.EARLY)
    assert found.marginal_error == pytest.approx(0.2)
    assert str(found).startswith(f"{found.stopped}: marginal error 0.2, tolerance 1e-06")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_a_numerical_failure(bad: float) -> None:
    honest = solved("pot-emd", make_pair())
    plan, g = honest.coupling.plan.clone(), honest.coupling.g
    assert g is not None
    broken = g.clone()
    broken[3] = bad
    assert certify(replace(honest, coupling=Coupling(plan, broken))).stopped == Stopped.FAILED
    plan[1, 1] = bad
    found = certify(replace(honest, coupling=Coupling(plan, g)))
    assert found.stopped == Stopped.FAILED and found.columns["marginal_error"] is None


def test_potentials_of_points_without_mass_say_nothing() -> None:
    honest = solved("pot-emd", make_pair())
    assert honest.coupling.g is not None
    g = honest.coupling.g.clone()
    g[0] = math.nan
    coupling = replace(honest.coupling, g=g)
    assert certify(replace(honest, coupling=coupling)).stopped == Stopped.CONVERGED


def test_sparse_plans_and_those_in_single_precision_are_certified_too() -> None:
    honest = solved("pot-emd", make_pair())
    for plan in (honest.coupling.plan.to_sparse_coo(), honest.coupling.plan.float()):
        coupling = replace(honest.coupling, plan=plan)
        assert certify(replace(honest, coupling=coupling)).stopped == Stopped.CONVERGED


def test_a_plan_without_potentials_is_feasible_at_best() -> None:
    pair = make_pair()
    coupled = Coupled(pair, Coupling(pair.a[:, None] * pair.b), tolerance=1e-9)
    found = certify(coupled)
    assert found.stopped == Stopped.FEASIBLE and found.duality_gap is None
    worst = certified([coupled, replace(coupled, coupling=Coupling(0.5 * coupled.coupling.plan))])
    assert worst.stopped == Stopped.EARLY and certified([coupled, coupled]) == found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("eps", [None, 0.05])
def test_far_points_and_constants_hide_no_wrong_plan(eps: float | None, dtype: torch.dtype) -> None:
    """Two points far from all others go to each other; the others are spread at random."""
    pair = make_pair(n=20, m=20)
    pair.x[1], pair.y[1] = 1e4, 1e4 + 1
    pair = replace(pair, a=pair.b.clone())
    name = "pot-emd" if eps is None else f"sinkhorn[eps={eps},eps_rule=absolute,max_iters=100000]"
    honest = solved(name, pair)
    others = pair.a.clone()
    others[1] = 0
    plan = others[:, None] * others / others.sum()
    plan[1, 1] = pair.a[1]
    for wrong in (honest.coupling.g, 1e30 + torch.zeros_like(pair.b)):
        coupling = replace(honest.coupling, plan=plan.to(dtype), g=wrong)
        assert certify(replace(honest, coupling=coupling)).stopped == Stopped.EARLY
    coupling = replace(honest.coupling, plan=honest.coupling.plan.to(dtype))
    assert certify(replace(honest, coupling=coupling)).stopped == Stopped.CONVERGED


def test_a_strong_regularisation_is_certified_in_single_precision() -> None:
    honest = solved("sinkhorn[eps=1e9]", make_pair())
    coupling = replace(honest.coupling, plan=honest.coupling.plan.float())
    assert certify(replace(honest, coupling=coupling)).stopped == Stopped.CONVERGED


@pytest.mark.parametrize(
    ("plan", "eps", "fault"),
    [
        (torch.ones(2, 2), None, "the plan is (2, 2), not (12, 9)"),
        (torch.ones(12, 1), None, "the plan is (12, 1), not (12, 9)"),
        (torch.eye(12, 9) - 0.1, None, "negative entries"),
        (torch.ones(12, 9), 0.0, "eps must be positive, got 0.0"),
        (torch.ones(12, 9), math.nan, "eps must be positive, got nan"),
    ],
)
def test_what_cannot_be_certified_is_an_invalid_output(
    plan: torch.Tensor, eps: float | None, fault: str
) -> None:
    pair = make_pair()
    coupled = Coupled(pair, Coupling(plan, pair.b, eps), tolerance=1e-9)
    with pytest.raises(InvalidOutputError, match="coupled cannot be certified: ") as raised:
        certified([coupled])
    assert fault in str(raised.value)
    longer = Coupled(pair, Coupling(pair.a[:, None] * pair.b, pair.a), tolerance=1e-9)
    with pytest.raises(InvalidOutputError, match=r"g is \(12,\), not \(9,\)"):
        certified([longer])


@pytest.mark.parametrize("coupled", [[], [None], 5])
def test_garbage_and_shorter_lists_are_invalid_outputs(coupled: Any) -> None:
    pair = make_pair()
    plans = [pair.a[:, None] * pair.b] * 2
    with pytest.raises(InvalidOutputError, match="coupled cannot be certified: "):
        certified(coupled, [pair, pair], plans)


def test_other_pairs_than_the_problems_are_not_looked_at() -> None:
    pair = make_pair()
    easy = solved("pot-emd", make_pair(seed=1))
    assert certify(easy).stopped == Stopped.CONVERGED
    assert certified([easy], [pair], [pair.a[:, None] * pair.b]).stopped == Stopped.EARLY


WARNS = '''
"""Halves the plan and warns."""

import warnings
from dataclasses import dataclass
from typing import ClassVar

from otbench.methods.discrete import Coupling, DiscreteSolver


@dataclass(frozen=True)
class Halved(DiscreteSolver):
    name: ClassVar[str] = "halved"

    def couple(self, pair, context):
        warnings.warn("half of the mass\\nis lost", RuntimeWarning)
        warnings.warn("soon gone", DeprecationWarning)
        return Coupling(0.5 * pair.a[:, None] * pair.b)
'''


def test_rows_say_how_a_solver_stopped_and_what_it_warned_of(otbench_here, tmp_path: Path) -> None:
    plugin, out = tmp_path / "halved.py", tmp_path / "out"
    plugin.write_text(WARNS)
    tasks = ["point-clouds[n=20,m=15]", "weight-pairs[side=4,train=2,test=2,eps=0.05]"]
    selected = [word for task in tasks for word in ("-t", task)]
    solvers = ["-s", "halved", "-s", "sinkhorn[tolerance=1e-9]", "-s", "pot-sliced-plan"]
    where = ["--plugins", plugin, "--results", out, "--seeds", "1"]
    assert otbench_here("run", *selected, *solvers, *where).returncode == 0
    lines = (line for file in out.rglob("*.jsonl") for line in file.read_text().splitlines())
    rows = {(row["task"], row["solver"]): row for row in map(json.loads, lines)}
    for task in ("point-clouds", "weight-pairs"):
        halved = rows[task, "halved"]
        assert halved["stopped"] == "not converged"
        assert halved["marginal_error"] == pytest.approx(1.0, rel=1e-5)
        assert "RuntimeWarning: half of the mass is lost" in halved["message"]
        assert "not converged: marginal error 1" in halved["message"]
        assert "soon gone" not in halved["message"]
        exact = rows[task, "sinkhorn"]
        assert exact["stopped"] == "converged" and exact["message"] == ""
        assert 0 <= exact["duality_gap"] < 1e-6
    sliced = rows["point-clouds", "pot-sliced-plan"]
    assert sliced["stopped"] == "feasible"
    assert sliced["duality_gap"] == pytest.approx(sliced["metric_cost_gap"])
    board = leaderboard(load(out), metrics=["cost_gap"])
    assert board.count("(1 not converged)") == 2 and "not converged: runs that" in board
