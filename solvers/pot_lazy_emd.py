"""Exact discrete optimal transport without the cost matrix, by the network simplex (Bonneel et al.
2011) with costs computed as they are asked for: POT's ``ot.solve_sample(lazy=True)``, that is
``ot.lp.emd2_lazy``, on the host.

Memory grows with the number of points, not of pairs; the plan has at most n + m - 1 entries. The
simplex compares costs up to an absolute tolerance, so it is given points about their mean, in units
of their distance. In the map setting a new point goes where the nearest sample point goes: the 1-NN
estimator of Manole et al. 2021. The potential is the dual of the linear program.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, cast

from otbench import EUCLIDEAN, SQEUCLIDEAN, DiscreteProblem, FitContext, Problem
from otbench.methods.adapting import few_entries, standardised, with_mass
from otbench.methods.discrete import Coupling, DiscreteSolver
from otbench.methods.refusals import other_cost


@dataclass(frozen=True)
class PotLazyEmd(DiscreteSolver):
    """Linear program over the couplings of two clouds, squared Euclidean or Euclidean cost.

    Attributes:
        max_iters: most pivots of the simplex; POT stops after 100,000, which 2,000 points of each
            cloud exceed.
    """

    name: ClassVar[str] = "pot-lazy-emd"
    needs: ClassVar[tuple[str, ...]] = ("ot",)
    tuning: ClassVar[str] = "nothing to choose"
    max_iters: int = 10_000_000

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        self.require(at_least_one=("max_iters",))

    def supports(self, problem: Problem) -> str | None:
        """The costs that POT computes from points."""
        return other_cost(problem, SQEUCLIDEAN, EUCLIDEAN)

    def couple(self, pair: DiscreteProblem, context: FitContext) -> Coupling:
        """Solve the linear program; POT warns where the pivots run out."""
        import ot
        import torch

        pair, on_all_points = with_mass(pair)
        x, y, unit = standardised(pair)
        arrays = (values.cpu().numpy() for values in (x, y, pair.a, pair.b))
        result = ot.lp.emd2_lazy(
            *arrays, metric=pair.cost.name, numItermax=self.max_iters, log=True
        )
        log = cast("dict[str, Any]", result[1])  # type: ignore[index]
        entries = log["G"].tocoo()
        rows, columns, values, g = (
            torch.as_tensor(held, device=pair.x.device)
            for held in (entries.row, entries.col, entries.data, unit**pair.cost.power * log["v"])
        )
        plan = few_entries(rows.long(), columns.long(), values, (len(pair.a), len(pair.b)))
        return on_all_points(Coupling(plan, g, info={"optimal": log["warning"] is None}))
