"""Statistics of the reports: intervals of means and rates, ranks with their uncertainty and ties,
imputation of failures, a paired test, Holm's correction.

Everything is deterministic: resampling draws from a generator with a fixed seed, so a table made
twice is the same table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike

LEVEL = 0.95
FEWEST = 3  # values that an interval is given of
LOG_NORMAL = 4  # values that the interval of a log-normal mean is given of
# Relative; a failed run stands this far behind the row whose score it is given, so that ties go
# against it.
MARGIN = 1e-9


def mean_interval(
    values: ArrayLike, positive: bool = False, level: float = LEVEL
) -> tuple[float, float] | None:
    """Interval of a mean: Student's, or of positive values that of a log-normal mean.

    The latter is Cox's with Student's quantile (Land 1972; Olsson 2005): the logarithm of the mean
    is the mean of the logarithms plus half their variance. It is taken from four values on; of
    three it would be without use, so that of log-normal values with a spread of one Student's
    covers 85 % then. Else both hold their level, see ``tests/test_stats.py``; the percentile
    bootstrap covers 76 % with three.

    Args:
        values: ``(n,)`` independent values.
        positive: they are above zero by what they are; where one is not, Student's is taken.
        level: coverage.

    Returns:
        The lower and upper end, or None where there is no interval: under three values, or values
            that are not finite.
    """
    import numpy as np
    from scipy.special import stdtrit

    sample = np.asarray(values, dtype=float)
    n = len(sample)
    if n < FEWEST or not np.isfinite(sample).all():
        return None
    quantile = float(stdtrit(n - 1, (1 + level) / 2))
    if positive and n >= LOG_NORMAL and (sample > 0).all():
        logs = np.log(sample)
        variance = float(logs.var(ddof=1))
        centre = float(logs.mean()) + variance / 2
        half = quantile * (variance / n + variance**2 / (2 * (n - 1))) ** 0.5
        with np.errstate(over="ignore"):
            return float(np.exp(centre - half)), float(np.exp(centre + half))
    half = quantile * float(sample.std(ddof=1)) / n**0.5
    return float(sample.mean()) - half, float(sample.mean()) + half


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


def paired_ranks(losses: np.ndarray) -> np.ndarray:
    """Ranks of solvers on one task of which not all ran the same seeds: each two are compared by
    their mean losses over the seeds that both ran.

    Args:
        losses: ``(solvers, seeds)``; not a number where there is no run.

    Returns:
        ``(solvers,)``: one more than the number of solvers that are better, and a half for each
            that is equal; not a number for a solver without a run.
    """
    import numpy as np

    worse, equal = _pairs(losses)
    found = 1 + worse.sum(1) + (equal.sum(1) - 1) / 2
    return np.where(np.isnan(losses).all(1), np.nan, found)


def unbeaten(losses: np.ndarray) -> np.ndarray:
    """Best solvers on one task: ``(solvers,)`` booleans, no other has a lower mean loss over the
    seeds that both ran. One that shares no seed with any other is not among them, unless none does.

    Args:
        losses: ``(solvers, seeds)``; not a number where there is no run.
    """
    worse, equal = _pairs(losses)
    compared = (worse | worse.T | equal).sum(1) > 1
    return ~worse.any(1) & equal.any(1) & (compared | ~compared.any())


def _pairs(losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(solvers, solvers)`` booleans: worse than the other, and as good, over the seeds that both
    ran; neither where there is none.
    """
    import numpy as np

    ran = ~np.isnan(losses)
    both = ran[:, None] & ran[None]
    total = np.where(both, losses[:, None], 0.0).sum(-1)  # of the row's solver
    return total > total.T, (total == total.T) & both.any(-1)


@dataclass(frozen=True)
class Ranking:
    """Mean ranks of solvers on the tasks and seeds that they have in common.

    Attributes:
        mean: ``(solvers,)``, not a number for a solver that is not ranked.
        low, high: ends of the bootstrap interval over tasks and, within each, over seeds.
        tied: ``(solvers,)`` numbers from 0 on of groups of neighbours that a paired test cannot
            tell apart; -1 for a solver that is not ranked.
        order: ``(solvers,)`` indices, best first; those that are not ranked last.
        tasks: ``(tasks,)`` booleans, those that were ranked on.
    """

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    tied: np.ndarray
    order: np.ndarray
    tasks: np.ndarray


