"""The verdict of a map run: did the solver find an optimal map, and if not, was it deceived or
merely not done?

A semi-dual solver seeks a saddle of ``J(g, T) = E[c(x, T(x)) - g(T(x))] + E[g(y)]``. Where the
source is degenerate a saddle need not be a transport map: T minimises against the right potential
and yet T#source != target, a *spurious* solution (Choi, Choi & Kwon 2025). It is told from a run
that has not converged by the residuals of the saddle:

| defect of map, marginal or cost | saddle residuals small | verdict |
|---|---|---|
| no | either | ``ok`` |
| yes | yes | ``spurious`` |
| yes | no | ``unconverged``, or ``diverged`` where the objective is out of all proportion |
| yes | nothing can be said of a saddle | ``inaccurate`` |

The numbers are metrics of the row (see `otbench.metrics`), so that a verdict can be passed again at
any threshold. A defect counts if it is above the threshold and above what sampling alone may show.
Defects and residuals are shares of the target's variance, or of the gap of the task's own spurious
map where that is less: in high dimension a failure of one coordinate is a small part of the
variance. Slices do not see every push-forward in high dimension; the cost then does, and of images
their scattering features. Verdicts are about maps; plans of discrete problems have none.
"""

from __future__ import annotations

from collections.abc import Mapping

from otbench.statuses import Outcome


TAU = 0.10  # default of every threshold: a tenth of the target's variance, or of the optimal cost
RIGHT = 0.01  # defect of a trivial map that is the answer, and no bar
DIVERGED = 10.0  # saddle objective this far from the optimal cost, in units of the cost's scale


class Verdict(Outcome):
    """What a run found."""

    OK = "ok", "the push-forward is the target and the cost is optimal, up to the thresholds"
    SPURIOUS = (
        "spurious",
        "a near-optimal saddle with a wrong push-forward or cost: the objective does not see the "
        "defect",
    )
    UNCONVERGED = (
        "unconverged",
        "a wrong push-forward or cost, and the saddle residuals say that the solver was not done",
    )
    DIVERGED = "diverged", "values that are not finite, or an objective out of all proportion"
    INACCURATE = (
        "inaccurate",
        "a wrong push-forward or cost, and no saddle to judge: no target potential, or no optimal "
        "cost to compare with",
    )


def judge(
    scores: Mapping[str, float | None],
    tau: float = TAU,
    saddle_tau: float = TAU,
    cost_tau: float = TAU,
) -> Verdict | None:
    """The verdict that the metrics of a run amount to; None where nothing of the map was measured,
    or the optimal cost is unknown.

    A defect is every metric that is named so: ``<what>_defect``, with ``<what>_visible``.

    Args:
        scores: metrics by name; one that is not defined for the run is absent or None.
        tau: threshold of all defects but that of the cost.
        saddle_tau: threshold of the saddle residuals.
        cost_tau: threshold of the cost defect.
    """
    if scores.get("target_defect") is None or scores.get("cost_defect") is None:
        return None
    defects = [name.removesuffix("_defect") for name in scores if name.endswith("_defect")]
    found = any(_defect(scores, what, cost_tau if what == "cost" else tau) for what in defects)
    if not found and beats_trivial(scores):
        return Verdict.OK
    if (scores.get("saddle_excess") or 0) > DIVERGED:
        return Verdict.DIVERGED
    done = converged(scores, saddle_tau)
    if done is None:
        return Verdict.INACCURATE
    return Verdict.SPURIOUS if done else Verdict.UNCONVERGED


def beats_trivial(scores: Mapping[str, float | None]) -> bool:
    """Whether the answer is better than that of every trivial map, by more than sampling may show;
    so it is where one of these is itself right.
    """
    best = scores.get("best_trivial")
    if best is None:
        return True
    error = scores.get("map_defect")
    if error is not None:
        return best <= RIGHT or error < best
    named = {name: value for name, value in scores.items() if value is not None}
    noise = max((v for name, v in named.items() if name.endswith("_visible")), default=0.0)
    worst = max(v for name, v in named.items() if name.endswith("_defect"))
    return best <= max(RIGHT, noise) or worst < best - noise


def _defect(scores: Mapping[str, float | None], what: str, tau: float) -> bool:
    """Whether a defect is above its threshold and above what sampling alone may show; not where it
    is undefined.
    """
    defect = scores.get(f"{what}_defect")
    return defect is not None and defect > max(tau, scores.get(f"{what}_visible") or 0)


def converged(scores: Mapping[str, float | None], tau: float = TAU) -> bool | None:
    """Whether the saddle is near optimal, and was so at nine tenths of the training; None where
    there is no saddle to be judged.

    J - OT = inner gap - dual gap, both at least 0: the excess adds nothing in exact arithmetic, but
    shows where the c-transform, of which only upper bounds are known, was found too high. A narrow
    peak of the potential far from all samples stays unseen.
    """
    dual, inner = scores.get("dual_gap"), scores.get("inner_gap")
    if dual is None or inner is None:
        return None
    return (
        max(dual, inner, scores.get("saddle_excess") or 0, scores.get("saddle_drift") or 0) <= tau
    )


def late_value(values: Mapping[int, float]) -> float | None:
    """The value at the step nearest to nine tenths of the last one, where there is one near."""
    last = max(values, default=0)
    near = [step for step in values if 0.8 * last <= step <= 0.95 * last]
    return values[min(near, key=lambda step: abs(step - 0.9 * last))] if near else None
