"""Has a discrete solver converged? Told from its plan and its potentials, never from its flags.

The marginal error is that of the plan as it was returned. A potential g on the target gives a lower
bound of the optimum, for its c-transform f is feasible beside it: the duality gap is

    <C, P> - <a, f> - <b, g>,    f_i = min_j C_ij - g_j,

or, where the problem solved has an eps, with the soft c-transform,

    <C, P> + eps KL(P | a b') - <a, f> - <b, g>,
    f_i = -eps log sum_j b_j exp((g_j - C_ij) / eps),

P being rounded to its marginals (Altschuler, Weed & Rigollet 2017, algorithm 2). Rounding moves as
much mass as the marginals are off, and by one point that is far away it costs any amount. So a gap
counts as closed where P is the optimum for the marginals that it has: where its excess, which is
the gap with P 1 and P' 1 for a and b,

    sum_ij P_ij (C_ij - f_i - g_j),    or    eps KL(P | diag(P 1) K),

K_ij being the law of y_j given x_i that g makes, is within `CLOSED` of the cost of a linear
program, or within the tolerance of eps and that cost; both besides what they round.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from otbench import metrics
from otbench.errors import InvalidOutputError
from otbench.methods.discrete import in_float64
from otbench.methods.exact import CLOSED
from otbench.problem import DiscreteProblem
from otbench.scoring.plans import without_rounding
from otbench.solver import Coupled
from otbench.statuses import Stopped


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

ROUNDED = 2.0**-49  # of potentials and costs, eight units in their last place


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


def certified(
    coupled: Sequence[Coupled],
    pairs: Sequence[DiscreteProblem] | None = None,
    plans: Sequence[Tensor] = (),
) -> Certificate:
    """The certificate of the coupling that is farthest from what its solver was asked for.

    Args:
        coupled: of the solver.
        pairs: of the problem, the last of which were coupled; by default those in ``coupled``.
        plans: that were returned for these pairs.

    Raises:
        InvalidOutputError: one of them is not what `otbench.solver.Coupled` says, or there are
            fewer than pairs.
    """
    order = list(Stopped)
    try:
        if pairs is not None:
            coupled = [
                replace(each, pair=pair, coupling=replace(each.coupling, plan=plan))
                for each, pair, plan in zip(coupled[-len(pairs) :], pairs, plans, strict=True)
            ]
        found = [certify(each) for each in coupled]
    except Exception as error:  # of a solver's own making
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InvalidOutputError(f"coupled cannot be certified: {reason}") from error
    return min(found, key=lambda each: (order.index(each.stopped), -each.marginal_error))


def certify(coupled: Coupled) -> Certificate:
    """Certify one coupling.

    Raises:
        InvalidOutputError: the plan is no matrix of the pair or has negative entries, g is not of
            its target, or eps is not positive.
    """
    import torch

    pair, plan, g = in_float64(coupled.pair), coupled.coupling.plan, coupled.coupling.g
    eps = coupled.coupling.eps
    if eps is not None and not 0 < eps < math.inf:
        raise InvalidOutputError(f"eps must be positive, got {eps}")
    if plan.shape != (shape := (len(pair.x), len(pair.y))):
        raise InvalidOutputError(f"the plan is {tuple(plan.shape)}, not {shape}")
    if g is not None and g.shape != pair.b.shape:
        raise InvalidOutputError(f"g is {tuple(g.shape)}, not {tuple(pair.b.shape)}")
    known = [metrics.entries(plan), *([] if g is None else [g[pair.b > 0]])]
    if not all(torch.isfinite(values).all() for values in known):
        return Certificate(Stopped.FAILED, math.nan, None, coupled.tolerance)
    plan = without_rounding(plan)
    error = metrics.marginal_l1(plan, pair.a, pair.b)
    share, closed = None, True
    if g is not None:
        share, closed = _gap(pair, plan, g.double(), eps, coupled.tolerance)
    if error <= coupled.tolerance + 2 * torch.finfo(plan.dtype).eps and closed:
        stopped = Stopped.FEASIBLE if g is None else Stopped.CONVERGED
    else:
        stopped = Stopped.LIMIT if coupled.exhausted else Stopped.EARLY
    return Certificate(stopped, error, share, coupled.tolerance)


def _gap(
    pair: DiscreteProblem, plan: Tensor, g: Tensor, eps: float | None, tolerance: float
) -> tuple[float | None, bool]:
    """The duality gap as a share of the cost, None where that is zero or the gap is not finite, and
    whether it is closed.
    """
    import torch

    a, b, x, y = pair.a, pair.b, pair.x, pair.y
    kept = b > 0
    targets, b_kept = y[kept], b[kept]
    g = g[kept] - g[kept].median()  # a constant on g changes nothing but what is rounded
    dual = size = excess = 0.0
    for rows, dense in metrics.dense_blocks(plan):
        matrix, mass = pair.cost.matrix(x[rows], targets), dense[:, kept]
        if eps is None:
            f = (matrix - g).amin(1)
            excess += float((mass * (matrix - g - f[:, None])).sum())
        else:
            law = b_kept.log() + (g - matrix) / eps
            f = -eps * law.logsumexp(1)
            given = mass / mass.sum(1, keepdim=True).clamp(min=1e-300)
            divergence = torch.xlogy(given, given) - given * law.log_softmax(1)
            excess += eps * float(mass.sum(1) @ divergence.sum(1))
        dual += float(a[rows] @ f)
        size += float(a[rows] @ (f.abs() + matrix @ b_kept))
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
    gap = primal - dual
    if not math.isfinite(gap + excess):
        return None, False
    gap = max(0.0, gap)
    allowed = CLOSED * cost if eps is None else tolerance * (eps + cost)
    share = gap / cost if cost > 0 else None if gap else 0.0
    return share, excess <= allowed + ROUNDED * size
