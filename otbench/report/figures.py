"""Pictures of the rows: error against time with its Pareto front, accuracy against time while
fitting, the rate of spurious solutions, published distances to the target beside their floor, the
maps of 2-D tasks, the couplings of `otbench.report.couplings`, and the images of
`otbench.report.images`.

Every function here returns a matplotlib ``Figure`` that belongs to no window; `plot` saves them.
"""

# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportReturnType=false
# (pandas' own annotations join all that an operation may return, so that they fit almost nothing)

from __future__ import annotations

import itertools
import json
import math
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from otbench.errors import UserError
from otbench.metrics import EXACT_DIM, METRICS
from otbench.report import (
    FIT,
    INFER,
    accuracy_of,
    amortization,
    by_setup,
    couplings,
    images,
    number,
    published,
    quantity,
    select,
)
from otbench.report.drawing import panels as _panels
from otbench.report.drawing import theme
from otbench.report.drawing import wrapped as _wrapped
from otbench.report.verdicts import judged, summarize
from otbench.scoring.verdict import TAU
from otbench.store import folders


if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from otbench.store import Results

MARKERS = (
    "osD^vPX<>"  # nine markers by eight colours: seventy-two solvers before a pair comes again
)
UNUSED = (
    "#949494",
    "#ece133",
)  # of seaborn's palette: grey is for the trivial solvers, yellow is faint on white
DOTS = 800  # points of a cloud that are drawn
FRONT = {"color": "0.75", "linewidth": 3}
RATE_LINES = {
    "spurious": {"color": "0.3", "linestyle": "-"},
    "not ok": {"color": "0.3", "linestyle": "--", "linewidth": 1.2},
    "default threshold": {"color": "0.6", "linestyle": ":", "linewidth": 1},
}
TAUS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
RATE_PANELS = 12
PAIRS = 1e5  # to which the lines of `total_time` go
IMAGE_SCORES = {
    "psnr_db": "{} dB",
    "transport_cost": "cost {}",
}  # of which the first that is known stands beside a row of images

Style = Mapping[str, dict[str, Any]]


def plot(
    results: Results,
    dirs: Sequence[str | os.PathLike[str]],
    out: Path,
    tasks: Sequence[str] | None = None,
) -> list[Path]:
    """Draw whatever the rows allow; the PNG files written. Of those that show data which may not be
    published, a line on stderr says so.

    Args:
        results: as `otbench.load` gives them.
        dirs: the same folders, in which kept outputs are looked for.
        out: the folder to write to, made if need be.
        tasks: names or labels of tasks; by default all.

    Raises:
        UserError: an unknown task, or nothing to draw.
    """
    runs = select(results.runs, tasks)
    style = styles(runs)
    figures: dict[str, Figure | None] = {}
    setups = list(by_setup(runs, time=True))
    for setup, group in setups:
        suffix = f"-{slug(setup)}" if len(setups) > 1 else ""
        figures[f"error_time{suffix}"] = error_against_time(group, style, setup)
        figures[f"curves{suffix}"] = accuracy_curves(group, results.curves, style, setup)
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
        figures[name] = images.draw(str(task), dict(kept_images(group, dirs)))
        if figures[name] is not None and shows_unpublished(group):
            private.append(f"{name}.png")
    drawn = {name: figure for name, figure in figures.items() if figure is not None}
    if not drawn:
        raise UserError(
            "nothing to draw: no run here succeeded with a metric; `otbench leaderboard` shows how they ended"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, figure in drawn.items():
            figure.savefig(out / f"{name}.png", dpi=150)
    except OSError as error:
        raise UserError(
            f"cannot write to {out}: {error.strerror or error}; name another folder"
        ) from error
    if private:
        print(
            f"not for publication, by the terms of the data: {', '.join(private)}", file=sys.stderr
        )
    return [out / f"{name}.png" for name in drawn]


def styles(runs: pd.DataFrame) -> Style:
    """One colour and one marker per solver label, the same in every panel; trivial solvers are
    hollow and grey.
    """
    with theme() as seaborn:
        colours = [
            colour
            for colour in seaborn.color_palette("colorblind").as_hex()
            if colour not in UNUSED
        ]
    trivial = set(runs.solver_label[runs.trivial.astype(bool)])
    real = [name for name in sorted(runs.solver_label.unique()) if name not in trivial]
    style = {
        name: {"color": colours[i % len(colours)], "marker": MARKERS[i % len(MARKERS)]}
        for i, name in enumerate(real)
    }
    for i, name in enumerate(sorted(trivial)):
        style[name] = {
            "color": "#6e6e6e",
            "marker": MARKERS[i % len(MARKERS)],
            "markerfacecolor": "white",
        }
    return style


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
    with _panels(len(panels)) as (figure, axes):
        for (task, (metric, time, group)), ax in zip(panels.items(), axes, strict=True):
            column = f"metric_{metric}"
            middle = group.groupby("solver_label")[[time, column]].median()
            _scale(ax, "x", group[time])
            _scale(ax, "y", group[column])
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
                title=task,
                xlabel="fit time (s)" if time == FIT else "time of a held-out pair (ms)",
                ylabel=_name(metric, group),
            )
        _legend(
            figure,
            style,
            {s for *_, group in panels.values() for s in group.solver_label},
            {"Pareto front": FRONT},
        )
        figure.suptitle(f"Error against time, on {setup}: medians, bars span the seeds")
    return figure


