"""Sinkhorn's algorithm in the log domain (Cuturi 2013; Schmitzer 2019) with costs computed anew in
blocks at each iteration and an eps that falls, for up to a million points on a GPU.

An iteration goes once over the pairs: rows are met exactly by a softmax, columns are brought to b
by what it sends there. The part of ``||x - y||^2`` that is the same along a row cancels in the
softmax, so that a block is one product of matrices, of points about the mean of their cloud in
units of their distance, in float32 without TF32. eps halves from the mean cost of these points,
``sweeps`` iterations at each, and then stays until b is met to ``tolerance``. In float32 no
tolerance far below 1e-6 is met, and at a small eps none where one point is far from all others.

No more than a block of pairs is ever held. The plan is formed in full up to 2^26 pairs. Of more it
has the ``kept`` largest entries of each row, scaled to the mass of the row, and no potential beside
it: it is for eps at which a point's mass goes to few others, and the marginal error and
``info_kept_mass`` say how far that holds. In the map setting new points follow the entropic map
(Pooladian & Niles-Weed 2021) where there is a potential, else the plan.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from otbench import SQEUCLIDEAN, DiscreteProblem, FitContext, Problem
from otbench.methods.adapting import few_entries, mean_cost, standardised, with_mass
from otbench.methods.discrete import SOLVED, Coupling, SinkhornSolver
from otbench.methods.refusals import other_cost


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

BLOCK = 2**24  # pairs that are held at a time
FAINT = 1e-30  # least mass of a target point, and least share of it that it is taken to have got
SURE = 0.95  # of the tolerance: what is met to this in float32 is met to it in float64


@dataclass(frozen=True)
class LazySinkhorn(SinkhornSolver):
    """Entropic optimal transport between two large clouds, squared Euclidean cost.

    Attributes:
        sweeps: iterations at each eps on the way down.
        kept: entries of each row that the plan of more than 2^26 pairs has.
    """

    name: ClassVar[str] = "lazy-sinkhorn"
    tuning: ClassVar[str] = "not tuned; eps, iterations and tolerance as of all Sinkhorn solvers"
    sweeps: int = 2
    kept: int = 16

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        self.require(at_least_one=("sweeps", "kept"))

    def supports(self, problem: Problem) -> str | None:
        """The cost of which a block is one product."""
        return other_cost(problem, SQEUCLIDEAN)

    def couple(self, pair: DiscreteProblem, context: FitContext) -> Coupling:
        """Iterate until the marginals are met."""
        import torch

        pair, on_all_points = with_mass(pair)
        mean = mean_cost(pair)
        # Moving the source adds to the cost what depends on y alone, which g takes up.
        offset = pair.a @ pair.x.flatten(1) - pair.b @ pair.y.flatten(1)
        x, y, unit = standardised(replace(pair, x=pair.x - offset.view(pair.x.shape[1:])))
        last, moved = self.in_cost_units(pair, mean) / unit**2, 2 * y @ offset * unit
        x, y, a, b = (values.float() for values in (x, y, pair.a, pair.b))
        b = b.clamp(min=FAINT)  # g is the same for any mass
        scales = [last]
        while scales[0] < 0.5:  # of the mean cost, which is 1
            scales.insert(0, 2 * scales[0])
        falling = [eps for eps in scales[:-1] for _ in range(self.sweeps)]
        g, iterations = torch.zeros_like(b), 0
        for eps in (*falling, *[last] * self.max_iters)[: self.max_iters]:
            iterations += 1
            mass = torch.zeros_like(b)
            for rows, law in _laws(x, y, b, g, eps):
                mass += a[rows] @ law
            if eps == last and float((mass - b).abs().sum()) <= SURE * self.tolerance:
                break
            g = g - eps * (mass / b).clamp(min=FAINT).log()
        info = self.report(last * unit**2, mean, iterations)
        n, m = len(x), len(y)
        if n * m <= SOLVED:
            plan = torch.cat([law.double() for _, law in _laws(x, y, b, g, last)])
            plan *= (pair.a / plan.sum(1))[:, None]
            g = g.double() * unit**2 - moved
            return on_all_points(Coupling(plan, g, last * unit**2, info=info))
        kept = min(self.kept, m)
        largest = [law.topk(kept) for _, law in _laws(x, y, b, g, last)]
        shares, columns = (torch.cat(parts) for parts in zip(*largest, strict=True))
        values = pair.a[:, None] * shares.double() / shares.double().sum(1, keepdim=True)
        rows = torch.arange(n, device=x.device).repeat_interleave(kept)
        plan = few_entries(rows, columns.flatten(), values.flatten(), (n, m))
        return on_all_points(Coupling(plan, info={**info, "kept_mass": float(a @ shares.sum(1))}))


def _laws(x: Tensor, y: Tensor, b: Tensor, g: Tensor, eps: float) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of rows of the law of the target given each point, b_j exp((g_j - ||x_i - y_j||^2) /
    eps) in shares of the row.
    """
    import torch

    of_target = (g - y.square().sum(1)) / eps + b.log()
    rows = max(1, BLOCK // len(y))
    for start in range(0, len(x), rows):
        part = slice(start, start + rows)
        yield part, torch.addmm(of_target, x[part], y.T, alpha=2 / eps).softmax(1)
