"""Two files of the user's own: the base of the tasks on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar, Literal

from otbench.data.cloud_files import CloudFile
from otbench.problem import COSTS, Task


SIDES = ("source", "target")
LP_POINTS = 4096  # most held-out points of a measure that the optimal cost is estimated on
BOUNDED = 2**30  # most costs between two clouds of which the optimum is at least bounded


@dataclass(frozen=True)
class OwnData(Task):
    """Base of the tasks on two files of points, each read as a `CloudFile` says.

    Attributes:
        source: path of the source's points, relative to the working directory.
        target: path of the target's points, of the same dimension.
        cost: ``sqeuclidean``, ``euclidean``, or ``geodesic`` for points on the unit sphere.
        source_key: array of the points in npz, mat and pt; ``X``, ``obsm/NAME`` or ``layers/NAME``
            in h5ad.
        source_where: condition on the rows of a table, or on the observations of h5ad.
        source_weights: path of a file of weights.
        source_weights_column: column or array of the weights.
        source_coords: ``lonlat`` where points are degrees on the globe.
        source_kind: ``image`` or ``dark-image`` where pixels are points.
        source_columns: columns that are coordinates, with commas between.
        target_key: as that of the source.
        target_where: likewise.
        target_weights: likewise.
        target_weights_column: likewise.
        target_coords: likewise.
        target_kind: likewise.
        target_columns: likewise.
    """

    needs: ClassVar[tuple[str, ...]] = ("ot",)
    source: str = ""
    target: str = ""
    cost: Literal["sqeuclidean", "euclidean", "geodesic"] = "sqeuclidean"
    source_key: str = ""
    source_where: str = ""
    source_weights: str = ""
    source_weights_column: str = ""
    source_coords: Literal["", "lonlat"] = ""
    source_kind: Literal["", "image", "dark-image"] = ""
    source_columns: str = ""
    target_key: str = ""
    target_where: str = ""
    target_weights: str = ""
    target_weights_column: str = ""
    target_coords: Literal["", "lonlat"] = ""
    target_kind: Literal["", "image", "dark-image"] = ""
    target_columns: str = ""

    def __post_init__(self) -> None:
        """Refuse absent files and unknown costs."""
        if not (self.source and self.target):
            raise ValueError(
                "source and target must be files of points: otbench run --source FILE --target FILE"
            )
        for field in ("source", "target", "source_weights", "target_weights"):
            path = getattr(self, field)
            if path and not Path(path).is_file():
                raise ValueError(f"{field} must be a file of points, got {path!r}, which is none")
        if self.cost not in COSTS:
            raise ValueError(f"cost must be one of {', '.join(COSTS)}, got {self.cost!r}")

    @property
    def files(self) -> tuple[str, ...]:
        """The files of points and of weights, by their absolute paths."""
        named = (self.source, self.target, self.source_weights, self.target_weights)
        return tuple(str(Path(path).resolve()) for path in named if path)

    @property
    def clouds(self) -> tuple[CloudFile, CloudFile]:
        """What the source and the target are read from."""
        source, target = (
            CloudFile(
                getattr(self, side),
                **{name: getattr(self, f"{side}_{name}") for name in OPTIONS},
            )
            for side in SIDES
        )
        return source, target


OPTIONS = tuple(field.name for field in fields(CloudFile) if field.name != "path")


def parameters(source: CloudFile, target: CloudFile, cost: str) -> Mapping[str, str]:
    """The parameters of a task on these files, but for those that are empty."""
    given = {"source": source.path, "target": target.path, "cost": cost}
    for side, file in zip(SIDES, (source, target), strict=True):
        given |= {f"{side}_{name}": getattr(file, name) for name in OPTIONS}
    return {name: value for name, value in given.items() if value}
