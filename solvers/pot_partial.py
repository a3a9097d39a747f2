"""Exact partial transport of two clouds, of which a share of the mass is moved, by the network
simplex, POT's ``ot.partial.partial_wasserstein`` (Chapel, Alaya & Gasso 2020), on the host.

It solves the problems of `otbench.families.partial` and no others. POT is given the clouds without
the points that take what is not moved, and the mass to move, and adds such points itself; costs
are given in units of the largest, since the simplex compares them up to an absolute tolerance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

from otbench import DiscreteProblem, FitContext, Problem
from otbench.families.partial import PARTIAL
from otbench.methods.discrete import Coupling, DiscreteSolver, host_problem
from otbench.methods.refusals import other_cost


@dataclass(frozen=True)
class PotPartial(DiscreteSolver):
    """Linear program of the cheapest share."""

    name: ClassVar[str] = "pot-partial"
    needs: ClassVar[tuple[str, ...]] = ("ot",)

    def supports(self, problem: Problem) -> str | None:
        """Partial problems."""
        return other_cost(problem, PARTIAL)

    def couple(self, pair: DiscreteProblem, context: FitContext) -> Coupling:
        """Move the share, put the rest on the added points."""
        import numpy as np
        import ot.partial
        import torch

        costs, a, b = host_problem(pair)
        rows, columns = (points[:, -1].cpu().numpy() == 0 for points in (pair.x, pair.y))
        inner = costs[np.ix_(rows, columns)]
        inner /= inner.max() or 1.0
        kept, wanted = a[rows], b[columns]
        moved = min(a[rows].sum() - b[~columns].sum(), kept.sum(), wanted.sum())
        found = cast("np.ndarray", ot.partial.partial_wasserstein(kept, wanted, inner, moved))
        plan = np.zeros_like(costs)
        plan[np.ix_(rows, columns)] = found
        plan[rows, ~columns] = (kept - found.sum(1)).clip(min=0)
        plan[~rows, columns] = (wanted - found.sum(0)).clip(min=0)
        return Coupling(torch.as_tensor(plan, device=pair.x.device))
