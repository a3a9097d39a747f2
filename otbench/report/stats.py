"""Statistics of the reports: bootstrap and Wilson intervals, ranks with their uncertainty,
imputation of failures, a paired test, Holm's correction.

Everything is deterministic: resampling draws from a generator with a fixed seed, so a table made
twice is the same table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike

LEVEL = 0.95
# Relative; a failed run stands this far behind the row whose score it is given, so that ties go
# against it.
MARGIN = 1e-9


def bootstrap_interval(
    values: ArrayLike,
    statistic: Callable[..., np.ndarray] | None = None,
    level: float = LEVEL,
    resamples: int = 2000,
) -> tuple[float, float] | None:
    """Percentile bootstrap interval of a statistic (Efron & Tibshirani 1993, ch. 13).

    Args:
        values: ``(n,)`` independent values.
        statistic: a reduction that takes ``axis``, such as ``np.median``; the mean by default.
        level: coverage.
        resamples: how many.

    Returns:
        The lower and upper end, or None where there is no interval: under two values, or values
            that are not finite.
    """
    import numpy as np

    sample = np.asarray(values, dtype=float)
    if len(sample) < 2 or not np.isfinite(sample).all():
        return None
    draws = np.random.default_rng(0).integers(len(sample), size=(resamples, len(sample)))
    low, high = np.quantile((statistic or np.mean)(sample[draws], axis=1), _tails(level))
    return float(low), float(high)


def wilson_interval(successes: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Score interval of a probability (Wilson 1927), which holds its level with few trials and at
    rates of 0 and 1.

    Args:
        successes: how many of the trials.
        n: number of trials; with none the interval is (0, 1).
        level: coverage.
    """
    if n == 0:
        return 0.0, 1.0
    from scipy.stats import binomtest

    interval = binomtest(successes, n).proportion_ci(level, "wilson")
    return float(interval.low), float(interval.high)


def impute(losses: ArrayLike, failed: ArrayLike, worst: float) -> np.ndarray:
    """The losses of the runs on one task, with every failed run placed behind the worst one
    measured there, so that crashing never pays.

    (The worst of all runs, not of the trivial ones alone: else a solver that does worse than those
    would gain by crashing.)

    Args:
        losses: ``(n,)``, lower is better; not a number where nothing was measured.
        failed: ``(n,)`` booleans.
        worst: the loss of a failed run where nothing was measured.
    """
    import numpy as np

    losses, failed = np.array(losses, dtype=float), np.asarray(failed, dtype=bool)
    measured = losses[~failed & ~np.isnan(losses)]
    if measured.size:
        worst = float(measured.max())
        worst += MARGIN * max(abs(worst), MARGIN)
    losses[failed] = worst
    return losses


def ranks(losses: np.ndarray) -> np.ndarray:
    """Ranks along the first axis; 1 is the lowest loss, ties share the middle rank.

    Args:
        losses: ``(solvers, ...)``; not a number where a solver did not run, which is then ranked
            neither itself nor against others.
    """
    import numpy as np

    better = (losses[:, None] > losses[None]).sum(1)
    tied = (losses[:, None] == losses[None]).sum(1) - 1
    return np.where(np.isnan(losses), np.nan, 1 + better + tied / 2)


def rank_intervals(
    losses: Sequence[np.ndarray], level: float = LEVEL, resamples: int = 2000
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean ranks of solvers and their bootstrap intervals over tasks and, within each task, over
    seeds.

    On each task a solver's loss is its mean over seeds, and it is ranked among the solvers that ran
    there; its mean rank is over the tasks where it ran. A seed defines the problem, so all solvers
    are resampled on the same seeds.

    Args:
        losses: one array per task, ``(solvers, seeds of that task)``; not a number where there is
            no run.
        level: coverage.
        resamples: how many.

    Returns:
        Mean rank, lower and upper end, each ``(solvers,)``: not a number for a solver that ran
        nowhere; the ends also where a single task with a single seed leaves nothing to resample.
    """
    import numpy as np

    rng = np.random.default_rng(0)
    mean = _mean(np.stack([ranks(_mean(task)) for task in losses], axis=-1))
    if len(losses) == 1 and losses[0].shape[1] == 1:
        return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    by_task = [
        ranks(_mean(task[:, rng.integers(task.shape[1], size=(resamples, task.shape[1]))]))
        for task in losses
    ]
    drawn = rng.integers(len(losses), size=(resamples, len(losses)))
    means = _mean(np.stack(by_task, axis=-1)[:, np.arange(resamples)[:, None], drawn])
    kept = [of_solver[~np.isnan(of_solver)] for of_solver in means]
    low, high = np.array(
        [np.quantile(m, _tails(level)) if m.size else (np.nan, np.nan) for m in kept]
    ).T
    return mean, low, high


def paired_test(differences: ArrayLike) -> float | None:
    """P-value of Student's paired test of a mean difference <= 0 against > 0; None for under two
    differences.

    Differences without any spread (equal to rounding) decide by their sign.
    """
    import numpy as np
    from scipy.special import stdtr

    d = np.asarray(differences, dtype=float)
    if len(d) < 2:
        return None
    mean, error = float(d.mean()), float(d.std(ddof=1)) / len(d) ** 0.5
    if error <= 1e-12 * max(abs(mean), 1e-300):
        return 0.0 if mean > 0 else 1.0
    return float(stdtr(len(d) - 1, -mean / error))


def holm(p_values: ArrayLike) -> np.ndarray:
    """P-values adjusted for their number (Holm 1979): under 0.05, the chance of any false alarm
    among all of them is at most 5 %.
    """
    import numpy as np

    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted


def _tails(level: float) -> tuple[float, float]:
    return (1 - level) / 2, (1 + level) / 2


def _mean(array: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is a number; not a number where nothing is."""
    import numpy as np

    count = (~np.isnan(array)).sum(-1)
    total = np.where(np.isnan(array), 0, array).sum(-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
