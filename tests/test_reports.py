"""Leaderboards, published numbers, pictures and exports of rows made up here, with values worked
out by hand.
"""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportGeneralTypeIssues=false
# (pandas' own annotations join all that an operation may return, so that they fit almost nothing)

from __future__ import annotations

import io
import math
import re

import numpy as np
import pandas as pd
import pytest

from otbench.code_hashes import Code
from otbench.errors import UserError
from otbench.registry import registry
from otbench.report import published
from otbench.report.drawing import short_paths, titled
from otbench.report.export import export
from otbench.report.figures import accuracy_curves, error_against_time, maps, pareto, plot
from otbench.report.kept import kept_maps
from otbench.report.leaderboard import leaderboard
from otbench.report.quantities import number, quantity
from otbench.report.rates import floor
from otbench.report.status import status
from otbench.report.styles import styles
from otbench.report.tables import WIDTH
from otbench.report.verdicts import verdicts
from otbench.store import COLUMNS
from tests.synthetic import dumps, lines, row, together, uvp, write


@pytest.fixture
def small(tmp_path):
    """Two tasks: linear 10 and 20, otm 1 and 2, otp better on the first and timed out on the
    second.
    """
    rows = [
        *uvp("gaussian", "linear", [10.0, 10.0], trivial=True, fit_warm_s=0.01),
        *uvp("gaussian", "otm", [1.0, 1.2]),
        *uvp("gaussian", "otp", [0.5, 0.5]),
        *uvp("petals", "linear", [20.0, 20.0], trivial=True, fit_warm_s=0.01),
        *uvp("petals", "otm", [2.0, 2.0]),
        *[row("petals", "otp", seed, status="timeout") for seed in range(2)],
    ]
    return write(tmp_path / "small", rows)


@pytest.mark.parametrize(
    ("mean", "half", "text"),
    [
        (1.634, 0.052, "1.63 ± 0.05"),
        (14.012, 0.083, "14.01 ± 0.08"),
        (123.4, 4.4, "123 ± 4"),
        (0.0, None, "0"),
        (9.996, None, "10.0"),
        (1.2345e-10, 3e-12, "(1.23 ± 0.03)e-10"),
        (-0.00123, 0.0005, "-0.00123 ± 0.00050"),
        (123456.0, None, "1.23e5"),
        (0.1, 2.31, "0.10 ± 2.31"),
        (math.inf, None, "inf"),
    ],
)
def test_numbers_have_sensible_digits(mean, half, text):
    assert number(mean, half) == text


def test_golden_leaderboard(small):
    text = leaderboard(small, metrics=["l2_uvp"])
    assert text.startswith("### l2_uvp (%, lower is better), 2 seeds on cpu, float32\n")
    table = lines(text)
    assert list(table) == ["solver", "otm", "otp", "linear °"]
    # otm is second and first; otp first and, timed out, behind linear: third; linear third and
    # second.
    assert [table[name][0].split()[0] for name in ("otm", "otp", "linear °")] == ["1.5", "2", "2.5"]
    assert [cell.strip(" |") for cell in table["otm"][1:]] == ["1.10", "**2.00**"]
    assert [cell.strip(" |") for cell in table["otp"][1:]] == ["**0.500**", "timeout 2/2"]
    assert "° trivial baseline" in text and "timeout: otp on petals: why timeout" in text


def test_a_solver_that_always_crashes_ranks_behind_the_worst_trivial_row(tmp_path):
    rows = [
        r
        for t in ("a", "b")
        for s, v in (("constant", 100.0), ("identity", 30.0))
        for r in uvp(t, s, [v] * 3, trivial=True)
    ]
    rows += [row(t, "fragile", seed, status="crashed") for t in ("a", "b") for seed in range(3)]
    table = lines(leaderboard(write(tmp_path, rows), metrics=["l2_uvp"]))
    assert list(table) == ["solver", "identity °", "constant °", "fragile"]
    assert table["fragile"][0] == "3 [3–3] c"  # noqa: RUF001


def test_some_failures_stand_beside_the_mean_of_the_rest_and_count_in_the_rank(tmp_path):
    rows = uvp("a", "linear", [10.0] * 3, trivial=True) + uvp("a", "steady", [2.0] * 3)
    rows += [*uvp("a", "shaky", [1.0, 1.0]), row("a", "shaky", 2, status="oom")]
    table = lines(leaderboard(write(tmp_path, rows), metrics=["l2_uvp"]))
    assert table["shaky"][1].strip(" |") == "1.00 (1 oom)"
    assert list(table)[1:] == ["steady", "shaky", "linear °"] and table["steady"][1].startswith(
        "**"
    )  # (1 + 1 + 10) / 3 = 4


