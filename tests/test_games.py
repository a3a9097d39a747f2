"""Solvers that play for a better number come out as they deserve: verdicts, times, ranks."""

from __future__ import annotations

import numpy as np
import pytest

import otbench
from otbench.errors import InvalidOutputError
from otbench.scoring.verdict import Verdict
from tests.hostile.games import REMEMBERED, WORK_S, Game


def played(task: str, play: str, seed: int = 0, dtype: str = "float32") -> otbench.Solved:
    return otbench.solve(task, Game(play), seed, dtype=dtype)


@pytest.mark.parametrize(
    ("task", "play"),
    [
        ("gaussian[dim=64]", "turned"),
        ("gaussian[dim=20]", "turned"),
        ("w1-benchmark[dim=128]", "idle"),
        ("w1-funnels[dim=20]", "idle"),
        ("w1-funnels[dim=20]", "fling"),
        ("gaussian[dim=20]", "fling"),
        ("gaussian[dim=20]", "garbage"),
        ("perpendicular", "garbage"),
    ],
)
def test_no_game_earns_ok(task, play):
    if task.startswith("w1-benchmark") and not otbench.get_task(task).files:
        pytest.skip("no data")
    try:
        row = played(task, play).row
    except otbench.MissingError as error:
        pytest.skip(str(error))
    assert row.verdict not in (None, Verdict.OK), row.metrics


def test_a_linear_map_of_outliers_is_not_ok(tmp_path):
    """Three rows of 400 are off a line by one: what the linear map makes of them explodes."""
    rng = np.random.default_rng(0)
    x, y = np.zeros((400, 4)), rng.normal(size=(400, 4))
    x[:, 0] = rng.normal(size=400)
    x[[3, 77, 200], [1, 2, 3]] = 1
    for name, points in (("x", x), ("y", y)):
        np.save(tmp_path / f"{name}.npy", points)
    task = f"samples[source={tmp_path}/x.npy,target={tmp_path}/y.npy]"
    for seed in range(3):
        row = otbench.solve(task, "linear", seed).row
        assert row.verdict != Verdict.OK, row.metrics
        assert row.metrics["target_gap"] > -1, row.metrics


@pytest.mark.parametrize("play", ["lazy", "lazy_checkpoint", "lazy_sample"])
def test_work_that_is_put_off_is_booked_to_the_fit(play):
    row = played("gaussian[dim=1]", play).row
    assert row.fit_cold_s is not None and row.fit_cold_s > 0.9 * WORK_S
    if play == "lazy":
        assert row.fit_warm_s is None or row.fit_warm_s > 0.9 * WORK_S
    honest = played("gaussian[dim=1]", "idle").row
    assert honest.fit_cold_s is not None and honest.fit_cold_s < 0.3 * WORK_S


def test_work_that_is_remembered_has_no_warm_time():
    REMEMBERED.clear()
    row = played("gaussian[dim=1]", "remember").row
    assert row.fit_cold_s is not None and row.fit_cold_s > 0.9 * WORK_S
    assert row.fit_warm_s is None


def test_answers_and_questions_are_out_of_sight():
    with pytest.raises(InvalidOutputError, match="without push"):
        played("gaussian[dim=1]", "peek")
    row = played("weight-pairs[side=4,train=2,test=2]", "study_the_questions").row
    assert row.info["seen"] == 0
    assert otbench.solve("gaussian[dim=1]", "oracle").row.metrics["l2_uvp"] == 0


def test_a_failure_is_not_something_that_is_missing():
    with pytest.raises(InvalidOutputError, match="missing in the midst of the fit"):
        played("gaussian[dim=1]", "hide")


def test_colours_too_faint_to_be_seen_are_none():
    metrics = played("hue-colorization[data=digits]", "grey_noise").row.metrics
    assert metrics["circle_off"] > 0.99
    assert metrics["circle_entropy"] < 0.05 and metrics["circle_diversity"] < 0.05


def test_values_whose_squares_are_not_finite_are_no_answer():
    with pytest.raises(otbench.DivergedError, match="too large to square"):
        played("gaussian[dim=2]", "huge", dtype="float64")
    row = played("gaussian[dim=2]", "huge").row
    assert row.verdict != Verdict.OK and row.metrics["l2_uvp"] > 1e30
