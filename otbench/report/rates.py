"""Pictures of failure: the rate of spurious solutions by thresholds, and distances beside their
floor.
"""

# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportIndexIssue=false
# pyright: reportReturnType=false
# (pandas' own annotations join all that an operation may return, so that they fit almost nothing)

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from otbench.metrics import EXACT_DIM
from otbench.report import drawing, published
from otbench.report.drawing import wrapped
from otbench.report.styles import Style, axis_name, legend
from otbench.report.verdicts import judged, judged_at, summarize
from otbench.scoring.verdict import SADDLE_TAU, TAU


if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

RATE_LINES = {
    "spurious": {"color": "0.3", "linestyle": "-"},
    "not ok": {"color": "0.3", "linestyle": "--", "linewidth": 1.2},
    "default threshold": {"color": "0.6", "linestyle": ":", "linewidth": 1},
}


TAUS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)

RATE_TASKS = 6

THRESHOLDS = {  # argument of `judged`: its default and what it is of
    "tau": (TAU, "threshold of the marginal defect"),
    "saddle_tau": (SADDLE_TAU, "threshold of the saddle residuals"),
}


def spurious_rate(runs: pd.DataFrame, style: Style, setup: str) -> Figure | None:
    """Two panels per task: shares of the runs that are spurious, and that are not ok, against the
    threshold of the marginal defect and against that of the saddle residuals.

    Solvers without a potential, of whose saddle nothing can be said, are left out, and so are tasks
    without any other. Of more than `RATE_TASKS` tasks, those are shown where most runs are not ok.
    None if no run has a saddle.
    """
    from matplotlib.ticker import FuncFormatter, NullLocator, PercentFormatter

    chosen = judged(runs)
    pairs = [chosen.task_label, chosen.solver_label]
    chosen = runs.loc[chosen.index[chosen.converged.notna().groupby(pairs).transform("any")]]
    if chosen.empty:
        return None
    curves = {name: _shares(chosen, name) for name in THRESHOLDS}
    at_default = curves["tau"][curves["tau"].threshold == TAU]
    tasks = list(at_default.task_label.unique())
    worst = at_default.groupby("task_label").not_ok.mean().nlargest(RATE_TASKS).index
    shown = [task for task in tasks if task in worst]
    panels = [(task, name) for task in shown for name in THRESHOLDS]
    solid, dashed, default = RATE_LINES.values()
    with drawing.panels(len(panels), columns=4) as (figure, axes):
        for (task, name), ax in zip(panels, axes, strict=True):
            usual, label = THRESHOLDS[name]
            ax.axvline(usual, **default, zorder=1)
            of_task = curves[name][curves[name].task_label == task]
            for solver, rates in of_task.groupby("solver_label"):
                look = style[str(solver)]
                colour = {"color": look["color"]}
                low, high = rates.spurious_rate_low, rates.spurious_rate_high
                ax.fill_between(rates.threshold, low, high, **colour, alpha=0.12, linewidth=0)
                ax.plot(rates.threshold, rates.not_ok, **dashed | colour)
                ax.plot(rates.threshold, rates.spurious_rate, **solid | look, markersize=5)
            ax.set(
                title=drawing.titled(task, drawing.PANEL),
                xscale="log",
                ylim=(-0.03, 1.03),
                xticks=TAUS,
                xlabel=label,
            )
            ax.xaxis.set_minor_locator(NullLocator())
            ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            ax.yaxis.set_major_formatter(PercentFormatter(1))
        solvers = at_default[at_default.task_label.isin(shown)].solver_label.unique()
        legend(figure, style, solvers, RATE_LINES)
        figure.supylabel("share of the runs", fontsize="medium")
        left_out = (
            f"\n{len(shown)} of {len(tasks)} tasks, those where most runs are not ok"
            if len(shown) < len(tasks)
            else ""
        )
        figure.suptitle(
            "Spurious runs, with 95 % Wilson intervals, and all runs that are not ok, on "
            f"{setup}{left_out}"
        )
    return figure


def _shares(runs: pd.DataFrame, name: str) -> pd.DataFrame:
    """`summarize` at every threshold of one kind, with the share of runs that are not ok."""
    import pandas as pd

    usual = {name: default for name, (default, _) in THRESHOLDS.items()}
    pairs = ((at["tau"], at["saddle_tau"]) for at in (usual | {name: tau} for tau in TAUS))
    judged_runs = zip(TAUS, judged_at(runs, pairs), strict=True)
    shares = pd.concat([summarize(of_tau).assign(threshold=tau) for tau, of_tau in judged_runs])
    return shares.assign(not_ok=1 - shares.ok / (shares.runs - shares.failed))


def floor(runs: pd.DataFrame, style: Style, setup: str) -> Figure | None:
    """One panel per task of more than `metrics.EXACT_DIM` dimensions: `metrics.d_target` of each
    run and as published, with its floor; the legend says that these are of their authors' settings.

    Where all solvers stand on the line, which is what a perfect map scores, the metric says nothing
    of them; below it are maps of too little spread. None if no task has such runs.
    """
    if "metric_d_target" not in runs:
        return None
    table = published.load()
    table = table[table.metric == "d_target"]
    panels = {}
    for task, group in runs[runs.metric_d_target.notna()].groupby("task_label", sort=False):
        params = group.task_params.iloc[0]
        if json.loads(params).get("dim", 0) > EXACT_DIM:
            panels[str(task)] = (
                group,
                published.matching(table, group.task.iloc[0], str(task), params).dropna(
                    subset=["value"]
                ),
            )
    if not panels:
        return None
    measured, quoted = (
        {"marker": "o", "linestyle": ""},
        {"marker": "D", "linestyle": "", "markerfacecolor": "white"},
    )
    with drawing.panels(len(panels), size=4) as (figure, axes):
        for (task, (group, known)), ax in zip(panels.items(), axes, strict=True):
            names = [
                *sorted(group.solver_label.unique(), key=list(style).index),
                *known.solver.unique(),
            ]
            place = {name: i for i, name in enumerate(dict.fromkeys(names))}
            of_target = float(group.metric_d_target_floor.mean())
            ax.axhline(of_target, color="0.3", linestyle="--", linewidth=1.2, zorder=1)
            box = {"facecolor": "w", "edgecolor": "none", "pad": 1}
            ax.text(
                len(place) + 0.1,
                of_target,
                f"floor\n{of_target:.3g}",
                ha="center",
                va="center",
                fontsize="small",
                bbox=box,
            )
            for solver, seeds in group.groupby("solver_label"):
                colour = style[str(solver)]["color"]
                ax.plot(
                    [place[solver] - 0.12] * len(seeds),
                    seeds.metric_d_target,
                    **measured,
                    color=colour,
                    markersize=4,
                    alpha=0.7,
                )
            ax.plot(
                [place[name] + 0.12 for name in known.solver],
                known.value,
                **quoted,
                color="0.2",
                markersize=6,
            )
            ax.set(
                title=drawing.titled(str(task), drawing.PANEL),
                xlim=(-0.6, len(place) + 0.8),
                xticks=range(len(place)),
                ylabel=axis_name("d_target", group),
            )
            ax.set_xticklabels([wrapped(name) for name in place], rotation=90)
            ax.margins(y=0.15)
            if group.metric_d_target.max() > 10 * of_target:
                ax.set_yscale("log")
        legend(
            figure,
            style,
            [],
            {
                "a run": measured | {"color": "0.4"},
                "published, with its authors' settings": quoted | {"color": "0.2"},
            },
        )
        figure.suptitle(f"Plug-in distance to the target beside its floor, on {setup}")
    return figure
