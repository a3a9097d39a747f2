"""What the pictures share: markers and colours of solvers, legends, scales, file names."""

# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportIndexIssue=false
# pyright: reportReturnType=false
# (pandas' own annotations join all that an operation may return, so that they fit almost nothing)

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from otbench.report.drawing import theme, wrapped
from otbench.report.quantities import quantity


if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = (
    "osD^vPX<>"  # nine markers by eight colours: seventy-two solvers before a pair comes again
)


UNUSED = (
    "#949494",
    "#ece133",
)  # of seaborn's palette: grey is for the trivial solvers, yellow is faint on white


Style = Mapping[str, dict[str, Any]]


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


def legend(figure: Figure, style: Style, shown: Iterable[str], lines: Style | None = None) -> None:
    from matplotlib.lines import Line2D

    shown = sorted(shown, key=list(style).index)
    handles = [
        Line2D([], [], linestyle="", markersize=7, label=wrapped(name), **style[name])
        for name in shown
    ]
    handles += [Line2D([], [], label=name, **look) for name, look in (lines or {}).items()]
    figure.legend(handles=handles, loc="outside right upper", frameon=False)


def scale_axis(ax: Axes, which: Literal["x", "y"], values: pd.Series) -> None:
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


def axis_name(metric: str, runs: pd.DataFrame) -> str:
    unit = quantity(metric, runs).unit
    return f"{metric} ({unit})" if unit != "1" else metric


def slug(label: str) -> str:
    """A label as the name of a file."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", label).strip("-")
