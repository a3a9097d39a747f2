"""RA-OT: regression on sliced potentials (Truong & Nguyen 2026).

The potentials of the training pairs, found by Sinkhorn's algorithm, are regressed on those along L
lines, one weight for each line:

    omega = argmin sum_k sum_i w_i (f_k(x_i) - sum_l omega_l f_kl(x_i))^2 + ridge |omega|^2,

potentials centred in each pair. A new pair costs L one-dimensional problems, and no iteration.

In the authors' code (``preset=paper``) potentials along lines are derivatives of the
one-dimensional cost, not valid at ties and at points without mass, and all points count the same,
those without mass too; the ridge is 0.001, on the sphere 0.05 (``preset=valid``: so, with valid
potentials, and 0.001 on the sphere as well). By default potentials are valid, points count by their
mass, and the ridge follows the units.

What is not as there, in both presets: the training pairs are solved to a tolerance, there by so
many iterations; where pairs are of colours the response keeps a term eps log a, which is taken off
it here as it is for digits; and every prediction becomes a plan in the same way (see
`otbench.methods.amortized.solver`). Whether the text constrains the weights of the lines, as an
early version of the code does, and which numbers of pairs its tables have, is not confirmed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from otbench import GEODESIC, FitContext
from otbench.methods.amortized.sliced import SlicedSolver
from otbench.methods.amortized.slices import Slices
from otbench.methods.amortized.solver import Info
from otbench.methods.entropic import Entropic, Solution


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

VALID: Mapping[str, float | int | str | bool] = {
    "slices": 100,
    "weights": "uniform",
    "ridge": 1e-3,
    "ridge_rule": "absolute",
    "tolerance": 1e-9,
}


@dataclass(frozen=True)
class RaOt(SlicedSolver):
    """Ridge regression of potentials on potentials along lines.

    Attributes:
        ridge: penalty of the squared norm of omega, see ``ridge_rule``, beside a sum over all
            points of all training pairs.
        ridge_rule: ``relative``: the ridge is a multiple of the mean square of a predictor, summed
            likewise; ``absolute``: it is in cost units squared.
        ridge_sphere: the ridge for pairs on the sphere; 0 takes ``ridge`` there, too.
        weights: of the points: ``mass`` (w_i = n a_i), or ``uniform`` (1, points without mass
            included).
        tolerance: marginal error to which the training pairs are solved, in the l1 norm.
    """

    name: ClassVar[str] = "ra-ot"
    needs: ClassVar[tuple[str, ...]] = ("ot",)
    presets: ClassVar[Mapping[str, Mapping[str, float | int | str | bool]]] = {
        "paper": {**VALID, "potentials": "autograd", "ridge_sphere": 0.05},
        "valid": VALID,
    }

    ridge: float = 0.01
    ridge_rule: Literal["relative", "absolute"] = "relative"
    ridge_sphere: float = 0.0
    weights: Literal["mass", "uniform"] = "mass"
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        self.require(positive=("ridge", "tolerance"), not_negative=("ridge_sphere",))

    def weigh(
        self, slices: Slices, problems: Sequence[Entropic], context: FitContext
    ) -> tuple[Tensor, Info]:
        """Solve the normal equations."""
        import torch

        lines = len(slices.directions)
        gram = torch.zeros(lines + 1, lines + 1, dtype=torch.float64, device=context.device)
        unsolved = 0
        for problem in problems:
            solution = problem.solve(tolerance=self.tolerance)
            unsolved += solution.error > self.tolerance
            joined = self._rows(slices, solution)
            gram += joined.T @ joined
        features, response = gram[:-1, :-1], gram[:-1, -1]
        on_sphere = problems[0].pair.cost == GEODESIC
        ridge = ((on_sphere and self.ridge_sphere) or self.ridge) * (
            float(features.diagonal().mean()) if self.ridge_rule == "relative" else 1.0
        )
        ridge = max(ridge, 1e-30)  # of a lone point, whose predictors vanish
        omega = torch.linalg.solve(
            features + ridge * torch.eye(lines, dtype=gram.dtype, device=gram.device), response
        )
        left, total = (
            gram[-1, -1] - 2 * omega @ response + omega @ features @ omega,
            float(gram[-1, -1]),
        )
        return omega, {
            "unsolved": unsolved,
            **({"r2": 1 - float(left) / total} if total > 0 else {}),
        }

    def _rows(self, slices: Slices, solution: Solution) -> Tensor:
        """``(n, L + 1)``: predictors and the response of one pair, weighted."""
        import torch

        problem = solution.problem
        if self.weights == "uniform":
            joined = torch.cat(
                [slices.features(problem, everywhere=True), solution.everywhere()[:, None]], 1
            )
            return joined - joined.mean(0)
        joined = torch.cat([slices.features(problem), solution.f[:, None]], 1)
        return (joined - problem.a @ joined) * (len(problem.a) * problem.a).sqrt()[:, None]
