"""Metrics: pure functions of named arrays, and one table that says what each number means.

A metric applies to a run exactly when every array it names is known there: where the optimal map is unknown or not unique there is no
``optimal``, and so no ``l2_uvp``. The names are listed in `otbench.scoring`. Reports read `METRICS` and nothing else.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

EXACT_DIM = 16  # up to this dimension the target gap is an exact W2^2, above it a sliced one
DIRECTIONS = 512


@dataclass(frozen=True)
class Metric:
    """One row of the table.

    Attributes:
        name: the column is ``metric_<name>``.
        function: pure; its parameters name the arrays it needs.
        unit: ``%``, ``1`` (a pure number), ``cost`` (units of the task's cost) or ``distance^2``.
        better: the direction, ``lower``, ``higher`` or ``one`` (closest to 1).
        worst: the score a failed run gets where no trivial row was measured.
        curve: scored at checkpoints too.
        needs: names of the arrays it is a function of.
    """

    name: str
    function: Callable[..., float]
    unit: str
    better: Literal["lower", "higher", "one"]
    worst: float
    curve: bool
    needs: tuple[str, ...]

    @property
    def summary(self) -> str:
        """First line of the function's docstring."""
        return (self.function.__doc__ or "").strip().splitlines()[0]

    def loss(self, value: float) -> float:
        """The value turned so that lower is better."""
        return {"lower": value, "higher": -value, "one": abs(value - 1)}[self.better]


METRICS: dict[str, Metric] = {}


def metric(unit: str, better: Literal["lower", "higher", "one"], worst: float = math.inf, curve: bool = False):
    """Enter a function in the table under its own name."""

    def enter(function: Callable[..., float]) -> Callable[..., float]:
        needs = tuple(inspect.signature(function).parameters)
        METRICS[function.__name__] = Metric(function.__name__, function, unit, better, worst, curve, needs)
        return function

    return enter


def score(arrays: Mapping[str, Any], curve_only: bool = False) -> dict[str, float]:
    """Every metric that applies to ``arrays``, by name. A value that is not finite is left out: the metric is undefined there."""
    scores = {}
    for entry in METRICS.values():
        if (entry.curve or not curve_only) and all(name in arrays for name in entry.needs):
            value = float(entry.function(**{name: arrays[name] for name in entry.needs}))
            if math.isfinite(value):
                scores[entry.name] = value
    return scores


@metric(unit="%", better="lower", curve=True)
def l2_uvp(pushed: Tensor, optimal: Tensor, target_variance: float) -> float:
    """Unexplained variance of the map, 100 E||T(x) - T*(x)||^2 / Var(target) (Korotin et al. 2021, eq. 22)."""
    return ratio(100 * float((pushed - optimal).double().flatten(1).square().sum(1).mean()), target_variance)


@metric(unit="1", better="higher", worst=-1.0, curve=True)
def cos(x: Tensor, pushed: Tensor, optimal: Tensor) -> float:
    """Cosine of the displacements T - id and T* - id in L2(source) (Korotin et al. 2021); both norms on the same points, so T* scores 1.

    Undefined (not a number) where either displacement vanishes, or where the spaces differ.
    """
    if x.shape != optimal.shape:
        return math.nan
    moved, should = (pushed - x).double(), (optimal - x).double()
    return ratio(float((moved * should).sum()), float(moved.norm() * should.norm()))


@metric(unit="1", better="one", curve=True)
def cost_ratio(cost_pushed: Tensor, cost_optimal: Tensor) -> float:
    """Transport cost over the optimal one, E c(x, T(x)) / E c(x, T*(x)) on the same points, so T* scores exactly 1.

    Where the optimal cost is known but no map, that cost is the denominator.
    """
    return ratio(float(cost_pushed.double().mean()), float(cost_optimal.double().mean()))


@metric(unit="distance^2", better="lower")
def target_gap(pushed_sample: Tensor, target_sample: Tensor, target_floor: float) -> float:
    """Discrepancy of the push-forward to the target minus its floor: exact W2^2 up to dimension 16, sliced W2^2 above."""
    return discrepancy(pushed_sample, target_sample) - target_floor


@metric(unit="distance^2", better="lower")
def target_noise(target_floor: float) -> float:
    """The floor itself: the same discrepancy between two fresh target samples of the same size."""
    return target_floor


@metric(unit="1", better="lower")
def cost_gap(rounded_plan: Tensor, cost_matrix: Tensor, ot_cost: float) -> float:
    """Relative excess cost <C, P> / OT - 1 of the plan after rounding it to the marginals (Altschuler et al. 2017)."""
    return ratio(float((rounded_plan * cost_matrix).sum()), ot_cost) - 1


@metric(unit="1", better="lower", worst=2.0)
def marginal_l1(plan: Tensor, a: Tensor, b: Tensor) -> float:
    """Total marginal error ||P 1 - a||_1 + ||P^T 1 - b||_1 of the plan as it was returned."""
    return float((plan.sum(1) - a).abs().sum() + (plan.sum(0) - b).abs().sum())


@metric(unit="1", better="lower")
def plan_rmse(plan: Tensor, optimal_plan: Tensor) -> float:
    """Root mean square entry of P - P*."""
    return float((plan - optimal_plan).square().mean().sqrt())


def ratio(numerator: float, denominator: float) -> float:
    """The quotient; not a number where the denominator vanishes."""
    return numerator / denominator if denominator != 0 else math.nan


def discrepancy(x: Tensor, y: Tensor) -> float:
    """Squared W2 between two equal-sized samples: exact up to dimension 16, the mean over 512 fixed directions above."""
    x, y = x.flatten(1).double().cpu(), y.flatten(1).double().cpu()
    return exact_w2_squared(x, y) if x.shape[1] <= EXACT_DIM else sliced_w2_squared(x, y)


def exact_w2_squared(x: Tensor, y: Tensor) -> float:
    """Exact W2^2 between uniform samples of equal size, as a linear assignment."""
    import torch
    from scipy.optimize import linear_sum_assignment

    cost = torch.cdist(x, y).square()
    rows, columns = linear_sum_assignment(cost.numpy())
    return float(cost[rows, columns].mean())


def sliced_w2_squared(x: Tensor, y: Tensor) -> float:
    """Mean W2^2 of the projections on 512 fixed directions (Rabin et al. 2011)."""
    import torch

    directions = torch.randn(x.shape[1], DIRECTIONS, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    directions /= directions.norm(dim=0)
    return float(((x @ directions).sort(0).values - (y @ directions).sort(0).values).square().mean())


def round_plan(plan: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The nearest plan with marginals a and b by Altschuler, Weed and Rigollet 2017, algorithm 2."""
    plan = plan * (a / plan.sum(1).clamp(min=1e-300)).clamp(max=1)[:, None]
    plan = plan * (b / plan.sum(0).clamp(min=1e-300)).clamp(max=1)
    row_slack, column_slack = (a - plan.sum(1)).clamp(min=0), (b - plan.sum(0)).clamp(min=0)
    total = row_slack.sum()
    return plan + row_slack[:, None] * column_slack / total if total > 0 else plan
