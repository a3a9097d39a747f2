"""Raw outputs that are kept (``otbench run --keep``), for pictures and for new metrics."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from otbench.metrics import barycentric_map
from otbench.problem import DiscreteProblem
from otbench.scoring.maps import MapScoring
from otbench.solver import Transport


if TYPE_CHECKING:
    import numpy as np
    import torch

    Arrays = dict[str, np.ndarray]

KEPT_PAIRS = 2  # of the plans, those of the first pairs
KEPT_ENTRIES = 2**16  # of a plan, the heaviest
KEPT_PATHS = 200  # of the test points, the first
KEPT_TIMES = 21  # of a path, at most
KEPT_IMAGES = 64  # of the points, the first, where they are images


def keep(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as npz, whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    import numpy as np

    unfinished = path.with_suffix(".part")
    try:
        path.parent.mkdir(exist_ok=True)
        with open(unfinished, "wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        os.replace(unfinished, path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise


def map_arrays(scoring: MapScoring, transport: Transport, pushed: torch.Tensor) -> Arrays:
    """Of a map: test points ``x``, T(x) as ``pushed``, T*(x) as ``optimal``, a ``target`` sample,
    and of the first points the ``path``, ``(times, points, *shape)`` from time 0 to 1.

    Where the optimal plan is no map, or points are images, ``pushed`` are draws of a stochastic
    plan. Of images there are few, with what each was made from (``partner``), and ``image`` is
    ``(channels, height, width)``.
    """
    import numpy as np
    import torch

    image = scoring.problem.target.image
    rows = None if image is None else KEPT_IMAGES
    if image is not None or not scoring.problem.truth.plan_is_map:
        pushed = scoring.outputs(transport, scoring.x, pushed)
    kept = {"x": scoring.x, "pushed": pushed.detach(), "target": scoring.known["target_sample"]}
    kept |= {name: scoring.known[name] for name in ("optimal", "partner") if name in scoring.known}
    kept = {name: values[:rows] for name, values in kept.items()}
    if transport.path is not None:
        path = transport.path(scoring.x[:KEPT_PATHS][:rows].clone()).detach()
        times = torch.linspace(0, len(path) - 1, min(KEPT_TIMES, len(path))).round().long()
        kept["path"] = path[times.to(path.device)]
    arrays = {name: values.cpu().numpy() for name, values in kept.items()}
    return arrays if image is None else {**arrays, "image": np.array(image)}


def plan_arrays(pairs: Sequence[DiscreteProblem], plans: Sequence[torch.Tensor]) -> Arrays:
    """`pair_arrays` of the first pairs, the number of the pair before each name."""
    kept = enumerate(map(pair_arrays, pairs[:KEPT_PAIRS], plans))
    return {f"{k}_{name}": array for k, arrays in kept for name, array in arrays.items()}


def pair_arrays(pair: DiscreteProblem, plan: torch.Tensor) -> Arrays:
    """Of a plan: the problem ``x, a, y, b, cost, pixels, target_pixels``, the heaviest entries
    ``i, j, mass``, and ``mapped``, the barycentric map of the points.

    The map is that of the plan rounded to its marginals. Of the true plan they are
    ``optimal_mapped``, and so on.
    """
    import numpy as np

    kept = {"x": pair.x, "a": pair.a, "y": pair.y, "b": pair.b}
    kept |= {"pixels": pair.pixels, "target_pixels": pair.target_pixels}
    a, b, y = pair.a.double(), pair.b.double(), pair.y.double().flatten(1)
    for prefix, coupling in (("", plan.detach()), ("optimal_", pair.truth.plan)):
        if coupling is not None:
            i, j, mass = heaviest(coupling, KEPT_ENTRIES)
            mapped = barycentric_map(coupling.double(), a, b, y).view(-1, *pair.y.shape[1:])
            kept |= {f"{prefix}i": i, f"{prefix}j": j, f"{prefix}mass": mass}
            kept[f"{prefix}mapped"] = mapped
    arrays = {
        name: (v.float() if v.is_floating_point() else v.int()).cpu().numpy()
        for name, v in kept.items()
        if v is not None
    }
    return {"cost": np.array(pair.cost.name), **arrays}


def heaviest(plan: torch.Tensor, most: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows, columns and values of the largest entries of a dense or sparse plan that are not zero,
    in falling order.
    """
    if plan.is_sparse:
        plan = plan.coalesce()
        mass, at = plan.values().topk(min(most, plan.values().numel()))
        i, j = plan.indices()[:, at]
    else:
        mass, at = plan.flatten().topk(min(most, plan.numel()))
        i, j = at // plan.shape[1], at % plan.shape[1]
    moved = mass > 0
    return i[moved], j[moved], mass[moved]
