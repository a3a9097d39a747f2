"""otbench: a benchmark suite for optimal transport map solvers.

Importing this package imports no torch, jax or ot; the names below are all a task or a solver file
needs.
"""

from pathlib import Path
from typing import TYPE_CHECKING


_here = Path(__file__).parent
if not (_here / "tasks").is_dir():
    # In a checkout the registries `tasks/` and `solvers/` stand beside this package; in a wheel
    # they are inside it.
    __path__.append(str(_here.parent))

from otbench.errors import DivergedError, MissingError  # noqa: E402  (the path above must be set first)
from otbench.problem import (  # noqa: E402
    COSTS,
    EUCLIDEAN,
    GEODESIC,
    SQEUCLIDEAN,
    AmortizedProblem,
    Cost,
    DiscreteProblem,
    MapProblem,
    Measure,
    Problem,
    Task,
    Truth,
    empirical,
)
from otbench.solver import FitContext, Solver, Transport  # noqa: E402


if TYPE_CHECKING:
    from otbench.store import load


__version__ = "0.1.0"
__all__ = [
    "COSTS",
    "EUCLIDEAN",
    "GEODESIC",
    "SQEUCLIDEAN",
    "AmortizedProblem",
    "Cost",
    "DiscreteProblem",
    "DivergedError",
    "FitContext",
    "MapProblem",
    "Measure",
    "MissingError",
    "Problem",
    "Solver",
    "Task",
    "Transport",
    "Truth",
    "empirical",
    "load",
]


def __getattr__(name: str):
    """Lend ``otbench.load`` without importing pandas before it is used."""
    if name == "load":
        from otbench.store import load

        return load
    raise AttributeError(f"module 'otbench' has no attribute {name!r}")
