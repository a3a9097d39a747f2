"""Discrete solvers, lifted once for all to the three settings.

An adapter of a discrete method writes ``couple(pair, context)``. From that, ``fit`` solves a
discrete problem as it is, a map problem by sampling ``n`` points of each measure and extending the
coupling to new points, and an amortized problem by solving each pair from scratch.

Extension to a new point x, as a map, either

* *entropic map* (Pooladian & Niles-Weed 2021, eq. 5), where the coupling has a target potential g
  and its eps: ``T(x) = sum_j w_j(x) y_j`` with ``w(x) = softmax_j(log b_j + (g_j - c(x, y_j)) /
  eps)``; or
* *nearest neighbour*: the barycentric image ``sum_j P_ij y_j / sum_j P_ij`` of the sample point x_i
  nearest to x, whose copies in the sample count as one; or
* the adapter's own ``push``, where its library has one.

Averages are projected to the space of the cost, where that is not all of R^d.

Where the optimal plan is no map, a plan is not its means. There the extension is judged by draws
from the conditional law of y given x, which are target points of the pair, either

* *entropic*: y_j with probability ``w_j(x)``, the weights above. At a sample point they are its
  row of the plan; elsewhere the row that the potentials give x, f being the soft c-transform of g;
  or
* *nearest neighbour*: y_j with probability ``P_ij / sum_j P_ij``, x_i being the sample point
  nearest to x. It is not shifted by x - x_i, as the map is not: it stays on the target. Sample
  points at one place share their rows, for the mass of an atom is what a plan splits.

A plan that gives each sample point one target point, as an optimal one between points of equal
weights does, has one draw: that of its map.

A target potential g also gives a potential on the source side, its c-transform f(x) = min_j c(x,
y_j) - g_j, soft where the coupling has an eps: f(x) = -eps log sum_j b_j exp((g_j - c(x, y_j)) /
eps). No potential on the target side is offered: the map is not found against it, so it makes no
saddle to be judged by (see `otbench.scoring.verdict`).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from otbench.methods.adapting import mean_cost
from otbench.methods.dual_bound import dual_bound
from otbench.methods.entropic import Entropic, entropic_truth
from otbench.methods.exact import exact_plan
from otbench.metrics import marginal, merged
from otbench.parameters import Ladder, Span
from otbench.problem import (
    AmortizedProblem,
    DiscreteProblem,
    LazyTruth,
    MapProblem,
    Problem,
    Truth,
)
from otbench.solver import Coupled, Coupling, Info, Solver, Transport


if TYPE_CHECKING:
    import numpy as np
    import torch

    from otbench.solver import FitContext

    Tensor = torch.Tensor

# Entries of the largest cost matrix that is solved to score by: half a GiB in float64. The network
# simplex takes 2.5 GiB with it and, with 8192 points of each cloud, a minute or two.
SOLVED = 2**26
EXACT = 1e-6  # marginal error of a plan whose solver is not asked for another
CHUNK = 4096  # rows of a cost matrix held at a time while pushing


@dataclass(frozen=True)
class DiscreteSolver(Solver):
    """Base of the adapters of discrete methods. They see float64 pairs.

    Attributes:
        n: points sampled from each measure when the problem is a map problem.
    """

    n: int = 1024

    def __post_init__(self) -> None:
        """Check the parameters."""
        self.require(at_least_one=("n",))

    @property
    def marginal_tolerance(self) -> float:
        """To which the marginals of a plan are to be met, in the l1 norm."""
        return EXACT

    @abstractmethod
    def couple(self, pair: DiscreteProblem, context: FitContext) -> Coupling:
        """Couple the clouds of ``pair``."""

    def fit(self, problem: Problem, context: FitContext) -> Transport:
        """Solve in whichever setting the problem is (see the module's docstring)."""
        if isinstance(problem, AmortizedProblem):
            return self._each_pair(context)
        if isinstance(problem, DiscreteProblem):
            found = self.coupled(in_float64(problem), context)
            coupling = found.coupling
            return Transport(
                plan=lambda pair: coupling.plan.to(pair.x.dtype),
                coupled=[found],
                info=coupling.info,
            )
        pair = sample_pair(problem, self.n, context.generator)
        found = self.coupled(pair, context)
        coupling = found.coupling
        potential = None if coupling.g is None else c_transform(pair, coupling.g, coupling.eps)
        return Transport(
            push=extend(coupling, pair),
            sample=conditional(coupling, pair, context.seed),
            estimates_map=True,
            potential=potential,
            coupled=[found],
            info={"n": self.n, **coupling.info},
        )

    def _each_pair(self, context: FitContext) -> Transport:
        """Solves a pair when its plan is asked for."""
        coupled: list[Coupled] = []

        def plan(pair: DiscreteProblem) -> Tensor:
            coupled.append(self.coupled(in_float64(pair), context))
            return coupled[-1].coupling.plan.to(pair.x.dtype)

        return Transport(plan=plan, coupled=coupled)

    def coupled(self, pair: DiscreteProblem, context: FitContext) -> Coupled:
        """Couple the clouds, with what its convergence is certified by."""
        coupling = self.couple(pair, context)
        made, most = coupling.info.get("iterations", 0), getattr(self, "max_iters", math.inf)
        exhausted = isinstance(made, int) and made >= most
        return Coupled(pair, coupling, self.marginal_tolerance, exhausted)


@dataclass(frozen=True)
class SinkhornSolver(DiscreteSolver):
    """Base of the adapters of Sinkhorn's algorithm: ``min <C, P> + eps KL(P | a b^T)`` over the
    plans with marginals a and b (Cuturi 2013).

    Attributes:
        eps: strength of the regularisation, see ``eps_rule``; where the problem has an eps, that is
            taken.
        eps_rule: ``relative``: eps is a multiple of the mean cost ``a^T C b``; ``absolute``: eps is
            in cost units.
        max_iters: most iterations; one updates both potentials.
        tolerance: stop where the marginals are met to this, in the l1 norm.
    """

    search: ClassVar[Mapping[str, Ladder | Span]] = {
        "eps": Ladder((1.0, 0.3, 0.1, 0.05, 0.03, 0.01, 0.003, 0.001))
    }

    eps: float = 0.05
    eps_rule: Literal["relative", "absolute"] = "relative"
    max_iters: int = 2000
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        self.require(positive=("eps", "max_iters", "tolerance"))
        if self.eps_rule not in ("relative", "absolute"):
            raise ValueError(f"eps_rule must be relative or absolute, got {self.eps_rule!r}")

    @property
    def marginal_tolerance(self) -> float:
        """Its tolerance."""
        return self.tolerance

    def in_cost_units(self, pair: DiscreteProblem, mean_cost: float) -> float:
        """Eps in cost units, where the mean cost is ``mean_cost``; of a mean cost of zero any eps
        gives the same plan.
        """
        if pair.eps > 0:
            return pair.eps
        return self.eps * (mean_cost or 1.0) if self.eps_rule == "relative" else self.eps

    def entropic_problem(self, pair: DiscreteProblem) -> Entropic:
        """The entropic problem of the pair, among its points with mass."""
        mean = mean_cost(pair) if pair.eps == 0 else 0.0
        return Entropic(pair, self.in_cost_units(pair, mean))

    def report(self, eps: float, mean_cost: float, iterations: int) -> Info:
        """The columns of a Sinkhorn run, the same for every library."""
        relative = {"eps_over_mean_cost": eps / mean_cost} if mean_cost else {}
        return {"eps": eps, **relative, "iterations": iterations}


def sample_pair(problem: MapProblem, n: int, generator: torch.Generator) -> DiscreteProblem:
    """``n`` points of each measure with equal weights, as a float64 discrete problem."""
    x = problem.source.sample(n, generator).double()
    y = problem.target.sample(n, generator).double()
    weights = x.new_full((n,), 1 / n)
    return DiscreteProblem(x, weights, y, weights, problem.cost, Truth("none"))


def exact_truth(pair: DiscreteProblem) -> Truth:
    """Optimal plan and cost of a pair by `exact_plan`, in float64 on the values as they stand;
    where its duality gap is not closed, the bound of the cost alone.
    """
    import torch

    exact = in_float64(pair)
    found = exact_plan(*host_problem(exact))
    if not found.optimal:
        share = found.gap / found.cost
        why = f"no exact solution: the linear program is solved up to {share:.1e} of its cost"
        return Truth("none", unsolved=why, cost_bound=found.cost - found.gap)
    return Truth(
        "lp", found.cost, plan=torch.as_tensor(found.plan, device=pair.x.device).to(pair.x)
    )


def host_problem(pair: DiscreteProblem) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Costs and weights of a float64 pair, on the host: what `exact_plan` takes."""
    matrix = pair.cost.matrix(pair.x, pair.y).cpu().numpy()
    return matrix, pair.a.cpu().numpy(), pair.b.cpu().numpy()


def certificate(eps: float) -> str:
    """How the truth of a pair is known, which `solved` finds."""
    return "entropic" if eps > 0 else "lp"


def solved(pair: DiscreteProblem) -> DiscreteProblem:
    """The pair with its truth: of the linear program, or where it has an eps of the entropic
    problem; found when it is first asked for.

    Of a pair of more than `SOLVED` costs the truth says that there is none, and bounds the cost of
    the linear program from below. Asking for it raises ValueError where the eps is too small for
    Sinkhorn's algorithm to converge.
    """
    return replace(pair, truth=LazyTruth(certificate(pair.eps), _truth, pair))


def _truth(pair: DiscreteProblem) -> Truth:
    n, m = len(pair.x), len(pair.y)
    if n * m > SOLVED:
        why = f"no exact solution: {n} x {m} costs are more than the {SOLVED} that are solved"
        return Truth("none", unsolved=why, cost_bound=None if pair.eps > 0 else dual_bound(pair))
    return entropic_truth(pair) if pair.eps > 0 else exact_truth(pair)


def in_float64(pair: DiscreteProblem) -> DiscreteProblem:
    """The same pair in float64."""
    return replace(pair, x=pair.x.double(), a=pair.a.double(), y=pair.y.double(), b=pair.b.double())


def extend(coupling: Coupling, pair: DiscreteProblem) -> Callable[[Tensor], Tensor]:
    """The map of new points that a coupling of sample points defines, see the module."""
    import torch

    project = pair.cost.project
    if coupling.push is not None:
        return in_chunks(coupling.push)
    if coupling.g is None or coupling.eps is None:
        # copies of a point go where their mass goes together, points without mass nowhere
        of_points = coupling.plan @ pair.y.flatten(1), marginal(coupling.plan, 1)
        x, _, (sums, mass) = merged(pair.x, *of_points)
        moved = mass > 0
        images = sums[moved] / mass[moved, None]
        x, images = pair.cost.embed(x[moved]), project(images.reshape(-1, *pair.y.shape[1:]))
        return in_chunks(lambda new: images[pair.cost.matrix(new, x).argmin(1)])
    weights, y = gibbs_weights(pair, coupling.g, coupling.eps), pair.y[pair.b > 0]
    return in_chunks(lambda new: project(torch.tensordot(weights(new), y, 1)))


def conditional(
    coupling: Coupling, pair: DiscreteProblem, seed: int
) -> Callable[[Tensor, int], Tensor]:
    """Draws from the plan given new points, ``(n, *shape)`` and k to ``(n, k, *target shape)``, see
    the module.

    Args:
        coupling: of the pair.
        pair: two clouds.
        seed: of the draws, which are the same at every call.
    """
    import torch

    if coupling.g is None or coupling.eps is None:
        drawn = nearest_row(coupling.plan, pair)
    else:
        drawn = gibbs_row(pair, coupling.g, coupling.eps)

    def sample(x: Tensor, k: int) -> Tensor:
        stream = torch.Generator(x.device).manual_seed(seed)
        u = torch.rand(len(x), k, generator=stream, device=x.device, dtype=torch.float64)
        chunks = zip(x.split(CHUNK), u.split(CHUNK), strict=True)
        return pair.y[torch.cat([drawn(part.double(), level) for part, level in chunks])].to(
            x.dtype
        )

    return sample


def gibbs_weights(pair: DiscreteProblem, g: Tensor, eps: float) -> Callable[[Tensor], Tensor]:
    """``(k, *shape) -> (k, m)``: the law of y given x under the entropic plan of ``g``, among the m
    target points with mass.
    """
    import torch

    kept = pair.b > 0
    y, offset = pair.y[kept], pair.b[kept].log() + g[kept] / eps
    return lambda x: torch.add(offset, pair.cost.matrix(x, y), alpha=-1 / eps).softmax(1)


def gibbs_row(pair: DiscreteProblem, g: Tensor, eps: float) -> Callable[[Tensor, Tensor], Tensor]:
    """As `nearest_row`, of the laws that the entropic plan of ``g`` gives to any x."""
    import torch

    weights, kept = gibbs_weights(pair, g, eps), pair.b.nonzero()[:, 0]

    def drawn(x: Tensor, levels: Tensor) -> Tensor:
        reached = weights(x).cumsum(1)
        column = torch.searchsorted(reached, levels * reached[:, -1:], right=True)
        return kept[column.clamp(max=len(kept) - 1)]

    return drawn


def nearest_row(plan: Tensor, pair: DiscreteProblem) -> Callable[[Tensor, Tensor], Tensor]:
    """``(k, *shape)`` and levels ``(k, draws)`` in [0, 1) to the target points, ``(k, draws)``, at
    which the laws of y given the nearest sample points reach these levels.
    """
    import torch

    moved = marginal(plan, 1) > 0
    place = torch.unique(pair.x.flatten(1), dim=0, return_inverse=True)[1]
    x, place_of = pair.cost.embed(pair.x[moved]), place[moved]
    entries = plan.to_sparse_coo().coalesce()
    held = entries.values() > 0
    (rows, columns), mass = entries.indices()[:, held], entries.values()[held]
    at, order = place[rows].sort(stable=True)
    columns, mass = columns[order], mass[order]
    # the laws of all places one after the other, each of mass one
    total = mass.new_zeros(len(place)).index_add_(0, at, mass)
    reached = (mass / total[at]).cumsum(0)
    before = torch.cat([reached.new_zeros(1), reached])
    end = torch.bincount(at, minlength=len(place)).cumsum(0)
    begin = torch.cat([end.new_zeros(1), end[:-1]])

    def drawn(new: Tensor, levels: Tensor) -> Tensor:
        here = place_of[pair.cost.matrix(new, x).argmin(1)][:, None]
        low, high = before[begin[here]], before[end[here]]
        entry = torch.searchsorted(reached, low + levels * (high - low), right=True)
        return columns[entry.clamp(begin[here], end[here] - 1)]

    return drawn


def c_transform(pair: DiscreteProblem, g: Tensor, eps: float | None) -> Callable[[Tensor], Tensor]:
    """``(k, *shape) -> (k,)``: the potential on the source side of ``g`` on the target points, soft
    where ``eps`` is given.

    Autograd goes through it: the gradient of the hard one is that of the cost to the point that
    attains the minimum.
    """
    import torch

    kept = pair.b > 0
    cost, y, b, g = pair.cost, pair.y[kept], pair.b[kept], g[kept]
    if eps is None:

        def hard(x: Tensor) -> Tensor:
            best = (cost.matrix(x.detach(), y) - g).argmin(1)
            return cost.pairwise(x, y[best]) - g[best]

        return in_chunks(hard)
    offset = g / eps + b.log()

    def soft(x: Tensor) -> Tensor:
        return -eps * torch.add(offset, cost.matrix(x, y), alpha=-1 / eps).logsumexp(1)

    class Soft(torch.autograd.Function):
        """The cost matrix is computed again for the gradient: kept, those of all chunks together
        could fill the memory.
        """

        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return soft(x)

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, slope: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
            with torch.enable_grad():
                x = ctx.saved_tensors[0].detach().requires_grad_()
                return torch.autograd.grad(soft(x) @ slope, x)[0]

    return in_chunks(Soft.apply)


def in_chunks(push: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The same map, computed in float64 on `CHUNK` points at a time; the result is in the dtype of
    the points.
    """
    import torch

    return lambda x: torch.cat([push(chunk.double()) for chunk in x.split(CHUNK)]).to(x.dtype)