def test_a_cell_of_fewer_seeds_says_so_and_only_common_seeds_are_compared(tmp_path):
    """The seeds 0 and 1 are easy: who ran no others has the lowest mean, and is worse on both."""
    rows = [
        *uvp("a", "steady", [1.0, 2.0, 30.0, 40.0, 50.0]),
        *uvp("a", "few", [1.5, 2.5]),
        *uvp("a", "shaky", [9.0, 9.0, 90.0]),
        *[row("a", "shaky", seed, status="oom") for seed in (3, 4)],
        *[row("a", "picky", seed, status="skipped") for seed in range(9)],
        *uvp("b", "steady", [1.0, 2.0]),
        *uvp("b", "few", [3.0, 3.0]),
    ]
    results = write(tmp_path / "r", rows)
    text = leaderboard(results, metrics=["l2_uvp"])
    table = {name: [cell.strip(" |") for cell in cells] for name, cells in lines(text).items()}
    assert table["few"][1:] == ["2.00 (n=2 of 5)", "3.00"]
    assert table["steady"][1].startswith("**24.6 [") and table["steady"][2] == "**1.50**"
    assert table["shaky"][1].endswith(" (2 oom)")
    assert "n=2 of 5: the mean of two seeds" in text
    tidy = pd.read_csv(io.StringIO(leaderboard(results, metrics=["l2_uvp"], format="csv")))
    assert tidy[tidy.task_label == "a"].n_seeds.tolist() == [5] * 4
    assert "n=" not in leaderboard(results, metrics=["l2_uvp"], tasks=["b"])


def test_skipped_and_missing_are_said_and_not_ranked(tmp_path):
    rows = [
        *uvp("a", "otm", [1.0]),
        row("a", "picky", status="skipped"),
        row("a", "absent", status="missing"),
    ]
    text = leaderboard(write(tmp_path, rows), metrics=["l2_uvp"])
    table = lines(text)
    assert table["otm"][0] == "–"  # of one seed there is no rank  # noqa: RUF001
    assert "picky" not in table  # it takes none of these tasks
    assert [cell.strip(" |") for cell in table["absent"]] == ["–", "missing"]  # noqa: RUF001
    assert (
        "skipped: picky on a: why skipped" in text and "missing: absent on a: why missing" in text
    )


def test_by_default_each_task_is_judged_by_its_own_metric_and_then_by_time(tmp_path):
    rows = [
        *uvp("gaussian", "otm", [1.0], metric_target_gap=0.1),
        row("digit-pairs", "sinkhorn", metric_cost_gap=0.25, fit_warm_s=0.5),
        row("atom", "otm", metric_target_gap=0.125),
    ]
    text = leaderboard(write(tmp_path, rows))
    blocks = {part.split()[0]: part for part in text.split("### ")[1:]}
    assert list(blocks) == ["l2_uvp", "cost_gap", "target_gap", "fit_s"]
    assert (
        "gaussian" in blocks["l2_uvp"]
        and "gaussian" not in blocks["target_gap"]
        and "atom" in blocks["target_gap"]
    )
    assert "fit_s (s, lower is better), 1 seed on cpu, 1 thread, float32" in blocks["fit_s"]
    times = lines("### " + blocks["fit_s"])
    assert times["sinkhorn"][2] == "**0.500**" and times["otm"][1] == "**2.00 †**"
    assert "† first fit" in text


def test_where_all_runs_failed_the_table_still_shows_how(tmp_path):
    text = leaderboard(
        write(tmp_path, [row("a", "otm", seed, status="error") for seed in range(3)])
    )
    assert "error 3/3" in text and "why error" in text


def test_devices_and_threads_are_never_averaged(tmp_path):
    rows = [
        *uvp("a", "otm", [1.0], fit_cold_s=8.0),
        *uvp("a", "otm", [3.0], fit_cold_s=2.0, device="cuda"),
        *uvp("a", "otp", [1.0], fit_cold_s=4.0, threads=4),
    ]
    results = write(tmp_path, rows)
    titles = re.findall("### .* on (.*)", leaderboard(results, metrics=["fit_s"]))
    assert titles == [
        "cpu, 1 thread, float32",
        "cpu, 4 threads, float32",
        "cuda, 1 thread, float32",
    ]
    assert re.findall("### .* on (.*)", leaderboard(results, metrics=["l2_uvp"])) == [
        "cpu, float32",
        "cuda, float32",
    ]
    tidy = pd.read_csv(io.StringIO(leaderboard(results, metrics=["fit_s"], format="csv")))
    assert sorted(zip(tidy.solver_label, tidy.device, tidy["mean"], strict=True)) == [
        ("otm", "cpu", 8.0),
        ("otm", "cuda", 2.0),
        ("otp", "cpu", 4.0),
    ]


def test_times_of_different_machines_are_never_put_together(tmp_path):
    rows = [
        row("a", "otm", machine="CPU one, 2 cores"),
        row("a", "linear", machine="CPU two, 8 cores"),
    ]
    rows = [{**one, "metric_l2_uvp": 1.0} for one in rows]
    text = leaderboard(write(tmp_path, rows))
    assert text.count("### l2_uvp") == 1 and text.count("### fit_s") == 2
    assert "cpu (CPU one, 2 cores), 1 thread" in text and "cpu (CPU two, 8 cores), 1 thread" in text


