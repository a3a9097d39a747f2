"""Comparison of two result sets: what must be found, and what must not."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportGeneralTypeIssues=false
# (pandas' own annotations join all that an operation may return, so that they fit almost nothing)

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from otbench.errors import UserError
from otbench.report.compare import ALL, compare, render
from tests.synthetic import row, together
from tests.synthetic import write as write_and_load


def at(minute, seconds):
    """Start and end of a run."""
    began = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minute)
    ended = began + timedelta(seconds=seconds)
    return {"began": began.isoformat(), "when": ended.isoformat()}


def alternately(seed, second):
    return 2 * seed + second


def one_after_the_other(seed, second):
    return seed + 100 * second


def write(folder, rows, turn=alternately, seconds=30, **columns):
    """Record the rows, with more columns; their folder. ``turn`` says when each was measured; by
    default the sides ``a`` and ``b`` were in turn, seed by seed, on a quiet machine.
    """
    second = folder.name != "a"
    place = {"machine": "Test CPU, 4 cores", "load": 0.02}
    placed = [
        {**values, **at(turn(values["seed"], second), seconds), **place, **columns}
        for values in rows
    ]
    write_and_load(folder, placed)
    return folder


def timed(rng, task, solver, seeds=5, slow=1.0, noise=0.03, **changes):
    values = {"metric_l2_uvp": 3.0, "push_us_per_point": 0.5, "host_peak_mib": 100.0, **changes}
    return [
        row(
            task,
            solver,
            seed,
            fit_cold_s=2.0 * slow * np.exp(noise * rng.standard_normal()),
            **values,
        )
        for seed in range(seeds)
    ]


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def test_a_solver_slowed_by_half_is_found_on_five_seeds_and_no_other(tmp_path, rng):
    solvers = ["otm", "otp", "pot-emd", "ott-sinkhorn"]
    base = write(tmp_path / "a", [r for s in solvers for r in timed(rng, "gaussian", s)])
    new = write(
        tmp_path / "b",
        [r for s in solvers for r in timed(rng, "gaussian", s, slow=1.5 if s == "otp" else 1.0)],
    )
    comparison = compare(base, new)
    worse = comparison.changes[comparison.changes.verdict == "regression"]
    assert worse[["solver_label", "quantity", "n"]].values.tolist() == [["otp", "fit_s", 5]]
    assert worse.ratio.item() == pytest.approx(1.5, rel=0.05)
    assert worse.low.item() < worse.ratio.item() < worse.high.item()
    assert len(comparison.regressions) == 1
    assert "1 regression:" in render(comparison) and "otp" in render(comparison)


@pytest.mark.parametrize("noise", [0.03, 0.3])
def test_noise_between_equals_is_no_regression(tmp_path, rng, noise):
    cases = [(f"gaussian[dim={d}]", f"solver-{s}") for d in (2, 4, 8) for s in "abcdefgh"]
    base, new = (
        write(tmp_path / side, [r for c in cases for r in timed(rng, *c, noise=noise)])
        for side in "ab"
    )
    comparison = compare(base, new)
    assert comparison.regressions == []
    assert "no regression:" in render(comparison)


def test_three_seeds_suffice_where_a_solver_is_slower_on_all_its_tasks(tmp_path, rng):
    tasks = [f"gaussian[dim={d}]" for d in range(2, 10)]
    base = write(tmp_path / "a", [r for t in tasks for r in timed(rng, t, "otm", seeds=3)])
    new = write(tmp_path / "b", [r for t in tasks for r in timed(rng, t, "otm", seeds=3, slow=1.5)])
    changes = compare(base, new).changes
    overall = changes[(changes.task_label == ALL) & (changes.quantity == "fit_s")]
    assert overall.verdict.item() == "regression" and overall.n.item() == len(tasks)


def test_equal_results_are_all_the_same(tmp_path, rng):
    rows = timed(rng, "gaussian", "otm")
    comparison = compare(write(tmp_path / "a", rows), write(tmp_path / "b", rows))
    assert set(comparison.changes.verdict) == {"same"} and (comparison.changes.ratio == 1).all()


def test_runs_whose_seeds_were_solved_together_are_compared_by_their_answers_alone(tmp_path, rng):
    costs = {"push_us_per_point": 0.5, "host_peak_mib": 100.0}
    dear = {"push_us_per_point": 5.0, "host_peak_mib": 800.0}
    alone = timed(rng, "gaussian", "otp")
    base = write(tmp_path / "a", [*together("gaussian", "otm", [3.0] * 5, 10.0, **costs), *alone])
    new = write(tmp_path / "b", [*together("gaussian", "otm", [6.0] * 5, 99.0, **dear), *alone])
    comparison = compare(base, new)
    of_otm = comparison.changes[comparison.changes.solver_label == "otm"]
    assert of_otm[["quantity", "verdict"]].values.tolist() == [["l2_uvp", "regression"]]
    assert "fit_s" in set(comparison.changes.quantity[comparison.changes.solver_label == "otp"])
    assert any(note.startswith("times and memory of 5 runs") for note in comparison.notes)
    separate = compare(
        base, write(tmp_path / "c", [*timed(rng, "gaussian", "otm"), *alone])
    ).changes
    assert set(separate.quantity[separate.solver_label == "otm"]) == {"l2_uvp"}


def test_a_worse_and_a_better_map(tmp_path, rng):
    def rows(worse, better):
        noise = np.exp(0.02 * rng.standard_normal((5, 2)))
        return [
            row("gaussian", solver, seed, metric_l2_uvp=value * noise[seed, i])
            for i, (solver, value) in enumerate([("worse", worse), ("better", better)])
            for seed in range(5)
        ]

    changes = compare(
        write(tmp_path / "a", rows(3, 3), fit_cold_s=None),
        write(tmp_path / "b", rows(6, 1), fit_cold_s=None),
    ).changes.set_index("solver_label")
    assert changes.verdict.to_dict() == {"worse": "regression", "better": "improved"}
    assert changes.ratio["worse"] == pytest.approx(2, rel=0.05) and changes.ratio[
        "better"
    ] == pytest.approx(1 / 3, rel=0.05)


@pytest.mark.parametrize(
    ("metric", "old", "now", "verdict"),
    [
        ("l2_uvp", 1e-13, 1e-10, "same"),  # both exact to rounding
        ("cost_gap", -1e-16, 1e-15, "same"),
        ("cos", 0.999, 0.99, "regression"),  # ten times farther from one
        ("cos", 0.99, 0.999, "improved"),
        ("cost_ratio", 0.9, 1.1, "same"),  # as far from one
        ("cost_ratio", 1.01, 1.1, "regression"),
    ],
)
def test_each_direction_and_near_zero(tmp_path, metric, old, now, verdict):
    def side(name, value):
        return write(
            tmp_path / name,
            [row("gaussian", "otm", seed, **{f"metric_{metric}": value}) for seed in range(5)],
            fit_cold_s=None,
        )

    changes = compare(side("a", old), side("b", now)).changes
    assert changes.verdict.tolist() == [verdict]


def test_the_target_gap_is_compared_on_top_of_its_floor(tmp_path):
    def side(name, gap):
        return write(
            tmp_path / name,
            [
                row("gaussian", "otm", s, metric_target_gap=gap, metric_target_noise=0.1)
                for s in range(5)
            ],
            fit_cold_s=None,
        )

    changes = compare(side("a", -0.001), side("b", 0.004)).changes
    assert changes["quantity"].tolist() == ["target_gap"] and changes.verdict.tolist() == ["same"]
    assert changes.ratio.item() == pytest.approx(0.104 / 0.099, rel=1e-3)


def test_a_run_that_fails_now_is_a_regression_with_any_number_of_seeds(tmp_path):
    base = write(
        tmp_path / "a",
        [row("gaussian", "otm", metric_l2_uvp=1.0), row("gaussian", "otp", status="oom")],
    )
    new = write(
        tmp_path / "b",
        [row("gaussian", "otm", status="timeout"), row("gaussian", "otp", metric_l2_uvp=1.0)],
    )
    comparison = compare(base, new)
    assert comparison.regressions == ["otm on gaussian, seed 0: ok -> timeout"]
    assert "otp on gaussian: oom -> ok" in render(comparison)


def test_a_run_skipped_now_is_shown_but_no_regression(tmp_path):
    base = write(tmp_path / "a", [row("gaussian", "otm", metric_l2_uvp=1.0)])
    comparison = compare(base, write(tmp_path / "b", [row("gaussian", "otm", status="missing")]))
    assert comparison.regressions == [] and "ok -> missing" in render(comparison)


def test_one_seed_is_untested(tmp_path, rng):
    base = write(tmp_path / "a", timed(rng, "gaussian", "otm", seeds=1))
    new = write(tmp_path / "b", timed(rng, "gaussian", "otm", seeds=1, metric_l2_uvp=9.0))
    comparison = compare(base, new)
    assert (
        comparison.changes.set_index("quantity").verdict["l2_uvp"] == "untested"
        and comparison.regressions == []
    )


def test_worse_accuracy_of_one_task_is_found_among_many_noisy_times(tmp_path, rng):
    """Three seeds, twenty cells: tests of times take no power from those of accuracy."""
    sides = []
    for side, factor in (("a", 1.0), ("b", 3.0)):
        rows = []
        for task in ("a", "b", "c", "d"):
            for solver in ("one", "two", "three", "four", "five"):
                worse = factor if (task, solver) == ("a", "one") else 1.0
                for seed in range(3):
                    noise = {
                        name: float(rng.lognormal(0, 0.1))
                        for name in ("fit_warm_s", "push_us_per_point")
                    }
                    rows.append(
                        row(
                            task,
                            solver,
                            seed,
                            metric_l2_uvp=worse * (5 + 0.1 * seed) * float(rng.lognormal(0, 0.01)),
                            **noise,
                        )
                    )
        sides.append(write(tmp_path / side, rows))
    comparison = compare(*sides)
    assert len(comparison.regressions) == 1 and comparison.regressions[0].startswith(
        "l2_uvp of one on a"
    )


# Times that are not comparable


def test_a_loaded_machine_makes_no_regression_of_a_solver_that_did_not_change(tmp_path, rng):
    """Twelve times slower under load, and was called a regression."""
    quiet, slow = timed(rng, "gaussian", "otm"), timed(rng, "gaussian", "otm", slow=12)
    base = write(tmp_path / "a", quiet, one_after_the_other)
    comparison = compare(base, write(tmp_path / "b", slow, one_after_the_other, load=0.92))
    assert comparison.regressions == []
    of_fit = comparison.changes.set_index("quantity").loc["fit_s"]
    assert of_fit.verdict == "not comparable" and of_fit.ratio == pytest.approx(12, rel=0.1)
    assert of_fit.reason == "not interleaved; load differs (0.02, 0.92)" and np.isnan(of_fit.p)
    text = render(comparison)
    assert "of otm on gaussian not comparable: not interleaved; load differs (0.02, 0.92)" in text
    assert "no regression of what was compared:" in text and "no regression:" not in text
    assert "2 times not comparable" in text  # of fit and of push
    assert "measure both sides in turn" in text
    assert set(comparison.changes.quantity[comparison.changes.verdict == "same"]) == {
        "l2_uvp",
        "host_peak_mib",
    }


@pytest.mark.parametrize(
    "turn",
    [alternately, lambda seed, second: 2 * seed + (second != seed % 2)],
    ids=["new after base", "first one, then the other is first"],
)
def test_a_solver_that_became_slower_is_called_where_the_sides_took_turns(tmp_path, rng, turn):
    base = write(tmp_path / "a", timed(rng, "gaussian", "otm"), turn)
    new = write(tmp_path / "b", timed(rng, "gaussian", "otm", slow=2), turn)
    comparison = compare(base, new)
    assert [line.split(":")[0] for line in comparison.regressions] == ["fit_s of otm on gaussian"]
    assert comparison.refused.empty and "not comparable" not in render(comparison)
    back = compare(new, base).changes.set_index("quantity")
    assert back.verdict["fit_s"] == "improved"


@pytest.mark.parametrize(
    ("turn", "columns", "reason"),
    [
        (one_after_the_other, {}, "not interleaved"),
        (lambda seed, second: 2 * (seed // 2) + 50 * second, {}, "not interleaved"),
        (lambda seed, second: 2 * seed + (seed // 2 + second) % 2 / 2, {}, ""),
        (alternately, {"load": 0.5}, "load differs (0.02, 0.50)"),
        (alternately, {"load": 0.08}, ""),
        (alternately, {"threads": 4}, "other number of threads (1, 4)"),
        (
            alternately,
            {"machine": "Other CPU"},
            "other machine (Test CPU, 4 cores, Other CPU)",
        ),
        (alternately, {"load": None}, "machine or load not recorded"),
        (alternately, {"machine": None}, "machine or load not recorded"),
        (alternately, {"began": None}, "machine or load not recorded"),
        (alternately, {"resumed": 1}, "resumed fits"),
        (alternately, {"gpu_runs": 1}, ""),
        (alternately, {"gpu_runs": 2}, "shared GPUs"),
    ],
)
def test_why_times_are_not_comparable(tmp_path, rng, turn, columns, reason):
    base = write(tmp_path / "a", timed(rng, "gaussian", "otm"), turn)
    new = write(tmp_path / "b", timed(rng, "gaussian", "otm", slow=3), turn, **columns)
    comparison = compare(base, new)
    found = comparison.changes.set_index("quantity")
    assert found.reason.to_dict() == {
        "l2_uvp": "",
        "fit_s": reason,
        "push_us_per_point": reason,
        "host_peak_mib": "",
    }
    assert bool(comparison.regressions) == (reason == "")


def test_the_load_of_a_short_run_is_known_to_the_tick_of_the_system_only(tmp_path, rng):
    """Two hundredths of a second by others are a fifth of a run of a tenth."""

    def reasons(seconds):
        rows, folder = timed(rng, "gaussian", "otm"), tmp_path / str(seconds)
        base = write(folder / "a", rows, seconds=seconds, load=0.0)
        new = write(folder / "b", rows, seconds=seconds, load=0.15)
        return set(compare(base, new).changes.reason)

    assert reasons(0.1) == {""} and reasons(10) == {"", "load differs (0.00, 0.15)"}


def test_of_one_seed_no_time_is_compared(tmp_path, rng):
    base = write(tmp_path / "a", timed(rng, "gaussian", "otm", seeds=1))
    new = write(tmp_path / "b", timed(rng, "gaussian", "otm", seeds=1, slow=3))
    comparison = compare(base, new)
    assert "one seed alone cannot alternate" in set(comparison.changes.reason)


def test_a_time_that_is_not_comparable_takes_no_part_in_that_of_all_tasks(tmp_path, rng):
    tasks = [f"gaussian[dim={d}]" for d in range(2, 6)]

    def side(name, slow):
        rows = [r for t in tasks for r in timed(rng, t, "otm", slow=slow)]
        folder = write(tmp_path / name, rows)
        return write(folder, timed(rng, "petals", "otm", slow=12 * slow), one_after_the_other)

    changes = compare(side("a", 1.0), side("b", 2.0)).changes
    overall = changes[(changes.task_label == ALL) & (changes.quantity == "fit_s")]
    assert overall.n.item() == len(tasks) and overall.ratio.item() == pytest.approx(2, rel=0.1)
    assert set(changes.reason[changes.task_label == "petals"]) == {"", "not interleaved"}


def test_warm_fits_are_compared_with_warm_fits_only(tmp_path):
    base = write(
        tmp_path / "a",
        [row("gaussian", "otm", s, fit_cold_s=2.0, fit_warm_s=0.1) for s in range(5)],
    )
    new = write(tmp_path / "b", [row("gaussian", "otm", s, fit_cold_s=2.0) for s in range(5)])
    assert compare(base, new).changes.ratio.tolist() == [1.0]


def test_changed_sources_and_unpaired_runs_are_said(tmp_path):
    base = write(
        tmp_path / "a",
        [
            row("gaussian", "otm", s, task_hash="aa", solver_hash="bb", metric_l2_uvp=1.0)
            for s in range(3)
        ],
    )
    new = write(
        tmp_path / "b",
        [
            row("gaussian", "otm", s, task_hash="cc", solver_hash="bb", metric_l2_uvp=1.0)
            for s in range(2)
        ],
    )
    notes = "\n".join(compare(base, new).notes)
    assert (
        "1 runs only in base" in notes
        and "source of task gaussian differs" in notes
        and "source of solver" not in notes
    )


def test_another_scoring_is_said(tmp_path):
    def written(name: str, **columns: object):
        values = {"metric_l2_uvp": 1.0, **columns}
        return write(tmp_path / name, [row("gaussian", "otm", s, **values) for s in range(2)])

    new = written("b", scoring_hash="cc")
    assert "source of the scoring differs" in "".join(
        compare(written("a", scoring_hash="bb"), new).notes
    )
    assert not compare(new, new).notes


def test_nothing_in_common_and_a_senseless_factor(tmp_path):
    base, new = (
        write(tmp_path / "a", [row("gaussian", "otm", 0)]),
        write(tmp_path / "b", [row("gaussian", "otm", 1)]),
    )
    with pytest.raises(UserError, match="no run stands on both sides"):
        compare(base, new)
    with pytest.raises(UserError, match="factor"):
        compare(base, base, factor=0.9)


def test_a_changed_default_does_not_unpair_runs_and_is_said(tmp_path):
    """Every task twice as bad: that was no regression as long as keys were paired."""
    sides = [
        write(
            tmp_path / name,
            [
                {
                    **row("gaussian", "otm", s, solver_params=params, metric_l2_uvp=value),
                    "key": name + str(s),
                }
                for s in range(5)
            ],
        )
        for name, params, value in (("a", '{"steps": 200}', 1.0), ("b", '{"steps": 100}', 2.0))
    ]
    found = compare(*sides)
    assert [line.split(":")[0] for line in found.regressions] == ["l2_uvp of otm on gaussian"]
    assert "solver otm has other parameters: steps 200 -> 100" in found.notes