def accuracy_curves(
    runs: pd.DataFrame, curves: pd.DataFrame, style: Style, setup: str
) -> Figure | None:
    """One panel per task: error at checkpoints against seconds of solver time, medians in a band
    over seeds. None without checkpoints.

    Seeds that were solved together are left out: the seconds of their checkpoints are those of the
        whole.
    """
    alone = runs.loc[runs.together.isna(), ["key", "task_label", "solver_label"]]
    points = curves.merge(alone, on="key")
    panels = {}
    for task, group in runs.groupby("task_label", sort=False):
        metric = accuracy_of(group)
        of_task = points[(points.task_label == task) & (points.metric == metric)]
        if len(of_task):
            panels[str(task)] = metric, of_task, group
    if not panels:
        return None
    with _panels(len(panels)) as (figure, axes):
        for (task, (metric, of_task, group)), ax in zip(panels.items(), axes, strict=True):
            _scale(ax, "x", of_task.seconds)
            _scale(ax, "y", of_task.value)
            for solver, seeds in of_task.groupby("solver_label"):
                steps = seeds.groupby("step").agg(
                    {"seconds": "median", "value": ["min", "median", "max"]}
                )
                time, low, middle, high = steps.to_numpy().T
                look = style[str(solver)]
                ax.fill_between(time, low, high, color=look["color"], alpha=0.2, linewidth=0)
                ax.plot(time, middle, **look, markersize=4)
            ax.set(title=task, xlabel="solver time (s)", ylabel=_name(metric, group))
        _legend(
            figure, style, {s for _, of_task, _ in panels.values() for s in of_task.solver_label}
        )
        figure.suptitle(f"Error while fitting, on {setup}: medians, bands span the seeds")
    return figure


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
    with _panels(len(panels), size=3.6) as (figure, axes):
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
                title=task,
                xscale="log",
                yscale="log",
                xlabel="pairs solved",
                ylabel="training and inference (s)",
            )
        shown = {str(name) for summary in panels.values() for name in summary.solver_label}
        _legend(
            figure,
            style,
            shown,
            {"learns": {"color": "0.3"}, "from scratch": {"color": "0.3", "linestyle": "--"}},
        )
        figure.suptitle(
            f"Time for a number of pairs, on {setup}: lines cross where learning has paid"
        )
    return figure


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
    with _panels(len(panels)) as (figure, axes):
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
        _legend(
            figure, style, shares[shares.task_label.isin(panels)].solver_label.unique(), RATE_LINES
        )
        figure.supylabel("share of the runs", fontsize="medium")
        left_out = (
            f"\n{len(panels)} of {len(tasks)} tasks, those where most runs are not ok"
            if len(panels) < len(tasks)
            else ""
        )
        figure.suptitle(
            f"Spurious runs, with 95 % Wilson intervals, and all runs that are not ok, on {setup}{left_out}"
        )
    return figure


