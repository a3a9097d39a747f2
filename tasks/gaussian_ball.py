"""Gaussian to ball: a normal law squeezed into a ball that it fills evenly.

N(0, I_d) goes to the uniform law on a ball around the origin, cost ||x - y||^2. Both laws are
invariant under rotations, so T moves points along rays and preserves the mass of balls around the
origin. With F the distribution function of |x| (chi with d degrees of freedom),

    T(x) = radius F(|x|)^{1/d} x / |x|,    W2^2 = E (|x| - radius F(|x|)^{1/d})^2.

T is the gradient of the convex function phi(|x|) with phi' = radius F^{1/d}, hence optimal and
unique (Brenier 1991). The cost is a one-dimensional quadrature.

Hard at the sharp edge of the target, to which the tails of the source are crushed: learned maps and
regularised plans blur it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from otbench import SQEUCLIDEAN, MapProblem, Measure, Task, Truth


if TYPE_CHECKING:
    import numpy as np
    import torch

    Tensor = torch.Tensor

TAIL = 9.0  # |x| exceeds sqrt(d) + TAIL with probability below 1e-17
NODES = 128  # of the Gauss-Legendre rule for phi
HALVINGS = 60  # of an interval, to the last bit
CHUNK = 16384  # points whose phi is integrated at a time


@dataclass(frozen=True)
class GaussianBall(Task):
    """A standard Gaussian and a uniform ball. Nothing about it is random.

    Attributes:
        dim: dimension d.
        radius: radius of the ball.
    """

    name: ClassVar[str] = "gaussian-ball"
    dim: int = 2
    radius: float = 3.0

    def __post_init__(self) -> None:
        """Check the parameters."""
        self.require(at_least_one=("dim",))
        if not 0 < self.radius < math.inf:
            raise ValueError(f"radius must be positive and finite, got {self.radius}")

    def problem(self, rng: np.random.Generator, *, device: str, dtype: torch.dtype) -> MapProblem:
        """The problem, the same for every ``rng``."""
        import torch

        def draw(n: int, generator: torch.Generator) -> Tensor:
            return torch.randn(
                n, self.dim, generator=generator, device=generator.device, dtype=dtype
            )

        def draw_ball(n: int, generator: torch.Generator) -> Tensor:
            norms = self.radius * torch.rand(
                n, 1, generator=generator, device=generator.device, dtype=dtype
            ) ** (1 / self.dim)
            return norms * torch.nn.functional.normalize(draw(n, generator))

        zero, eye = (
            torch.zeros(self.dim, device=device, dtype=dtype),
            torch.eye(self.dim, device=device, dtype=dtype),
        )
        spread = self.radius**2 / (self.dim + 2)
        source = Measure((self.dim,), draw, mean=zero, cov=eye, variance=float(self.dim))
        target = Measure(
            (self.dim,), draw_ball, mean=zero, cov=spread * eye, variance=spread * self.dim
        )
        truth = Truth(
            "closed_form",
            self._cost(),
            self._push,
            potential=self._potential,
            target_potential=self._target_potential,
        )
        return MapProblem(source, target, SQEUCLIDEAN, truth)

    def _cost(self) -> float:
        """W2^2 by quadrature over the norm of x."""
        from scipy.integrate import quad
        from scipy.stats import chi

        def integrand(r: float) -> float:
            return float(
                (r - self.radius * chi.cdf(r, self.dim) ** (1 / self.dim)) ** 2
                * chi.pdf(r, self.dim)
            )

        middle = math.sqrt(self.dim)
        return sum(
            quad(integrand, *piece, epsabs=1e-13, epsrel=1e-12)[0]
            for piece in ((0, middle), (middle, middle + 2 * TAIL))
        )

    def _push(self, x: Tensor) -> Tensor:
        r = x.double().norm(dim=1, keepdim=True)
        return (self._slope(r) * x).to(x.dtype)

    def _slope(self, r: Tensor) -> Tensor:
        """phi'(r) / r, smooth down to r = 0: where F underflows, the leading term of its series
        takes over.
        """
        import torch

        half = self.dim / 2
        mass = torch.special.gammainc(r.new_tensor(half), r.square() / 2)
        leading = (
            -r.square() / (2 * self.dim) - math.lgamma(half + 1) / self.dim
        ).exp() / math.sqrt(2)
        return self.radius * torch.where(mass > 1e-300, mass ** (1 / self.dim) / r, leading)

    def _potential(self, x: Tensor) -> Tensor:
        """f(x) = |x|^2 - 2 phi(|x|)."""
        r = x.double().norm(dim=1)
        return (r.square() - 2 * self._phi(r)).to(x.dtype)

    def _target_potential(self, y: Tensor) -> Tensor:
        """g(y) = |y|^2 - 2 phi*(|y|), with phi*(s) = max_r (r s - phi(r)) by bisection on phi'(r) =
        s; -inf off the ball.
        """
        import torch

        s = y.double().norm(dim=1)
        low = torch.zeros_like(s)
        high = low + math.sqrt(self.dim) + TAIL
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            below = self._slope(middle) * middle < s
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        g = s.square() - 2 * (low * s - self._phi(low))
        edge = self.radius * (1 + torch.finfo(y.dtype).eps)
        return g.where(s <= edge, -math.inf).to(y.dtype)

    def _phi(self, r: Tensor) -> Tensor:
        """Integral of phi' from 0 to r; beyond the tail phi' is ``radius``."""
        import numpy as np
        import torch

        nodes, weights = (
            torch.as_tensor(array, device=r.device)
            for array in np.polynomial.legendre.leggauss(NODES)
        )
        inner = r.clamp(max=math.sqrt(self.dim) + TAIL)
        parts = []
        for part in inner.split(CHUNK):
            half = part[:, None] / 2
            points = half * (1 + nodes)
            parts.append((self._slope(points) * points * half) @ weights)
        return torch.cat(parts) + self.radius * (r - inner)