def test_tasks_stand_in_natural_order_and_blocks_fit_the_terminal(tmp_path):
    dims = [2, 4, 8, 16, 32, 64, 128, 256]
    rows = [
        r
        for d in reversed(dims)
        for r in uvp(f"mix3tomix10[dim={d}]", "otm[steps=2000,lr=0.0001]", [1.0, 2.0])
    ]
    text = leaderboard(write(tmp_path, rows))
    assert max(map(len, text.splitlines())) <= WIDTH
    shown = re.findall(r"dim=(\d+)\]", text.split("### fit_s")[0])
    assert [int(d) for d in shown] == dims


def test_a_direction_of_higher_and_a_column_without_direction(tmp_path):
    rows = [
        row("a", name, metric_cos=cos, info_n=n)
        for name, cos, n in (("low", 0.2, 5), ("high", 0.9, 7))
    ]
    results = write(tmp_path, rows)
    assert list(lines(leaderboard(results, metrics=["cos"])))[1:] == ["high", "low"]
    text = leaderboard(results, metrics=["info_n"])
    assert "**" not in text and "rank:" not in text and "better" not in text


def test_csv_parses_back(small):
    tidy = pd.read_csv(io.StringIO(leaderboard(small, metrics=["l2_uvp"], format="csv"))).set_index(
        ["solver_label", "task_label"]
    )
    otm = tidy.loc[("otm", "gaussian")]
    assert (
        otm["mean"] == pytest.approx(1.1)
        and math.isnan(otm.low)  # two values have no interval
        and math.isnan(otm.high)
        and otm.n_ok == otm.n_runs == 2
    )
    otp = tidy.loc[("otp", "petals")]
    assert math.isnan(otp["mean"]) and otp.statuses == "timeout 2" and otp.n_ok == 0
    assert set(tidy.source) == {"measured"} and set(tidy.unit) == {"%"} and tidy.trivial.sum() == 2


def test_latex_is_escaped_and_sets_the_best_in_bold(tmp_path):
    rows = uvp("mix_3[dim=2]", "a&b_c#1%", [1.0, 1.25, 1.5]) + uvp(
        "mix_3[dim=2]", "linear", [14.0, 14.0], trivial=True
    )
    text = leaderboard(write(tmp_path, rows), metrics=["l2_uvp"], format="latex")
    assert r"a\&b\_c\#1\%" in text and r"mix\_3{[}dim=2{]}" in text and r"linear $^\circ$" in text
    assert r"\textbf{1.25 $\pm$ 0." in text and r"\textbf{14" not in text
    assert (
        text.count(r"\begin{tabular}")
        == text.count(r"\end{tabular}")
        == text.count(r"\toprule")
        == 1
    )
    assert text.isascii()


def test_html_is_escaped_and_self_contained(tmp_path):
    text = leaderboard(
        write(tmp_path, uvp("a", "<b>x", [1.0, 1.25, 1.5])), metrics=["l2_uvp"], format="html"
    )
    assert "&lt;b&gt;x" in text and "<b>x" not in text and "<b>1.25 ± 0." in text
    assert (
        "<caption>l2_uvp (%, lower is better)" in text
        and "http" not in text
        and "<script" not in text
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tasks": ["gausian"]}, "did you mean 'gaussian'"),
        ({"metrics": ["l2_uvq"]}, "did you mean 'l2_uvp'"),
        ({"metrics": ["host_peak_mb"]}, "did you mean 'host_peak_mib'"),
        ({"metrics": ["plan_rmse"]}, "no run here has 'plan_rmse'; measured: l2_uvp"),
        ({"format": "docx"}, "unknown format 'docx'"),
    ],
)
def test_leaderboard_explains_what_it_cannot_do(small, arguments, message):
    with pytest.raises(UserError, match=message):
        leaderboard(small, **arguments)


def test_no_rows_is_an_error_of_one_line(tmp_path):
    with pytest.raises(UserError, match="no runs recorded"):
        leaderboard(write(tmp_path, []))


def test_units_and_directions_of_columns(small):
    runs = small.runs.assign(push_us_per_point=1.0)
    assert (
        quantity("push_us_per_point", runs).title
        == "push_us_per_point (µs per point, lower is better)"
    )
    assert quantity("metric_l2_uvp", runs).title == "l2_uvp (%, lower is better)"


# Seeds that were solved together