def floor(runs: pd.DataFrame, style: Style, setup: str) -> Figure | None:
    """One panel per task of more than `metrics.EXACT_DIM` dimensions: `metrics.d_target` of each
    run and as published, with its floor.

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
    with _panels(len(panels), size=4) as (figure, axes):
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
                ylabel=_name("d_target", group),
            )
            ax.set_xticklabels([_wrapped(name) for name in place], rotation=90)
            ax.margins(y=0.15)
            if group.metric_d_target.max() > 10 * of_target:
                ax.set_yscale("log")
        _legend(
            figure,
            style,
            [],
            {"a run": measured | {"color": "0.4"}, "published": quoted | {"color": "0.2"}},
        )
        figure.suptitle(f"Plug-in distance to the target beside its floor, on {setup}")
    return figure


def kept_maps(
    runs: pd.DataFrame, dirs: Sequence[str | os.PathLike[str]]
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Solver label and arrays ``x, pushed, target`` and, where known, ``optimal`` of one kept
    successful 2-D run per solver.
    """
    import numpy as np

    for run in (
        _kept(runs, dirs)
        .sort_values("seed")
        .drop_duplicates("solver_label")
        .sort_values("solver_label")
        .itertuples()
    ):
        with np.load(run.output) as file:
            arrays = dict(file)
        if all(
            name in arrays and arrays[name].ndim == 2 and arrays[name].shape[1] == 2
            for name in ("x", "pushed")
        ):
            yield run.solver_label, arrays


