"""Stabilised Sinkhorn iterations with scaling of eps (Schmitzer 2019, algorithm 3.2), POT's
``ot.sinkhorn(method="sinkhorn_epsilon_scaling")``, in float64 on the problem's device.

eps falls by the factor e from stage to stage, from POT's 10,000, here times the mean cost, to its
value: POT takes at least 36 stages and at most a hundred, in each of which at most ``max_iters``
over a hundred iterations, by default as many as in POT. Scalings are absorbed at another size than
POT's default, which fails at more than 1,000 points. It stops a stage on the l2 norm of the
marginal error of b, and all of them on the sum of the squares of both: ``tolerance^2 / m`` implies
``tolerance`` in the l1 norm, the last update having met a. Its plan is ``P_ij = exp((f_i + g_j -
C_ij) / eps)``: the potential relative to the weights is ``g - eps log b``, here less its mean,
which grows from stage to stage.
In the map setting new points follow the entropic map (Pooladian & Niles-Weed 2021); draws given a
new point have the weights of which that map is the mean.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

from otbench import DiscreteProblem, FitContext
from otbench.methods.adapting import with_mass
from otbench.methods.discrete import Coupling, SinkhornSolver


if TYPE_CHECKING:
    import torch

STAGES = 100
FIRST = 1e4  # eps of the first stage, in units of the mean cost
# Scalings that are absorbed into the potentials, in units of the number of points: POT begins with
# scalings of one over it, so that those of a solution are as large as it, and by default absorbs
# all above 1,000, at more points again and again, without end.
ABSORBED = 1e3


@dataclass(frozen=True)
class PotEpsScaling(SinkhornSolver):
    """Entropic optimal transport between two clouds, for any cost."""

    name: ClassVar[str] = "pot-eps-scaling"
    needs: ClassVar[tuple[str, ...]] = ("ot",)
    tuning: ClassVar[str] = "POT's stages and iterations; eps and tolerance as of all Sinkhorns"
    max_iters: int = 10_000

    def couple(self, pair: DiscreteProblem, context: FitContext) -> Coupling:
        """Iterate stage by stage, with a warning where the marginals are not met by the last."""
        import ot

        pair, on_all_points = with_mass(pair)
        cost = pair.cost.matrix(pair.x, pair.y)
        mean_cost = float(pair.a @ cost @ pair.b)
        eps = self.in_cost_units(pair, mean_cost)
        stop = self.tolerance**2 / len(pair.b)
        with warnings.catch_warnings():
            # said of each stage, by name of the last only
            warnings.filterwarnings("ignore", "Sinkhorn did not converge")
            result = ot.bregman.sinkhorn_epsilon_scaling(
                pair.a,
                pair.b,
                cost,
                eps,
                numItermax=STAGES,
                epsilon0=max(FIRST * mean_cost, eps),  # type: ignore[arg-type]
                numInnerItermax=-(-self.max_iters // STAGES),
                stopThr=stop,
                tau=ABSORBED * max(cost.shape),
                log=True,
            )
        plan, log = cast("tuple[torch.Tensor, dict[str, Any]]", result)
        if not float(log["err"][-1]) <= stop:
            warnings.warn(
                f"{self.name} has not met the marginals in {STAGES} stages: take more max_iters or "
                "a larger eps",
                stacklevel=2,
            )
        info = {"eps": eps, "stages": log["niter"] + 1}
        g = log["beta"] - eps * pair.b.log()
        return on_all_points(Coupling(plan, g - pair.b @ g, eps, info=info))
