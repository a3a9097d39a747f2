"""Pictures of the rows: error against time with its Pareto front, accuracy against time while
fitting, the rate of spurious solutions, published distances to the target beside their floor, the
maps of vectors, the couplings of `otbench.report.couplings`, and the images of
`otbench.report.images`.

Every function here returns a matplotlib ``Figure`` that belongs to no window; `plot` saves them.
"""

# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportIndexIssue=false
# pyright: reportReturnType=false
# (pandas' own annotations join all that an operation may return, so that they fit almost nothing)

from __future__ import annotations

import itertools
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from otbench.errors import UserError
from otbench.report import amortization, couplings, drawing, images
from otbench.report import published as published_numbers
from otbench.report.drawing import short_paths, titled, wrapped
from otbench.report.kept import kept_couplings, kept_images, kept_maps, shows_unpublished
from otbench.report.quantities import FIT, INFER, accuracy_of, quantity
from otbench.report.rates import floor, spurious_rate
from otbench.report.selected import by_setup, left_out, select, shared_gpu, timed_alone
from otbench.report.styles import Style, axis_name, legend, scale_axis, slug, styles


if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.figure import Figure

    from otbench.store import Results

DOTS = 800  # points of a cloud that are drawn
FRONT = {"color": "0.75", "linewidth": 3}
PUBLISHED = "0.4"  # colour of published numbers
PAIRS = 1e5  # to which the lines of `total_time` go