def kept_couplings(
    runs: pd.DataFrame, dirs: Sequence[str | os.PathLike[str]]
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Solver label and what `couplings.draw` takes of its kept successful run of the least seed,
    the most accurate solver first.
    """
    for run, file in _kept_of_one_seed(runs, dirs):
        if "path" in file or "0_x" in file:
            yield run.solver_label, dict(file)


def kept_images(
    runs: pd.DataFrame, dirs: Sequence[str | os.PathLike[str]]
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Solver label with its score and what `images.draw` takes, of the runs and in the order of
    `kept_couplings`.
    """
    for run, file in _kept_of_one_seed(runs, dirs):
        if "image" in file:
            scores = (
                form.format(number(value))
                for name, form in IMAGE_SCORES.items()
                if (value := _metric(run, name)) is not None
            )
            yield "\n".join([run.solver_label, *itertools.islice(scores, 1)]), dict(file)


def shows_unpublished(runs: pd.DataFrame) -> bool:
    """Whether images of these runs may not be published: a task names the data it takes in its name
    or among its parameters.
    """
    named = " ".join({*runs.task, *runs.task_params}).lower()
    return any(data in named for data in images.UNPUBLISHED)


def _metric(run: Any, name: str) -> float | None:
    """A metric of a row of the runs, None where it has none."""
    value = getattr(run, f"metric_{name}", math.nan)
    return None if math.isnan(value) else value


def _kept_of_one_seed(
    runs: pd.DataFrame, dirs: Sequence[str | os.PathLike[str]]
) -> Iterator[tuple[Any, Mapping[str, np.ndarray]]]:
    """One row for each solver, of its kept successful run of the least seed, with its open file;
    the most accurate first.
    """
    import numpy as np

    runs = _kept(runs, dirs)
    if metric := accuracy_of(runs):
        runs = runs.sort_values(
            f"metric_{metric}", key=lambda values: values.map(METRICS[metric].loss), kind="stable"
        )
    for run in runs[runs.seed == runs.seed.min()].drop_duplicates("solver_label").itertuples():
        with np.load(run.output) as file:
            yield run, file


def _kept(runs: pd.DataFrame, dirs: Sequence[str | os.PathLike[str]]) -> pd.DataFrame:
    """The successful runs whose raw output is there, with its path as ``output``."""
    files = {
        (folder.name, path.stem): path
        for folder in folders(*dirs)
        for path in (folder / "outputs").glob("*.npz")
    }
    outputs = [files.get(run) for run in zip(runs.batch, runs.key, strict=True)]
    return runs.assign(output=outputs)[runs.status == "ok"].dropna(subset=["output"])


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
    fixed = [
        arrays[name]
        for arrays in solved.values()
        for name in ("x", "optimal", "target")
        if name in arrays
    ]
    everything = np.concatenate(fixed)
    low, high = everything.min(0), everything.max(0)
    # Room for a map that overshoots, but not so much that one stray point shrinks the rest.
    middle, half = (low + high) / 2, 0.6 * float((high - low).max())
    with _panels(len(solved) * len(columns), len(columns), size=2.2) as (figure, axes):
        wheel = seaborn.color_palette("husl", as_cmap=True)
        for i, (solver, arrays) in enumerate(solved.items()):
            centred = arrays["x"][:DOTS] - arrays["x"].mean(0)
            angles = np.arctan2(centred[:, 1], centred[:, 0])
            for ax, (title, name) in zip(axes[i * len(columns) :], columns.items(), strict=False):
                if name in arrays:
                    look = (
                        {"color": "0.35"}
                        if name == "target"
                        else {"c": angles, "cmap": wheel, "vmin": -math.pi, "vmax": math.pi}
                    )
                    ax.scatter(*arrays[name][:DOTS].T, s=5, linewidths=0, **look)
                ax.set(
                    xlim=(middle[0] - half, middle[0] + half),
                    ylim=(middle[1] - half, middle[1] + half),
                    aspect="equal",
                )
                ax.set(
                    title=title if i == 0 else "",
                    ylabel=_wrapped(solver) if ax is axes[i * len(columns)] else "",
                )
        for ax in axes:
            ax.label_outer()
        figure.suptitle(task)
    return figure


def pareto(times: np.ndarray, errors: np.ndarray) -> list[int]:
    """Indices, by time, of the points that no other point beats in both."""
    front: list[int] = []
    for i in sorted(range(len(times)), key=lambda i: (times[i], errors[i])):
        if not front or errors[i] < errors[front[-1]]:
            front.append(i)
    return front


def _legend(figure: Figure, style: Style, shown: Iterable[str], lines: Style | None = None) -> None:
    from matplotlib.lines import Line2D

    shown = sorted(shown, key=list(style).index)
    handles = [
        Line2D([], [], linestyle="", markersize=7, label=_wrapped(name), **style[name])
        for name in shown
    ]
    handles += [Line2D([], [], label=name, **look) for name, look in (lines or {}).items()]
    figure.legend(handles=handles, loc="outside right upper", frameon=False)


def _scale(ax: Axes, which: Literal["x", "y"], values: pd.Series) -> None:
    """Logarithmic over at least a decade where all values are positive; else linear around zero, up
    to a thousandth of the largest.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = float(values.min()), float(values.max())
    if low <= 0:
        if low < high:
            set_scale = ax.set_xscale if which == "x" else ax.set_yscale
            set_scale("symlog", linthresh=max(-low, high) / 1000)
        return
    widen = max(1.0, 10 * low / high) ** 0.5 * (high / low) ** 0.06
    low, high = low / widen, high * widen
    ax.set(**{f"{which}scale": "log", f"{which}lim": (low, high)})
    axis = ax.xaxis if which == "x" else ax.yaxis
    axis.set_minor_formatter(NullFormatter())
    if high / low < 300:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 30 else (1, 3)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _name(metric: str, runs: pd.DataFrame) -> str:
    unit = quantity(metric, runs).unit
    return f"{metric} ({unit})" if unit != "1" else metric


def slug(label: str) -> str:
    """A label as the name of a file."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", label).strip("-")
