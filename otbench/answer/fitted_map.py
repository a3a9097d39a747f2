"""Transport maps that are saved and applied to new points later, in another process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otbench import __version__
from otbench.data.clouds import normalised
from otbench.errors import UserError
from otbench.plugins import loaded
from otbench.runner.saving import write_state
from otbench.scoring.outputs import check_output


if TYPE_CHECKING:
    import numpy as np
    import torch

    Tensor = torch.Tensor

PUSHED = 2**14  # points that are mapped at a time


@dataclass(frozen=True)
class FittedMap:
    """The map T that a solver found between two clouds of vectors.

    Attributes:
        function: T, ``(k, d)`` tensors to ``(k, d)``.
        solver: label of the solver.
        cost_name: one of `otbench.problem.COSTS`.
        dim: d.
        dtype: of the tensors, ``float32`` or ``float64``.
        device: where they live.
        origin: ``(d,)``, what was taken off the points before the fit, T(x) = origin + function(x -
            origin).
    """

    function: Callable[[Tensor], Tensor] = field(repr=False)
    solver: str
    cost_name: str
    dim: int
    dtype: str
    device: str
    origin: np.ndarray = field(repr=False)

    def push(self, points: np.ndarray) -> np.ndarray:
        """T of points ``(k, d)``, in float64.

        Raises:
            UserError: points of another dimension, or off the unit sphere where the cost is
                geodesic.
            InvalidOutputError: T gives no points.
            DivergedError: its values are not finite.
        """
        import numpy as np
        import torch

        points = np.asarray(points, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != self.dim:
            raise UserError(
                f"the map takes points of {self.dim} coordinates, got an array of shape "
                f"{points.shape}"
            )
        if self.cost_name == "geodesic":
            points = normalised("points", points)
        centred = torch.as_tensor(points - self.origin).to(self.device, getattr(torch, self.dtype))
        parts = []
        for part in centred.split(PUSHED):
            mapped = self.function(part.clone())
            check_output("push", mapped, tuple(part.shape), like=part)
            parts.append(mapped.detach())
        return torch.cat(parts).double().cpu().numpy() + self.origin

    def save(self, path: str | Path) -> None:
        """Write the map, whole or not at all; `load` reads it.

        Raises:
            UserError: the solver's function cannot be saved.
            OSError: the file cannot be written.
        """
        import cloudpickle

        plugins = loaded()
        for module in plugins:
            cloudpickle.register_pickle_by_value(module)
        try:
            write_state(Path(path), {"otbench": __version__, "map": self}, cloudpickle)
        except OSError:
            raise
        except Exception as error:  # whatever a solver's function holds
            raise UserError(
                f"the map of {self.solver} cannot be saved ({type(error).__name__}: {error})"
            ) from error
        finally:
            for module in plugins:
                cloudpickle.unregister_pickle_by_value(module)


def load(path: str | Path) -> FittedMap:
    """A map that was saved. It is code, as any pickle is: load only what you trust.

    Raises:
        UserError: there is none, or it was saved by another version whose code has changed.
    """
    import torch

    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file: name a map that `otbench solve` wrote")
    device = None if torch.cuda.is_available() else "cpu"
    try:
        kept: Any = torch.load(path, map_location=device, weights_only=False)
        found = kept["map"]
    except Exception as error:
        raise UserError(
            f"{path}: is no map that `otbench solve` of this version ({__version__}) wrote, or is "
            f"damaged ({type(error).__name__}: {error}): solve again"
        ) from error
    if not isinstance(found, FittedMap):
        raise UserError(f"{path}: holds {type(found).__name__}, no map of `otbench solve`")
    return found
