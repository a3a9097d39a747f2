"""Metrics at the sizes they are used at."""

import torch

from otbench.metrics import exact_w2_squared, l2_uvp, rounding, sliced_w2_squared


class Metrics:
    """On normal samples, one thread."""

    repeat, sample_time = (10, 50, 0.5), 0.005

    def setup(self) -> None:
        """Draw them."""
        torch.set_num_threads(1)
        generator = torch.Generator().manual_seed(0)
        self.pushed, self.optimal = torch.randn(2, 16384, 16, generator=generator)
        self.x, self.y = torch.randn(2, 512, 8, generator=generator, dtype=torch.float64)
        self.plan = torch.rand(512, 512, generator=generator, dtype=torch.float64) / 512**2
        self.a = torch.full((512,), 1 / 512, dtype=torch.float64)

    def time_l2_uvp(self) -> None:
        """16384 points in dimension 16."""
        l2_uvp(self.pushed, self.optimal, 16.0)

    def time_exact_w2_squared(self) -> None:
        """512 points."""
        exact_w2_squared(self.x, self.y)

    def time_sliced_w2_squared(self) -> None:
        """512 points."""
        sliced_w2_squared(self.x, self.y)

    def time_rounding(self) -> None:
        """512 x 512."""
        rounding(self.plan, self.a, self.a)
