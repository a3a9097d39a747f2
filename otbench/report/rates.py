"""Pictures of failure: the rate of spurious solutions by threshold, and distances beside their
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
from otbench.report.verdicts import judged, summarize
from otbench.scoring.verdict import TAU


if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

RATE_LINES = {
    "spurious": {"color": "0.3", "linestyle": "-"},
    "not ok": {"color": "0.3", "linestyle": "--", "linewidth": 1.2},
    "default threshold": {"color": "0.6", "linestyle": ":", "linewidth": 1},
}


TAUS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)


RATE_PANELS = 12


def spurious_rate(runs: pd.DataFrame, style: Style, setup: str) -> Figure | None:
    """One panel per task: shares of the runs that are spurious, and that are not ok, against the
    threshold of the marginal defect.

    Solvers without a potential, of whose saddle nothing can be said, are left out, and so are tasks
    without any other. Of more than `RATE_PANELS` tasks, those are shown where most runs are not ok.
    None if no run has a saddle.
    """
    import pandas as pd
    from matplotlib.ticker import FuncFormatter, NullLocator, PercentFormatter

    pairs = [runs.task_label, runs.solver_label]
    by_tau = {tau: judged(runs, tau) for tau in TAUS}
    with_saddle = by_tau[TAU].converged.notna().groupby(pairs).transform("any")
    shares = {tau: summarize(of_tau[with_saddle]) for tau, of_tau in by_tau.items()}
    if shares[TAU].empty:
        return None
    shares = pd.concat([of_tau.assign(tau=tau) for tau, of_tau in shares.items()])
    shares["judged"] = shares.runs - shares.failed
    shares["not_ok"] = 1 - shares.ok / shares.judged
    tasks = list(shares.task_label.unique())
    worst = (
        shares[shares.tau == TAU].groupby("task_label").not_ok.mean().nlargest(RATE_PANELS).index
    )
    panels = [task for task in tasks if task in worst]
    solid, dashed, default = RATE_LINES.values()
    with drawing.panels(len(panels)) as (figure, axes):
        for task, ax in zip(panels, axes, strict=True):
            ax.axvline(TAU, **default, zorder=1)
            for solver, of_solver in shares[shares.task_label == task].groupby("solver_label"):
                look, low, high = (
                    style[str(solver)],
                    of_solver.spurious_rate_low,
                    of_solver.spurious_rate_high,
                )
                ax.fill_between(
                    of_solver.tau, low, high, color=look["color"], alpha=0.12, linewidth=0
                )
                ax.plot(of_solver.tau, of_solver.not_ok, **dashed | {"color": look["color"]})
                ax.plot(of_solver.tau, of_solver.spurious_rate, **solid | look, markersize=5)
            ax.set(
                title=task,
                xscale="log",
                ylim=(-0.03, 1.03),
                xticks=TAUS,
                xlabel="threshold of the marginal defect",
            )
            ax.xaxis.set_minor_locator(NullLocator())
            ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            ax.yaxis.set_major_formatter(PercentFormatter(1))
        legend(
            figure, style, shares[shares.task_label.isin(panels)].solver_label.unique(), RATE_LINES
        )
        figure.supylabel("share of the runs", fontsize="medium")
        left_out = (
            f"\n{len(panels)} of {len(tasks)} tasks, those where most runs are not ok"
            if len(panels) < len(tasks)
            else ""
        )
        figure.suptitle(
            "Spurious runs, with 95 % Wilson intervals, and all runs that are not ok, on "
            f"{setup}{left_out}"
        )
    return figure


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
                title=task,
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
