"""From a problem and what a solver returned to the named arrays that metrics are functions of.

Arrays of a map run: ``x`` test points; ``pushed`` T(x); ``optimal`` T*(x); ``cost_pushed``, ``cost_optimal`` c(x, T(x)) and c(x, T*(x))
(where the map is unknown, the optimal cost); ``target_variance``; ``pushed_sample``, ``target_sample`` and ``target_floor`` for the
push-forward. Arrays of one discrete pair: ``plan``, ``rounded_plan``, ``optimal_plan``, ``cost_matrix``, ``a``, ``b``, ``ot_cost``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from otbench import metrics
from otbench.errors import DivergedError, InvalidOutputError
from otbench.problem import DiscreteProblem, MapProblem


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

TEST_POINTS = 16384  # pushed and scored against the true map, as many as the official W2 benchmark takes
GAP_POINTS = 1024  # per sample of the target gap, exact W2^2
SLICED_GAP_POINTS = 4096  # per sample of the target gap, sliced W2^2
NEGATIVE = 1e-6  # of the largest entry of a plan: what rounding may leave below zero
REFERENCE_POINTS = 65536  # for the variance of a target that is not known in closed form


class MapScoring:
    """Test points of a map problem, drawn once per run from the test stream, and the arrays that do not depend on the solver."""

    def __init__(self, problem: MapProblem, generator: torch.Generator) -> None:
        truth = problem.truth
        self.problem = problem
        self.x = problem.source.sample(TEST_POINTS, generator)
        self.known: dict[str, Any] = {"x": self.x}
        if truth.map is not None:
            self.known["optimal"] = truth.map(self.x)
            self.known["cost_optimal"] = problem.cost.pairwise(self.x, self.known["optimal"])
        elif truth.cost is not None:
            self.known["cost_optimal"] = self.x.new_tensor(truth.cost)
        if problem.target.variance is not None:
            self.known["target_variance"] = problem.target.variance
        else:
            points = problem.target.sample(REFERENCE_POINTS, generator)
            self.known["target_variance"] = float(points.double().flatten(1).var(0, correction=0).sum())
        gap_points = GAP_POINTS if problem.target.dim <= metrics.EXACT_DIM else SLICED_GAP_POINTS
        target_sample, target_again = (problem.target.sample(gap_points, generator) for _ in range(2))
        self.known["target_sample"] = target_sample
        self.known["target_floor"] = metrics.discrepancy(target_again, target_sample)

    def arrays(self, pushed: Tensor) -> dict[str, Any]:
        """Every named array of the run, given T(x).

        Raises:
            InvalidOutputError: wrong type, shape, dtype or device.
            DivergedError: values that are not finite.
        """
        check_output("push", pushed, (len(self.x), *self.problem.target.shape), like=self.x)
        pushed = pushed.detach()
        sample = self.known["target_sample"]
        return {
            **self.known,
            "pushed": pushed,
            "cost_pushed": self.problem.cost.pairwise(self.x, pushed),
            "pushed_sample": pushed[: len(sample)],
        }


def score_map(scoring: MapScoring, pushed: Tensor, curve_only: bool = False) -> dict[str, float]:
    """Metrics of one push of the test points."""
    return metrics.score(scoring.arrays(pushed), curve_only)


def score_plans(pairs: Sequence[DiscreteProblem], plans: Sequence[Tensor]) -> dict[str, float]:
    """Metrics of the plans of discrete pairs, averaged over the pairs (those where it is defined)."""
    values: dict[str, list[float]] = {}
    for pair, plan in zip(pairs, plans, strict=True):
        check_output("plan", plan, (len(pair.x), len(pair.y)), like=pair.x)
        a, b, plan = pair.a.double(), pair.b.double(), plan.detach().double()
        if plan.min() < -NEGATIVE * plan.max():
            raise InvalidOutputError(f"plan has negative entries, down to {float(plan.min()):.3g}: a coupling has none")
        arrays: dict[str, Any] = {"plan": plan, "a": a, "b": b, "rounded_plan": metrics.round_plan(plan, a, b)}
        arrays["cost_matrix"] = pair.cost.matrix(pair.x.double(), pair.y.double())
        if pair.truth.plan is not None:
            arrays["optimal_plan"] = pair.truth.plan.double()
        if pair.truth.cost is not None:
            arrays["ot_cost"] = pair.truth.cost
        for name, value in metrics.score(arrays).items():
            values.setdefault(name, []).append(value)
    return {name: sum(of_pairs) / len(of_pairs) for name, of_pairs in values.items()}


def check_output(what: str, value: object, shape: tuple[int, ...], like: Tensor) -> None:
    """Raise unless ``value`` is a finite tensor of this shape on the device and of the dtype of ``like``."""
    import torch

    if not isinstance(value, torch.Tensor):
        raise InvalidOutputError(f"{what} returned {type(value).__name__}, expected a torch.Tensor of shape {shape}")
    if tuple(value.shape) != shape:
        raise InvalidOutputError(f"{what} returned shape {tuple(value.shape)}, expected {shape}")
    if value.device != like.device:
        raise InvalidOutputError(f"{what} returned a tensor on {value.device}, expected {like.device}")
    if value.dtype != like.dtype:
        raise InvalidOutputError(f"{what} returned {value.dtype}, expected {like.dtype}")
    if not torch.isfinite(value).all():
        bad = int((~torch.isfinite(value)).sum())
        raise DivergedError(f"{what} returned {bad} of {value.numel()} values that are not finite")
