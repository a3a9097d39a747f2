"""Spectral normalisation: a critic whose matrices have norm one (Miyato et al. 2018).

    max_u  E u(x) - E u(y)    over networks of ReLUs and matrices of spectral norm one.

They are 1-Lipschitz, but far from all such functions: slopes are lost in every layer (Anil, Lucas &
Grosse 2019), and the Wasserstein-1 benchmark finds them to be poor potentials (Korotin, Kolesov &
Burnaev 2022). The map is that of the critic's rays, see `otbench.methods.neural.critics`. Matrices
are divided by their norms after each step, not in each evaluation as in the paper.

Presets: ``paper`` has the settings of the benchmark, 5,000 steps of Adam at 2e-4 and batches of
1,024.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from otbench import MapProblem
from otbench.methods.neural.critics import BenchmarkCritic, PotentialNetwork
from otbench.methods.neural.networks import SpectralMLP


@dataclass(frozen=True)
class SnGan(BenchmarkCritic):
    """A critic with matrices of norm one."""

    name: ClassVar[str] = "sn-gan"
    presets: ClassVar[Mapping[str, Mapping[str, float | str]]] = {
        "cpu": {},
        "paper": {**BenchmarkCritic.published, "steps": 5000},
    }

    steps: int = 2000
    penalty: float = 0.0

    def critic(self, problem: MapProblem) -> PotentialNetwork:
        """An MLP that is normalised."""
        dim = problem.source.dim
        return SpectralMLP(dim, 1, self.units(dim), self.depth, "leaky-relu", self.leak)
