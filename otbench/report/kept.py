"""Raw outputs that runs kept (``otbench run --keep``), for pictures of maps and images."""

# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportIndexIssue=false
# pyright: reportReturnType=false
# (pandas' own annotations join all that an operation may return, so that they fit almost nothing)

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from otbench.metrics import METRICS
from otbench.report import images
from otbench.report.quantities import accuracy_of, number
from otbench.store import kept_outputs


if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

IMAGE_SCORES = {
    "psnr_db": "{} dB",
    "transport_cost": "cost {}",
}  # of which the first that is known stands beside a row of images


def kept_maps(
    runs: pd.DataFrame, dirs: Sequence[str | os.PathLike[str]]
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Solver label and arrays ``x, pushed, target`` and, where known, ``optimal``, ``(n, d)`` of
    one dimension from two on, of one kept successful run per solver.
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
        if "x" not in arrays or "image" in arrays:
            continue
        d = arrays["x"].shape[1]
        if all(arrays[name].shape[1:] == (d,) for name in ("x", "pushed", "target")) and d > 1:
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
    runs: pd.DataFrame,
    dirs: Sequence[str | os.PathLike[str]],
    shape: tuple[int, int, int] | None = None,
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Solver label with its score and what `images.draw` takes, of the runs and in the order of
    `kept_couplings`; vectors of that many coordinates are images of ``shape``.
    """
    for run, file in _kept_of_one_seed(runs, dirs):
        arrays = dict(file)
        if shape and "image" not in arrays:
            arrays = _as_images(arrays, shape)
        if "image" in arrays:
            scores = (
                form.format(number(value))
                for name, form in IMAGE_SCORES.items()
                if (value := _metric(run, name)) is not None
            )
            yield "\n".join([run.solver_label, *itertools.islice(scores, 1)]), arrays


def _as_images(arrays: dict[str, np.ndarray], shape: tuple[int, int, int]) -> dict[str, np.ndarray]:
    """Kept vectors as images, the least value of source and target black, the greatest white; as
    they are where their dimension is another.
    """
    import numpy as np

    names = [name for name in ("x", "pushed", "target", "optimal") if name in arrays]
    if not names or any(arrays[name].shape[1:] != (math.prod(shape),) for name in names):
        return arrays
    given = np.concatenate([arrays["x"], arrays["target"]])
    low, high = given.min(), given.max()
    shown = {name: 2 * (arrays[name] - low) / ((high - low) or 1) - 1 for name in names}
    return {**shown, "image": np.array(shape)}


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
    files = kept_outputs(*dirs)
    outputs = [files.get(run) for run in zip(runs.batch, runs.key, strict=True)]
    return runs.assign(output=outputs)[runs.status == "ok"].dropna(subset=["output"])
