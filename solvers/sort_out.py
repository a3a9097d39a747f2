"""Sorting out Lipschitz functions: a critic that is 1-Lipschitz by construction (Anil, Lucas &
Grosse 2019).

    max_u    E u(x) - E u(y)
    over networks of orthonormal matrices with sorted activations between them.

Nothing is penalised. After each step of Adam the matrices are made orthonormal again. The map is
that of the critic's rays, see `otbench.methods.neural.critics`.

Presets:

* ``cpu``, the defaults: a higher, decaying learning rate, smaller batches, fewer steps; pairs of
  units are sorted.
* ``paper`` has the settings of the Wasserstein-1 benchmark (Korotin, Kolesov & Burnaev 2022):
  15,000 steps of Adam at 2e-4, batches of 1,024, and a layer is sorted as a whole. Its code moves
  along the orthonormal matrices; here steps are projected to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from otbench import MapProblem, Problem
from otbench.methods.neural.critics import BenchmarkCritic, PotentialNetwork
from otbench.methods.neural.networks import SortingNetwork


@dataclass(frozen=True)
class SortOut(BenchmarkCritic):
    """A critic that sorts.

    Attributes:
        group: units that are sorted among each other, a divisor of the width; 0 sorts all.
    """

    name: ClassVar[str] = "sort-out"
    presets: ClassVar[Mapping[str, Mapping[str, float | str]]] = {
        "cpu": {},
        "paper": {**BenchmarkCritic.published, "steps": 15_000, "group": 0},
    }

    penalty: float = 0.0
    group: int = 2

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        if self.group < 0 or self.group == 1:
            raise ValueError(f"group must be 0 or at least 2, got {self.group}")

    def supports(self, problem: Problem) -> str | None:
        """As the base; layers must consist of whole groups."""
        reason = super().supports(problem)
        if (
            reason is None
            and isinstance(problem, MapProblem)
            and self.group
            and self.units(problem.source.dim) % self.group
        ):
            return (
                f"group={self.group} does not divide the width of {self.units(problem.source.dim)}"
            )
        return reason

    def critic(self, problem: MapProblem) -> PotentialNetwork:
        """Orthonormal matrices, sorted units."""
        dim = problem.source.dim
        return SortingNetwork(dim, self.units(dim), self.depth, self.group or self.units(dim))
