"""Pictures of image problems, from the raw outputs of runs: the images given, what each solver
makes of them, what they should be.

The layout is fixed. Columns are the first test images; rows are the source, each solver, and the
truth or, where none is known, samples of the target. Each pixel of an image is a square of the same
size in all rows, a whole number of the picture's.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from otbench.report.drawing import theme, titled


if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    Array = np.ndarray
    Arrays = Mapping[str, Array]

# Folders of data whose terms forbid showing it: drawn for the user, never on a page.
UNPUBLISHED = ("celeba",)
KNOWN = {"partner": "truth", "optimal": "optimal map"}  # labels of the rows of arrays
COLUMNS = 10
LINES = 4  # of a label
DPI = 150
# In pixels of the picture:
SIDE = 128  # of an image that is enlarged, at most
GAP = 8  # right of an image and below it
HEAD = 56  # above the images, for the title
LINE = 30  # of the title, after the first
LETTER = 13  # of a label


def draw(title: str, solved: Mapping[str, Arrays]) -> Figure | None:
    """The images of all solvers; None if nothing is kept.

    Args:
        title: of the figure.
        solved: by the label of its row, the arrays of each solver as `otbench run --keep` writes
            them: ``x`` and ``pushed``, ``(k, d)``, ``target``, ``(n, d)``, the ``image``'s
            channels, height and width, and where known the ``partner`` that each ``x`` was made
            from and its ``optimal`` image, ``(k, d)``. A source of another dimension is left out.
    """
    from matplotlib.figure import Figure

    if not solved:
        return None
    rows = [row for alike in _by_source(solved) for row in _rows(alike)]
    canvas = mosaic([shown for _, shown in rows])
    labels = [_broken(label) for label, _ in rows]
    room = LETTER * max(len(line) for label in labels for line in label.splitlines()) + 2 * GAP
    width = room + canvas.shape[1]
    title = titled(title, width / DPI)
    head = HEAD + LINE * title.count("\n")
    height = head + canvas.shape[0]
    with theme():
        figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
        ax = figure.add_axes((room / width, 0, canvas.shape[1] / width, canvas.shape[0] / height))
        ax.imshow(canvas, interpolation="nearest", aspect="auto")
        ax.set_axis_off()
        pitch = canvas.shape[0] / len(rows)
        for i, label in enumerate(labels):
            middle = head + i * pitch + (pitch - GAP) / 2
            figure.text((room - GAP) / width, 1 - middle / height, label, ha="right", va="center")
        figure.suptitle(title, y=1 - head / 2 / height, va="center")
    return figure


def mosaic(rows: Sequence[Array]) -> Array:
    """Rows of images ``(k, height, width, 3)``, the first `COLUMNS` of each, enlarged, on white,
    with a gap right of each and below.
    """
    import numpy as np

    height, width = rows[0].shape[1:3]
    scale = max(1, SIDE // max(height, width))
    height, width = height * scale + GAP, width * scale + GAP
    canvas = np.full((len(rows) * height, COLUMNS * width, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, image in enumerate(row[:COLUMNS]):
            canvas[i * height : (i + 1) * height - GAP, j * width : (j + 1) * width - GAP] = (
                image.repeat(scale, 0).repeat(scale, 1)
            )
    return canvas


def pixels(points: Array, image: Sequence[int]) -> Array:
    """Images with pixels from -1 (black) to 1 as bytes, red, green and blue, ``(n, height, width,
    3)``; what is beyond is cut off.

    Args:
        points: ``(n, *shape)``, in the order of ``image``.
        image: channels, one or three, height and width.
    """
    import numpy as np

    values = points.reshape(len(points), *image).clip(-1, 1)
    bytes_ = np.moveaxis((127.5 * (values + 1)).round().astype(np.uint8), 1, 3)
    return np.broadcast_to(bytes_, (*bytes_.shape[:3], 3))


def _by_source(solved: Mapping[str, Arrays]) -> list[dict[str, Arrays]]:
    """The solvers by the test images they were given: on another device, others are drawn."""
    import numpy as np

    groups: dict[bytes, dict[str, Arrays]] = {}
    for solver, arrays in solved.items():
        given = arrays["x"][:COLUMNS].astype(np.float32).round(2) + 0.0  # which makes -0 zero
        groups.setdefault(given.tobytes(), {})[solver] = arrays
    return list(groups.values())


def _rows(solved: Mapping[str, Arrays]) -> list[tuple[str, Array]]:
    """Labels and images of the rows of solvers that were given the same."""
    first = next(iter(solved.values()))
    image = first["image"].tolist()
    rows = {"source": first["x"]} if first["x"][0].size == first["target"][0].size else {}
    rows |= {solver: arrays["pushed"] for solver, arrays in solved.items()}
    rows |= {label: first[name] for name, label in KNOWN.items() if name in first} or {
        "target samples": first["target"]
    }
    return [(label, pixels(points[:COLUMNS], image)) for label, points in rows.items()]


def _broken(label: str) -> str:
    """A label over at most `LINES` lines, as narrow as they may be, broken after commas."""

    def lines(width: int) -> list[str]:
        parts = (
            textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False)
            for line in label.replace(",", ", ").splitlines()
        )
        return list(itertools.chain(*parts))

    broken = next(broken for width in itertools.count(20) if len(broken := lines(width)) <= LINES)
    return "\n".join(broken)
