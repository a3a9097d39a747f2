"""Stochastic gradients of the entropic semi-dual, one source point at a time (Genevay et al. 2016),
POT's ``ot.stochastic``, in float64 on the host.

    max_g    sum_i a_i (<b, g> - eps log sum_j b_j exp((g_j - C_ij) / eps))

by the average of the last gradients of all source points (SAG: ``sag_entropic_transport``) or by
the average of the iterates (ASGD: ``averaged_sgd_entropic_transport``), with POT's step sizes. f is
the soft c-transform of g: the plan ``P_ij = a_i b_j exp((f_i + g_j - C_ij) / eps)`` meets a
whatever g is, and b as nearly as g is optimal. POT draws 10,000 points however many there are; here
an iteration is as many draws as there are source points, which costs about as much as one of
Sinkhorn's algorithm. POT's exponentials are not stabilised: it is given C less the least cost of
each row, which changes f alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from otbench import DiscreteProblem, DivergedError, FitContext
from otbench.methods.discrete import Coupling, SinkhornSolver


@dataclass(frozen=True)
class PotStochastic(SinkhornSolver):
    """Entropic optimal transport by stochastic gradients, for any cost.

    Attributes:
        method: ``sag`` or ``asgd``.
        max_iters: passes, of as many draws as there are source points; all are made.
        tolerance: marginal error up to which the plan is said to have converged.
    """

    name: ClassVar[str] = "pot-stochastic"
    needs: ClassVar[tuple[str, ...]] = ("ot",)
    tuning: ClassVar[str] = (
        "step sizes of POT; passes and method: point-clouds of 300 and 1024 points, seed 1000, "
        "2 methods, 10,000 and 100,000 draws"
    )
    method: Literal["sag", "asgd"] = "sag"
    max_iters: int = 100

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        if self.method not in ("sag", "asgd"):
            raise ValueError(f"method must be sag or asgd, got {self.method!r}")

    def couple(self, pair: DiscreteProblem, context: FitContext) -> Coupling:
        """Draw source points by ``context.seed``.

        Raises:
            DivergedError: eps is too small for POT's exponentials.
        """
        import numpy as np
        import torch
        from ot import stochastic

        cost = pair.cost.matrix(pair.x, pair.y)
        mean_cost = float(pair.a @ cost @ pair.b)
        eps = self.in_cost_units(pair, mean_cost)
        cost -= cost.amin(1, keepdim=True)
        a, b, reduced = (values.cpu().numpy() for values in (pair.a, pair.b, cost))
        solve = {
            "sag": stochastic.sag_entropic_transport,
            "asgd": stochastic.averaged_sgd_entropic_transport,
        }[self.method]
        draws = self.max_iters * len(a)
        g = solve(a, b, reduced, eps, draws, random_state=context.seed)
        if not np.isfinite(g).all():
            raise DivergedError(
                f"the exponentials of an eps of {eps:.3g} are too small for POT: give a larger eps"
            )
        potential = torch.as_tensor(g, device=pair.x.device)
        f = torch.as_tensor(stochastic.c_transform_entropic(b, reduced, eps, g))
        plan = (potential - cost).add_(f.to(cost)[:, None]).div_(eps).exp_()
        plan.mul_(pair.a[:, None]).mul_(pair.b)
        info = self.report(eps, mean_cost, self.max_iters)
        return Coupling(plan, potential, eps, info=info)
