"""Has a discrete solver converged? Told from its plan and its potentials, never from its flags.

The marginal error is that of the plan as it was returned. A potential g on the target gives a lower
bound of the optimum, for its c-transform f is feasible beside it: the duality gap is

    <C, P> - <a, f> - <b, g>,    f_i = min_j C_ij - g_j,

or, where the problem solved has an eps, with the soft c-transform,

    <C, P> + eps KL(P | a b') - <a, f> - <b, g>,
    f_i = -eps log sum_j b_j exp((g_j - C_ij) / eps),

P being rounded to its marginals (Altschuler, Weed & Rigollet 2017, algorithm 2). Rounding a plan
whose marginals are off by delta changes its cost by at most 2 delta max C (their lemma 7): within
so much of the tolerance a gap of an entropic problem counts as closed, and that of a linear program
within `CLOSED` of the cost; both besides what plan and potentials round.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otbench import metrics
from otbench.errors import InvalidOutputError
from otbench.methods.discrete import in_float64
from otbench.methods.exact import CLOSED
from otbench.problem import DiscreteProblem
from otbench.solver import Coupled
from otbench.statuses import Stopped


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

ROUNDED = 2.0**-49  # of the potentials, eight units in their last place: what a gap is rounded by


@dataclass(frozen=True)
class Certificate:
    """How far a coupling is from what its solver was asked for.

    Attributes:
        stopped: see `otbench.statuses.Stopped`.
        marginal_error: ||P 1 - a||_1 + ||P' 1 - b||_1.
        duality_gap: as a share of <C, P>, P rounded to its marginals; None without potentials.
        tolerance: of the marginal error.
    """

    stopped: Stopped
    marginal_error: float
    duality_gap: float | None
    tolerance: float

    def __str__(self) -> str:
        """In one line."""
        gap = (
            "" if self.duality_gap is None else f", duality gap {self.duality_gap:.2g} of the cost"
        )
        return (
            f"{self.stopped}: marginal error {self.marginal_error:.2g}, tolerance "
            f"{self.tolerance:.2g}{gap}"
        )

    @property
    def columns(self) -> dict[str, str | float | None]:
        """Of a row, see `otbench.job.Row`."""
        return {
            "stopped": self.stopped.value,
            "marginal_error": self.marginal_error if math.isfinite(self.marginal_error) else None,
            "duality_gap": self.duality_gap,
        }


def certified(coupled: Sequence[Coupled]) -> Certificate:
    """The certificate of the coupling that is farthest from what its solver was asked for.

    Raises:
        InvalidOutputError: one of them is not what `otbench.solver.Coupled` says.
    """
    order = list(Stopped)
    try:
        found = [certify(each) for each in coupled]
    except Exception as error:  # of a solver's own making
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InvalidOutputError(f"coupled cannot be certified: {reason}") from error
    return min(found, key=lambda each: (order.index(each.stopped), -each.marginal_error))


def certify(coupled: Coupled) -> Certificate:
    """Certify one coupling."""
    import torch

    pair, plan, g = in_float64(coupled.pair), coupled.coupling.plan, coupled.coupling.g
    known = [metrics.entries(plan), *([] if g is None else [g[pair.b > 0]])]
    if not all(torch.isfinite(values).all() for values in known):
        return Certificate(Stopped.FAILED, math.nan, None, coupled.tolerance)
    error = metrics.marginal_l1(plan, pair.a, pair.b)
    share, closed = None, True
    if g is not None:
        share, closed = _gap(pair, plan, g.double(), coupled.coupling.eps, coupled.tolerance)
    if error <= coupled.tolerance + 2 * torch.finfo(plan.dtype).eps and closed:
        stopped = Stopped.FEASIBLE if g is None else Stopped.CONVERGED
    else:
        stopped = Stopped.LIMIT if coupled.exhausted else Stopped.EARLY
    return Certificate(stopped, error, share, coupled.tolerance)


def _gap(
    pair: DiscreteProblem, plan: Tensor, g: Tensor, eps: float | None, tolerance: float
) -> tuple[float | None, bool]:
    """The duality gap as a share of the cost, None where that is zero, and whether it is closed."""
    import torch

    a, b, x, y = pair.a, pair.b, pair.x, pair.y
    kept = b > 0
    targets, g, b_kept = y[kept], g[kept], b[kept]
    dual = size = largest = 0.0
    for rows in metrics.row_blocks(len(x), len(y)):
        matrix = pair.cost.matrix(x[rows], targets)
        moved = a[rows] > 0
        if moved.any():
            largest = max(largest, float(matrix[moved].max()))
        if eps is None:
            f = (matrix - g).amin(1)
        else:
            f = -eps * (b_kept.log() + (g - matrix) / eps).logsumexp(1)
        dual += float(a[rows] @ f)
        size += float(a[rows] @ f.abs())
    dual += float(b_kept @ g)
    size += float(b_kept @ g.abs())
    cost = metrics.rounded_cost(
        plan,
        a,
        b,
        lambda i, j: pair.cost.pairwise(x[i], y[j]),
        lambda rows: pair.cost.matrix(x[rows], y),
    )
    primal = cost if eps is None else cost + eps * metrics.rounded_entropy(plan, a, b)
    gap = max(0.0, primal - dual)
    allowed = CLOSED * cost if eps is None else 2 * tolerance * largest
    rounded = ROUNDED * size + torch.finfo(plan.dtype).eps * largest
    share = gap / cost if cost > 0 else None if gap else 0.0
    return share, gap <= allowed + rounded
