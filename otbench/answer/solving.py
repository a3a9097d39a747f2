"""The answer to one's own transport problem: one solver is fitted on all points; it gives the
mapped points, the plan, potentials, the cost with a bound of the optimal one, and the map for new
points.

A solver of plans couples the clouds, and new points go where its extension sends them
(`otbench.methods.extension`). Solvers of maps, and all solvers where the clouds have more than
`SOLVED` costs, are given the two measures to sample from.
"""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from otbench import metrics
from otbench.answer.fitted_map import FittedMap
from otbench.data.clouds import Cloud, common_origin
from otbench.errors import DivergedError, InvalidOutputError, MissingError, UserError
from otbench.methods.discrete import SOLVED, DiscreteSolver
from otbench.methods.dual_bound import dual_bound
from otbench.methods.extension import c_transform, extend
from otbench.problem import (
    COSTS,
    Cost,
    DiscreteProblem,
    MapProblem,
    Measure,
    Truth,
    weighted,
)
from otbench.randomness import Randomness
from otbench.runner.fit import checked, refusal
from otbench.runner.info import columns
from otbench.scoring.convergence import certify
from otbench.scoring.plans import checked_plan
from otbench.solver import Coupled, Coupling, FitContext, Solver, Transport
from otbench.statuses import Stopped


if TYPE_CHECKING:
    import numpy as np
    import torch

    Tensor = torch.Tensor

BOUNDED = 2**24  # most costs that the optimum is bounded from beside a map: about ten seconds
SLICES = 512  # directions of the target gap
AT_A_TIME = 64
SLICED = 2**16  # most points of each cloud that it is measured on


@dataclass(frozen=True)
class Answer:
    """What a solver made of two weighted clouds.

    Attributes:
        source, target: the clouds, points ``(n, d)`` and ``(m, d)``.
        fitted: the map T, for new points.
        mapped: T(x) of the source points, ``(n, d)``.
        plan: ``(n, m)``, dense or sparse; None where only a map was found.
        potentials: f ``(n,)`` and g ``(m,)`` in cost units with f_i + g_j <= c(x_i, y_j); None
            where the solver has none.
        cost: in cost units, <C, P> of the plan rounded to its marginals (Altschuler, Weed &
            Rigollet 2017), or E c(x, T(x)) where there is no plan.
        bound: the optimal cost is not below it; None where the clouds are too large.
        marginal_error: of the plan as it was returned, in the l1 norm; None without one.
        stopped: where a solver of clouds stopped, see `otbench.statuses.Stopped`; None of others.
        target_gap: W2^2 along 512 directions between the mapped points and the target, times d, as
            a share of the target's variance: 0 where the map transports the source to the target.
            The barycentres of a plan that splits points have less spread than the target.
        fit_s: seconds of the fit.
        info: what the solver reports.
    """

    source: Cloud
    target: Cloud
    fitted: FittedMap
    mapped: np.ndarray = field(repr=False)
    plan: Tensor | None = field(repr=False)
    potentials: tuple[np.ndarray, np.ndarray] | None = field(repr=False)
    cost: float
    bound: float | None
    marginal_error: float | None
    stopped: Stopped | None
    target_gap: float
    fit_s: float
    info: Mapping[str, Any]

    @property
    def excess(self) -> float | None:
        """How far the cost of the plan is at most above the optimal one, as a share of the bound;
        None without a plan or a bound: a map that misses the target may cost less.
        """
        if self.plan is None or self.bound is None or not self.bound > 0:
            return None
        return max(0.0, self.cost / self.bound - 1)


def solve_clouds(
    source: Cloud,
    target: Cloud,
    solver: Solver,
    label: str,
    cost_name: str = "sqeuclidean",
    seed: int = 0,
    device: str = "cpu",
    dtype: str = "float32",
) -> Answer:
    """Fit a solver on all points of two clouds.

    Args:
        source: points ``(n, d)``.
        target: points ``(m, d)``.
        solver: of plans or of maps.
        label: of the solver.
        cost_name: one of `otbench.problem.COSTS`.
        seed: of the solver's randomness.
        device: ``cpu`` or ``cuda``.
        dtype: that solvers of maps are given; plans are of float64 points.

    Raises:
        UserError: the solver takes neither clouds nor measures of this kind.
        InvalidOutputError: it returned no transport of them.
        DivergedError: its numbers are not finite.
    """
    import torch

    cost, origin = COSTS[cost_name], common_origin(source, target, cost_name, dtype)
    pair = _pair(source.about(origin), target.about(origin), cost, device)
    costs = len(pair.a) * len(pair.b)
    no_plan = f"{costs} costs are more than the {SOLVED} of a plan" if costs > SOLVED else None
    no_plan = no_plan or refusal(solver, pair)
    numbers = getattr(torch, dtype) if no_plan else torch.float64
    context = Randomness(seed, device, numbers).context()
    for name in type(solver).needs:  # before the clock
        importlib.import_module(name)
    began = time.perf_counter()
    if not no_plan:
        with _blamed(label):
            coupling, given = _couple(solver, pair, context)
        coupling = replace(coupling, plan=_in_float64(coupling.plan, pair))
        transport = Transport(push=extend(coupling, pair), info=coupling.info)
    else:
        coupling, given = None, None
        source_measure = _measure(pair.x, pair.a, numbers)
        target_measure = _measure(pair.y, pair.b, numbers)
        problem = MapProblem(source_measure, target_measure, cost, Truth("none"))
        if reason := refusal(solver, problem):
            raise UserError(f"{label} finds no map: {reason}; and no plan: {no_plan}")
        with _blamed(label):
            transport = checked(solver.fit(problem, context), problem)
    if device == "cuda":
        torch.cuda.synchronize()
    fit_s = time.perf_counter() - began

    assert transport.push is not None
    name = str(numbers).removeprefix("torch.")
    fitted = FittedMap(transport.push, label, cost_name, len(origin), name, device, origin)
    with _blamed(label):
        mapped = fitted.push(source.points)
    found: dict[str, Any] = dict.fromkeys(("plan", "potentials", "marginal_error", "stopped"))
    if coupling is None:
        values = cost.pairwise(pair.x, torch.as_tensor(mapped - origin, device=device))
        found["cost"] = float(pair.a @ values)
        found["bound"] = dual_bound(pair) if costs <= BOUNDED else None
    else:
        found |= _of_plan(coupling, pair)
        if given is not None:
            found["stopped"] = certify(replace(given, coupling=coupling)).stopped
    return Answer(
        source,
        target,
        fitted,
        mapped,
        target_gap=_target_gap(mapped, source, target, origin),
        fit_s=fit_s,
        info=columns(transport.info)[0],
        **found,
    )