def test_seeds_that_were_solved_together_have_no_time_and_their_cell_says_so(tmp_path):
    rows = [
        *uvp("a", "linear", [14.0] * 3, trivial=True, fit_warm_s=0.5),
        *together("a", "otm", [1.0, 2.0, 3.0], 30.0),
    ]
    rows += [
        *uvp("a", "otp", [4.0]),
        *[
            {**run, "seed": 1 + i, "key": f"otp{i}"}
            for i, run in enumerate(together("a", "otp", [5.0, 6.0], 8.0))
        ],
    ]
    rows += [*together("b", "otm", [1.0, 2.0, 3.0], 60.0), row("b", "otp", status="timeout")]
    text = leaderboard(write(tmp_path, rows))
    errors, times = (lines("### " + part) for part in text.split("### ")[1:])
    assert errors["otm"][1].startswith("**2.00") and errors["otp"][1].startswith("5.00")
    times = {name: [cell.strip(" |") for cell in cells] for name, cells in times.items()}
    assert times["otm"] == ["–", "– together", "– together"]  # noqa: RUF001
    assert times["otp"][1:] == ["2.00 † (2 together)", "timeout 1/1"]
    assert times["linear °"][1] == "**0.500 ± 0.000**"
    # On b nothing has a time to rank, on a the two have one seed in common.
    assert times["linear °"][0] == times["otp"][0] == "–"  # noqa: RUF001
    assert "no time of their own; the whole took 4.00 to 20.0 s per seed." in " ".join(text.split())
    assert "together:" not in leaderboard(write(tmp_path / "more", rows), metrics=["l2_uvp"])


def test_seeds_that_were_all_solved_together_are_ranked_and_judged_as_any_but_in_no_picture_of_time(
    tmp_path,
):
    curve = [{"step": k, "seconds": k / 10, "l2_uvp": 30 / k} for k in (10, 20)]
    scores = {
        "metric_target_defect": 0.0,
        "metric_target_visible": 0.1,
        "metric_cost_defect": 0.0,
        "metric_cost_visible": 0.1,
        "verdict": "ok",
    }
    rows = together("a", "otm", [1.0, 2.0], 30.0, curve=curve, **scores)
    results = write(tmp_path / "r", rows)
    text = leaderboard(results)
    assert "### l2_uvp" in text and "### fit_s" in text and "the whole took 15.0 s" in text
    assert "| a    | otm    | 2 " in verdicts(results)
    runs = results.runs.assign(fit_s=np.nan)
    assert error_against_time(runs, styles(runs), "cpu") is None
    assert accuracy_curves(runs, results.curves, styles(runs), "cpu") is None
    written = export(results, tmp_path / "out")
    back = pd.read_parquet(written[0])
    assert (
        back.together.tolist() == [2, 2]
        and back.fit_together_s.tolist() == [30, 30]
        and back.fit_cold_s.isna().all()
    )
    assert "| `fit_together_s` |" in (tmp_path / "out" / "COLUMNS.md").read_text()


def test_of_mixed_rows_the_pictures_of_time_show_those_that_have_one(tmp_path):
    curve = [{"step": k, "seconds": k / 10, "l2_uvp": 30 / k} for k in (10, 20)]
    slow = [{**point, "seconds": 100 * point["seconds"]} for point in curve]
    rows = [
        *uvp("a", "otm", [1.0], curve=curve, fit_cold_s=2.0),
        *together("a", "otp", [3.0, 4.0], 200.0, curve=slow),
    ]
    results = write(tmp_path, rows)
    runs = results.runs.assign(fit_s=results.runs.fit_cold_s.astype(float))
    figure = error_against_time(runs, styles(runs), "cpu")
    assert figure is not None and len(figure.axes[0].containers) == 1
    figure = accuracy_curves(runs, results.curves, styles(runs), "cpu")
    assert figure is not None and [line.get_xdata().max() for line in figure.axes[0].lines] == [2]


# Published numbers


def test_published_values_stand_beside_their_task_unranked_with_their_source(tmp_path):
    rows = uvp("mix3tomix10[dim=16]", "linear", [41.6], trivial=True, task_params=dumps(dim=16))
    rows += uvp("mix3tomix10", "linear", [14.0], trivial=True, task_params=dumps(dim=2))
    results = write(tmp_path, rows)
    text = leaderboard(results, metrics=["l2_uvp"], published=True)
    table = {name: [cell.strip(" |") for cell in cells] for name, cells in lines(text).items()}
    assert table["mmv1 [published]"] == ["", "0.2", "1.4"]
    assert table["linear [published]"] == ["", "14.1", "41.6"]
    assert "[published] Korotin et al. 2021" in text
    assert "published" not in leaderboard(results, metrics=["l2_uvp"])
    tidy = pd.read_csv(
        io.StringIO(leaderboard(results, metrics=["l2_uvp"], published=True, format="csv"))
    )
    quoted = tidy[tidy.source != "measured"]
    assert (
        len(quoted) == 30  # of thirteen solvers on the poster and two in later papers
        and quoted.source.str.startswith("published: Korotin").sum() == 26
        and quoted["rank"].isna().all()
    )


