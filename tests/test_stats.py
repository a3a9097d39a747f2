"""Statistics: closed forms, invariants, and values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given
from hypothesis import strategies as st

from otbench.report import stats


def test_bootstrap_interval_matches_the_normal_theory_for_a_large_sample():
    values = np.random.default_rng(3).standard_normal(400)
    low, high = stats.bootstrap_interval(values) or (math.nan, math.nan)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.015)
    assert high == pytest.approx(values.mean() + half, abs=0.015)


def test_bootstrap_interval_is_deterministic_and_widens_with_the_level():
    values = [1.0, 2.0, 4.0, 8.0]
    narrow, wide = (
        stats.bootstrap_interval(values, level=0.5),
        stats.bootstrap_interval(values, level=0.99),
    )
    assert narrow == stats.bootstrap_interval(values, level=0.5)
    assert narrow and wide and wide[0] < narrow[0] < narrow[1] < wide[1]


def test_bootstrap_interval_of_another_statistic():
    interval = stats.bootstrap_interval([0.0] * 9 + [1000.0], statistic=np.median)
    assert interval is not None and interval[1] < 1000 * 0.6


@pytest.mark.parametrize("values", [[], [1.0], [1.0, math.inf], [1.0, math.nan]])
def test_no_interval_without_two_finite_values(values):
    assert stats.bootstrap_interval(values) is None


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


def test_rank_intervals_of_a_clear_order_are_points():
    losses = [np.array([[1.0, 1.1], [2.0, 2.1], [3.0, 3.1]]), np.array([[0.1], [0.2], [0.3]])]
    for ends in stats.rank_intervals(losses):
        np.testing.assert_array_equal(ends, [1, 2, 3])


def test_rank_intervals_span_tasks_that_disagree():
    mean, low, high = stats.rank_intervals([np.array([[1.0], [2.0]]), np.array([[2.0], [1.0]])])
    assert mean.tolist() == [1.5, 1.5] and low.tolist() == [1, 1] and high.tolist() == [2, 2]


def test_a_solver_that_ran_nowhere_has_no_rank_and_does_not_move_others():
    mean, low, high = stats.rank_intervals([np.array([[1.0, 2.0], [math.nan] * 2, [3.0, 4.0]])])
    assert np.isnan([mean[1], low[1], high[1]]).all()
    assert mean[[0, 2]].tolist() == [1, 2]


def test_one_task_with_one_seed_gives_ranks_without_intervals():
    mean, low, high = stats.rank_intervals([np.array([[1.0], [2.0]])])
    assert mean.tolist() == [1, 2] and np.isnan(low).all() and np.isnan(high).all()


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
