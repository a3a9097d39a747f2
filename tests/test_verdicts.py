"""Verdicts: every label by hand, their tables and curves from rows made up here, and the controls
of the definition end to end.
"""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
# (pandas' own annotations join all that an operation may return, so that they fit almost nothing)

from __future__ import annotations

import io
import math
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otbench.errors import UserError
from otbench.report.figures import plot
from otbench.report.leaderboard import leaderboard
from otbench.report.rates import RATE_TASKS, spurious_rate
from otbench.report.rejudged import rejudged
from otbench.report.selected import select
from otbench.report.stats import wilson_interval
from otbench.report.styles import styles
from otbench.report.tables import WIDTH
from otbench.report.verdicts import judged, verdicts
from otbench.scoring.verdict import Verdict, converged, judge
from tests.conftest import rows
from tests.synthetic import row, uvp, write


RIGHT = {"target_defect": 0.02, "target_visible": 0.01, "cost_defect": 0.01, "cost_visible": 0.01}
WRONG = RIGHT | {"target_defect": 0.4}
SADDLE = {"dual_gap": 0.05, "inner_gap": 0.0, "saddle_excess": 0.05}
trials = st.integers(0, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (6, 6, 0.6097, 1),
        (0, 20, 0, 0.1611),
        (4, 6, 0.3000, 0.9032),
        (0, 1, 0, 0.7935),
        (0, 0, 0, 1),
    ],
)
def test_wilson_interval(successes, n, low, high):
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=5e-5)


@given(trials)
def test_wilson_interval_holds_the_rate_and_mirrors_that_of_the_failures(successes_of_n):
    successes, n = successes_of_n
    low, high = wilson_interval(successes, n)
    assert 0 <= low < high <= 1
    assert n == 0 or low <= successes / n <= high
    assert (1 - high, 1 - low) == pytest.approx(wilson_interval(n - successes, n))


@given(trials)
def test_wilson_interval_rises_with_successes_and_shrinks_with_trials(successes_of_n):
    successes, n = successes_of_n
    low, high = wilson_interval(successes, n)
    more_low, more_high = wilson_interval(successes + 1, n + 1)
    assert more_low > low and more_high >= high
    ten_low, ten_high = wilson_interval(10 * successes, 10 * n)
    assert n == 0 or ten_high - ten_low < high - low
    wide_low, wide_high = wilson_interval(successes, n, level=0.99)
    assert wide_low <= low and wide_high >= high


@pytest.mark.parametrize(
    ("scores", "verdict"),
    [
        (RIGHT, "ok"),
        (RIGHT | SADDLE, "ok"),
        (RIGHT | SADDLE | {"dual_gap": 5.0, "saddle_excess": 50.0}, "ok"),  # whatever the saddle
        (RIGHT | {"target_defect": -0.01}, "ok"),
        (WRONG, "inaccurate"),
        (WRONG | {"dual_gap": 0.0}, "inaccurate"),  # half a saddle is none
        (WRONG | SADDLE, "spurious"),
        (WRONG | SADDLE | {"saddle_drift": 0.079}, "spurious"),  # a fifth of the defect
        (WRONG | SADDLE | {"saddle_drift": 0.081}, "unconverged"),
        (WRONG | SADDLE | {"dual_gap": 0.081}, "unconverged"),
        (WRONG | SADDLE | {"inner_gap": 0.081}, "unconverged"),
        (WRONG | SADDLE | {"target_defect": 3.0, "inner_gap": 0.2}, "spurious"),
        (WRONG | SADDLE | {"target_defect": 3.0, "inner_gap": 0.21}, "unconverged"),
        (WRONG | SADDLE | {"untrained_gap": 0.7}, "spurious"),  # .05 of .7 that anyone leaves
        (WRONG | SADDLE | {"untrained_gap": 0.6}, "unconverged"),
        (WRONG | SADDLE | {"inner_gap": 20.0, "saddle_excess": 20.0}, "diverged"),
        (RIGHT | {"target_defect": 0.1}, "ok"),  # at a threshold is not above it
        (WRONG | {"target_visible": 0.5}, "ok"),  # fresh samples of the target differ as much
        (WRONG | {"target_visible": 0.6}, None),  # of such nothing can be said
        (RIGHT | {"best_trivial": 0.2, "cost_visible": 0.3}, None),
        (RIGHT | {"best_trivial": 0.2, "cost_visible": 0.05}, "ok"),
        (RIGHT | {"cost_defect": 0.2}, "inaccurate"),
        (RIGHT | {"cost_defect": 0.2, "cost_visible": 0.3}, "ok"),
        (RIGHT | {"cost_defect": 0.3} | SADDLE, "spurious"),
        (RIGHT | {"cost_defect": 0.2} | SADDLE, "unconverged"),
        (RIGHT | {"branch_defect": 2.0, "branch_visible": 0.05} | SADDLE, "spurious"),
        (RIGHT | {"map_defect": 0.5} | SADDLE, "inaccurate"),
        (WRONG | {"map_defect": 0.5} | SADDLE, "spurious"),
        (RIGHT | {"best_trivial": 0.015, "target_visible": 0.001} | SADDLE, "inaccurate"),
        (RIGHT | {"any_other_defect": 2.0, "any_other_visible": 0.05} | SADDLE, "spurious"),
        (RIGHT | {"branch_defect": 0.2, "branch_visible": 0.3}, "ok"),
        (RIGHT | {"branch_defect": 0.09, "branch_visible": 0.05}, "ok"),
        (
            {"target_defect": 0.02},
            None,
        ),  # the optimal cost is unknown: any map on to the target would be right
        (WRONG | {"cost_defect": None}, None),
        (RIGHT | {"branch_defect": None, "dual_gap": None, "inner_gap": None}, "ok"),
        ({"l2_uvp": 3.0, "target_defect": None}, None),
        ({}, None),
    ],
)
def test_the_verdict_of_known_defects_and_residuals(scores, verdict):
    assert judge(scores) == verdict


