"""Truths that several runs need, solved for by the first of them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from otbench.metrics import entries
from otbench.problem import AmortizedProblem, LazyTruth, Problem, Truth
from otbench.runner.saving import write_state


ENTRIES = 2**24  # above zero, most of a plan that is written


def shared(problem: Problem, path: Path) -> Problem:
    """The problem, its truth read from a file where another run has written it there.

    Args:
        problem: of any setting; pairs of the amortized one are left as they are.
        path: of a file that is there, or will be, once the truth was asked for.
    """
    if isinstance(problem, AmortizedProblem) or not isinstance(problem.truth, LazyTruth):
        return problem
    return replace(problem, truth=problem.truth.through(partial(read_or_solved, path)))


def read_or_solved(path: Path, truth: LazyTruth) -> Truth:
    """The truth that stands in a file, or what is found of ``truth``, which is then written there
    unless its plan is too large.
    """
    import torch

    if path.exists():
        kept = torch.load(path, weights_only=True)
        plan, dense = kept.pop("plan"), kept.pop("dense")
        return Truth(**kept, plan=plan.to_dense() if dense else plan)
    found, plan = truth.found, truth.found.plan
    if plan is not None and int(entries(plan).count_nonzero()) > ENTRIES:
        return found
    names = ("certificate", "cost", "cost_error", "unsolved", "cost_bound")
    kept = {name: getattr(found, name) for name in names}
    dense = plan is not None and not plan.is_sparse
    kept |= {"plan": plan.to_sparse() if plan is not None and dense else plan, "dense": dense}
    with suppress(OSError):  # a saving of time, nothing more
        write_state(path, kept)
    return found