def _pair(source: Cloud, target: Cloud, cost: Cost, device: str) -> DiscreteProblem:
    """The clouds in float64."""
    import torch

    x, a, y, b = (
        torch.as_tensor(values, device=device)
        for cloud in (source, target)
        for values in (cloud.points, cloud.masses)
    )
    return DiscreteProblem(x, a, y, b, cost, Truth("none"))


def _measure(points: Tensor, weights: Tensor, dtype: torch.dtype) -> Measure:
    """The discrete measure of all points, drawn from with replacement."""
    return Measure(tuple(points.shape[1:]), weighted(points.to(dtype), weights))


def _couple(
    solver: Solver, pair: DiscreteProblem, context: FitContext
) -> tuple[Coupling, Coupled | None]:
    """The plan of the clouds, with potentials where the solver is one that has them."""
    if isinstance(solver, DiscreteSolver):
        coupled = solver.coupled(pair, context)
        return coupled.coupling, coupled
    transport = checked(solver.fit(pair, context), pair)
    assert transport.plan is not None
    return Coupling(transport.plan(pair), info=transport.info), None


def _in_float64(plan: Tensor, pair: DiscreteProblem) -> Tensor:
    """The plan that a solver returned, checked, in float64.

    Raises:
        InvalidOutputError: it is no plan of the clouds.
        DivergedError: it has values that are not finite.
    """
    import torch

    if isinstance(plan, torch.Tensor) and plan.is_floating_point():
        plan = plan.to(pair.x.dtype)
    plan = checked_plan(pair, plan)
    if not metrics.entries(plan).any():
        raise InvalidOutputError("plan has no mass")
    return plan


@contextmanager
def _blamed(label: str) -> Iterator[None]:
    """Says in one line what a solver raised."""
    try:
        yield
    except (UserError, MissingError, DivergedError, InvalidOutputError, MemoryError):
        raise
    except Exception as error:  # of whatever library
        reason = (str(error).strip() or "no reason given").splitlines()[0]
        raise UserError(f"{label} raised {type(error).__name__}: {reason}") from error


def _of_plan(coupling: Coupling, pair: DiscreteProblem) -> dict[str, Any]:
    """Plan, potentials, cost, bound and marginal error."""
    import torch

    plan, x, y = coupling.plan, pair.x, pair.y
    cost = metrics.rounded_cost(
        plan,
        pair.a,
        pair.b,
        lambda i, j: pair.cost.pairwise(x[i], y[j]),
        lambda rows: pair.cost.matrix(x[rows], y),
    )
    potentials, bound = None, 0.0
    if coupling.g is not None:
        # The hard transforms of any g are feasible.
        f = c_transform(pair, coupling.g, None)(x)
        g = torch.full((len(y),), torch.inf, dtype=f.dtype, device=f.device)
        for rows in metrics.row_blocks(len(x), len(y)):
            g = g.minimum((pair.cost.matrix(x[rows], y) - f[rows, None]).amin(0))
        potentials = f.cpu().numpy(), g.cpu().numpy()
        bound = float(pair.a @ f + pair.b @ g)
    if coupling.g is None or bound < cost / 2:
        bound = max(bound, dual_bound(pair))
    return {
        "plan": plan,
        "potentials": potentials,
        "cost": cost,
        "bound": bound,
        "marginal_error": metrics.marginal_l1(plan, pair.a, pair.b),
    }


def _target_gap(mapped: np.ndarray, source: Cloud, target: Cloud, origin: np.ndarray) -> float:
    import numpy as np
    import ot

    rng = np.random.default_rng(0)
    (x, a), (y, b) = (
        _some(points - origin, cloud.masses, rng)
        for points, cloud in ((mapped, source), (target.points, target))
    )
    variance = float(b @ np.square(y - b @ y).sum(1))
    if variance == 0:
        return math.nan
    squares = [
        float(ot.sliced_wasserstein_distance(x, y, a, b, AT_A_TIME, seed=part)) ** 2  # type: ignore[arg-type]
        for part in range(SLICES // AT_A_TIME)
    ]
    return y.shape[1] * sum(squares) / len(squares) / variance


def _some(
    points: np.ndarray, weights: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """At most `SLICED` of the points, at random."""
    if len(points) > SLICED:
        rows = rng.choice(len(points), SLICED, replace=False)
        points, weights = points[rows], weights[rows] / weights[rows].sum()
    return points, weights
