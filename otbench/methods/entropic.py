"""Entropic optimal transport of two clouds: potentials, plans, and Sinkhorn's algorithm (Cuturi
2013).

    min <C, P> + eps KL(P | a b')   over P >= 0 with P 1 = a and P' 1 = b

has the plan ``P_ij = a_i b_j exp((f_i + g_j - C_ij) / eps)``, where each potential is the soft
c-transform of the other,

    g_j = -eps log sum_i a_i exp((f_i - C_ij) / eps),
    f_i = -eps log sum_j b_j exp((g_j - C_ij) / eps).

Points without mass take no part: on images most points are such, and everything here is about those
that are left, in float64.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from otbench.problem import DiscreteProblem, Truth


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

TOLERANCE = 1e-9  # marginal error of a truth in the l1 norm
MAX_ITERATIONS = 2000  # of Sinkhorn's algorithm
NEWTON_STEPS = 50
ROUNDING = 1e-14  # relative change of a dual value that says nothing
FAINT = 1e-200  # least sum that is divided by
RECOVERY = 2  # iterations that follow a prediction
# Logarithm of the scalings at which they go into the potentials; far below that of the largest
# number.
ABSORBED = 100.0


class Entropic:
    """The entropic problem of a pair, among its points with mass: n of the source and m of the
    target.

    Args:
        pair: its ``eps`` is that of the problem unless given here.
        eps: in cost units.
        matrix: costs of all points of the pair, where they are at hand.
    """

    def __init__(
        self,
        pair: DiscreteProblem,
        eps: float | None = None,
        matrix: Callable[[], Tensor] | None = None,
    ) -> None:
        self.pair, self.eps = pair, pair.eps if eps is None else eps
        self.rows, self.columns = (weights.nonzero()[:, 0] for weights in (pair.a, pair.b))
        a, b = pair.a[self.rows].double(), pair.b[self.columns].double()
        self.a, self.b = a / a.sum(), b / b.sum()
        self._matrix = matrix

    @cached_property
    def matrix(self) -> Tensor:
        """``(n, m)`` costs."""
        if self._matrix is not None:
            return self._matrix()[self.rows][:, self.columns]
        return self.pair.cost.matrix(
            self.pair.x[self.rows].double(), self.pair.y[self.columns].double()
        )

    def transposed(self) -> Entropic:
        """The same problem from the target to the source."""
        pair, other = self.pair, copy.copy(self)
        other.pair = replace(pair, x=pair.y, a=pair.b, y=pair.x, b=pair.a)
        other.rows, other.columns, other.a, other.b, other._log_a, other._log_b = (
            getattr(self, name) for name in ("columns", "rows", "b", "a", "_log_b", "_log_a")
        )
        other.matrix = self.matrix.T
        return other

    @cached_property
    def _log_a(self) -> Tensor:
        return self.a.log()

    @cached_property
    def _log_b(self) -> Tensor:
        return self.b.log()

    def target_potential(self, f: Tensor) -> Tensor:
        """``(m,)`` from ``(n,)``: the soft c-transform of a potential on the source."""
        return -self.eps * (
            (f / self.eps + self._log_a)[:, None] - self.matrix / self.eps
        ).logsumexp(0)

    def source_potential(self, g: Tensor) -> Tensor:
        """``(n,)`` from ``(m,)``: the soft c-transform of a potential on the target."""
        return -self.eps * ((g / self.eps + self._log_b) - self.matrix / self.eps).logsumexp(1)

    def plan(self, f: Tensor, g: Tensor) -> Tensor:
        """``(n, m)``: the plan of two potentials."""
        return (
            ((f / self.eps + self._log_a)[:, None] + (g / self.eps + self._log_b)).sub_(
                self.matrix / self.eps
            )
        ).exp_()

    def plan_from(self, f: Tensor) -> Tensor:
        """``(n, m)``: the plan of a predicted potential, the same way for all who predict one: two
        iterations of Sinkhorn's algorithm.

        Rows are exact, columns are what the prediction makes of them. From zero that is the trivial
        row of the same work.
        """
        return self.solve(f, tolerance=0.0, max_iters=RECOVERY).plan

    def solve(
        self, f: Tensor | None = None, tolerance: float = TOLERANCE, max_iters: int = MAX_ITERATIONS
    ) -> Solution:
        """Sinkhorn's algorithm from the potential ``f``, zero by default.

        An iteration updates g, then f, so that rows are exact; it stops where columns are met to
        ``tolerance`` in the l1 norm. What is iterated are scalings of a plan, which the potentials
        absorb before they overflow (Schmitzer 2019).
        """
        import torch

        f = torch.zeros_like(self.a) if f is None else f
        iterations = 0
        while True:
            g = self.target_potential(f)
            plan = self.plan(f, g)
            if (
                float(plan.sum(1).min()) < FAINT
            ):  # f is so far off that a row has underflowed: its update cannot be a scaling
                f = self.source_potential(g)
                plan = self.plan(f, g)
            v = torch.ones_like(self.b)
            while True:
                iterations += 1
                u = self.a / (plan @ v)
                mass = u @ plan
                error = float((v * mass - self.b).abs().sum())
                done = error <= tolerance or iterations >= max_iters
                if done or float(u.log().abs().max()) > ABSORBED or float(mass.min()) < FAINT:
                    break
                v = self.b / mass
            f = f + self.eps * u.log()
            if done:
                return Solution(
                    self, f, g + self.eps * v.log(), u[:, None] * plan * v, iterations, error
                )

    def polished(self, f: Tensor, max_iters: int) -> Solution:
        """Newton's method on the semi-dual <a, f> + <b, g(f)> from ``f``; its Hessian has the size
        of the source.
        """
        import torch

        def semidual(f: Tensor) -> float:
            return float(self.a @ f + self.b @ self.target_potential(f))

        for _ in range(max_iters):
            plan = self.plan(f, self.target_potential(f))
            mass = plan.sum(1)
            if float((mass - self.a).abs().sum()) <= TOLERANCE / 2:
                break
            # a constant changes nothing: the last term makes the system regular along it
            hessian = torch.diag(mass) - (plan / self.b) @ plan.T + torch.outer(self.a, self.a)
            step, value = self.eps * torch.linalg.solve(hessian, self.a - mass), semidual(f)
            while (
                not semidual(f + step) >= value - ROUNDING * abs(value)
                and float(step.abs().max()) > ROUNDING * self.eps
            ):
                step = step / 2
            f = f + step
        return self.solve(f, max_iters=1)

    def on_all_points(self, plan: Tensor) -> Tensor:
        """The plan among all points of the pair, in its dtype: zero where there is no mass."""
        full = plan.new_zeros((len(self.pair.a), len(self.pair.b)), dtype=self.pair.x.dtype)
        full[self.rows[:, None], self.columns] = plan.to(full.dtype)
        return full


class Solution:
    """Where Sinkhorn's algorithm stopped.

    Attributes:
        f, g: potentials of the points with mass, ``(n,)`` and ``(m,)``.
        plan: ``(n, m)``.
        iterations: taken.
        error: of the columns in the l1 norm.
    """

    def __init__(
        self, problem: Entropic, f: Tensor, g: Tensor, plan: Tensor, iterations: int, error: float
    ) -> None:
        self.problem, self.f, self.g, self.plan, self.iterations, self.error = (
            problem,
            f,
            g,
            plan,
            iterations,
            error,
        )

    def everywhere(self) -> Tensor:
        """The potential f on all points of the source, those without mass included: the soft
        c-transform of g.
        """
        problem = self.problem
        costs = problem.pair.cost.matrix(
            problem.pair.x.double(), problem.pair.y[problem.columns].double()
        )
        return -problem.eps * (
            (self.g / problem.eps + problem._log_b) - costs / problem.eps
        ).logsumexp(1)

    @property
    def cost(self) -> float:
        """<C, P> in cost units."""
        return float((self.plan * self.problem.matrix).sum())


def entropic_truth(pair: DiscreteProblem, max_iters: int = MAX_ITERATIONS) -> Truth:
    """The optimal plan of a pair with an eps, in float64 on the values as they stand, and its
    transport cost.

    Where Sinkhorn's algorithm stalls, as it may on a few hundred points of equal weight, Newton's
    method takes over.

    Raises:
        ValueError: the marginals are not met to 1e-9.
    """
    problem = Entropic(pair)
    found = problem.solve(max_iters=max_iters)
    if found.error > TOLERANCE:
        found = problem.polished(found.f, max_iters=min(max_iters, NEWTON_STEPS))
    if found.error > TOLERANCE:
        raise ValueError(
            f"Sinkhorn's algorithm does not converge in {max_iters} iterations at eps "
            f"{pair.eps:g}: take a larger eps, or 0 for the "
            "linear program"
        )
    return Truth("entropic", found.cost, plan=problem.on_all_points(found.plan))
