"""otbench: a benchmark suite for optimal transport map solvers.

Importing this package imports no torch, jax or ot; the names below are all a task or a solver file
needs.
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING


_here = Path(__file__).parent
if not (_here / "tasks").is_dir():
    # In a checkout the registries `tasks/` and `solvers/` stand beside this package; in a wheel
    # they are inside it.
    __path__.append(str(_here.parent))

from otbench.errors import DivergedError, MissingError, UserError  # noqa: E402  (the path above must be set first)
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
    from otbench.api import Solved, get_solver, get_task, run, solve
    from otbench.report.leaderboard import leaderboard
    from otbench.store import Results, load


__version__ = "0.2.0"
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
    "Results",
    "Solved",
    "Solver",
    "Task",
    "Transport",
    "Truth",
    "UserError",
    "empirical",
    "get_solver",
    "get_task",
    "leaderboard",
    "load",
    "run",
    "solve",
]

LENT = {
    **dict.fromkeys(("Solved", "get_solver", "get_task", "run", "solve"), "otbench.api"),
    **dict.fromkeys(("Results", "load"), "otbench.store"),
    "leaderboard": "otbench.report.leaderboard",
}


def __getattr__(name: str):
    """The functions of `LENT`, whose modules are imported when they are first used."""
    if name in LENT:
        return getattr(importlib.import_module(LENT[name]), name)
    raise AttributeError(f"module 'otbench' has no attribute {name!r}")
