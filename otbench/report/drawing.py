"""What the pictures of tasks and those of results have in common: their look, their panels, colours
of points, and maps of the globe.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Array = np.ndarray

COLUMNS = 3  # panels side by side


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
    count: int, columns: int = COLUMNS, size: float = 3.2
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


def directions(points: Array) -> Array:
    """``(n, 4)`` colours by the direction from the mean; of points near a line, by their place on
    it.
    """
    import numpy as np

    centred = points - points.mean(0)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    if sizes[1] > 0.2 * sizes[0]:
        return wheel(np.arctan2(centred[:, 1], centred[:, 0]) / (2 * math.pi))
    place = centred @ (axes[0] * np.sign(axes[0].sum()))
    return wheel(0.4 * place / (np.abs(place).max() or 1.0))


def wheel(turns: Array) -> Array:
    """Colours of angles, given in turns."""
    import seaborn

    return seaborn.color_palette("husl", as_cmap=True)((turns + 0.5) % 1)


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
