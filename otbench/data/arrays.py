"""Arrays of the user's own, read from npy, npz, mat and pt files: which of them holds the points,
and which their weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otbench.data.tables import WEIGHT
from otbench.errors import UserError, nearest


if TYPE_CHECKING:
    import numpy as np

SUFFIXES = (".npy", ".npz", ".mat", ".pt")
WEIGHTS_OF = {"points": "weights", "x": "a", "y": "b"}  # by the name of the points' array


def read_arrays(path: Path, key: str, weights: str, preferred: str) -> tuple[Any, Any | None]:
    """The arrays of the points and of their weights, where the file holds these too, as they stand.

    ``npy`` holds one array, ``pt`` one tensor or a dict of tensors, ``npz`` and ``mat`` arrays by
    name.

    Args:
        path: of the file.
        key: as `choose_arrays` takes it.
        weights: likewise.
        preferred: likewise.

    Raises:
        UserError: something that is no array, or it is not clear which array is meant.
    """
    import numpy as np

    def chosen(arrays: Mapping[str, Any]) -> tuple[Any, Any | None]:
        points, of_weights = choose_arrays(path, list(arrays), key, weights, preferred)
        return arrays[points], None if of_weights is None else arrays[of_weights]

    suffix = path.suffix.lower()
    if suffix == ".mat":
        return chosen(_read_mat(path))
    if suffix == ".pt":
        return chosen(_read_torch(path))
    with open(path, "rb") as file:
        loaded = np.load(file, allow_pickle=False)
        return chosen({"": loaded} if isinstance(loaded, np.ndarray) else loaded)


def choose_arrays(
    path: Path, names: Sequence[str], key: str, weights: str, preferred: str
) -> tuple[str, str | None]:
    """Names of the arrays of points and of weights in a file.

    An array that is alone is that of points. Of several, ``points`` goes with ``weights``, ``x``
    with ``a`` and ``y`` with ``b``.

    Args:
        path: of the file.
        names: of its arrays.
        key: name of the points where it is said.
        weights: name of the weights where it is said.
        preferred: ``x`` or ``y``, where one file is to give both clouds.

    Raises:
        UserError: no such array, or it is not clear which is meant.
    """
    listed = ", ".join(names) or "none"
    if list(names) == [""] and not key and not weights:
        return "", None
    for name, option in ((key, "--key"), (weights, "--weights-column")):
        if name and name not in names:
            raise UserError(
                f"{path}: has no array {name!r} for {option}{nearest(name, names)}; it holds "
                f"{listed}"
            )
    rest = [name for name in names if name not in (key, weights)]
    if key:
        chosen = key
    else:
        clouds = [name for name in WEIGHTS_OF if name in rest]
        if clouds == ["x", "y"] and preferred:
            clouds = [preferred]
        candidates = clouds or [name for name in rest if name not in WEIGHTS_OF.values()]
        if len(candidates) != 1:
            raise UserError(
                f"{path}: holds {len(names)} arrays ({listed}): say which are the points, "
                "--key NAME, and which the weights, --weights-column NAME"
            )
        chosen = candidates[0]
    if weights:
        return chosen, weights
    both = chosen in ("x", "y") and {"x", "y"} <= set(names)
    partners = (WEIGHTS_OF.get(chosen), None if both else "weights")
    found = [name for name in partners if name in rest]
    used = {chosen, *found, *(("x", "y", "a", "b") if both else ())}
    for name in rest:
        if name not in used and (not key or WEIGHT.fullmatch(name)):
            raise UserError(
                f"{path}: holds {len(names)} arrays ({listed}), and {name} is neither {chosen} nor "
                f"its weights: say which are the points, --key {chosen}, and which the weights, "
                "--weights-column NAME"
            )
    return chosen, found[0] if found else None


def _read_mat(path: Path) -> Mapping[str, Any]:
    from scipy.io import loadmat

    try:
        loaded = loadmat(path)
    except NotImplementedError:
        raise UserError(
            f"{path}: is of MATLAB's version 7.3, which is HDF5: save it again with "
            "save(..., '-v7')"
        ) from None
    return {name: array for name, array in loaded.items() if not name.startswith("__")}


def _read_torch(path: Path) -> Mapping[str, np.ndarray]:
    import torch

    loaded = torch.load(path, map_location="cpu", weights_only=True)
    tensors = loaded if isinstance(loaded, dict) else {"": loaded}
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise UserError(
                f"{path}: holds {type(tensor).__name__}{f' as {name}' if name else ''}, which is "
                "no tensor: save one tensor, or a dict of tensors"
            )
    return {
        str(name): (t.float() if t.dtype == torch.bfloat16 else t).detach().numpy()
        for name, t in tensors.items()
    }