def test_published_rows_match_on_every_parameter_they_state_and_on_all_that_are_not_default():
    table = published.load()
    funnels = published.matching(
        table, "w1-benchmark", "w1-benchmark[dim=16,width=64]", dumps(dim=16, width=64)
    )
    assert set(funnels.params) == {"dim=16;width=64"} and len(funnels) > 20
    assert published.matching(table, "mix3tomix10", "mix3tomix10[dim=3]", dumps(dim=3)).empty
    assert published.matching(
        table, "mix3tomix10", "mix3tomix10[noise=0.1]", dumps(dim=2, noise=0.1)
    ).empty
    assert len(published.matching(table, "mix3tomix10", "mix3tomix10", dumps(dim=2, noise=0.0)))


def test_published_distances_to_the_target_stand_beside_measured_ones_of_otm_and_its_variants(
    tmp_path,
):
    params = dumps(dim=256, sigma=0.0)
    rows = [
        row("perpendicular[dim=256]", name, task_params=params, metric_d_target=80.0)
        for name in ("otm", "otm[preset=slow-potential]")
    ]
    narrow = dumps(dim=256, cube=128, sigma=0.0)
    rows += [row("one-to-many[dim=256,cube=128]", "otm", task_params=narrow, metric_d_target=140.0)]
    text = leaderboard(write(tmp_path, rows), metrics=["d_target"], published=True)
    cells = {name: [cell.strip(" |*") for cell in row] for name, row in lines(text).items()}
    assert cells["otm ‡"][1:] == ["140", "80.0"]
    assert cells["otm[preset=slow-potential] ‡"][1:] == ["", "80.0"]
    assert "otm (no preset has them); otm[preset=slow-potential] (no preset has them)" in " ".join(
        text.split()
    )
    assert cells["otm [published]"] == ["", "62.02", "84.91"]
    assert cells["otm-s [published]"] == ["", "61.87", "81.68"]
    assert cells["otp [published]"] == ["", "61.27", "63.36"]


def test_a_solver_of_other_settings_than_the_published_row_of_its_name_is_marked(tmp_path):
    """Its CPU defaults, its preset for points, the preset of the other degradation."""
    task = "image-restoration[data=celeba,side=64,degradation=inpaint]"
    params = dumps(data="celeba", side=64, degradation="inpaint")
    named = {"otm": True, "otm[preset=paper]": True, "otm[preset=paper-restoration]": True}
    named |= {"otm[preset=paper-inpainting]": False, "otp": False}
    named |= {"otm[preset=paper-inpainting,steps=9]": True}
    rows = [row(task, name, task_params=params, metric_fid=9.0) for name in named]
    rows += [row("gaussian", "otm-s", metric_fid=1.0)]
    text = leaderboard(write(tmp_path, rows), metrics=["fid"], published=True)
    marked = {name for name in lines(text) if name.endswith("‡")}
    assert marked == {f"{name} ‡" for name, other in named.items() if other}
    assert "‡ not the settings of the published row" in text
    assert "otm (otm[preset=paper-inpainting] has them)" in " ".join(text.split())
    assert "‡" not in leaderboard(write(tmp_path / "b", rows), metrics=["fid"])


def test_published_settings_are_presets_that_there_are():
    known, rows = published.presets(), published.load()
    for entry in known.itertuples():
        assert entry.preset in registry("solver").entries[entry.solver].presets
        assert entry.preset.startswith("paper")
        assert ((rows.task == entry.task) & (rows.solver == entry.solver)).any()
    labels = published.with_labels(rows[rows.task == "image-generation"])
    assert dict(zip(labels.params, labels.label, strict=True)) == {
        "data=cifar10": "",
        "data=celeba;side=64;latent=8": "otm[preset=paper-generation-64]",
        "data=mnist;side=32;latent=8;channels=3": "otm[preset=paper-generation]",
    }


def test_published_table_is_whole():
    table = published.load()
    assert set(table.tag) == {"published", "secondary source"}
    assert (table.note[table.value.isna()] != "").all()
    assert not table.duplicated(["source", "task", "params", "solver", "metric"]).any()
    assert published.parse("data=celeba;size=64;tol=1e-2;unequal") == {
        "data": "celeba",
        "size": 64,
        "tol": 0.01,
        "unequal": True,
    }


def test_a_wrong_published_table_is_said(tmp_path):
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="no column source"):
        published.load(tmp_path / "other.csv")
    with pytest.raises(UserError, match="no table"):
        published.load(tmp_path / "absent.csv")


# Pictures


