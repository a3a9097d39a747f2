"""The report on amortized tasks: break-even counts out of times, and what is not counted."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from otbench.errors import UserError
from otbench.report.amortization import amortization
from otbench.report.figures import total_time
from otbench.report.selected import select
from otbench.report.styles import styles
from tests.synthetic import row, write


def solved(
    solver: str, train_s: float, infer_ms: float, seed: int = 0, gap: float = 0.1, **changes
) -> dict:
    return row(
        "digits",
        solver,
        seed,
        fit_cold_s=train_s,
        infer_ms_per_pair=infer_ms,
        metric_cost_gap=gap,
        **changes,
    )


@pytest.fixture
def results(tmp_path):
    return write(
        tmp_path,
        [
            *(
                solved("learned", 10.0 + seed, 2.0, seed, 0.1 + 0.02 * seed, learns=True)
                for seed in (0, 1, 2)
            ),
            solved("slow-learner", 100.0, 60.0, learns=True),
            solved("pot", 0.0001, 52.0, gap=0.0),
            solved("ott", 0.0001, 1.0, gap=0.0),
            solved("zero", 0.0001, 0.5, trivial=True, gap=3.0),
            row("digits", "failed", status="timeout"),
            row("gaussian", "learned", metric_l2_uvp=1.0),
        ],
    )


def test_break_even_counts_are_training_over_what_a_pair_saves(results):
    table = amortization(results)
    cells = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in table.splitlines()
        if line.startswith("| ")
    ]
    head, *body = cells
    assert head[:5] == ["solver", "seeds", "training (s)", "ms per pair", "cost_gap"]
    found = {line[0]: dict(zip(head, line, strict=True)) for line in body}
    assert list(found) == ["zero °", "ott", "learned", "pot", "slow-learner"], (
        "fastest first, failures and other tasks left out"
    )
    assert found["learned"]["training (s)"] == "11.0" and found["learned"]["cost_gap"].startswith(
        "0.120 ±"
    )
    assert found["pot"]["training (s)"] == "1.00e-4"
    # On the seed that both ran 10 s of training, less the tenth of a millisecond of the other, at
    # 50 ms saved by the pair.
    assert found["learned"]["seeds"] == "3" and found["pot"]["seeds"] == "1"
    assert (
        found["learned"]["N* against pot"] == "200"
        and found["learned"]["N* against ott"] == "never"
    )
    assert (
        found["slow-learner"]["N* against pot"] == "never"
        and found["zero °"]["N* against pot"] == "0"
    )
    assert found["pot"]["N* against pot"] == "\N{EN DASH}" and all(
        f"N* against {name}" not in table for name in ("zero", "learned", "slow-learner")
    )


def test_counts_are_against_whom_one_asks_for(results):
    tidy = list(
        csv.DictReader(io.StringIO(amortization(results, against=["slow-learner"], format="csv")))
    )
    assert {line["solver_label"]: line["break_even_slow-learner"] for line in tidy} == {
        "zero": "0.0",
        "ott": "0.0",
        "learned": "0.0",
        "pot": "0.0",
        "slow-learner": "",
    }
    assert "<table>" in amortization(results, format="html") and r"\toprule" in amortization(
        results, format="latex"
    )


def test_solvers_without_a_common_seed_are_not_compared_and_equal_seeds_not_said(tmp_path):
    apart = [solved("learned", 10.0, 2.0, 1, learns=True), solved("pot", 0.0, 52.0, 0)]
    (line, _) = csv.DictReader(io.StringIO(amortization(write(tmp_path, apart), format="csv")))
    assert line["solver_label"] == "learned" and line["break_even_pot"] == ""
    assert "seeds |" not in amortization(write(tmp_path, apart))


def test_what_cannot_be_shown_is_said(results, tmp_path):
    with pytest.raises(UserError, match="no runs of solver 'learnt'; did you mean 'learned'"):
        amortization(results, against=["learnt"])
    with pytest.raises(UserError, match="unknown format"):
        amortization(results, format="xml")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="no run here succeeded on an amortized task"):
        amortization(results, tasks=["gaussian"])


def test_the_lines_of_the_picture_cross_at_the_break_even(results):
    runs = select(results.runs, None)
    figure = total_time(runs, styles(runs), "cpu")
    assert figure is not None
    (ax,) = figure.axes
    assert len(ax.get_lines()) == 5
    drawn = {round(float(np.asarray(line.get_ydata())[0]), 3): line for line in ax.get_lines()}
    learned, scratch = drawn[11.002], drawn[0.052]
    pairs, of_learned, of_scratch = (
        np.asarray(values)
        for values in (learned.get_xdata(), learned.get_ydata(), scratch.get_ydata())
    )
    assert 220 <= pairs[of_learned < of_scratch].min() < 280
    assert learned.get_linestyle() == "-" and scratch.get_linestyle() == "--"
    assert total_time(select(results.runs, ["gaussian"]), styles(runs), "cpu") is None


def test_the_command(otbench_here, results, tmp_path):
    shown = otbench_here("amortization", tmp_path)
    assert shown.returncode == 0 and "N* against pot" in shown.stdout, shown.stderr
    wrong = otbench_here("amortization", tmp_path, "--against", "nobody")
    assert wrong.returncode == 2 and "no runs of solver 'nobody'" in wrong.stderr
