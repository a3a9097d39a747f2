"""The verdict of a map run: did the solver find an optimal map, and if not, was it deceived or
merely not done?

A semi-dual solver seeks a saddle of ``J(g, T) = E[c(x, T(x)) - g(T(x))] + E[g(y)]``. Where the
source is degenerate a saddle need not be a transport map: T minimises against the right potential
and yet T#source != target, a *spurious* solution (Choi, Choi & Kwon 2025). It is told from a run
that has not converged by the residuals of the saddle, small or not beside the defect:

| defect | saddle residual small beside it | verdict |
|---|---|---|
| none | either | ``ok`` |
| of push-forward or cost | yes | ``spurious`` |
| of push-forward or cost | no | ``unconverged``, or ``diverged`` if out of all proportion |
| of push-forward or cost | nothing can be said of a saddle | ``inaccurate`` |
| of the map alone | either | ``inaccurate`` |

The numbers are metrics of the row (see `otbench.metrics`), so that a verdict can be passed again at
any threshold. A defect counts if it is above the threshold and above what sampling alone may show.
Defects are shares of the target's variance, or of the gap of the task's own spurious map where that
is less: in high dimension a failure of one coordinate is a small part of the variance. There the
worst direction is judged as well, and of images their scattering features. Verdicts are about maps;
plans of discrete problems have none.
"""

from __future__ import annotations

from collections.abc import Mapping

from otbench.statuses import Outcome


TAU = 0.10  # of defects: a tenth of the target's variance, or of the optimal cost
# Of saddle residuals, as a share of what no potential at all leaves: between that, 1, and what
# trained solvers leave where nothing is degenerate, less than .1 (docs/measuring.md).
SADDLE_TAU = 0.20
RIGHT = 0.01  # defect of a trivial map that is the answer, and no bar
MOST_VISIBLE = 0.5  # that sampling may show where a verdict is passed
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
        "cost to compare with; or nothing but the map is wrong, or no better than a trivial one",
    )


def judge(
    scores: Mapping[str, float | None],
    tau: float = TAU,
    saddle_tau: float = SADDLE_TAU,
    cost_tau: float = TAU,
) -> Verdict | None:
    """The verdict that the metrics of a run amount to; None where nothing of the map was measured,
    the optimal cost is unknown, or the points are too few to tell.

    A defect is every metric that is named so: ``<what>_defect``, with ``<what>_visible``.

    Args:
        scores: metrics by name; one that is not defined for the run is absent or None.
        tau: threshold of all defects but that of the cost.
        saddle_tau: threshold of the saddle residual, a share of what an untrained solver leaves.
            It is that of a defect of 1; where the map is less wrong, the residual has to be less
            for the objective not to have seen it.
        cost_tau: threshold of the cost defect.
    """
    if scores.get("target_defect") is None or scores.get("cost_defect") is None:
        return None
    thresholds = {"cost_defect": cost_tau}
    found = {
        name: value
        for name, value in scores.items()
        if name.endswith("_defect")
        and value is not None
        and value
        > max(thresholds.get(name, tau), scores.get(name.replace("_defect", "_visible")) or 0)
    }
    better = beats_trivial(scores)
    if not found and better is not False:
        return Verdict.OK if better else None
    if (scores.get("saddle_excess") or 0) > DIVERGED:
        return Verdict.DIVERGED
    # Of the map alone no objective of a push-forward and a cost can be said to be blind.
    of_saddle = [value for name, value in found.items() if name != "map_defect"]
    residual = saddle_residual(scores)
    if residual is None or not of_saddle:
        return Verdict.INACCURATE
    small = residual <= saddle_tau * min(1.0, max(of_saddle))
    return Verdict.SPURIOUS if small else Verdict.UNCONVERGED


def beats_trivial(scores: Mapping[str, float | None]) -> bool | None:
    """Whether the answer is better than that of every trivial map, by more than sampling may show;
    so it is where one of these is itself right. None where that cannot be told: sampling may show a
    wrong half, or as much as the best of these.
    """
    best, error = scores.get("best_trivial"), scores.get("map_defect")
    if error is not None:
        return best is None or best <= RIGHT or error < best
    named = {name: value for name, value in scores.items() if value is not None}
    noise = max((v for name, v in named.items() if name.endswith("_visible")), default=0.0)
    worst = max(v for name, v in named.items() if name.endswith("_defect"))
    if noise > MOST_VISIBLE:
        return None
    if best is None or best <= max(RIGHT, min(noise, TAU)) or worst < best - noise:
        return True
    return None if best <= noise else False


def saddle_residual(scores: Mapping[str, float | None]) -> float | None:
    """How far the saddle is from optimal, at the end or since nine tenths of the training, as a
    share of what is left where nothing was learned; None where there is no saddle to be judged.

    J - OT = inner gap - dual gap, both at least 0: the excess adds nothing in exact arithmetic, but
    shows where the c-transform, of which only upper bounds are known, was found too high. A narrow
    peak of the potential far from all samples stays unseen. Rows without ``untrained_gap`` are
    taken to have 1.
    """
    dual, inner = scores.get("dual_gap"), scores.get("inner_gap")
    if dual is None or inner is None:
        return None
    others = (scores.get("saddle_excess") or 0, scores.get("saddle_drift") or 0)
    return max(dual, inner, *others) / (scores.get("untrained_gap") or 1)


def converged(scores: Mapping[str, float | None], tau: float = SADDLE_TAU) -> bool | None:
    """Whether the saddle is near optimal; None where there is none to be judged."""
    residual = saddle_residual(scores)
    return None if residual is None else residual <= tau


def late_value(values: Mapping[int, float]) -> float | None:
    """The value at the step nearest to nine tenths of the last one, where there is one near."""
    last = max(values, default=0)
    near = [step for step in values if 0.8 * last <= step <= 0.95 * last]
    return values[min(near, key=lambda step: abs(step - 0.9 * last))] if near else None