@pytest.fixture
def drawable(tmp_path):
    """Two tasks, three solvers, checkpoints of one, kept outputs of two on the 2-D task."""
    rng = np.random.default_rng(0)
    rows = []
    for task in ("gaussian", "gaussian[dim=64]"):
        rows += uvp(task, "linear", [14.0, 15.0], trivial=True, fit_cold_s=0.01)
        rows += uvp(task, "pot-emd", [7.0, 8.0], fit_cold_s=0.5)
        curve = [{"step": k, "seconds": k / 10, "l2_uvp": 30 / k} for k in (10, 20, 30)]
        rows += uvp(task, "otm", [1.0, 1.5], fit_cold_s=3.0, curve=curve)
        rows += [row(task, "otp", status="timeout")]
    results = write(tmp_path / "results", rows)
    outputs = next((tmp_path / "results").iterdir()) / "outputs"
    outputs.mkdir()
    for solver, dim, extra in (("otm", 2, True), ("pot-emd", 2, False), ("linear", 64, True)):
        x = rng.standard_normal((50, dim))
        arrays = {"x": x, "pushed": x + 1, "target": x - 1, **({"optimal": 2 * x} if extra else {})}
        arrays |= {"pushed": x[:, 1:]} if solver == "linear" else {}
        np.savez(outputs / f"gaussian-{solver}-0-cpu-float32.npz", **arrays)
    return results


def test_error_against_time_has_a_panel_per_task_and_a_marker_per_solver(drawable):
    runs = drawable.runs.assign(fit_s=drawable.runs.fit_cold_s.astype(float))
    figure = error_against_time(runs, styles(runs), "cpu")
    assert figure is not None
    assert [ax.get_title() for ax in figure.axes] == ["gaussian", "gaussian[dim=64]"]
    for ax in figure.axes:
        assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("fit time (s)", "l2_uvp (%)")
        assert len(ax.containers) == 3
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["otm", "pot-emd", "linear", "Pareto front"]


def test_curves_are_medians_of_the_checkpoints(drawable):
    runs = drawable.runs
    figure = accuracy_curves(runs, drawable.curves, styles(runs), "cpu")
    assert figure is not None and len(figure.axes) == 2
    (line,) = figure.axes[0].lines
    np.testing.assert_allclose(line.get_xydata(), [[1, 3], [2, 1.5], [3, 1]])
    assert accuracy_curves(runs, drawable.curves.iloc[:0], styles(runs), "cpu") is None


def test_curves_show_the_best_published_number_of_each_source(tmp_path):
    curve = [{"step": k, "seconds": k / 10, "l2_uvp": 30 / k} for k in (10, 20, 30)]
    pair, params = "mix3tomix10[dim=4]", dumps(dim=4)
    rows = [
        *uvp(pair, "otm", [1.0, 1.5], fit_cold_s=3.0, curve=curve, task_params=params),
        *uvp("gaussian", "otm", [1.0, 1.5], fit_cold_s=3.0, curve=curve),
    ]
    results = write(tmp_path / "results", rows)
    given = results.runs, results.curves, styles(results.runs), "cpu"
    best = {"mm [published]": 0.3, "enot [secondary source]": 0.03, "w2ot [secondary source]": 0.22}
    for expected in ({}, best):
        figure = accuracy_curves(*given, published=bool(expected))
        assert figure is not None
        pair_panel, other = sorted(figure.axes, key=lambda ax: "dim=4" not in ax.get_title())
        assert not other.texts
        assert {text.get_text(): text.xy[1] for text in pair_panel.texts} == expected
        low, high = pair_panel.get_ylim()
        assert all(low < value < high for value in expected.values())


def test_floor_shows_runs_and_published_values_about_the_line_of_a_perfect_map(tmp_path):
    params = dumps(dim=256, sigma=0.0)
    scores = [("otm", 80.0, {}), ("mm-r", 70.0, {}), ("linear", 43.0, {"trivial": True})]
    rows = [
        row(
            "perpendicular[dim=256]",
            name,
            seed,
            task_params=params,
            metric_d_target=value + seed,
            metric_d_target_floor=62.2,
            **more,
        )
        for name, value, more in scores
        for seed in range(2)
    ]
    low = [
        row("gaussian", "otm", metric_d_target=1.0, metric_d_target_floor=0.1)
    ]  # two dimensions, hardly any floor
    runs = write(tmp_path / "r", rows + low).runs
    figure = floor(runs, styles(runs), "cpu")
    assert figure is not None
    (ax,) = figure.axes
    assert [label.get_text() for label in ax.get_xticklabels()] == [
        "mm-r",
        "otm",
        "linear",
        "otm-s",
        "otp",
    ]
    line, *measured, quoted = ax.lines
    assert list(line.get_ydata()) == pytest.approx([62.2, 62.2]) and [
        text.get_text() for text in ax.texts
    ] == ["floor\n62.2"]
    assert [sorted(dots.get_ydata()) for dots in measured] == [[43, 44], [70, 71], [80, 81]]
    np.testing.assert_allclose(quoted.get_xydata(), [[1.12, 84.91], [3.12, 81.68], [4.12, 63.36]])
    runs = write(tmp_path / "low", low).runs
    assert floor(runs, styles(runs), "cpu") is None


