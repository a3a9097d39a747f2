"""Cells of an AnnData file (h5ad): a representation of the observations that a condition chooses.

Needs the package anndata, which comes with the extra ``anndata``.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otbench.data.tables import select_rows
from otbench.errors import UserError, nearest


if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

SUFFIXES = (".h5ad",)


def read_cells(
    path: Path, key: str, where: str, weights: str
) -> tuple[Any, list[str], pd.Series | None]:
    """One row per observation, dense or sparse, with the names of its columns, and the weights.

    Args:
        path: of the file.
        key: ``X``, ``obsm/NAME`` or ``layers/NAME``.
        where: condition on the columns of ``obs``; all observations where it is empty.
        weights: name of a column of ``obs``, if any.

    Raises:
        UserError: anndata is not installed, or there is no such representation or column.
    """
    import numpy as np

    if importlib.util.find_spec("anndata") is None:
        raise UserError(
            f"{path}: reading h5ad needs anndata: pip install 'otmapbench[anndata]', or write a "
            f"file of points in Python where you have it: {_export(path, key, where)}"
        )
    import anndata  # pyright: ignore[reportMissingImports]

    data = anndata.read_h5ad(path, backed="r")
    try:
        if weights and weights not in data.obs:
            raise UserError(
                f"{path}: obs has no column {weights!r} for --weights-column"
                f"{nearest(weights, map(str, data.obs.columns))}"
            )
        kept = np.ones(data.n_obs, bool)
        if where:
            kept = select_rows(path, data.obs, where)
        rows = np.flatnonzero(kept)
        matrix, names = _representation(path, data, key, rows)
        return matrix, names, data.obs[weights].iloc[rows] if weights else None
    finally:
        data.file.close()


def _representation(path: Path, data: Any, key: str, rows: np.ndarray) -> tuple[Any, list[str]]:
    kind, _, name = key.partition("/")
    known = [
        *(["X"] if _has_x(data) else []),
        *(f"obsm/{name}" for name in data.obsm),
        *(f"layers/{name}" for name in data.layers),
    ]
    if key not in known:
        said = f"has no {key!r}{nearest(key, known)}" if key else "holds several representations"
        raise UserError(f"{path}: {said}: choose with --key: {', '.join(known) or 'it has none'}")
    if kind == "obsm":
        held: Any = data.obsm[name]
        names = getattr(held, "columns", None)
        held = held if names is None else held.to_numpy()
        return held[rows], _named(names, held.shape[1])
    held = data.X if key == "X" else data.layers[name]
    return held[rows], _named(data.var_names, held.shape[1])


def _has_x(data: Any) -> bool:
    try:
        return data.X is not None
    except KeyError:  # anndata's word for none in a file that it has open
        return False


def _named(names: Sequence[Any] | None, columns: int) -> list[str]:
    return list(map(str, range(1, columns + 1) if names is None else names))


def _export(path: Path, key: str, where: str) -> str:
    """A line of Python that writes the points as npy."""
    kind, _, name = (key or "obsm/X_pca").partition("/")
    layer = f"layer={name!r}" if kind == "layers" else ""
    held = f"a.obsm[{name!r}]" if kind == "obsm" else f"a.to_df({layer}).to_numpy()"
    rows = f"[a.obs.eval({where!r})]" if where else ""
    return (
        f"import anndata, numpy; a = anndata.read_h5ad({str(path)!r}); "
        f"numpy.save({path.stem + '.npy'!r}, {held}{rows})"
    )
