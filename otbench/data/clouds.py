"""Weighted point clouds of the user's own: points and weights, checked, and pairs of clouds that a
cost can compare.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otbench.errors import UserError
from otbench.problem import COSTS


if TYPE_CHECKING:
    import numpy as np

LARGEST = 1e18  # norm of a point: squared distances fit single precision
UNIT = 1e-3  # how far from one the norms may be of points on the unit sphere
STEPS = 1e5  # fewest steps of float64 that a cloud has to spread over
ROUNDED = 1e-5  # of the spread of both clouds
ROWS = 2**16  # that are looked at at a time


@dataclass(frozen=True)
class Cloud:
    """A point cloud.

    Attributes:
        points: ``(n, d)``, float64.
        weights: ``(n,)``, float64, not negative, summing to one; None where all are alike.
    """

    points: np.ndarray
    weights: np.ndarray | None = None

    @property
    def masses(self) -> np.ndarray:
        """The weights, also where all are alike."""
        import numpy as np

        n = len(self.points)
        return np.full(n, 1 / n) if self.weights is None else self.weights

    def about(self, origin: np.ndarray) -> Cloud:
        """The cloud as seen from a point ``(d,)``."""
        return replace(self, points=self.points - origin) if origin.any() else self


def as_cloud(name: str, points: Any, weights: Any = None) -> Cloud:
    """Points ``(n, d)`` and weights ``(n,)`` of any array type, checked as those of files are.

    Raises:
        UserError: they are none.
    """
    import numpy as np

    checked = as_points(name, np.asarray(points))
    if weights is not None:
        weights = as_weights(f"weights of the {name}", weights, len(checked))
    return Cloud(checked, weights)


def check_pair(
    x: Cloud, y: Cloud, cost: str, names: tuple[str, str] = ("source", "target")
) -> tuple[Cloud, Cloud]:
    """Two clouds that the named cost can compare; for ``geodesic`` their points are normalised.

    Args:
        x: the source.
        y: the target.
        cost: one of `otbench.problem.COSTS`.
        names: what messages call the clouds.

    Raises:
        UserError: no such cost; different dimensions; target points that are all the same; points
            that float64 hardly tells apart; for ``geodesic``, points off the unit sphere by more
            than `UNIT`.
    """
    if cost not in COSTS:
        raise UserError(f"unknown cost {cost!r}: choose {', '.join(COSTS)}")
    if x.points.shape[1] != y.points.shape[1]:
        raise UserError(
            f"{names[0]} has {x.points.shape[1]} columns and {names[1]} has "
            f"{y.points.shape[1]}: give points of the same dimension"
        )
    held, mass = y.points, ""
    if y.weights is not None:
        held, mass = y.points[y.weights > 0], " with mass"
    if (held == held[0]).all():
        raise UserError(
            f"{names[1]}: its points{mass} are all the same: give a target that varies, errors are "
            "measured against its variance"
        )
    if cost == "geodesic":
        x = replace(x, points=normalised(names[0], x.points))
        return x, replace(y, points=normalised(names[1], y.points))
    for name, cloud in zip(names, (x, y), strict=True):
        _check_resolution(name, cloud)
    return x, y


def common_origin(x: Cloud, y: Cloud, cost: str, dtype: str) -> np.ndarray:
    """A point ``(d,)`` to take off both clouds before they are rounded to ``dtype``: the mean of
    the target where the cost is of differences and rounding would move points by more than
    `ROUNDED` of their spread; otherwise zero.
    """
    import numpy as np

    d = y.points.shape[1]
    if not COSTS[cost].translates:
        return np.zeros(d)
    both = (x.points, y.points)
    largest = max(float(np.abs(points).max()) for points in both)
    spread = max(float(np.ptp(points, axis=0).max()) for points in both)
    if largest * float(np.finfo(dtype).eps) <= ROUNDED * spread:
        return np.zeros(d)
    return y.masses @ y.points


def as_degrees(points: np.ndarray) -> np.ndarray:
    """Longitudes and latitudes in degrees ``(n, 2)`` of unit vectors ``(n, 3)``."""
    import numpy as np

    x, y, z = points.T
    return np.degrees(np.stack([np.arctan2(y, x), np.arctan2(z, np.hypot(x, y))], 1))


def as_points(path: Path | str, points: Any) -> np.ndarray:
    """Points ``(n, d)`` in float64, without a copy where they are.

    Raises:
        UserError: no real numbers, another shape, no points, or values that are not finite.
    """
    import numpy as np

    if points.dtype.kind not in "iuf":
        raise UserError(f"{path}: holds values of type {points.dtype}: write real numbers")
    if points.ndim not in (1, 2):
        raise UserError(
            f"{path}: holds an array of shape {points.shape}: reshape it to (points, coordinates), "
            "or say --as image where it is one of (height, width)"
        )
    if not points.size:
        raise UserError(f"{path}: holds 0 points: give at least one")
    points = points.astype(np.float64, copy=False).reshape(len(points), -1)
    largest = LARGEST / points.shape[1] ** 0.5
    count, first = 0, None
    for start in range(0, len(points), ROWS):
        wrong = ~(np.abs(points[start : start + ROWS]) <= largest)
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            count, first = count + wrong.sum(), first or (start + row + 1, column + 1)
    if first:
        raise UserError(
            f"{path}: {count} values are missing, not finite or beyond {largest:g}, the first in "
            f"row {first[0]}, column {first[1]}: drop those rows, or rescale"
        )
    return points


def as_weights(path: Path | str, weights: Any, n: int) -> np.ndarray:
    """Weights ``(n,)`` in float64 that sum to one.

    Raises:
        UserError: another number of them, or weights that are negative, not finite or zero
            altogether.
    """
    import numpy as np

    weights = np.asarray(weights)
    if weights.dtype.kind not in "biuf":
        raise UserError(f"{path}: holds weights of type {weights.dtype}: write real numbers")
    if weights.size != n or weights.size != max(weights.shape, default=0):
        raise UserError(
            f"{path}: holds weights of shape {weights.shape} for {n} points: give one for each "
            "point"
        )
    weights = weights.astype(np.float64).ravel()
    wrong = ~((weights >= 0) & (weights < np.inf))
    if wrong.any():
        row = wrong.argmax()
        raise UserError(
            f"{path}: weight {row + 1} is {weights[row]:g}: weights are finite and not negative"
        )
    if not weights.any():
        raise UserError(f"{path}: all weights are zero: some mass is needed")
    weights /= weights.max()  # whose sum is finite
    return weights / weights.sum()


def on_sphere(path: Path, degrees: np.ndarray) -> np.ndarray:
    """Longitudes and latitudes in degrees ``(n, 2)`` as unit vectors ``(n, 3)``.

    Raises:
        UserError: not two columns, or degrees that are none of a longitude or latitude.
    """
    import numpy as np

    if degrees.shape[1] != 2:
        raise UserError(
            f"{path}: has {degrees.shape[1]} columns: --coords lonlat needs longitude and latitude"
        )
    for column, (name, low, high) in enumerate((("longitude", -180, 360), ("latitude", -90, 90))):
        wrong = (degrees[:, column] < low) | (degrees[:, column] > high)
        if wrong.any():
            row = wrong.argmax()
            raise UserError(
                f"{path}: row {row + 1} has {name} {degrees[row, column]:g}, which is not from "
                f"{low} to {high} degrees: columns are longitude, then latitude, unless they are "
                "named lon and lat"
            )
    longitude, latitude = np.radians(degrees).T
    return np.stack(
        [
            np.cos(latitude) * np.cos(longitude),
            np.cos(latitude) * np.sin(longitude),
            np.sin(latitude),
        ],
        1,
    )


def normalised(name: str, points: np.ndarray) -> np.ndarray:
    """Points ``(n, d)`` with norms of one.

    Raises:
        UserError: a norm is off by more than `UNIT`.
    """
    import numpy as np

    norms = np.linalg.norm(points, axis=1, keepdims=True)
    off = np.abs(norms - 1)
    if off.max() > UNIT:
        row = off.argmax()
        degrees = ", say --coords lonlat where they are degrees" if points.shape[1] == 2 else ""
        raise UserError(
            f"{name}: row {row + 1} has norm {norms[row, 0]:g}: make all norms one{degrees}, "
            "or choose another cost than geodesic"
        )
    return points / norms


def _check_resolution(name: str, cloud: Cloud) -> None:
    """Refuse points so far from the origin that double precision hardly tells them apart."""
    import numpy as np

    spread = float(np.ptp(cloud.points, axis=0).max())
    step = float(np.spacing(np.abs(cloud.points).max()))
    if 0 < spread < STEPS * step:
        raise UserError(
            f"{name}: its points spread by {spread:.3g}, of which float64 keeps steps of "
            f"{step:.1g} so far from the origin: take off a common offset before writing them"
        )
