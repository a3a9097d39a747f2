"""OTM-s: max-min training of a stochastic map T(x, z), the baseline of Choi, Choi & Kwon 2025 for
problems that no map solves.

The same saddle as of `otm`, over maps that have random input z ~ N(0, I) beside x. Nothing in the
objective makes T use it: every selection from the inner minimisers is as good, so that it has the
spurious solutions of `otm`. The paper does not say how z enters; here it is concatenated with x and
has the dimension of the target. The settings are those of `otp`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from otbench.methods.neural.maxmin import MaxMinSolver


@dataclass(frozen=True)
class OtmS(MaxMinSolver):
    """Max-min training of a map with random input; ``push`` is its mean over that input."""

    name: ClassVar[str] = "otm-s"

    def __post_init__(self) -> None:
        """Refuse the forms that have no room for random input."""
        super().__post_init__()
        if self.form in ("gradient", "convex"):
            raise ValueError(
                f"form={self.form} is a function of x alone: choose plain, direct or residual"
            )

    def random_inputs(self, dim: int) -> int:
        """As many as the target has coordinates."""
        return dim