def ranking(losses: Sequence[np.ndarray], level: float = LEVEL, resamples: int = 2000) -> Ranking:
    """Rank solvers on what all of them ran, so that who refuses a hard task gains nothing by it.

    The solvers and tasks are those of the largest complete table, by the number of its cells. On
    each task a solver's loss is its mean over the seeds that all of them have; a seed defines the
    problem, so all are resampled on the same seeds. A task with one common seed does not count.

    Args:
        losses: one array per task, ``(solvers, seeds of that task)``; not a number where there is
            no run.
        level: coverage of the intervals.
        resamples: how many.
    """
    import numpy as np

    ran = np.stack([~np.isnan(task).all(1) for task in losses])
    solvers, tasks = _complete(ran)
    none = np.full(ran.shape[1], np.nan)
    mean, low, high, tied = none.copy(), none.copy(), none.copy(), np.full(ran.shape[1], -1)
    common = {}
    for i in map(int, np.flatnonzero(tasks)):
        of_ranked = losses[i][solvers]
        kept = of_ranked[:, ~np.isnan(of_ranked).any(0)]
        if kept.shape[1] >= 2:
            common[i] = kept
    tasks = np.isin(np.arange(len(losses)), list(common))
    if common and solvers.sum() > 1:
        tables, rng = list(common.values()), np.random.default_rng(0)
        mean[solvers] = np.stack([ranks(t.mean(1)) for t in tables], -1).mean(-1)
        by_task = [
            ranks(t[:, rng.integers(t.shape[1], size=(resamples, t.shape[1]))].mean(-1))
            for t in tables
        ]
        drawn = rng.integers(len(tables), size=(resamples, len(tables)))
        means = np.stack(by_task, -1)[:, np.arange(resamples)[:, None], drawn].mean(-1)
        low[solvers], high[solvers] = np.quantile(means, _tails(level), axis=1)
        tied[solvers] = _tied(np.concatenate([ranks(t) for t in tables], 1))
    anywhere = _mean(np.stack([paired_ranks(task) for task in losses], -1))
    order = np.lexsort((np.nan_to_num(anywhere, nan=np.inf), np.nan_to_num(mean, nan=np.inf)))
    return Ranking(mean, low, high, tied, order, tasks)


def _complete(ran: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The solvers and tasks ``(tasks, solvers)`` of the largest table without a gap, that of more
    tasks where two are as large.
    """
    import numpy as np

    wanted = {tuple(column.tolist()) for column in ran.T if column.any()}
    wanted |= {tuple(map(min, zip(a, b, strict=True))) for a in wanted for b in wanted}
    best = np.zeros(ran.shape[1], bool), np.zeros(ran.shape[0], bool)
    for tasks in (np.array(names, dtype=bool) for names in sorted(wanted)):
        solvers = np.asarray(ran[tasks].all(0))
        size = solvers.sum() * tasks.sum()
        if tasks.any() and (size, tasks.sum()) > (best[0].sum() * best[1].sum(), best[1].sum()):
            best = solvers, tasks
    return best


def _tied(by_seed: np.ndarray) -> np.ndarray:
    """Numbers of the groups of solvers ``(solvers, problems)`` of ranks whose neighbours cannot be
    told apart: Student's paired test on the ranks, with Holm's correction.
    """
    import numpy as np

    order = np.argsort(by_seed.mean(1), kind="stable")
    pairs = pairwise(by_seed[order])
    found = [paired_test(behind - ahead) for ahead, behind in pairs]
    p_values = holm([1.0 if p is None else p for p in found])
    groups = np.zeros(len(by_seed), int)
    groups[order[1:]] = np.cumsum(p_values < 1 - LEVEL)
    return groups


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
