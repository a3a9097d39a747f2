"""What the pictures of tasks and those of results have in common: their look, their panels, colours
of points, and maps of the globe.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Array = np.ndarray

COLUMNS = 3  # panels side by side
PANEL = 3.2  # inches, the side of a panel
LETTERS = 10  # of a title in an inch
PATH = re.compile(r"[^=,\[\]'\"]*/[^=,\[\]'\"/]*\.\w+")  # of a file, in a label
AZIMUTH, ELEVATION = math.radians(-75), math.radians(22)  # of the eye that looks at space


@contextmanager
def theme() -> Iterator[Any]:
    """The look of all pictures."""
    import seaborn

    with (
        seaborn.axes_style("whitegrid", {"axes.edgecolor": ".4", "grid.color": ".9"}),
        seaborn.plotting_context("paper", font_scale=1.1),
    ):
        yield seaborn


@contextmanager
def panels(
    count: int, columns: int = COLUMNS, size: float = PANEL
) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure of ``count`` equal panels in rows, without window."""
    from matplotlib.figure import Figure

    columns = min(count, columns)
    rows = math.ceil(count / columns)
    with theme():
        figure = Figure(
            figsize=(size * 1.15 * columns + 2.2 * (size > 3), size * rows + 0.5),
            layout="constrained",
        )
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
        for ax in axes[count:]:
            ax.remove()
        yield figure, axes[:count]


def wrapped(label: str) -> str:
    """A long ``name[a=1,b=2]`` over several lines."""
    return label if len(label) < 22 else label.replace("[", "[\n  ", 1).replace(",", ",\n  ")


def titled(text: str, inches: float) -> str:
    """A long title over as many lines as fit into a width, broken after commas and blanks."""
    most = int(LETTERS * inches)
    if len(text) <= most:
        return text
    lines = textwrap.wrap(text.replace(",", ", "), most, break_on_hyphens=False)
    return "\n".join(lines)


def short_paths(labels: Iterable[str]) -> dict[str, str]:
    """Labels with paths of files cut to their last parts, as few as tell the paths apart."""
    labels = list(labels)
    paths = {path for label in labels for path in PATH.findall(label)}
    parts = {path: path.split("/") for path in paths}

    def tail(path: str) -> str:
        """Of the path: no other one ends so."""
        for k in range(1, len(parts[path])):
            if sum(other[-k:] == parts[path][-k:] for other in parts.values()) == 1:
                return "/".join(parts[path][-k:])
        return path

    return {label: PATH.sub(lambda found: tail(found[0]), label) for label in labels}


def directions(points: Array) -> Array:
    """``(n, 4)`` colours by the direction from the mean; of points near a line, by their place on
    it.
    """
    import numpy as np

    centred = points - points.mean(0)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    if len(sizes) > 1 and sizes[1] > 0.2 * sizes[0]:
        return wheel(np.arctan2(centred[:, 1], centred[:, 0]) / (2 * math.pi))
    place = centred @ (axes[0] * np.sign(axes[0].sum()))
    return wheel(0.4 * place / (np.abs(place).max() or 1.0))


def wheel(turns: Array) -> Array:
    """Colours of angles, given in turns."""
    import seaborn

    return seaborn.color_palette("husl", as_cmap=True)((turns + 0.5) % 1)


def oblique(points: Array) -> Array:
    """The plane as it is; space, or three coordinates of more, seen obliquely: ``(..., d)`` to
    ``(..., 2)``.
    """
    import numpy as np

    if points.shape[-1] == 2:
        return points
    right = (-math.sin(AZIMUTH), math.cos(AZIMUTH), 0)
    up = (
        -math.sin(ELEVATION) * math.cos(AZIMUTH),
        -math.sin(ELEVATION) * math.sin(AZIMUTH),
        math.cos(ELEVATION),
    )
    return points[..., [0, 1, -1]] @ np.array([right, up]).T


def view(points: Array) -> tuple[Callable[[Array], Array], str]:
    """How points are shown in the plane that lie about those given, ``(n, d)``, and words on it:
    `oblique` up to space, beyond it their first two principal coordinates.
    """
    import numpy as np

    d = points.shape[1]
    if d == 2:
        return oblique, ""
    if d == 3:
        return oblique, (
            "seen obliquely: $x_1$ to the right, $x_2$ into the picture, $x_3$ upwards"
        )
    mean = points.mean(0)
    _, sizes, axes = np.linalg.svd(points - mean, full_matrices=False)
    share = (sizes[:2] ** 2).sum() / ((sizes**2).sum() or 1.0)
    axes = axes[:2] * np.where(axes[:2].sum(1, keepdims=True) < 0, -1, 1)
    words = f"first two principal coordinates of {d}, {share:.0%} of the variance"
    return lambda shown: (shown - mean) @ axes.T, words


def longitude_latitude(points: Array) -> Array:
    """Degrees of points of space, ``(..., 3)`` to ``(..., 2)``."""
    import numpy as np

    x, y, z = np.moveaxis(points, -1, 0)
    return np.degrees(np.stack([np.arctan2(y, x), np.arctan2(z, np.hypot(x, y))], -1))


def ways(flat: Callable[[Array], Array], start: Array, end: Array) -> Array:
    """Segments as ``flat`` shows them, ``(k, points, 2)``; through the globe, the great circles
    above them, cut at the date line.
    """
    import numpy as np

    t = np.linspace(0, 1, 101)[:, None]
    paths = flat((1 - t) * start[:, None] + t * end[:, None])
    if flat is longitude_latitude:
        paths[:, 1:][np.abs(np.diff(paths[..., 0])) > 180] = np.nan
    return paths
