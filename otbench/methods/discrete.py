"""Discrete solvers, lifted once for all to the three settings.

An adapter of a discrete method writes ``couple(pair, context)``. From that, ``fit`` solves a
discrete problem as it is, a map problem by sampling ``n`` points of each measure and extending the
coupling to new points (`otbench.methods.extension`), and an amortized problem by solving each pair
from scratch.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from otbench.methods.adapting import mean_cost
from otbench.methods.dual_bound import dual_bound
from otbench.methods.entropic import Entropic, entropic_truth
from otbench.methods.exact import exact_plan
from otbench.methods.extension import c_transform, conditional, extend
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
