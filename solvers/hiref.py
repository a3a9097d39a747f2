"""Hierarchical refinement: a matching of two clouds of as many points, found by splitting both into
ever smaller parts of low-rank couplings (Halmos et al. 2025), by the authors' code, HiRef.

HiRef is no package and has no licence: it is called from a clone of
https://github.com/raphael-group/HiRef whose folder ``src`` is on PYTHONPATH, modules ``HR_OT`` and
``rank_annealing``. The ranks of the levels are those of its ``optimal_rank_schedule`` with its
defaults, and must multiply to the number of points. The clouds are given about the mean of the
target, in units of the root of their mean squared distance from it. Its Euclidean cost is
approximated by a low-rank matrix, its squared one is exact; what it prints is left out. The plan is
the matching, of which the points have equal weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from otbench import (
    EUCLIDEAN,
    SQEUCLIDEAN,
    DiscreteProblem,
    FitContext,
    Problem,
    UserError,
)
from otbench.methods.adapting import few_entries
from otbench.methods.discrete import Coupling, DiscreteSolver
from otbench.methods.refusals import other_cost, pairs_of


@dataclass(frozen=True)
class HiRef(DiscreteSolver):
    """A matching by hierarchical refinement, squared Euclidean or Euclidean cost.

    Attributes:
        depth: most levels.
        max_rank: largest rank of a level but the last.
        max_leaf: bound of the rank of the last level, which it stays below.
    """

    name: ClassVar[str] = "hiref"
    needs: ClassVar[tuple[str, ...]] = ("HR_OT",)
    tuning: ClassVar[str] = "defaults of HiRef"
    depth: int = 6
    max_rank: int = 16
    max_leaf: int = 1024

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        for name in ("depth", "max_rank", "max_leaf"):
            if getattr(self, name) < 2:
                raise ValueError(f"{name} must be at least 2, got {getattr(self, name)}")

    def supports(self, problem: Problem) -> str | None:
        """Clouds of as many points, of equal weights; costs that HiRef has too."""
        if reason := other_cost(problem, SQEUCLIDEAN, EUCLIDEAN):
            return reason
        matched = all(
            len(pair.a) == len(pair.b) and pair.eps == 0 and bool((w == w[0]).all())
            for pair in pairs_of(problem)
            for w in (pair.a, pair.b)
        )
        return None if matched else "matches clouds of as many points of equal weights, without eps"

    def couple(self, pair: DiscreteProblem, context: FitContext) -> Coupling:
        """Split until the parts are single points.

        Raises:
            UserError: the number of points is no product of ranks.
        """
        import contextlib
        import io

        import HR_OT  # pyright: ignore[reportMissingImports]
        import rank_annealing  # pyright: ignore[reportMissingImports]
        import torch

        n = len(pair.x)
        x, y = (points.flatten(1) - pair.y.flatten(1).mean(0) for points in (pair.x, pair.y))
        unit = float((x.square().sum() + y.square().sum()).div(2 * n).sqrt()) or 1.0
        devices = [pair.x.device] if pair.x.is_cuda else []
        with contextlib.redirect_stdout(io.StringIO()), torch.random.fork_rng(devices):
            torch.manual_seed(context.seed)
            try:
                ranks = rank_annealing.optimal_rank_schedule(
                    n, self.depth, self.max_leaf, self.max_rank
                )
            except (AssertionError, TypeError) as error:
                raise UserError(
                    f"HiRef has no ranks of which {n} points are the product: give a number of "
                    "points of small factors, such as a power of two"
                ) from error
            parts = HR_OT.HierarchicalRefinementOT.init_from_point_clouds(
                x / unit,
                y / unit,
                ranks,
                device=str(pair.x.device),
                sq_Euclidean=pair.cost == SQEUCLIDEAN,
            ).run()
        matched = torch.cat([torch.stack(part) for part in parts], 1).to(pair.x.device)
        rows, columns = matched
        plan = few_entries(rows, columns, pair.x.new_full((n,), 1 / n), (n, n))
        return Coupling(plan, info={"levels": len(ranks)})
