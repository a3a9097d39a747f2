"""Exact optimal transport between two weighted clouds, with a certificate: the network simplex
(Bonneel et al. 2011, POT's ``ot.emd``) at any scale of costs.

The simplex compares costs up to an absolute tolerance, so that costs that are small, or small
beside a few large ones, are not minimised. Here its duals (f, g) are made feasible by c-transforms,

    g_j = min_i C_ij - f_i,    f_i = min_j C_ij - g_j,

which bounds the optimum from below: for every plan P, <C, P> = <a, f> + <b, g> + <C - f - g, P>,
and the last term is the duality gap. Where it is not closed, the same linear program is solved with
the slack C - f - g for costs, in units of the gap and up to a million of them: it has the same
optimal plans (iterative refinement: Gleixner, Steffy & Wolter 2016).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    import numpy as np

CLOSED = 1e-9  # largest duality gap of an optimal plan, as a share of its cost
ROUNDS = 12
LARGEST = 1e6  # of the costs that the simplex is given: larger ones would round its duals
COARSE = 1e-3  # a plan that costs less than this share of the unit is found in a finer one


@dataclass(frozen=True)
class ExactPlan:
    """A plan and the dual potentials that bound its distance from the optimum.

    Attributes:
        plan: ``(n, m)``.
        f, g: potentials, ``(n,)`` and ``(m,)``, in cost units, f_i + g_j <= C_ij up to rounding.
        cost: <C, P>.
        gap: <C - f - g, P>: the optimum is at most so much less.
    """

    plan: np.ndarray
    f: np.ndarray
    g: np.ndarray
    cost: float
    gap: float

    @property
    def optimal(self) -> bool:
        """Whether the gap is closed, to `CLOSED` of the cost."""
        return self.gap <= CLOSED * self.cost


def exact_plan(
    costs: np.ndarray, a: np.ndarray, b: np.ndarray, most_pivots: int = 10**8
) -> ExactPlan:
    """The optimal plan of a cost matrix, or the best one that was found: see `ExactPlan.optimal`.

    Args:
        costs: ``(n, m)`` in float64, finite.
        a: ``(n,)`` weights, not negative.
        b: ``(m,)`` weights of the same sum.
        most_pivots: of the simplex, in each round.
    """
    import numpy as np
    import ot

    rows, columns = a > 0, b > 0
    if not (rows.all() and columns.all()):
        kept = np.ix_(rows, columns)
        return _with_massless(
            exact_plan(costs[kept], a[rows], b[columns], most_pivots), costs, rows, columns
        )
    slack, f, g = costs.copy(), np.zeros(len(a)), np.zeros(len(b))
    _reduce(slack, f, g, np.zeros(len(a)))
    unit = float(a @ slack @ b) or 1.0
    best = None
    for left in reversed(range(ROUNDS)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # said by ``optimal``
            plan, log = ot.emd(
                a, b, np.minimum(slack / unit, LARGEST), numItermax=most_pivots, log=True
            )
        ran_out, value = log["warning"] is not None, _total(plan, slack)
        if 0 < value < COARSE * unit and left and not ran_out:
            unit = value
            continue
        _reduce(slack, f, g, log["u"] * unit)
        found = ExactPlan(plan, f.copy(), g.copy(), _total(plan, costs), _total(plan, slack))
        if best is None or found.gap < best.gap:
            best = found
        if best.gap <= CLOSED * best.cost or ran_out:
            break
        unit = found.gap
    assert best is not None
    return best


def _with_massless(
    found: ExactPlan, costs: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> ExactPlan:
    """The same with the points that have no mass, whose potentials are the largest feasible."""
    import numpy as np

    plan = np.zeros(costs.shape)
    plan[np.ix_(rows, columns)] = found.plan
    f = (costs[:, columns] - found.g).min(1)
    f[rows] = found.f
    g = (costs - f[:, None]).min(0)
    g[columns] = found.g
    return replace(found, plan=plan, f=f, g=g)


def _reduce(slack: np.ndarray, f: np.ndarray, g: np.ndarray, change: np.ndarray) -> None:
    """Add a change of f to it, made feasible by c-transforms, and take it off the slack, in place.

    The slack is not computed anew from the potentials: it rounds no more than it is large.
    """
    import numpy as np

    slack -= change[:, None]
    of_g = slack.min(0)
    slack -= of_g
    of_f = slack.min(1)
    slack -= of_f[:, None]
    np.maximum(slack, 0, out=slack)
    f += change + of_f
    g += of_g


def _total(plan: np.ndarray, values: np.ndarray) -> float:
    import numpy as np

    return float(np.einsum("ij,ij->", plan, values))
