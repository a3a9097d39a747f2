"""Transport plans lifted from one-dimensional projections, by POT: sort both clouds along a
direction, match them in that order.

``min`` keeps the direction whose plan is cheapest in the full space (min-SWGG: Mahey et al. 2023;
Tanguy, Chapel & Delon 2025), ``expected`` averages the plans of all directions (Liu et al. 2025).
Both are couplings, so their cost bounds the optimal one from above. In the map setting a new point
goes to the mean of the row of the nearest sample point, and draws are from that row. Points of the
sphere are projected from the plane, where stereographic projection takes them; their plans are
compared by geodesic costs. POT draws the directions and sorts; the choice and the average are made
here, since POT 0.9.7 compares the plans of weighted clouds by costs with misplaced weights, and
averages torch plans in float32 (mended after it: POT pull request 846).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from otbench import (
    EUCLIDEAN,
    GEODESIC,
    SQEUCLIDEAN,
    DiscreteProblem,
    FitContext,
    MapProblem,
    Problem,
)
from otbench.methods.adapting import few_entries
from otbench.methods.amortized.slices import coordinates
from otbench.methods.discrete import Coupling, DiscreteSolver
from otbench.methods.refusals import pairs_of


@dataclass(frozen=True)
class PotSlicedPlan(DiscreteSolver):
    """The cheapest, or the average, of the plans along random directions.

    Attributes:
        plan: ``min`` or ``expected``.
        projections: number of directions, uniform on the sphere.
    """

    name: ClassVar[str] = "pot-sliced-plan"
    needs: ClassVar[tuple[str, ...]] = ("ot",)
    plan: Literal["min", "expected"] = "min"
    projections: int = 200

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        if self.plan not in ("min", "expected"):
            raise ValueError(f"plan must be min or expected, got {self.plan!r}")
        self.require(at_least_one=("projections",))

    def supports(self, problem: Problem) -> str | None:
        """Costs of which sorting is optimal on a line, and geodesics of the sphere, which
        stereographic projection takes to the plane.
        """
        if problem.cost in (SQEUCLIDEAN, EUCLIDEAN) or (
            problem.cost == GEODESIC and _shape(problem) == (3,)
        ):
            return None
        return (
            "projects on lines, for the sqeuclidean and euclidean costs, or geodesic in three "
            f"dimensions; not {problem.cost.name}"
        )

    def couple(self, pair: DiscreteProblem, context: FitContext) -> Coupling:
        """Sort along the directions that ``context.seed`` draws."""
        import ot
        import torch

        shape = len(pair.x), len(pair.y)
        clouds = coordinates(pair.x, pair.cost), coordinates(pair.y, pair.cost), pair.a, pair.b
        plans = ot.sliced.sliced_plans(*clouds, n_projections=self.projections, seed=context.seed)[
            0
        ]  # its own costs are not looked at
        if self.plan == "min":
            plans = [
                min(
                    plans,
                    key=lambda plan: float(
                        plan.data @ pair.cost.pairwise(pair.x[plan.rows], pair.y[plan.cols])
                    ),
                )
            ]
        rows, columns, values = (
            torch.cat([getattr(plan, name) for plan in plans]) for name in ("rows", "cols", "data")
        )
        return Coupling(few_entries(rows, columns, values / len(plans), shape))


def _shape(problem: Problem) -> tuple[int, ...]:
    """Shape of one point of the source."""
    if isinstance(problem, MapProblem):
        return problem.source.shape
    return tuple(pairs_of(problem)[0].x.shape[1:])