def test_maps_have_a_row_per_kept_2d_run_on_the_same_axes(drawable, tmp_path):
    solved = dict(
        kept_maps(drawable.runs[drawable.runs.task_label == "gaussian"], [tmp_path / "results"])
    )
    assert list(solved) == ["otm", "pot-emd"]  # linear's are of another space
    figure = maps("gaussian", solved)
    assert figure is not None and len(figure.axes) == 8
    assert [ax.get_title() for ax in figure.axes[:4]] == [
        "source",
        "push-forward",
        "truth",
        "target",
    ]
    assert len({(ax.get_xlim(), ax.get_ylim()) for ax in figure.axes}) == 1
    assert [len(ax.collections) for ax in figure.axes] == [
        1,
        1,
        1,
        1,
        1,
        1,
        0,
        1,
    ]  # pot-emd came without a truth
    np.testing.assert_allclose(figure.axes[1].collections[0].get_offsets(), solved["otm"]["pushed"])


@pytest.mark.parametrize("d", [3, 5, 64])
def test_maps_of_more_dimensions_are_seen_in_two(d):
    """From space obliquely, beyond in the two coordinates that vary most."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, d)) * ([1e-3] * (d - 2) + [2.0, 1.0])
    figure = maps("own", {"linear": {"x": x, "pushed": 2 * x, "target": -x}})
    assert figure is not None and len(figure.axes) == 3
    shown = np.asarray(figure.axes[0].collections[0].get_offsets())
    assert shown.shape == (60, 2)
    words = figure.get_supxlabel()
    if d == 3:
        assert "obliquely" in words
    else:
        assert words.startswith(f"first two principal coordinates of {d}, 100%")
        distances = np.linalg.norm(shown[:, None] - shown, axis=2)
        np.testing.assert_allclose(distances, np.linalg.norm(x[:, None] - x, axis=2), atol=0.1)


def test_paths_in_labels_are_as_short_as_tells_them_apart():
    labels = [
        "samples[source=/data/one/x.npy,target=/data/one/y.npy,source_key=obsm/X_pca]",
        "samples[source=/data/two/x.npy,target='/data/my points/z.npy']",
        "gaussian[dim=2]",
    ]
    assert list(short_paths(labels).values()) == [
        "samples[source=one/x.npy,target=y.npy,source_key=obsm/X_pca]",
        "samples[source=two/x.npy,target='z.npy']",
        "gaussian[dim=2]",
    ]
    assert list(short_paths(labels)) == labels


def test_long_titles_have_several_lines_and_lose_nothing():
    label = "samples[" + ",".join(f"parameter_{i}=value" for i in range(9)) + "]"
    lines = titled(label, 3.2).splitlines()
    assert len(lines) > 3 and max(map(len, lines)) <= 32
    assert "".join(lines).replace(" ", "") == label
    assert titled("gaussian[dim=2]", 3.2) == "gaussian[dim=2]"


def test_plot_writes_the_pictures(drawable, tmp_path):
    written = plot(drawable, [tmp_path / "results"], tmp_path / "figures")
    assert [path.name for path in written] == ["error_time.png", "curves.png", "maps-gaussian.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)
    only = plot(drawable, [tmp_path / "results"], tmp_path / "one", tasks=["gaussian[dim=64]"])
    assert [path.name for path in only] == ["error_time.png", "curves.png"]


def test_negative_gaps_and_single_points_can_be_drawn(tmp_path):
    rows = [
        row("atom", s, k, metric_target_gap=gap + k / 100)
        for s, gap in (("a", -0.02), ("b", 3.0))
        for k in range(3)
    ]
    rows += uvp("gaussian", "a", [1.0])
    written = plot(write(tmp_path / "r", rows), [tmp_path / "r"], tmp_path / "figures")
    assert [path.name for path in written] == ["error_time.png"]


def test_solvers_look_the_same_in_all_panels_and_differ_from_each_other():
    runs = pd.DataFrame(
        {
            "solver_label": [f"s{i:02}" for i in range(40)],
            "trivial": [i % 10 == 0 for i in range(40)],
        }
    )
    looks = [tuple(look.items()) for look in styles(runs).values()]
    assert len(set(looks)) == 40


def test_pareto_front():
    assert pareto(np.array([3.0, 1.0, 2.0, 2.0]), np.array([1.0, 5.0, 6.0, 4.0])) == [1, 3, 0]


def test_nothing_to_draw(tmp_path):
    with pytest.raises(UserError, match="nothing to draw"):
        plot(
            write(tmp_path / "r", [row("a", "otm", status="error")]),
            [tmp_path / "r"],
            tmp_path / "figures",
        )


# Export


def test_export_round_trips(drawable, tmp_path):
    written = export(drawable, tmp_path / "out")
    assert len(written) == 7 and all(path.is_file() for path in written)
    for table in ("runs", "metrics", "curves"):
        frame = getattr(drawable, table)
        pd.testing.assert_frame_equal(
            pd.read_parquet(tmp_path / "out" / f"{table}.parquet"), frame, check_dtype=False
        )
        parsed = pd.read_csv(tmp_path / "out" / f"{table}.csv")
        pd.testing.assert_frame_equal(parsed, frame, check_dtype=False, rtol=1e-14)


def test_export_explains_every_column(drawable, tmp_path):
    export(drawable, tmp_path, formats=["csv"])
    page = (tmp_path / "COLUMNS.md").read_text()
    assert all(
        f"| `{name}` | {COLUMNS.get(name, '')}" in page
        for name in drawable.runs.columns
        if not name.startswith("metric_")
    )
    assert "| `metric_l2_uvp` | Unexplained variance" in page and "| `timeout` | killed" in page
    assert sorted(path.name for path in tmp_path.glob("*.parquet")) == []


def test_export_of_what_solvers_report_in_several_types(tmp_path):
    rows = [row("a", "x", info_eps="auto"), row("a", "y", info_eps=0.5), row("a", "z")]
    export(write(tmp_path / "r", rows), tmp_path / "out")
    back = pd.read_parquet(tmp_path / "out" / "runs.parquet").info_eps
    assert back.dropna().tolist() == ["auto", "0.5"] and back.isna().sum() == 1


def test_export_refuses_other_formats_and_places(small, tmp_path):
    with pytest.raises(UserError, match="unknown export format 'xlsx'"):
        export(small, tmp_path, formats=["xlsx"])
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        export(small, tmp_path / "file")


def test_rows_of_older_code_or_defaults_are_not_averaged_with_newer_ones(tmp_path):
    """After a default was edited two solvers stand under one label: the newest is shown."""
    old = {"solver_params": '{"steps": 100}', "when": "2026-01-01T00:00:00+00:00"}
    new = {"solver_params": '{"steps": 200}', "when": "2026-01-02T00:00:00+00:00"}
    rows = uvp("a", "otm", [2.0] * 5, **old)
    rows += [{**run, "key": f"new{run['seed']}"} for run in uvp("a", "otm", [6.0] * 3, **new)]
    text = leaderboard(write(tmp_path / "params", rows), metrics=["l2_uvp"])
    assert "6.00 ± 0.00" in text and "3 seeds" in text
    assert "of older code or other defaults than the newest: otm on a (5)" in text
    # The same after an edit of its code, of fewer seeds.
    old, new = ({"solver_hash": h, "when": w["when"]} for h, w in (("aa", old), ("bb", new)))
    rows = [*uvp("a", "otm", [2.0] * 5, **old)[3:], *uvp("a", "otm", [6.0] * 3, **new)]
    text = leaderboard(write(tmp_path / "code", rows), metrics=["l2_uvp"])
    assert "6.00 ± 0.00" in text and "otm on a (2)" in text


def test_rows_of_other_code_than_todays_are_listed_with_what_renewing_them_costs(tmp_path):
    (task,), (solver,) = (
        registry(kind).select(name) for kind, name in (("task", "gaussian"), ("solver", "linear"))
    )
    code = Code()
    now = {"task_params": task.params_json, "solver_params": solver.params_json}
    now |= code.of(task, solver)
    runs = {0: {}, 1: {"solver_hash": "other"}, 2: {"scoring_hash": "other", "task_hash": "older"}}
    for seed, other in runs.items():
        columns = {**now, **other, "fit_cold_s": 5.0, "score_s": 2.0, "metric_l2_uvp": 1.0}
        results = write(tmp_path / str(seed), [row("gaussian", "linear", seed, **columns)])
        text = status(results)
        note = "1 of 1 rows are of other code than today's"
        assert (note in " ".join(leaderboard(results).split())) == bool(other)
        if other:
            assert "1 of 1 rows are not of today's code, 7 s to renew" in text
            causes = sorted(name.removesuffix("_hash") for name in other)
            (line,) = [line for line in text.splitlines() if line.startswith("| gaussian")]
            assert all(cause in line for cause in causes)
        else:
            assert "0 of 1 rows are not of today's code" in text


def test_text_that_no_file_can_hold_is_reported_with_backslashes(tmp_path):
    odd = row("samples[source=\udcff]", "otm", status="error", message="\udcff fell \U0001f600")
    written = write(tmp_path / "in", [odd, row("gaussian", "otm", 1, info_odd="\ud800")])
    assert "samples[source=\\udcff]" in leaderboard(written)
    export(written, tmp_path / "out", ("parquet", "csv"))
    for read, name in ((pd.read_parquet, "runs.parquet"), (pd.read_csv, "runs.csv")):
        frame = read(tmp_path / "out" / name)
        assert "\\udcff fell \U0001f600" in set(frame["message"])
        assert "\\ud800" in set(frame["info_odd"])
