"""Solvers that play for a better number come out as they deserve: verdicts, times, ranks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import otbench
from otbench.errors import InvalidOutputError
from otbench.scoring import maps as scoring
from otbench.scoring.verdict import Verdict
from tests.hostile.games import REMEMBERED, WORK_S, Game


GAMES = str(Path(__file__).parent / "hostile" / "games.py")


@pytest.fixture
def smaller_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer points of the target gap: less time, and less power to see through a game."""
    monkeypatch.setattr(scoring, "GAP_POINTS", 512)
    monkeypatch.setattr(scoring, "SLICED_GAP_POINTS", 1024)


def played(task: str, play: str, seed: int = 0, dtype: str = "float32") -> otbench.Solved:
    return otbench.solve(task, Game(play), seed, dtype=dtype)


@pytest.mark.usefixtures("smaller_samples")
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


@pytest.mark.usefixtures("smaller_samples")
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


@pytest.mark.usefixtures("smaller_samples")
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


def test_a_failure_is_the_solvers_wherever_it_is_moved_to(tmp_path):
    """Not something that is missing, nor the task's own work, nor after the clock was stopped."""
    said = {
        "hide": "missing in phase fit",
        "hide_in_push": "missing in phase push",
        "break": "no gradient today",
        "catch": "no push today",
        "sparse": "returned layout",
        "sigma": "sigma is 'little'",
        "gradless": "without gradients",
        "disguise": "returned Same",
        "detour": "path is no way that begins at x",
    }
    plays = ",".join([*said, "ponder", "poison"])
    runs = otbench.run(
        "gaussian[dim=1]",
        f"game[play=[{plays}]]",
        1,
        results=tmp_path / "out",
        plugins=[GAMES],
        console=Console(quiet=True),
    ).runs
    by_play = {json.loads(row["solver_params"])["play"]: row for row in runs.to_dict("records")}
    for play, words in said.items():
        assert by_play[play]["status"] == "error", by_play[play]
        assert words in by_play[play]["message"], by_play[play]
    assert by_play["ponder"]["status"] == "ok" and by_play["ponder"]["fit_cold_s"] > 0.9 * WORK_S
    assert by_play["poison"]["status"] == "ok" and len(otbench.load(tmp_path / "out").runs) == 11


def test_no_row_is_known_to_be_compared_with_the_target():
    for task in ("w1-funnels[dim=20]", "one-to-many"):
        row = played(task, "first_rows").row
        assert row.verdict not in (None, Verdict.OK), row.metrics
        assert row.metrics["target_defect"] > 0.1 or row.metrics["direction_defect"] > 0.1


@pytest.mark.parametrize(("n", "d"), [(60, 3), (60, 20), (30, 64), (12, 20)])
def test_of_few_points_nothing_is_said(tmp_path, n, d):
    """Two clouds half a standard deviation apart, held out a few points of each."""
    rng = np.random.default_rng(0)
    for name, points in (("x", rng.normal(size=(n, d))), ("y", 1.5 * rng.normal(size=(n, d)))):
        np.save(tmp_path / f"{name}.npy", points + 0.5 * (name == "y"))
    task = f"samples[source={tmp_path}/x.npy,target={tmp_path}/y.npy]"
    for solver in ("identity", "constant"):
        row = otbench.solve(task, solver).row
        assert row.verdict != Verdict.OK, row.metrics
        assert row.status == "ok"


def test_colours_too_faint_to_be_seen_are_none():
    metrics = played("hue-colorization[data=digits]", "grey_noise").row.metrics
    assert metrics["circle_off"] > 0.99
    assert metrics["circle_entropy"] < 0.05 and metrics["circle_diversity"] < 0.05


def test_values_whose_squares_are_not_finite_are_no_answer():
    with pytest.raises(otbench.DivergedError, match="too large to square"):
        played("gaussian[dim=2]", "huge", dtype="float64")
    row = played("gaussian[dim=2]", "huge").row
    assert row.verdict != Verdict.OK and row.metrics["l2_uvp"] > 1e30