def plot(
    results: Results,
    dirs: Sequence[str | os.PathLike[str]],
    out: Path,
    tasks: Sequence[str] | None = None,
    image: tuple[int, int, int] | None = None,
    published: bool = False,
) -> list[Path]:
    """Draw whatever the rows allow; the PNG files written. Of those that show data which may not be
    published, and of times that are left out, a line on stderr says so.

    Args:
        results: as `otbench.load` gives them.
        dirs: the same folders, in which kept outputs are looked for.
        out: the folder to write to, made if need be.
        tasks: names or labels of tasks; by default all.
        image: channels, height and width of what vectors of that many coordinates are images of.
        published: add the best published number of each source to the curves.

    Raises:
        UserError: an unknown task, or nothing to draw.
    """
    runs = timed_alone(select(results.runs, tasks))
    runs = runs.assign(task_label=runs.task_label.map(short_paths(runs.task_label.unique())))
    style = styles(runs)
    figures: dict[str, Figure | None] = {}
    setups = list(by_setup(runs, time=True))
    for setup, group in setups:
        suffix = f"-{slug(setup)}" if len(setups) > 1 else ""
        figures[f"error_time{suffix}"] = error_against_time(group, style, setup)
        figures[f"curves{suffix}"] = accuracy_curves(group, results.curves, style, setup, published)
        figures[f"break_even{suffix}"] = total_time(group, style, setup)
    setups = list(by_setup(runs, time=False))
    for setup, group in setups:
        suffix = f"-{slug(setup)}" if len(setups) > 1 else ""
        figures[f"spurious-rate{suffix}"] = spurious_rate(group, style, setup)
        figures[f"floor{suffix}"] = floor(group, style, setup)
    private: list[str] = []
    for task, group in runs.groupby("task_label", sort=False):
        figures[f"maps-{slug(str(task))}"] = maps(str(task), dict(kept_maps(group, dirs)))
        coupled = dict(itertools.islice(kept_couplings(group, dirs), couplings.SOLVERS))
        figures |= {
            f"{kind}-{slug(str(task))}": figure
            for kind, figure in couplings.draw(str(task), coupled).items()
        }
        name = f"images-{slug(str(task))}"
        figures[name] = images.draw(str(task), dict(kept_images(group, dirs, image)))
        if figures[name] is not None and shows_unpublished(group):
            private.append(f"{name}.png")
    drawn = {name: figure for name, figure in figures.items() if figure is not None}
    if not drawn:
        raise UserError(
            "nothing to draw: no run here succeeded with a metric; `otbench leaderboard` shows how "
            "they ended"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, figure in drawn.items():
            figure.savefig(out / f"{name}.png", dpi=150)
    except OSError as error:
        raise UserError(
            f"cannot write to {out}: {error.strerror or error}; name another folder"
        ) from error
    for note in left_out(runs):
        print(note, file=sys.stderr)
    if private:
        print(
            f"not for publication, by the terms of the data: {', '.join(private)}", file=sys.stderr
        )
    return [out / f"{name}.png" for name in drawn]


def error_against_time(runs: pd.DataFrame, style: Style, setup: str) -> Figure | None:
    """One panel per task: median error against median time of each solver, bars from the least to
    the greatest over seeds.

    The time is that of a fit; in the amortized setting that of a held-out pair. The line is the
    Pareto front: no solver is both faster and more accurate than a point on it. None if no run has
    both numbers.
    """
    import numpy as np

    panels = {}
    for task, group in runs[runs.status == "ok"].groupby("task_label", sort=False):
        if metric := accuracy_of(group):
            time = INFER if group[INFER].notna().any() else FIT
            group = group.dropna(subset=[time, f"metric_{metric}"])
            group = group[np.isfinite(group[f"metric_{metric}"]) & (group[time] > 0)]
            if len(group):
                panels[str(task)] = metric, time, group
    if not panels:
        return None
    with drawing.panels(len(panels)) as (figure, axes):
        for (task, (metric, time, group)), ax in zip(panels.items(), axes, strict=True):
            column = f"metric_{metric}"
            middle = group.groupby("solver_label")[[time, column]].median()
            scale_axis(ax, "x", group[time])
            scale_axis(ax, "y", group[column])
            front = pareto(middle[time].to_numpy(), middle[column].to_numpy())
            best = middle.iloc[front]
            ax.step(best[time], best[column], where="post", **FRONT, zorder=1)
            for solver, seeds in group.groupby("solver_label"):
                took, error = middle.loc[solver, time], middle.loc[solver, column]
                bars = {
                    "xerr": [[took - seeds[time].min()], [seeds[time].max() - took]],
                    "yerr": [[error - seeds[column].min()], [seeds[column].max() - error]],
                }
                ax.errorbar(
                    took,
                    error,
                    **bars,
                    **style[str(solver)],
                    markersize=7,
                    linestyle="",
                    elinewidth=1.2,
                    zorder=3,
                )
            ax.set(
                title=titled(task, drawing.PANEL),
                xlabel="fit time (s)" if time == FIT else "time of a held-out pair (ms)",
                ylabel=axis_name(metric, group),
            )
        legend(
            figure,
            style,
            {s for *_, group in panels.values() for s in group.solver_label},
            {"Pareto front": FRONT},
        )
        figure.suptitle(f"Error against time, on {setup}: medians, bars span the seeds")
    return figure


def accuracy_curves(
    runs: pd.DataFrame, curves: pd.DataFrame, style: Style, setup: str, published: bool = False
) -> Figure | None:
    """One panel per task: error at checkpoints against seconds of solver time, medians in a band
    over seeds; ``published``: and the best published number of each source, as a line. None without
    checkpoints.

    Seeds that were solved together are left out, for the seconds of their checkpoints are those of
    the whole; and so are runs that shared their GPU with others.
    """
    import pandas as pd

    timed = runs.together.isna() & ~shared_gpu(runs)
    alone = runs.loc[timed, ["key", "task_label", "solver_label"]]
    points = curves.merge(alone, on="key")
    panels = {}
    for task, group in runs.groupby("task_label", sort=False):
        metric = accuracy_of(group)
        of_task = points[(points.task_label == task) & (points.metric == metric)]
        if len(of_task):
            panels[str(task)] = metric, of_task, group
    if not panels:
        return None
    with drawing.panels(len(panels)) as (figure, axes):
        for (task, (metric, of_task, group)), ax in zip(panels.items(), axes, strict=True):
            scale_axis(ax, "x", of_task.seconds)
            lines = best_published(group, metric) if published else {}
            scale_axis(ax, "y", pd.Series([*of_task.value, *lines.values()]))
            for name, value in lines.items():
                ax.axhline(value, color=PUBLISHED, linestyle="--", linewidth=1)
                ax.annotate(
                    name,
                    (0, value),
                    (3, 2),
                    ax.get_yaxis_transform(),
                    "offset points",
                    fontsize="small",
                    color=PUBLISHED,
                )
            for solver, seeds in of_task.groupby("solver_label"):
                steps = seeds.groupby("step").agg(
                    {"seconds": "median", "value": ["min", "median", "max"]}
                )
                time, low, middle, high = steps.to_numpy().T
                look = style[str(solver)]
                ax.fill_between(time, low, high, color=look["color"], alpha=0.2, linewidth=0)
                ax.plot(time, middle, **look, markersize=4)
            ax.set(
                title=titled(task, drawing.PANEL),
                xlabel="solver time (s)",
                ylabel=axis_name(metric, group),
            )
        legend(
            figure, style, {s for _, of_task, _ in panels.values() for s in of_task.solver_label}
        )
        figure.suptitle(f"Error while fitting, on {setup}: medians, bands span the seeds")
    return figure


def best_published(runs: pd.DataFrame, metric: str) -> dict[str, float]:
    """The best published number of each source on the task of these runs, by what the board calls
    it.
    """
    found = published_numbers.beside(runs, metric).dropna(subset="value").reset_index()
    losses = found.value.map(quantity(metric, runs).loss)
    best = found.loc[losses.groupby(found.source).idxmin()]
    return {
        f"{solver} [{tag}]": float(value)
        for solver, tag, value in zip(best.solver, best.tag, best.value, strict=True)
    }


def total_time(runs: pd.DataFrame, style: Style, setup: str) -> Figure | None:
    """One panel per amortized task: seconds for a number of pairs, training included; where lines
    cross is the break-even.

    None if there are no such runs.
    """
    import numpy as np

    panels = {
        str(task): amortization.summarize(group)
        for task, group in amortization.amortized(runs).groupby("task_label", sort=False)
    }
    if not panels:
        return None
    pairs = np.geomspace(1, PAIRS, 60)
    with drawing.panels(len(panels), size=3.6) as (figure, axes):
        for (task, summary), ax in zip(panels.items(), axes, strict=True):
            for row in summary.to_dict("records"):
                look = style[str(row["solver_label"])]
                line = "-" if row["learns"] else "--"
                ax.plot(
                    pairs,
                    row["train_s"] + pairs * row["infer_ms"] / 1000,
                    linestyle=line,
                    **look,
                    markersize=5,
                    markevery=12,
                )
            ax.set(
                title=titled(task, drawing.PANEL),
                xscale="log",
                yscale="log",
                xlabel="pairs solved",
                ylabel="training and inference (s)",
            )
        shown = {str(name) for summary in panels.values() for name in summary.solver_label}
        legend(
            figure,
            style,
            shown,
            {"learns": {"color": "0.3"}, "from scratch": {"color": "0.3", "linestyle": "--"}},
        )
        figure.suptitle(
            f"Time for a number of pairs, on {setup}: lines cross where learning has paid"
        )
    return figure


def maps(task: str, solved: Mapping[str, Mapping[str, np.ndarray]]) -> Figure | None:
    """Source, push-forward, truth (where known) and target side by side, one row per solver, all on
    the same axes.

    A point keeps the colour of the direction in which its source point lies, so that one sees where
    it went. None if nothing is kept.
    """
    import numpy as np
    import seaborn

    if not solved:
        return None
    columns = {"source": "x", "push-forward": "pushed", "truth": "optimal", "target": "target"}
    columns = {
        title: name
        for title, name in columns.items()
        if any(name in arrays for arrays in solved.values())
    }
    ends = [arrays[name] for arrays in solved.values() for name in ("x", "target")]
    flat, words = drawing.view(np.concatenate(ends))
    fixed = [
        flat(arrays[name])
        for arrays in solved.values()
        for name in ("x", "optimal", "target")
        if name in arrays
    ]
    everything = np.concatenate(fixed)
    low, high = everything.min(0), everything.max(0)
    # Room for a map that overshoots, but not so much that one stray point shrinks the rest.
    middle, half = (low + high) / 2, 0.6 * float((high - low).max() or 1.0)
    with drawing.panels(len(solved) * len(columns), len(columns), size=2.2) as (figure, axes):
        wheel = seaborn.color_palette("husl", as_cmap=True)
        for i, (solver, arrays) in enumerate(solved.items()):
            start = flat(arrays["x"])
            centred = start[:DOTS] - start.mean(0)
            angles = np.arctan2(centred[:, 1], centred[:, 0])
            for ax, (title, name) in zip(axes[i * len(columns) :], columns.items(), strict=False):
                if name in arrays:
                    look = (
                        {"color": "0.35"}
                        if name == "target"
                        else {"c": angles, "cmap": wheel, "vmin": -math.pi, "vmax": math.pi}
                    )
                    ax.scatter(*flat(arrays[name][:DOTS]).T, s=5, linewidths=0, **look)
                ax.set(
                    xlim=(middle[0] - half, middle[0] + half),
                    ylim=(middle[1] - half, middle[1] + half),
                    aspect="equal",
                )
                ax.set(
                    title=title if i == 0 else "",
                    ylabel=wrapped(solver) if ax is axes[i * len(columns)] else "",
                )
        for ax in axes:
            ax.label_outer()
        if words:
            figure.supxlabel(words, fontsize="medium")
        figure.suptitle(titled(task, figure.get_figwidth()))
    return figure


def pareto(times: np.ndarray, errors: np.ndarray) -> list[int]:
    """Indices, by time, of the points that no other point beats in both."""
    front: list[int] = []
    for i in sorted(range(len(times)), key=lambda i: (times[i], errors[i])):
        if not front or errors[i] < errors[front[-1]]:
            front.append(i)
    return front
