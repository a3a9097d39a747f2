"""One solver from end to end: time, accuracy and memory of the network simplex on two Gaussians."""

import numpy as np
import torch

from otbench.metrics import l2_uvp
from otbench.registry import registry
from otbench.solver import FitContext


class PotEmd:
    """512 points in dimension 2."""

    number, repeat = 1, (10, 20, 1.0)

    def setup(self) -> None:
        """Build the problem."""
        torch.set_num_threads(1)
        (task,), (solver,) = (
            registry("task").select("gaussian"),
            registry("solver").select("pot-emd[n=512]"),
        )
        self.problem = task.build().problem(
            np.random.default_rng(0), device="cpu", dtype=torch.float32
        )
        self.solver = solver.build()

    def fit(self):
        """Solve it with the same randomness each time."""
        return self.solver.fit(
            self.problem, FitContext("cpu", torch.float32, 0, torch.Generator().manual_seed(0))
        )

    def time_fit(self) -> None:
        """Sample, solve, extend."""
        self.fit()

    def peakmem_fit(self) -> None:
        """Of the whole process."""
        self.fit()

    def track_l2_uvp(self) -> float:
        """Accuracy in % on 16384 points."""
        x = self.problem.source.sample(16384, torch.Generator().manual_seed(1))
        return l2_uvp(self.fit().push(x), self.problem.truth.map(x), self.problem.target.variance)
