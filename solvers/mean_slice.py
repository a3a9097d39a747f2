"""Mean slice: the potential of sliced transport, without training; what `ra-ot` and `oa-ot` must
beat.

    f(x_i) = d / L  sum_l f_l(x_i)

The mean of <theta, x - y>^2 over directions theta is ||x - y||^2 / d, hence the factor. On the
sphere, where lines are those of the stereographic plane and the cost is an angle, it has no such
reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from otbench import FitContext
from otbench.methods.amortized.sliced import SlicedSolver
from otbench.methods.amortized.slices import Slices
from otbench.methods.amortized.solver import Info
from otbench.methods.entropic import Entropic


if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class MeanSlice(SlicedSolver):
    """Equal weights for all lines."""

    name: ClassVar[str] = "mean-slice"
    trivial: ClassVar[bool] = True
    learns: ClassVar[bool] = False

    def weigh(
        self, slices: Slices, problems: Sequence[Entropic], context: FitContext
    ) -> tuple[torch.Tensor, Info]:
        """The dimension over the number of lines."""
        lines, dim = slices.directions.shape
        return slices.directions.new_full((lines,), dim / lines), {}
