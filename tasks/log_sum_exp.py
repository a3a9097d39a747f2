"""Log-sum-exp: a Gaussian pulled in many directions at once by a smooth map with sharp turns.

N(0, I_d) goes to its image under the gradient of a soft maximum of random affine functions <a_k, x>
+ b_k, cost ||x - y||^2. Each point is pulled towards the slopes a_k of the greatest of them:

    T(x) = eps x + sum_k softmax_k((<a_k, x> + b_k) / tau) a_k,
    phi(x) = eps |x|^2 / 2 + tau log sum_k exp((<a_k, x> + b_k) / tau).

T is the gradient of the convex potential phi, hence optimal and unique between N(0, I_d) and its
push-forward, which is the target (Brenier 1991). The cost has no closed form.

Hard for learned maps and for solvers that match samples: a small ``tau`` makes T nearly piecewise
affine with ``atoms`` pieces, and in high dimension solvers match the target and still miss the map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from otbench import SQEUCLIDEAN, MapProblem, Measure, Task, Truth


if TYPE_CHECKING:
    import numpy as np
    import torch

    Tensor = torch.Tensor


@dataclass(frozen=True)
class LogSumExp(Task):
    """A Gaussian and its image under a sharp, smooth Brenier map.

    Attributes:
        dim: dimension d.
        atoms: number of affine functions.
        radius: norm of their slopes a_k, which are uniform on the sphere.
        tau: temperature of the soft maximum; T is discontinuous in the limit 0.
        eps: the least slope of T.
        offset: standard deviation of the normal constants b_k.
    """

    name: ClassVar[str] = "log-sum-exp"
    dim: int = 16
    atoms: int = 32
    radius: float = 3.0
    tau: float = 0.5
    eps: float = 0.3
    offset: float = 0.5

    def __post_init__(self) -> None:
        """Check the parameters."""
        self.require(
            at_least_one=("dim", "atoms"),
            positive=("radius", "tau"),
            not_negative=("eps", "offset"),
        )

    def problem(self, rng: np.random.Generator, *, device: str, dtype: torch.dtype) -> MapProblem:
        """Draw the affine functions from ``rng``."""
        import numpy as np
        import torch

        slopes = rng.standard_normal((self.atoms, self.dim))
        slopes *= self.radius / np.linalg.norm(slopes, axis=1, keepdims=True)
        a = torch.as_tensor(slopes, device=device, dtype=dtype)
        b = torch.as_tensor(
            self.offset * rng.standard_normal(self.atoms), device=device, dtype=dtype
        )

        def push(x: Tensor) -> Tensor:
            return self.eps * x + ((x @ a.T + b) / self.tau).softmax(1) @ a

        def draw(n: int, generator: torch.Generator) -> Tensor:
            return torch.randn(
                n, self.dim, generator=generator, device=generator.device, dtype=dtype
            )

        zero, eye = (
            torch.zeros(self.dim, device=device, dtype=dtype),
            torch.eye(self.dim, device=device, dtype=dtype),
        )
        source = Measure((self.dim,), draw, mean=zero, cov=eye, variance=float(self.dim))
        target = Measure((self.dim,), lambda n, generator: push(draw(n, generator)))
        return MapProblem(source, target, SQEUCLIDEAN, Truth("brenier", map=push))