def test_each_threshold_is_its_own():
    assert judge(WRONG | SADDLE, tau=0.5) == "ok"
    assert (
        judge(RIGHT | SADDLE, tau=0.015) == "unconverged"
        and judge(RIGHT | {"target_defect": 0.009}, tau=0.001) == "ok"
    )
    assert judge(WRONG | SADDLE, saddle_tau=0.01) == "unconverged"
    assert judge(RIGHT | {"cost_defect": 0.2}, cost_tau=0.3) == "ok"
    assert (converged(SADDLE), converged(SADDLE, 0.01), converged(RIGHT)) == (True, False, None)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.001, 1), st.floats(0.001, 1))
def test_a_higher_threshold_turns_no_run_from_ok(defect, visible, tau, other):
    scores = {"target_defect": defect, "target_visible": visible} | SADDLE
    if judge(scores, min(tau, other)) == Verdict.OK:
        assert judge(scores, max(tau, other)) == Verdict.OK


def measured(
    task: str, solver: str, seed: int, scores: dict[str, float | None], **changes: Any
) -> dict[str, Any]:
    metrics = {f"metric_{name}": value for name, value in scores.items()}
    return row(task, solver, seed, verdict=judge(scores), **metrics, **changes)


def table(text: str) -> dict[tuple[str, str], dict[str, str]]:
    """The cells of the Markdown tables by task and solver, and then by column."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for block in text.split("\n\n"):
        head, *lines = [
            [cell.strip() for cell in line.strip("|").split("|")]
            for line in block.splitlines()
            if line[:2] == "| "
        ] or [[]]
        for cells in lines:
            found.setdefault((cells[0], cells[1]), {}).update(zip(head[2:], cells[2:], strict=True))
    return found


@pytest.fixture
def mixed(tmp_path):
    """On `perpendicular` otm comes out in every way; the other rows are what must not be mixed up
    with it.
    """
    undone = SADDLE | {"dual_gap": 0.3}
    of_otm = [RIGHT | SADDLE, *[WRONG | SADDLE] * 3, RIGHT | undone, WRONG | undone]
    recorded = [
        *[
            measured("perpendicular", "otm", seed, scores, no_map="not unique: every coupling")
            for seed, scores in enumerate(of_otm)
        ],
        row("perpendicular", "otm", 6, "diverged", verdict="diverged"),
        row("perpendicular", "otm", 7, "timeout"),
        row("perpendicular", "otm", 8, "timeout"),
        row("perpendicular", "otm", 9, "oom"),
        *[measured("perpendicular", "identity", seed, WRONG, trivial=True) for seed in range(2)],
        row("perpendicular", "picky", 0, "skipped"),
        *[measured("gaussian[dim=16]", "otm", seed, RIGHT | SADDLE) for seed in range(6)],
        row("digit-pairs", "sinkhorn", metric_cost_gap=0.1),
        row("digit-pairs", "sinkhorn", 1, "timeout"),
    ]
    return write(tmp_path / "mixed", recorded)


def test_golden_table(mixed):
    text = verdicts(mixed)
    assert text.startswith("### Verdicts at thresholds 0.1 and 0.2, on cpu, float32\n")
    assert max(map(len, text.splitlines())) <= WIDTH
    cells = table(text)
    assert list(cells) == [
        ("gaussian[dim=16]", "otm"),
        ("perpendicular", "identity"),
        ("perpendicular", "otm"),
    ]
    assert cells["perpendicular", "otm"] == {
        "runs": "10",
        "failure rate": "80 % [49–94] of 10",  # noqa: RUF001
        "ok": "2",
        "spurious": "3",
        "unconverged": "1",
        "diverged": "1",
        "inaccurate": "0",
        "failed": "timeout 2; oom 1",
        "spurious rate": "43 % [16–75] of 7",  # noqa: RUF001
        "at other thresholds": "0–43 %",  # noqa: RUF001
        "of converged": "75 % [30–95] of 4",  # noqa: RUF001
    }
    assert cells["gaussian[dim=16]", "otm"]["spurious rate"] == "0 % [0–39] of 6"  # noqa: RUF001
    identity = cells["perpendicular", "identity"]
    assert (identity["inaccurate"], identity["spurious rate"], identity["of converged"]) == (
        "2",
        "–",  # noqa: RUF001
        "–",  # noqa: RUF001
    )
    for verdict in Verdict:
        assert " ".join(text.split()).count(f"{verdict}: {verdict.meaning}.") == 1
    assert "alarms" not in text


def test_the_threshold_turns_labels(mixed):
    cells = table(verdicts(mixed, ["perpendicular"], tau=0.5))
    assert set(cells) == {("perpendicular", "otm"), ("perpendicular", "identity")}
    assert [
        cells["perpendicular", "otm"][name]
        for name in ("ok", "spurious", "unconverged", "diverged")
    ] == ["6", "0", "0", "1"]
    assert cells["perpendicular", "otm"]["of converged"] == "0 % [0–49] of 4"  # noqa: RUF001
    assert cells["perpendicular", "otm"]["at other thresholds"] == "0–43 %"  # noqa: RUF001
    undone = table(verdicts(mixed, ["perpendicular"], saddle_tau=0.04))["perpendicular", "otm"]
    assert [undone[name] for name in ("ok", "spurious", "unconverged")] == ["2", "0", "4"]
    strict = table(verdicts(mixed, tau=0.015))
    assert [strict["perpendicular", "otm"][name] for name in ("ok", "spurious", "unconverged")] == [
        "0",
        "3",
        "3",
    ]
    assert strict["gaussian[dim=16]", "otm"]["unconverged"] == "6"


def test_at_the_default_threshold_the_verdict_is_the_recorded_one(mixed):
    runs = judged(select(mixed.runs, None))
    recorded = mixed.runs.set_index("key").verdict[runs.key]
    assert list(runs.verdict.dropna()) == list(recorded.dropna()) and len(recorded.dropna()) == 15


def test_a_wrong_cost_with_the_right_marginal_is_an_alarm(tmp_path):
    doubtful = RIGHT | SADDLE | {"cost_defect": 0.3}
    both = WRONG | SADDLE | {"cost_defect": 0.3}
    recorded = [
        measured("atom", "otm", seed, scores)
        for seed, scores in enumerate([doubtful, both, RIGHT | SADDLE])
    ]
    text = verdicts(
        write(tmp_path, [*recorded, measured("atom", "flow", 0, RIGHT | {"cost_defect": 0.3})])
    )
    cells = table(text)
    assert (
        cells["atom", "otm"]["spurious"],
        cells["atom", "otm"]["alarms"],
        cells["atom", "flow"]["alarms"],
    ) == ("2", "1", "0")
    assert "alarms: spurious runs whose marginal is right" in text


def test_no_rate_is_said_of_a_solver_without_a_potential_that_diverged(tmp_path):
    diverged = [
        row("atom", solver, 1, "diverged", verdict="diverged") for solver in ("flow", "otm")
    ]
    cells = table(
        verdicts(
            write(
                tmp_path,
                [
                    measured("atom", "flow", 0, RIGHT),
                    measured("atom", "otm", 0, RIGHT | SADDLE),
                    *diverged,
                ],
            )
        )
    )
    assert (cells["atom", "flow"]["diverged"], cells["atom", "flow"]["spurious rate"]) == ("1", "–")  # noqa: RUF001
    assert cells["atom", "otm"]["spurious rate"].endswith("of 2")


def test_recorded_verdicts_beside_those_of_today(tmp_path):
    recorded = [
        measured("gaussian", "linear", 0, RIGHT),
        measured("gaussian", "linear", 1, RIGHT | {"l2_uvp": 60.0}, solver_hash="older")
        | {"verdict": "ok"},
        measured("gaussian", "linear", 2, RIGHT | {"l2_uvp": 30.0}) | {"verdict": "inaccurate"},
    ]
    results = write(tmp_path, recorded)
    text = " ".join(rejudged(results).split())
    assert "| gaussian | ok | inaccurate | 1 |" in text
    assert "1 of 3 rows with a verdict have another one today; of 2 that were ok 1 are not" in text
    assert "ok with an L2-UVP above 25 %: 1 then, 0 today." in text
    with pytest.raises(UserError, match="no runs on task 'gausian'"):
        rejudged(results, ["gausian"])


def test_setups_are_counted_apart(tmp_path):
    recorded = [
        measured("a", "otm", seed, WRONG | SADDLE, device=device)
        for seed in range(2)
        for device in ("cpu", "cuda")
    ]
    text = verdicts(write(tmp_path, recorded))
    assert (
        "on cpu, float32" in text
        and "on cuda, float32" in text
        and text.count("100 % [34–100] of 2") == 6  # noqa: RUF001
    )


def test_tidy_and_typeset_forms(mixed):
    tidy = pd.read_csv(io.StringIO(verdicts(mixed, tau=0.2, format="csv"))).set_index(
        ["task_label", "solver_label"]
    )
    otm, identity = tidy.loc["perpendicular", "otm"], tidy.loc["perpendicular", "identity"]
    assert (otm.tau, otm.runs, otm.failed, otm.spurious, otm.converged, otm.saddles) == (
        0.2,
        10,
        3,
        3,
        4,
        6,
    )
    assert otm.spurious_rate == pytest.approx(3 / 7) and otm.conditional_rate_low == pytest.approx(
        0.3006, abs=1e-4
    )
    assert math.isnan(identity.spurious_rate) and math.isnan(identity.spurious_rate_high)
    assert r"43 \% {[}16--75{]} of 7" in verdicts(mixed, format="latex")
    assert "<td>43 % [16–75] of 7</td>" in verdicts(mixed, format="html")  # noqa: RUF001


def test_what_cannot_be_shown_is_said_in_one_line(mixed, tmp_path):
    with pytest.raises(UserError, match="unknown format 'pdf'"):
        verdicts(mixed, format="pdf")
    with pytest.raises(
        UserError, match="no runs on task 'perpendiculr'; did you mean 'perpendicular'"
    ):
        verdicts(mixed, ["perpendiculr"])
    with pytest.raises(UserError, match="no run here has a verdict: verdicts are about maps"):
        verdicts(mixed, ["digit-pairs"])
    with pytest.raises(UserError, match="no run here has a verdict"):
        verdicts(write(tmp_path / "old", uvp("gaussian", "otm", [1.0])))


def test_the_curves_over_both_thresholds(mixed, tmp_path):
    runs = select(mixed.runs, None)
    figure = spurious_rate(runs, styles(runs), "cpu")
    assert figure is not None
    panels = {(ax.get_title(), ax.get_xlabel().split()[3]): ax for ax in figure.axes}
    assert [task for task, _ in panels] == ["gaussian[dim=16]"] * 2 + ["perpendicular"] * 2
    curves = {
        "marginal": ((3, 3, 3, 3, 3, 3, 0), (7, 5, 5, 5, 5, 5, 1)),
        "saddle": ((0, 0, 0, 0, 3, 3, 3), (5,) * 7),
    }
    for name, (deceived, failed) in curves.items():
        # the first line is the default threshold; identity has no saddle
        _, not_ok, spurious = panels["perpendicular", name].get_lines()
        assert list(spurious.get_ydata()) == pytest.approx([n / 7 for n in deceived])
        assert list(not_ok.get_ydata()) == pytest.approx([n / 7 for n in failed])
    assert tmp_path / "spurious-rate.png" in plot(mixed, [], tmp_path)


def test_the_curves_keep_to_the_tasks_that_fail_most(tmp_path):
    recorded = [
        measured(f"gaussian[dim={d}]", "otm", 0, (WRONG if d > 3 else RIGHT) | SADDLE)
        for d in range(RATE_TASKS + 4)
    ]
    runs = select(write(tmp_path / "many", recorded).runs, None)
    figure = spurious_rate(runs, styles(runs), "cpu")
    assert figure is not None
    assert [ax.get_title() for ax in figure.axes[::2]] == [
        f"gaussian[dim={d}]" for d in range(4, RATE_TASKS + 4)
    ]
    assert "6 of 10 tasks" in figure.get_suptitle()
    runs = select(
        write(tmp_path / "plain", [measured("gaussian", "identity", 0, WRONG)]).runs, None
    )
    assert spurious_rate(runs, styles(runs), "cpu") is None


def test_the_leaderboard_says_where_no_map_can_be_scored(tmp_path):
    fork, free = (
        "does not exist: each point has two images",
        "not unique: every coupling is optimal",
    )
    reasons = {
        "one-to-many": fork,
        "one-to-many[dim=4]": fork,
        "perpendicular": free,
        "gaussian": "",
    }
    results = write(
        tmp_path,
        [row(task, "otm", metric_target_gap=0.1, no_map=why) for task, why in reasons.items()],
    )
    said = (
        "map not identifiable, so no map error is scored: one-to-many, one-to-many[dim=4] ({}); "
        "perpendicular ({})"
    )
    assert said.format(fork, free) in " ".join(leaderboard(results).split())
    assert f"scored: perpendicular ({free})" in " ".join(
        leaderboard(results, tasks=["perpendicular", "gaussian"]).split()
    )
    assert "identifiable" not in leaderboard(results, tasks=["gaussian"])


def test_the_controls_come_out_right(otbench_here, tmp_path):
    here = ["--seeds", 2, "--jobs", 2, "--device", "cpu"]
    assert (
        otbench_here(
            "run", "-t", "gaussian[dim=1]", "-s", "oracle", "linear", "identity", *here
        ).returncode
        == 0
    )
    assert otbench_here("run", "-t", "perpendicular[dim=2]", "-s", "planted", *here).returncode == 0
    found = {(r["task"], r["solver"], r["seed"]): r["verdict"] for r in rows(tmp_path)}
    assert {found["gaussian", "oracle", seed] for seed in (0, 1)} == {"ok"}
    assert {found["perpendicular", "planted", seed] for seed in (0, 1)} == {"spurious"}
    shown = otbench_here("verdicts")
    assert shown.returncode == 0, shown.stderr
    cells = table(shown.stdout)
    assert cells["gaussian[dim=1]", "oracle"]["ok"] == "2" and cells["gaussian[dim=1]", "oracle"][
        "of converged"
    ].startswith("0 %")
    assert (
        cells["gaussian[dim=1]", "linear"]["ok"] == "2"
        and cells["gaussian[dim=1]", "identity"]["inaccurate"] == "2"
    )
    assert cells["perpendicular", "planted"]["spurious rate"] == "100 % [34–100] of 2"  # noqa: RUF001
    loose = otbench_here(
        "verdicts", "results/runs", "--task", "gaussian[dim=1]", "--tau", 100, "--format", "csv"
    )
    assert loose.returncode == 0 and len(loose.stdout.splitlines()) == 4 + 1
    assert "not a number above 0" in otbench_here("verdicts", "--tau", "-1").stderr
