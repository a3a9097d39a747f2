"""Exact discrete optimal transport by the network simplex (Bonneel et al. 2011), POT's ``ot.emd``,
on the host; costs are scaled, and the duality gap is closed, by `otbench.methods.exact`.

In the map setting a new point goes where the nearest sample point goes: the 1-NN estimator of
Manole et al. 2021. Draws given a new point are from the row of that sample point, which between
samples of equal weights has one entry. The potential is the c-transform of the dual optimum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from otbench import DiscreteProblem, FitContext
from otbench.methods.discrete import Coupling, DiscreteSolver, host_problem
from otbench.methods.exact import exact_plan


@dataclass(frozen=True)
class PotEmd(DiscreteSolver):
    """Linear program over the couplings of two clouds, for any cost.

    Attributes:
        max_iters: most pivots of the simplex, each time it is called.
    """

    name: ClassVar[str] = "pot-emd"
    needs: ClassVar[tuple[str, ...]] = ("ot",)
    max_iters: int = 10_000_000

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        self.require(at_least_one=("max_iters",))

    def couple(self, pair: DiscreteProblem, context: FitContext) -> Coupling:
        """Solve the linear program."""
        import torch

        found = exact_plan(*host_problem(pair), self.max_iters)
        plan, g = (
            torch.as_tensor(values, device=pair.x.device) for values in (found.plan, found.g)
        )
        return Coupling(plan, g)
