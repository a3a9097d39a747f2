"""Statistics: closed forms, invariants, and values worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given
from hypothesis import strategies as st

from otbench.report import stats


COVERED = 4000  # draws
ERROR = 0.005  # of the simulation


@pytest.mark.parametrize("n", [3, 5, 10, 20])
@pytest.mark.parametrize(
    ("draw", "mean", "positive", "of_three"),
    [
        (lambda rng, n: rng.normal(0, 1, n), 0.0, False, 0.93),
        (lambda rng, n: rng.normal(3, 1, n), 3.0, True, 0.93),
        (lambda rng, n: rng.lognormal(0, 0.5, n), math.exp(0.125), True, 0.91),
        (lambda rng, n: rng.lognormal(0, 1.0, n), math.exp(0.5), True, 0.84),
    ],
    ids=["normal", "normal far from 0", "log-normal 0.5", "log-normal 1"],
)
def test_intervals_called_95_percent_cover_the_mean_in_93_to_97_of_100(
    n, draw, mean, positive, of_three
):
    """But for log-normal values of three seeds, whose coverage is stated."""
    rng, covered = np.random.default_rng(n), 0
    for _ in range(COVERED):
        low, high = stats.mean_interval(draw(rng, n), positive) or (math.nan, math.nan)
        covered += low <= mean <= high
    least = of_three if n == 3 else 0.93
    assert least - ERROR < covered / COVERED < 0.97 + ERROR


@given(st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=9))
def test_the_interval_of_a_mean_is_that_of_scipy(values):
    assume(np.std(values) > 1e-3)
    found = stats.mean_interval(values)
    error = scipy.stats.sem(values)
    assert found == pytest.approx(
        scipy.stats.t.interval(0.95, len(values) - 1, np.mean(values), error), rel=1e-9, abs=1e-9
    )


def test_a_value_of_zero_has_no_logarithm_and_equal_values_no_width():
    assert stats.mean_interval([0.0, 1.0, 2.0], positive=True) == stats.mean_interval([0, 1, 2])
    assert stats.mean_interval([2.0, 2.0, 2.0], positive=True) == pytest.approx((2, 2))


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0], [1, 2, math.inf], [1, 2, math.nan]])
def test_no_interval_without_three_finite_values(values):
    assert stats.mean_interval(values) is None


def test_a_failed_run_stands_just_behind_the_worst_one():
    losses = stats.impute([1.0, math.nan, 5.0, 9.0, 20.0], [0, 1, 0, 0, 0], worst=math.inf)
    assert losses[1] == pytest.approx(20.0) and losses[1] > 20.0
    assert losses[[0, 2, 3, 4]].tolist() == [1.0, 5.0, 9.0, 20.0]


def test_a_failed_run_gets_the_worst_value_where_nothing_was_measured():
    losses = stats.impute([math.nan, math.nan], [True, True], worst=7.0)
    assert losses.tolist() == [7.0, 7.0]


def test_a_run_that_did_not_fail_is_not_imputed():
    assert np.isnan(stats.impute([math.nan, 1.0], [False, False], worst=7.0)[0])


def test_ranks_with_ties_and_absent_solvers():
    losses = np.array([[1.0, 3.0], [2.0, 3.0], [2.0, math.nan], [math.inf, 1.0]])
    expected = [[1, 2.5], [2.5, 2.5], [2.5, math.nan], [4, 1]]
    np.testing.assert_array_equal(stats.ranks(losses), expected)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8))
def test_ranks_sum_to_the_triangular_number_and_ignore_monotone_scales(losses):
    ranks = stats.ranks(np.array(losses))
    assert ranks.sum() == len(losses) * (len(losses) + 1) / 2
    np.testing.assert_array_equal(stats.ranks(np.array(losses) * 2), ranks)


def test_solvers_are_compared_on_the_seeds_that_both_ran():
    nan = math.nan
    losses = np.array([[1.0, 2.0, 30.0], [1.5, 2.5, nan], [nan, nan, 20.0], [nan] * 3])
    np.testing.assert_array_equal(stats.paired_ranks(losses), [2, 2, 1, nan])
    assert stats.unbeaten(losses).tolist() == [False, False, True, False]
    apart = np.array([[1.0, 2.0, nan], [1.5, 2.5, nan], [nan, nan, 0.1]])
    assert stats.unbeaten(apart).tolist() == [True, False, False]  # of the last nothing is known
    assert stats.unbeaten(np.array([[1.0, nan], [nan, 2.0]])).all()
    assert stats.unbeaten(np.array([[math.inf], [math.inf]])).all()


@given(st.lists(st.lists(st.integers(0, 4), min_size=3, max_size=3), min_size=1, max_size=6))
def test_on_equal_seeds_paired_ranks_are_those_of_the_means(losses):
    array = np.array(losses, dtype=float)
    np.testing.assert_array_equal(stats.paired_ranks(array), stats.ranks(array.mean(1)))
    lowest = array.sum(1) == array.sum(1).min()
    np.testing.assert_array_equal(stats.unbeaten(array), lowest)


def ranked(*losses: Any) -> stats.Ranking:
    return stats.ranking([np.array(task, dtype=float) for task in losses])


def test_a_clear_order_has_ranks_that_are_points_and_no_ties():
    noise = np.random.default_rng(0).normal(0, 0.01, (2, 3, 5))
    found = stats.ranking([np.array([[1.0], [2.0], [3.0]]) + of_task for of_task in noise])
    for ends in (found.mean, found.low, found.high):
        np.testing.assert_array_equal(ends, [1, 2, 3])
    assert found.tied.tolist() == [0, 1, 2] and found.order.tolist() == [0, 1, 2]


def test_solvers_that_win_by_turns_are_tied():
    one, other = [1, 2, 1, 2], [2, 1, 2, 1]
    found = ranked([one, other, [9] * 4], [other, one, [9] * 4])
    assert found.tied.tolist() == [0, 0, 1] and found.mean.tolist() == [1.5, 1.5, 3]


def test_who_refuses_the_hard_tasks_is_not_ranked_with_the_others():
    """The same map, with and without the tasks that it is bad at."""
    easy = [[1, 1.1], [2, 2.1], [3, 3.1], [1, 1.1]]
    hard = [[3, 3.1], [1, 1.1], [2, 2.1], [math.nan] * 2]
    found = ranked(easy, hard, hard)
    assert math.isnan(found.mean[3]) and found.order[-1] == 3 and found.tasks.all()
    assert found.mean[0] == pytest.approx(7 / 3)


def test_solvers_are_ranked_on_the_tasks_that_most_of_them_ran():
    """Five solvers on one task are fewer cells than four on two, and more than two on two."""
    rest = [[math.nan] * 2]
    four = ranked([[i, i] for i in range(5)], [[i, i] for i in range(4)] + rest)
    assert four.tasks.all() and np.isnan(four.mean).tolist() == [False] * 4 + [True]
    two = ranked([[i, i] for i in range(5)], [[i, i] for i in range(2)] + 3 * rest)
    assert two.tasks.tolist() == [True, False] and not np.isnan(two.mean).any()


def test_seeds_that_are_missing_somewhere_do_not_count_and_one_seed_gives_no_rank():
    nan = math.nan
    found = ranked([[1, 1, 9], [2, 2, nan]])
    assert found.mean.tolist() == [1, 2]
    for lost in ([[1, 1], [2, nan]], [[1], [2]]):
        assert np.isnan(ranked(lost).mean).all() and (ranked(lost).tied == -1).all()
        assert ranked(lost).order.tolist() == [0, 1]


def test_paired_test_matches_the_table_of_student():
    # t = mean / (s / sqrt n) = 2 / (1 / sqrt 3) with 2 degrees of freedom; P(T > t) = 1/2 - t / (2
    # sqrt(t^2 + 2)).
    t = 2 * math.sqrt(3)
    assert stats.paired_test([1.0, 2.0, 3.0]) == pytest.approx(0.5 - t / (2 * math.sqrt(t * t + 2)))


def test_paired_test_without_spread_or_without_a_pair_of_values():
    assert stats.paired_test([0.4, 0.4]) == 0.0
    assert stats.paired_test([0.0, 0.0]) == 1.0
    assert stats.paired_test([-0.4, -0.4]) == 1.0
    assert stats.paired_test([0.4]) is None


def test_holm_by_hand():
    np.testing.assert_allclose(stats.holm([0.04, 0.01, 0.03, 0.5]), [0.09, 0.04, 0.09, 0.5])
    assert stats.holm([]).size == 0


@given(st.lists(st.lists(st.integers(0, 4), min_size=3, max_size=3), min_size=2, max_size=6))
def test_ranks_are_those_of_scipy(losses):
    """Our own spare the leaderboard of a run the import of scipy.stats."""
    array = np.array(losses, dtype=float)
    array[0, 0] = np.nan
    expected = scipy.stats.rankdata(array, axis=0, nan_policy="omit")
    np.testing.assert_array_equal(stats.ranks(array), expected)


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=8))
def test_the_paired_test_is_that_of_scipy(differences):
    spread = np.std(differences, ddof=1)
    assume(spread > 1e-3)
    expected = scipy.stats.ttest_1samp(differences, 0, alternative="greater")[1]
    assert stats.paired_test(differences) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("successes", "n"), [(0, 5), (5, 5), (3, 7), (0, 0)])
def test_the_wilson_interval_at_its_ends(successes, n):
    low, high = stats.wilson_interval(successes, n)
    assert (
        0 <= low <= high <= 1 and (low == 0) == (successes == 0) and (high == 1) == (successes == n)
    )
