"""The picture of a problem: the source, the target and where the optimal plan takes the points.

Pictures are drawn from the `Problem` alone; nothing here knows a task by name.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from otbench.metrics import barycentric_map
from otbench.problem import DiscreteProblem, MapProblem, Problem, Truth
from otbench.report import couplings
from otbench.report.drawing import (
    directions,
    longitude_latitude,
    oblique,
    theme,
    titled,
    view,
    ways,
    wheel,
)
from otbench.report.images import pixels


if TYPE_CHECKING:
    import numpy as np
    import torch
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Array = np.ndarray

POINTS = 800  # drawn from a measure
MOVES = 2**16  # heaviest entries of a plan that count
LINES = 120  # of them that are drawn
IMAGES = 12
PAIRS = 2  # of an amortized problem
PANEL = 3.1  # inches, the root of a panel's area
INK = 4000  # square points: area of all dots of a cloud, shared out by weight
GREY = "0.35"


@dataclass(frozen=True)
class Scene:
    """Two weighted clouds and a plan between them.

    Attributes:
        x, y: points, ``(n, *shape)`` and ``(m, *shape)``.
        a, b: their weights, ``(n,)`` and ``(m,)``.
        i, end, mass: the moves of the plan, heaviest first: the indices ``(k,)`` of the points that
            move, where to ``(k, *shape)``, and how much of them ``(k,)``; none where no plan is
            known.
        titles: of the panels.
        groups: ``(n,)`` numbers in [0, 1) that choose the colours of ``x``; by default the
            direction in which a point lies does.
        spurious: where a spurious map takes ``x``.
    """

    x: Array
    y: Array
    a: Array
    b: Array
    i: Array
    end: Array
    mass: Array
    titles: tuple[str, ...]
    groups: Array | None = None
    spurious: Array | None = None


def draw(problem: Problem, title: str, seed: int = 0) -> Figure:
    """One row of panels for each pair of measures; ``seed`` draws the points of a map problem."""
    title = f"{title}: {problem.cost.convention}"
    if isinstance(problem, MapProblem):
        if problem.target.image:
            return _draw_images(_image_rows(problem, problem.target.image, seed), title)
        scenes = [_sampled(problem, seed)]
    else:
        pairs = [problem] if isinstance(problem, DiscreteProblem) else problem.test[:PAIRS]
        if pictures := [row for pair in pairs if (row := _recoloured(pair))]:
            return couplings.recoloured(title, pictures)
        scenes = [_matched(pair) for pair in pairs]
        grid = scenes[0].x
        if couplings.are_images(grid, scenes[0].y) and len(scenes[0].i):
            return couplings.interpolation(
                title, [("", scene.x[scene.i], scene.end, scene.mass) for scene in scenes], grid
            )
    shape = scenes[0].y.shape[1:]
    if len(shape) == 3:
        return _draw_images(_moved_rows(scenes[0]), title)
    with theme():
        if shape == (1,):
            scenes = [_lifted(scene) for scene in scenes]
        figure = _draw_clouds(
            scenes, title, globe=problem.cost.name == "geodesic" and shape == (3,)
        )
        potential = problem.truth.potential
        if (
            isinstance(problem, MapProblem)
            and potential
            and problem.cost.power == 1
            and problem.source.shape == (2,)
        ):
            _level_lines(figure.axes[0], potential)
        return figure


def draw_mapped(
    x: Array, a: Array, y: Array, b: Array, mapped: Array, title: str, globe: bool
) -> Figure:
    """Two clouds ``(n, d)`` and ``(m, d)`` of weights a and b, and where the points of the first
    are mapped to: some of them, drawn by weight. Of more than three coordinates one sees the first
    two principal ones of the target.
    """
    import numpy as np

    rng = np.random.default_rng(0)

    def some(weights: Array) -> Array:
        few = min(POINTS, np.count_nonzero(weights))
        return rng.choice(len(weights), few, replace=False, p=weights / weights.sum())

    i, j = some(a), some(b)
    x, y, end = x[i], y[j], mapped[i]
    if x.shape[1] > 3:
        flat, _ = view(y)
        x, y, end = flat(x), flat(y), flat(end)
    titles = ("source", "target", "mapped source points")
    even = np.full(len(i), 1 / len(i))
    scene = Scene(
        x=x,
        y=y,
        a=even,
        b=np.full(len(j), 1 / len(j)),
        i=np.arange(len(i)),
        end=end,
        mass=even,
        titles=titles,
    )
    with theme():
        if x.shape[1] == 1:
            scene = _lifted(scene)
        return _draw_clouds([scene], title, globe)


def png(figure: Figure) -> bytes:
    """The figure in 256 colours; the same bytes for the same picture."""
    from PIL import Image

    drawn, packed = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, dpi=120)
    Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(
        packed, "png", optimize=True
    )
    return packed.getvalue()


def _sampled(problem: MapProblem, seed: int) -> Scene:
    """Points of both measures, and where an optimal plan takes those of the source."""
    import numpy as np
    import torch

    truth, generator = problem.truth, torch.Generator().manual_seed(seed)
    y = problem.target.sample(POINTS, generator)
    known = problem.sample_pairs(POINTS, generator)
    x, end = known or (problem.source.sample(POINTS, generator), y[:0])
    titles = [_source_title(problem), "target"]
    if known:
        titles.append(_plan_title(truth))
    if truth.spurious:
        titles.append("a spurious solution: optimal against\nthe true potential, wrong target")
    weights = np.full(POINTS, 1 / POINTS)
    return Scene(
        x=_array(problem.cost.embed(x)),
        y=_array(y),
        a=weights,
        b=weights,
        i=np.arange(len(end)),
        end=_array(end),
        mass=weights[: len(end)],
        titles=tuple(titles),
        groups=_array(torch.cdist(end, truth.atoms).argmin(1) / len(truth.atoms))
        if known and truth.atoms is not None
        else None,
        spurious=_array(truth.spurious(x)) if truth.spurious else None,
    )


def _matched(pair: DiscreteProblem) -> Scene:
    """The clouds, and the heaviest entries of the optimal plan."""
    import torch

    plan = pair.truth.plan
    if plan is None:
        plan = torch.zeros(len(pair.x), len(pair.y), layout=torch.sparse_coo)
    plan = (plan if plan.is_sparse else plan.to_sparse()).coalesce()
    (i, j), mass = plan.indices().numpy(), _array(plan.values())
    order = (-mass).argsort(kind="stable")[:MOVES]
    x, y, a, b = (_array(values) for values in (pair.cost.embed(pair.x), pair.y, pair.a, pair.b))
    titles = ("source", "target", "the optimal plan")
    return Scene(
        x, y, a, b, i[order], y[j[order]], mass[order], titles if len(order) else titles[:2]
    )


def _recoloured(pair: DiscreteProblem) -> dict[str, Array]:
    """The pictures that palettes are of, and the source in the colours that the optimal plan gives
    it; none of other clouds.
    """
    pictures = {}
    if pair.pixels is not None:
        pictures["source"] = _array(pair.x[pair.pixels])
        if pair.target_pixels is not None:
            pictures["target"] = _array(pair.y[pair.target_pixels])
        if pair.truth.plan is not None:
            images = barycentric_map(
                *(values.double() for values in (pair.truth.plan, pair.a, pair.b, pair.y))
            )
            pictures["recoloured by\nthe optimal plan"] = _array(images[pair.pixels])
    return pictures


def _lifted(scene: Scene) -> Scene:
    """A scene of dimension one with the source above the target."""
    import numpy as np

    height = np.ptp(scene.y) / 2
    rest = {
        name: np.insert(points, 1, 0, axis=1)
        for name in ("y", "end", "spurious")
        if (points := getattr(scene, name)) is not None
    }
    return replace(scene, x=np.insert(scene.x, 1, height, axis=1), **rest)


def _image_rows(problem: MapProblem, image: Sequence[int], seed: int) -> dict[str, Array]:
    """Images of the source, samples of the target and, where known, what those of the source were
    made from and where they go.
    """
    import torch

    truth, generator = problem.truth, torch.Generator().manual_seed(seed)
    made_from = end = None
    if truth.test_points:
        x, made_with = truth.test_points(IMAGES, generator)
        made_from = made_with.get("partner")
    elif truth.pairs:
        x, end = truth.pairs(IMAGES, generator)
    else:
        x = problem.source.sample_test(IMAGES, generator)
    if truth.map:
        end = truth.map(x)
    rows = {
        _source_title(problem): problem.cost.embed(x),
        "made from": made_from,
        "target": problem.target.sample(IMAGES, generator),
    }
    rows[_plan_title(truth)] = end
    return {name: pixels(_array(row), image) for name, row in rows.items() if row is not None}


def _moved_rows(scene: Scene) -> dict[str, Array]:
    """Images ``(n, channels, height, width)`` of the source and of the target, and where most of
    each of the source goes.
    """
    import numpy as np

    _, first = np.unique(scene.i, return_index=True)
    rows = {
        name: row[:IMAGES]
        for name, row in zip(scene.titles, (scene.x, scene.y, scene.end[first]), strict=False)
    }
    low, high = min(row.min() for row in rows.values()), max(row.max() for row in rows.values())
    return {
        name: pixels(2 * (row - low) / (high - low or 1) - 1, row.shape[1:])
        for name, row in rows.items()
    }


def _source_title(problem: MapProblem) -> str:
    return "source" if problem.source.shape == problem.target.shape else "source, embedded by Q"


def _plan_title(truth: Truth) -> str:
    return (
        "the optimal map"
        if truth.map
        else f"an optimal plan (map {truth.no_map.partition(':')[0]})"
    )


def _draw_images(rows: Mapping[str, Array], title: str) -> Figure:
    """Some images ``(n, height, width, 3)`` of each name, side by side."""
    import numpy as np
    from matplotlib.figure import Figure

    most = max(map(len, rows.values()))
    with theme():
        figure = Figure(figsize=(3 * PANEL, 0.9 * len(rows) + 0.6), layout="constrained")
        for ax, (name, row) in zip(figure.subplots(len(rows)), rows.items(), strict=True):
            framed = np.pad(
                row, ((0, most - len(row)), (0, 0), (0, 1), (0, 0)), constant_values=255
            )
            ax.imshow(np.concatenate(list(framed), 1))
            ax.set_ylabel(
                name.replace(", ", ",\n").replace("optimal ", "optimal\n"),
                rotation=0,
                ha="right",
                va="center",
            )
            ax.set(xticks=[], yticks=[], frame_on=False)
        figure.suptitle(titled(title, figure.get_figwidth()))
    return figure


def _draw_clouds(scenes: Sequence[Scene], title: str, globe: bool) -> Figure:
    """Points in the colours of the places from which they come, all panels on the same axes."""
    import numpy as np
    from matplotlib.figure import Figure

    d, columns = scenes[0].y.shape[1], len(scenes[0].titles)
    flat = longitude_latitude if globe else oblique
    shown = [
        flat(points)
        for scene in scenes
        for points in (scene.x, scene.y, scene.end, scene.spurious)
        if points is not None
    ]
    low, high = (
        (np.array([-180, -90]), np.array([180, 90])) if globe else _limits(np.concatenate(shown))
    )
    width, height = PANEL * (high - low) / (high - low).prod() ** 0.5
    figure = Figure(
        figsize=(width * columns + 0.5, (height + 0.1) * len(scenes) + 0.9), layout="constrained"
    )
    grid = figure.subplots(len(scenes), columns, squeeze=False, sharex=True, sharey=True)
    for axes, scene in zip(grid, scenes, strict=True):
        colours = directions(flat(scene.x)) if scene.groups is None else wheel(scene.groups)
        _dots(axes[0], flat(scene.x), scene.a, colours)
        _dots(axes[1], flat(scene.y), scene.b, GREY)
        if len(scene.i):
            start = scene.x[scene.i]
            _lines(axes[2], flat, start, scene.end, colours[scene.i])
            _dots(axes[2], flat(scene.end), scene.mass, colours[scene.i])
        if scene.spurious is not None:
            _dots(axes[-1], flat(scene.y), scene.b, "0.8")
            _lines(axes[-1], flat, scene.x, scene.spurious, colours)
            _dots(axes[-1], flat(scene.spurious), scene.a, colours)
    for ax, name in zip(grid[0], scenes[0].titles, strict=True):
        ax.set(title=name, xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    for ax in grid.flat:
        ax.set_aspect("equal")
        ax.locator_params(nbins=5)
    if globe:
        figure.supxlabel("longitude and latitude in degrees", fontsize="medium")
    elif d > 2:
        figure.supxlabel(
            f"seen obliquely: $x_1$ to the right, $x_2$ into the picture, $x_{{{d}}}$ upwards",
            fontsize="medium",
        )
    figure.suptitle(titled(title, figure.get_figwidth()))
    return figure


def _limits(points: Array) -> tuple[Array, Array]:
    """Bounds of all but a few stray points, with a margin; the shorter side is at least half of the
    longer.
    """
    import numpy as np

    low, high = np.quantile(points, (0.002, 0.998), axis=0)
    middle, half = (low + high) / 2, (high - low) / 2
    half = np.maximum(half, half.max() / 2) + 0.08 * (half.max() or 1.0)
    return middle - half, middle + half


def _dots(ax: Axes, points: Array, weights: Array, colours: Array | str) -> None:
    """Dots sized by weight; of points that coincide one, in the colour of the first."""
    import numpy as np

    places, first, place = np.unique(
        points.round(9), axis=0, return_index=True, return_inverse=True
    )
    areas = INK * np.bincount(place.ravel(), weights)
    ax.scatter(
        *places.T,
        s=areas.clip(3 * (areas > 0), 150),
        color=colours if isinstance(colours, str) else colours[first],
        linewidths=0,
    )


def _lines(
    ax: Axes, flat: Callable[[Array], Array], start: Array, end: Array, colours: Array
) -> None:
    """The first moves."""
    from matplotlib.collections import LineCollection

    paths = ways(flat, start[:LINES], end[:LINES])
    ax.add_collection(
        LineCollection(list(paths), colors=colours[:LINES], linewidths=0.7, alpha=0.5, zorder=0.9)
    )


def _level_lines(ax: Axes, potential: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Lines on which the potential of a plane is constant."""
    import numpy as np
    import torch

    grids = np.meshgrid(np.linspace(*ax.get_xlim(), 150), np.linspace(*ax.get_ylim(), 150))
    values = _array(potential(torch.as_tensor(np.stack(grids, -1).reshape(-1, 2)))).reshape(
        150, 150
    )
    ax.contour(
        *grids, values, levels=14, colors="0.7", linewidths=0.7, linestyles="solid", zorder=0.8
    )
    ax.set_title("source; level lines of the potential")


def _array(values: torch.Tensor) -> Array:
    return values.detach().cpu().numpy()
