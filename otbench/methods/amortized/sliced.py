"""The model of sliced potentials: one weight for each line, the same for all pairs (Truong & Nguyen
2026).

    f(x_i) = sum_l omega_l f_l(x_i)

where f_l is the optimal potential between the measures projected on the line l. How omega is found
is what the solvers differ in.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from otbench.methods.amortized.slices import Slices
from otbench.methods.amortized.solver import AmortizedSolver, Info, Predictor
from otbench.methods.entropic import Entropic
from otbench.solver import FitContext


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor


@dataclass(frozen=True)
class SlicedSolver(AmortizedSolver):
    """Base of the solvers that weigh potentials along lines.

    Attributes:
        slices: number of lines L, in directions uniform on the sphere.
        potentials: ``valid``, or ``autograd``: POT's derivative of the one-dimensional cost, no
            potential at ties and off the mass.
    """

    slices: int = 100
    potentials: Literal["valid", "autograd"] = "valid"

    def __post_init__(self) -> None:
        """Check the parameters."""
        self.require(at_least_one=("slices",))

    @abstractmethod
    def weigh(
        self, slices: Slices, problems: Sequence[Entropic], context: FitContext
    ) -> tuple[Tensor, Info]:
        """The weights ``(L,)`` of the lines, for the potentials of the sources of ``problems``."""

    def learn(self, problems: Sequence[Entropic], context: FitContext) -> tuple[Predictor, Info]:
        """Draw the lines and weigh them."""
        slices = Slices.draw(
            self.slices, problems[0].pair, context.generator, self.potentials == "autograd"
        )
        omega, info = self.weigh(slices, problems, context)
        return partial(slices.potential, omega=omega), {
            **info,
            "omega_norm": float(omega.norm()),
            "omega_sum": float(omega.sum()),
        }
