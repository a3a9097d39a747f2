"""Steps of neural training: one seed, and a stack of ten."""

import numpy as np
import torch

from otbench.registry import registry
from otbench.solver import FitContext


class MaxMin:
    """Twenty rounds of five map updates and one of the potential, batch 256."""

    number, repeat = 1, (5, 10, 2.0)
    params = ([1, 10],)
    param_names = ("stack",)

    def setup(self, stack: int) -> None:
        """Build the problem."""
        torch.set_num_threads(1)
        (task,), (solver,) = (
            registry("task").select("gaussian"),
            registry("solver").select("otm[steps=20,width=64]"),
        )
        self.problems = [
            task.build().problem(np.random.default_rng(0), device="cpu", dtype=torch.float32)
        ] * stack
        self.solver = solver.build()

    def time_fit(self, stack: int) -> None:
        """Checkpoints are offered, and not scored."""
        runs = [
            FitContext("cpu", torch.float32, seed, torch.Generator().manual_seed(seed))
            for seed in range(stack)
        ]
        self.solver.fit_together(self.problems, runs)


class Critics:
    """A hundred steps of a critic with a penalty on its slopes, batch 256."""

    number, repeat = 1, (5, 10, 2.0)
    params = ([1, 10],)
    param_names = ("stack",)

    def setup(self, stack: int) -> None:
        """Build the problem."""
        torch.set_num_threads(1)
        (task,), (solver,) = (
            registry("task").select("sphere-denoising"),
            registry("solver").select("ttc-ray[steps=100]"),
        )
        self.problems = [
            task.build().problem(np.random.default_rng(0), device="cpu", dtype=torch.float32)
        ] * stack
        self.solver = solver.build()

    def time_fit(self, stack: int) -> None:
        """Checkpoints are offered, and not scored."""
        runs = [
            FitContext("cpu", torch.float32, seed, torch.Generator().manual_seed(seed))
            for seed in range(stack)
        ]
        self.solver.fit_together(self.problems, runs)
