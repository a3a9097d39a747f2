"""The contract of a solver, tried out on small problems: `otbench check` and the tests over the
registry use it.

Each finding is one sentence saying what is wrong and how to mend it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otbench.errors import DivergedError, InvalidOutputError
from otbench.metrics import entries
from otbench.problem import DiscreteProblem, MapProblem, Problem
from otbench.runner.info import columns
from otbench.scoring.outputs import check_output
from otbench.solver import FitContext, Solver, Transport


if TYPE_CHECKING:
    import torch

PROBLEMS = (
    "gaussian",
    "gaussian[dim=3]",
    "petals",
    "perpendicular",
    "unequal-dims[dim=5]",
    "sphere-denoising[dim=3]",
    "point-clouds[n=40,m=50]",
    "weight-pairs[side=5,train=4,test=2]",
    "weight-pairs[side=5,train=4,test=2,eps=0.05]",
)
# Those of them that `otbench check` tries: the others are of the same kind, for the tests.
TRIED = tuple(text for text in PROBLEMS if text not in ("petals", "perpendicular"))
SHORT = {"n": 64, "steps": 5, "critics": 2}  # parameters that say how long a fit takes
POINTS = 64
TOLERANCE = 1e-3  # of the output's spread: what a change of batch size may do to float32 sums
# The same for a stack, root mean square: long training amplifies rounding.
STACKED = 0.1


def findings(solver: Solver, problem: Problem, device: str, dtype: torch.dtype) -> list[str]:
    """What the solver does wrong on one problem; nothing if it keeps the contract.

    Args:
        solver: the solver.
        problem: a problem that it supports.
        device: where the problem lives.
        dtype: of the problem.
    """
    import torch

    def fit() -> Transport:
        torch.manual_seed(0)
        return solver.fit(
            problem, FitContext(device, dtype, 0, torch.Generator(device).manual_seed(2))
        )

    transport = fit()
    if not isinstance(transport, Transport):
        return [f"fit returned {type(transport).__name__}: return an otbench.Transport"]
    found = [f"{sentence}; give plain numbers" for sentence in columns(transport.info)[1]]
    if not isinstance(problem, MapProblem):
        return found + _plan_findings(transport, fit, problem)
    if transport.push is None:
        return [*found, "fit returned a Transport without push: a map problem needs one"]
    x = problem.source.sample(POINTS, torch.Generator(device).manual_seed(1))
    given = x.clone()
    pushed = transport.push(given)
    try:
        check_output("push", pushed, (POINTS, *problem.target.shape), like=x)
    except (InvalidOutputError, DivergedError) as error:
        return [*found, f"{error}: make it so"]
    if pushed.requires_grad:
        found.append(
            "push returns a tensor that tracks gradients: detach it, or push under torch.no_grad()"
        )
        return found
    if not torch.equal(given, x):
        found.append("push changes its input: work on a copy")
    scale = float(pushed.std()) + 1e-12
    alone = torch.cat([transport.push(x[i : i + 1].clone()) for i in range(4)])
    if float((alone - pushed[:4]).abs().max()) > TOLERANCE * scale:
        found.append(
            "push of a point alone differs from its push in a batch: a map acts point by point "
            "(batch normalisation?)"
        )
    again = fit().push
    if again is None or float((again(x.clone()) - pushed).abs().max()) > TOLERANCE * scale:
        found.append(
            "two fits with one seed differ: take all randomness from context.generator or "
            "context.seed"
        )
    if solver.batched:
        stacked = []
        for neighbour in (1, 2):
            runs = [
                FitContext(device, dtype, seed, torch.Generator(device).manual_seed(2 + seed))
                for seed in (neighbour, 0)
            ]
            last = solver.fit_together([problem, problem], runs)[1]
            stacked.append(
                last.push(x.clone())
                if isinstance(last, Transport) and last.push is not None
                else pushed + torch.inf
            )
        if not float((stacked[0] - pushed).square().mean().sqrt()) <= STACKED * scale:
            found.append(
                "fit_together gives a seed another map than fit does: solve each problem as fit "
                "would"
            )
        if not float((stacked[0] - stacked[1]).abs().max()) <= TOLERANCE * scale:
            found.append(
                "the map that fit_together gives a seed depends on its neighbours: keep the "
                "members of the stack apart"
            )
    return found


def _plan_findings(transport: Transport, fit, problem: Problem) -> list[str]:
    import torch

    if transport.plan is None:
        return [f"fit returned a Transport without plan: the {problem.setting} setting needs one"]
    pair = problem if isinstance(problem, DiscreteProblem) else problem.test[0]  # type: ignore[union-attr]
    plan = transport.plan(pair)
    try:
        check_output("plan", plan, (len(pair.x), len(pair.y)), like=pair.x)
    except (InvalidOutputError, DivergedError) as error:
        return [f"{error}: make it so"]
    found = []
    held = entries(plan)
    if held.numel() and float(held.min()) < -1e-6:
        found.append(
            f"the plan has negative entries (down to {float(held.min()):.2g}): a coupling has none"
        )
    if abs(float(plan.sum()) - 1) > 0.05:
        found.append(f"the plan's total mass is {float(plan.sum()):.3g}: it must be 1")
    if not torch.allclose(entries(fit().plan(pair)), held, atol=1e-6):
        found.append(
            "two fits with one seed give different plans: take all randomness from "
            "context.generator or context.seed"
        )
    return found
