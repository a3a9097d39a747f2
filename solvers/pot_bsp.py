"""Bijections by binary space partitions, BSP-OT (Genest et al. 2025): both clouds are cut in halves
along random hyperplanes again and again, and the cheapest swaps merge the bijections of many such
trees. POT's ``ot.bsp.compute_bspot_bijection``, in float32 on the host.

Its time is log-linear in the number of points. It takes clouds of equal size and weights, and finds
a bijection that costs more than the optimal one. The cuts are those between Gaussians up to
dimension 64, above it random ones, as in POT. What is drawn depends on the seed and on the number
of threads. In the map setting a new point goes where the nearest sample point goes.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar

from otbench import SQEUCLIDEAN, DiscreteProblem, FitContext, Problem
from otbench.methods.adapting import few_entries, standardised, with_mass
from otbench.methods.discrete import Coupling, DiscreteSolver
from otbench.methods.refusals import no_bijection, other_cost


GAUSSIAN = 64  # largest dimension of the cuts between Gaussians, whose time is cubic in it


@dataclass(frozen=True)
class PotBsp(DiscreteSolver):
    """Bijection of two clouds in log-linear time, squared Euclidean cost.

    Attributes:
        trees: number of bijections that are merged.
    """

    name: ClassVar[str] = "pot-bsp"
    needs: ClassVar[tuple[str, ...]] = ("ot",)
    tuning: ClassVar[str] = "POT's defaults"
    trees: int = 64

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        self.require(at_least_one=("trees",))

    def supports(self, problem: Problem) -> str | None:
        """As many points of each measure, of equal weights, and the cost that the cuts are for."""
        return other_cost(problem, SQEUCLIDEAN) or no_bijection(problem)

    def couple(self, pair: DiscreteProblem, context: FitContext) -> Coupling:
        """Cut along the hyperplanes that ``context.seed`` draws, and merge.

        Raises:
            ValueError: the numbers of points or their weights differ.
        """
        import ot
        import torch

        if reason := no_bijection(pair):
            raise ValueError(f"{self.name} {reason}")
        pair, on_all_points = with_mass(pair)
        x, y, _ = standardised(pair)
        # The first call of a thread alone heeds the seed.
        with ThreadPoolExecutor(1) as thread:
            bijection = thread.submit(
                ot.bsp.compute_bspot_bijection,
                x.cpu().numpy(),
                y.cpu().numpy(),
                n_plans=self.trees,
                gaussian_slicing=x.shape[1] <= GAUSSIAN,  # type: ignore[arg-type]
                seed=context.seed % 2**31,  # a C int
            )
            permutation = bijection.result()[1]
        columns = torch.as_tensor(permutation, dtype=torch.int64, device=x.device)
        rows = torch.arange(len(columns), device=x.device)
        plan = few_entries(rows, columns, pair.a, (len(rows), len(columns)))
        return on_all_points(Coupling(plan))
