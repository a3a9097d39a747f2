"""Pictures of couplings, from the raw outputs of runs: digits on their way, recoloured photographs,
moves on the globe, paths of a flow.

What can be drawn is seen from the arrays, nothing here knows a task by name. Source and target on
one square grid are images: samples of the plan, of those of its entries that are kept, move along
straight lines, and are counted per pixel. Palettes of pictures come with the pixels: the picture
takes the barycentric images of its colours. Of other clouds the heaviest entries of the plan are
drawn, as lines, on the globe as great circles.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from otbench.report.drawing import (
    directions,
    longitude_latitude,
    panels,
    theme,
    titled,
    view,
    ways,
    wrapped,
)


if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    Array = np.ndarray
    Arrays = Mapping[str, Array]

SOLVERS = 6  # in a picture
FRAMES = tuple(Fraction(k, 6) for k in range(7))
SAMPLES = 50_000  # of a plan
BLACK = 0.9  # the quantile of the pixels with mass from which on they are black
FRAME = 1.05  # inches
PICTURE = 1.9  # inches
MOVES = 300
PLACES = 3000  # of consumers that are drawn
INK = 3000  # square points: area of all suppliers, shared out by stock
OPTIMAL = "optimal_"  # begins the names of arrays of the true plan


def draw(task: str, solved: Mapping[str, Arrays]) -> dict[str, Figure]:
    """The pictures that the outputs kept of one problem allow, by kind.

    Args:
        task: the title.
        solved: the arrays of each solver, as `otbench run --keep` writes them; of plans, the names
            begin with the number of the pair.
    """
    pairs = [
        {
            solver: pair
            for solver, arrays in solved.items()
            if (pair := _pair(arrays, k)) and len(pair["mass"])
        }
        for k in range(2)
    ]
    pairs = [pair for pair in pairs if pair]
    paths = {
        solver: arrays
        for solver, arrays in solved.items()
        if "path" in arrays and arrays["path"].shape[2:] == (2,)
    }
    drawn: dict[str, Figure] = {}
    if pairs:
        first = next(iter(pairs[0].values()))
        if are_images(first["x"], first["y"]):
            rows = [(name, *_moves(pair, prefix)) for name, pair, prefix in _plans(pairs[0])]
            drawn["interpolation"] = interpolation(task, rows, first["x"])
        if "pixels" in first:
            drawn["recoloured"] = recoloured(task, [_pictures(solved) for solved in pairs])
        if first["cost"] == "geodesic" and first["x"].shape[1:] == (3,):
            drawn["geodesics"] = geodesics(task, pairs[0])
        elif not drawn and first["x"].ndim == 2 and 1 < first["x"].shape[1] == first["y"].shape[1]:
            drawn["moves"] = moves(task, pairs[0])
    if paths:
        drawn["paths"] = trajectories(task, paths)
    return drawn


def interpolation(
    title: str, rows: Sequence[tuple[str, Array, Array, Array]], grid: Array
) -> Figure:
    """One row for each plan: where the mass is on its way from the source to the target.

    Args:
        title: of the figure.
        rows: name of a plan, and of its entries the ``start`` and ``end``, ``(k, 2)``, and the
            ``mass``, ``(k,)``.
        grid: the pixels, ``(side^2, 2)``, row by row.
    """
    import numpy as np

    room = 0.1 * max(len(line) for name, *_ in rows for line in wrapped(name).splitlines() or [""])
    with theme():
        figure, frames = _grid(len(FRAMES), FRAME, [FRAME] * len(rows), room)
        for axes, (name, start, end, mass) in zip(frames, rows, strict=True):
            for ax, frame in zip(axes, displaced(start, end, mass, grid), strict=True):
                ax.imshow(frame, cmap="gray_r", vmin=0, vmax=np.quantile(frame[frame > 0], BLACK))
            axes[0].set_ylabel(wrapped(name), rotation=0, ha="right", va="center")
        for ax, t in zip(frames[0], FRAMES, strict=True):
            ax.set_title(f"t = {t}", fontsize="medium")
        figure.suptitle(titled(title, figure.get_figwidth()))
    return figure


def recoloured(title: str, rows: Sequence[Mapping[str, Array]]) -> Figure:
    """One row for each pair, one column for each name: pictures ``(h, w, 3)``."""
    heights = [
        PICTURE * max(picture.shape[0] / picture.shape[1] for picture in row.values())
        for row in rows
    ]
    names = list(dict.fromkeys(name for row in rows for name in row))
    with theme():
        figure, frames = _grid(len(names), PICTURE, heights)
        for axes, row in zip(frames, rows, strict=True):
            for ax, name in zip(axes, names, strict=True):
                if name in row:
                    ax.imshow(row[name].clip(0, 1))
                    ax.set_anchor("N")
        for ax, name in zip(frames[0], names, strict=True):
            ax.set_title(wrapped(name), fontsize="medium")
        figure.suptitle(titled(title, figure.get_figwidth()))
    return figure


def geodesics(task: str, solved: Mapping[str, Arrays]) -> Figure:
    """One panel for the truth and one for each solver: the heaviest moves, from suppliers sized by
    their stock.
    """
    from matplotlib.collections import LineCollection

    plans = list(_plans(solved))
    with panels(len(plans), columns=2, size=2.6) as (figure, axes):
        figure.set_figwidth(1.7 * figure.get_figwidth())
        for ax, (name, pair, prefix) in zip(axes, plans, strict=True):
            i, j = pair[f"{prefix}i"][:MOVES], pair[f"{prefix}j"][:MOVES]
            places, stock = longitude_latitude(pair["x"]), pair["a"]
            colours = directions(places)
            ax.scatter(
                *longitude_latitude(pair["y"][:PLACES]).T,
                s=1.5,
                color="0.8",
                linewidths=0,
                zorder=0.8,
            )
            moves = ways(longitude_latitude, pair["x"][i], pair["y"][j])
            ax.add_collection(
                LineCollection(
                    list(moves), colors=colours[i], linewidths=0.8, alpha=0.6, zorder=0.9
                )
            )
            ax.scatter(
                *places[stock > 0].T,
                s=INK * stock[stock > 0],
                color=colours[stock > 0],
                linewidths=0,
            )
            ax.set(
                title=wrapped(name),
                xlim=(-180, 180),
                xticks=range(-180, 181, 90),
                ylim=(-90, 90),
                yticks=range(-90, 91, 45),
            )
            ax.set_aspect("equal")
        for ax in axes:
            ax.label_outer()
        figure.supxlabel("longitude and latitude in degrees", fontsize="medium")
        title = f"{task}: the {MOVES} heaviest moves"
        figure.suptitle(titled(title, figure.get_figwidth()))
    return figure


def moves(task: str, solved: Mapping[str, Arrays]) -> Figure:
    """One panel for the truth and one for each solver: the heaviest moves, from points sized by
    their weights to those of the target, in grey.
    """
    import numpy as np
    from matplotlib.collections import LineCollection

    plans = list(_plans(solved))
    first = plans[0][1]
    flat, words = view(np.concatenate([first["x"], first["y"]]))
    ends = flat(np.concatenate([first["x"], first["y"]]))
    low, high = ends.min(0), ends.max(0)
    middle, half = (low + high) / 2, 0.55 * float((high - low).max() or 1.0)
    with panels(len(plans), size=3) as (figure, axes):
        for ax, (name, pair, prefix) in zip(axes, plans, strict=True):
            i, j = pair[f"{prefix}i"][:MOVES], pair[f"{prefix}j"][:MOVES]
            start, colours = flat(pair["x"]), directions(flat(pair["x"]))
            lines = ways(flat, pair["x"][i], pair["y"][j])
            ax.scatter(*flat(pair["y"]).T, s=INK * pair["b"], color="0.6", linewidths=0)
            ax.add_collection(
                LineCollection(list(lines), colors=colours[i], linewidths=0.7, zorder=0.9)
            )
            ax.scatter(*start.T, s=INK * pair["a"], color=colours, linewidths=0)
            ax.set(
                title=wrapped(name),
                xlim=(middle[0] - half, middle[0] + half),
                ylim=(middle[1] - half, middle[1] + half),
            )
            ax.set_aspect("equal")
        for ax in axes:
            ax.label_outer()
        if words:
            figure.supxlabel(words, fontsize="medium")
        title = f"{task}: the {MOVES} heaviest moves"
        figure.suptitle(titled(title, figure.get_figwidth()))
    return figure


def trajectories(task: str, solved: Mapping[str, Arrays]) -> Figure:
    """One panel for each solver: the paths of points of the source, on the target."""
    import numpy as np
    from matplotlib.collections import LineCollection

    ends = np.concatenate(
        [points for arrays in solved.values() for points in (arrays["target"], arrays["path"][0])]
    )
    low, high = ends.min(0), ends.max(0)
    middle, half = (low + high) / 2, 0.55 * float((high - low).max())
    with panels(len(solved), size=3) as (figure, axes):
        for ax, (solver, arrays) in zip(axes, solved.items(), strict=True):
            path = arrays["path"]
            ax.scatter(*arrays["target"][:PLACES].T, s=2, color="0.8", linewidths=0, label="target")
            ax.add_collection(
                LineCollection(
                    list(path.swapaxes(0, 1)),
                    colors="#56b4e9",
                    linewidths=0.6,
                    alpha=0.7,
                    zorder=0.9,
                )
            )
            ax.scatter(*path[0].T, s=6, color="#0173b2", linewidths=0, label="start")
            ax.scatter(*path[-1].T, s=6, color="#d55e00", linewidths=0, label="end")
            ax.set(
                title=wrapped(solver),
                xlim=(middle[0] - half, middle[0] + half),
                ylim=(middle[1] - half, middle[1] + half),
            )
            ax.set_aspect("equal")
        for ax in axes:
            ax.label_outer()
        figure.legend(
            *axes[0].get_legend_handles_labels(),
            loc="outside right upper",
            frameon=False,
            markerscale=2,
        )
        figure.suptitle(titled(task, figure.get_figwidth()))
    return figure


def are_images(x: Array, y: Array) -> bool:
    """Whether both clouds are one square grid, row by row."""
    import numpy as np

    side = math.isqrt(len(x))
    if (
        x.shape != y.shape
        or x.shape[1:] != (2,)
        or side**2 != len(x)
        or (x.min(0) == x.max(0)).any()
    ):
        return False
    rows, columns = np.linspace(x.min(0), x.max(0), side).T
    grid = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)
    tolerance = 1e-3 / side * np.ptp(x)
    return np.allclose(x, grid, atol=tolerance) and np.allclose(y, grid, atol=tolerance)


def displaced(start: Array, end: Array, mass: Array, grid: Array) -> Iterator[Array]:
    """``(side, side)`` counts per pixel of samples of a plan, at the times `FRAMES` of their way.

    The plan is given by the ``start`` and ``end``, ``(k, 2)``, and the ``mass``, ``(k,)``, of its
    entries, the ``grid`` is ``(side^2, 2)``. Between pixels a sample takes one at random, the
    nearer the more likely: were it the nearest, there would be stripes.
    """
    import numpy as np

    side, rng = math.isqrt(len(grid)), np.random.default_rng(0)
    drawn = rng.choice(len(mass), SAMPLES, p=mass / mass.sum(dtype=np.float64))
    low, high = grid.min(0), grid.max(0)
    start, end = ((points[drawn] - low) / (high - low) * (side - 1) for points in (start, end))
    for t in map(float, FRAMES):
        places = ((1 - t) * start + t * end).round(3)  # on a pixel, whatever the rounding
        row, column = np.floor(places + rng.random(places.shape)).astype(int).T
        yield np.bincount(row * side + column, minlength=side**2).reshape(side, side)


def _pair(arrays: Arrays, k: int) -> Arrays:
    """The arrays of one pair, without its number."""
    return {
        name.removeprefix(f"{k}_"): values
        for name, values in arrays.items()
        if name.startswith(f"{k}_")
    }


def _plans(solved: Mapping[str, Arrays]) -> Iterator[tuple[str, Arrays, str]]:
    """Name of a plan, arrays of its pair and prefix of its own: the true plan, where known, and
    each solver's.
    """
    first = next(iter(solved.values()))
    if f"{OPTIMAL}mass" in first:
        yield "truth", first, OPTIMAL
    yield from ((solver, pair, "") for solver, pair in solved.items())


def _moves(pair: Arrays, prefix: str) -> tuple[Array, Array, Array]:
    """Start, end and mass of the entries of a plan."""
    return pair["x"][pair[f"{prefix}i"]], pair["y"][pair[f"{prefix}j"]], pair[f"{prefix}mass"]


def _pictures(solved: Mapping[str, Arrays]) -> dict[str, Array]:
    """The picture of the source, that of the target where there is one, and the source in the
    colours that each plan gives it.
    """
    pair = next(iter(solved.values()))
    pictures = {"source": pair["x"][pair["pixels"]]}
    if "target_pixels" in pair:
        pictures["target"] = pair["y"][pair["target_pixels"]]
    return pictures | {
        name: of_plan[f"{prefix}mapped"][of_plan["pixels"]]
        for name, of_plan, prefix in _plans(solved)
    }


def _grid(
    columns: int, width: float, heights: Sequence[float], room: float = 0.0
) -> tuple[Figure, Array]:
    """A figure of frames for pictures, with room for names on the left, in inches."""
    from matplotlib.figure import Figure

    gap = 0.1
    size = (room + (width + gap) * columns, 0.6 + sum(heights) + gap * len(heights))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(
        len(heights), columns, squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for ax in grid.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set(color="0.8", linewidth=0.5)
    return figure, grid
