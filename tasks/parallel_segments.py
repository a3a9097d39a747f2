"""Parallel segments: a flat cube to be lifted onto its parallel copy, in a direction solvers cannot
see.

The cube [-1, 1]^{d-1} at height 0 goes to the same cube at height 1, cost ||x - y||^2; for d = 2
both are segments. With U_k uniform on [-1, 1]^k,

    U_{d-1} x delta_0 to U_{d-1} x delta_1,    T(x) = x + e_d,    W2^2 = 1.

With C the cube [-1, 1]^{d-1} the potentials f(x) = dist(x_u, C)^2 + (x_d - 1)^2 - 1 and g(y) =
dist(y_u, C)^2 + y_d^2 prove that the translation T is optimal; it is unique on the source.

Hard for solvers that alternate between map and potential: g is the largest there is, and c(x, y) -
g(y) does not depend on y_d, the very direction in which all the mass must move. A spurious solution
leaves every point where it is.

With ``sigma`` > 0 the source is convolved with N(0, sigma^2 I), hence absolutely continuous. Its
coordinates stay independent: the only optimal map rearranges each of the first d - 1 monotonically
(see `otbench.families.closed_forms`) and sends the last to 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from otbench import SQEUCLIDEAN, MapProblem, Task, Truth
from otbench.families import closed_forms


if TYPE_CHECKING:
    import numpy as np
    import torch

    Tensor = torch.Tensor


@dataclass(frozen=True)
class ParallelSegments(Task):
    """A flat cube moved at right angles to itself. Nothing about it is random.

    Attributes:
        dim: dimension d; the cube has one less.
        sigma: standard deviation of the noise added to the source; 0 leaves it singular.
    """

    name: ClassVar[str] = "parallel-segments"
    dim: int = 2
    sigma: float = 0.0

    def __post_init__(self) -> None:
        """Check the parameters."""
        if self.dim < 2:
            raise ValueError(f"dim must be at least 2, got {self.dim}")
        self.require(not_negative=("sigma",))

    def problem(self, rng: np.random.Generator, *, device: str, dtype: torch.dtype) -> MapProblem:
        """The problem, the same for every ``rng``."""
        import numpy as np

        eye = np.eye(self.dim)
        source = closed_forms.affine_cube(
            eye[:-1], np.zeros(self.dim), self.sigma, device=device, dtype=dtype
        )
        target = closed_forms.affine_cube(eye[:-1], eye[-1], device=device, dtype=dtype)
        if self.sigma > 0:
            truth = Truth(
                "brenier",
                self._cost(self.sigma),
                lambda x: _with_last(closed_forms.smoothed_to_uniform(x[:, :-1], self.sigma), 1.0),
                smoothed_cost=lambda added: self._cost(math.hypot(self.sigma, added)),
            )
        else:
            truth = Truth(
                "dual_certificate",
                self._cost(0),
                lambda x: _with_last(x[:, :-1], 1.0),
                potential=lambda x: (
                    closed_forms.squared_distance_to_cube(x[:, :-1]) + (x[:, -1] - 1).square() - 1
                ),
                target_potential=lambda y: (
                    closed_forms.squared_distance_to_cube(y[:, :-1]) + y[:, -1].square()
                ),
                smoothed_cost=self._cost,
                spurious=lambda x: _with_last(x[:, :-1], 0.0),
            )
        return MapProblem(source, target, SQEUCLIDEAN, truth)

    def _cost(self, sigma: float) -> float:
        return (self.dim - 1) * closed_forms.smoothed_cost(sigma) + 1 + sigma**2


def _with_last(u: Tensor, value: float) -> Tensor:
    """The points ``(n, d - 1)`` with a last coordinate added."""
    import torch

    return torch.cat([u, torch.full_like(u[:, :1], value)], 1)
