"""Rotated product: a Gaussian split in two along each of d hidden axes, into 2^d clusters.

N(0, I_d) goes to a rotated product of two-peaked laws, cost ||x - y||^2. With U orthogonal
(Haar-random) and G the distribution function of (N(-2, 0.4^2) + N(2, 0.4^2)) / 2,

    T(x) = h(x U^T) U coordinatewise,    h = G^{-1} o Phi,
    W2^2 = d E (h(z) - z)^2 = 1.50417... d for z ~ N(0, 1).

h is increasing, so T is the gradient of a convex function, hence optimal and unique (Brenier 1991).
The cost uses E z h(z) = E h'(z), the integral of the normal density at Phi^{-1}(G(y)).

Hard in high dimension for methods that work with modes or with finite samples: the 2^d clusters can
neither be listed nor sampled. Hard for networks in any dimension: across each of d hyperplanes T is
all but discontinuous, h'(0) = 1.07e5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

from otbench import SQEUCLIDEAN, MapProblem, Measure, Task, Truth


if TYPE_CHECKING:
    import numpy as np
    import torch

    Tensor = torch.Tensor

PEAK, WIDTH = 2.0, 0.4  # the peaks are N(-PEAK, WIDTH^2) and N(PEAK, WIDTH^2)
QUARTILE = 0.6744897501960817  # Phi^{-1}(3/4), which h takes to PEAK
STEPS = 8  # of Newton's method, which converges from one side; seven give 1e-13
CHUNK = 2**20  # numbers to which h is applied at a time


@dataclass(frozen=True)
class RotatedProduct(Task):
    """A Gaussian split in two along each of d orthogonal axes.

    Attributes:
        dim: dimension d.
    """

    name: ClassVar[str] = "rotated-product"
    dim: int = 8

    def __post_init__(self) -> None:
        """Check the parameters."""
        self.require(at_least_one=("dim",))

    def problem(self, rng: np.random.Generator, *, device: str, dtype: torch.dtype) -> MapProblem:
        """Draw the rotation from ``rng``."""
        import numpy as np
        import torch

        axes, r = np.linalg.qr(rng.standard_normal((self.dim, self.dim)))
        rotation = torch.as_tensor(axes * np.sign(np.diag(r)), device=device)

        def push(x: Tensor) -> Tensor:
            return (_split(x.double() @ rotation.T) @ rotation).to(x.dtype)

        def draw(n: int, generator: torch.Generator) -> Tensor:
            return torch.randn(
                n, self.dim, generator=generator, device=generator.device, dtype=dtype
            )

        def draw_peaks(n: int, generator: torch.Generator) -> Tensor:
            signs = (
                2 * torch.randint(2, (n, self.dim), generator=generator, device=generator.device)
                - 1
            )
            return (PEAK * signs + WIDTH * draw(n, generator)).to(dtype) @ rotation.to(dtype)

        zero, eye = (
            torch.zeros(self.dim, device=device, dtype=dtype),
            torch.eye(self.dim, device=device, dtype=dtype),
        )
        spread = PEAK**2 + WIDTH**2
        source = Measure((self.dim,), draw, mean=zero, cov=eye, variance=float(self.dim))
        target = Measure(
            (self.dim,), draw_peaks, mean=zero, cov=spread * eye, variance=spread * self.dim
        )
        return MapProblem(
            source, target, SQEUCLIDEAN, Truth("closed_form", self.dim * _cost(), push)
        )


def _cost() -> float:
    """E (h(z) - z)^2 for z ~ N(0, 1)."""
    import numpy as np
    from scipy.integrate import quad
    from scipy.special import ndtr, ndtri

    def integrand(y: float) -> float:
        upper_tail = (ndtr((-PEAK - y) / WIDTH) + ndtr((PEAK - y) / WIDTH)) / 2
        return np.exp(-(ndtri(upper_tail) ** 2) / 2) / math.sqrt(2 * math.pi)

    pieces = (0, PEAK / 2, PEAK, 2 * PEAK, PEAK + 37 * WIDTH)
    slope = 2 * sum(
        quad(integrand, *piece, epsabs=1e-13, epsrel=1e-12)[0] for piece in pairwise(pieces)
    )
    return 1 + PEAK**2 + WIDTH**2 - 2 * slope


def _split(z: Tensor) -> Tensor:
    """h(z) for float64 ``z``, to the last few digits from 0 to the far tails: h is odd, and either
    side of QUARTILE has its equation.
    """
    import torch

    def split(part: Tensor) -> Tensor:
        size = part.abs()
        return torch.where(size < QUARTILE, _inner(size), _outer(size)) * part.sign()

    return torch.cat([split(part) for part in z.flatten().split(CHUNK)]).view_as(z)


def _inner(z: Tensor) -> Tensor:
    """H on [0, QUARTILE]: the y in [0, PEAK] with G(y) - 1/2 = Phi(z) - 1/2, written so that
    nothing cancels.

    4 (G(y) - 1/2) = erfc((PEAK - y) / s) - erfc((PEAK + y) / s) with s = WIDTH sqrt(2) grows like
    sinh, so its asinh is nearly straight.
    """
    import torch

    s = WIDTH * math.sqrt(2)
    unit = math.erfc(PEAK / s)
    wanted = 2 * (z.clamp(max=QUARTILE) / math.sqrt(2)).erf() / unit
    y = torch.zeros_like(z)
    for _ in range(STEPS):
        near, far = (PEAK - y) / s, (PEAK + y) / s
        found = (near.erfc() - far.erfc()) / unit
        slope = ((-near.square()).exp() + (-far.square()).exp()) * (
            2 / (math.sqrt(math.pi) * s * unit)
        )
        y = y + (wanted.asinh() - found.asinh()) * (1 + found.square()).sqrt() / slope
    return y


def _outer(z: Tensor) -> Tensor:
    """H from QUARTILE on: PEAK + WIDTH u with Phi(-u) = 2 Phi(-z), in logarithms. The other peak
    adds less than rounding does.
    """
    import torch

    wanted = torch.special.log_ndtr(-z.clamp(min=QUARTILE)) + math.log(2)
    u = z.clamp(min=QUARTILE)
    for _ in range(STEPS):
        found = torch.special.log_ndtr(-u)
        hazard = (-u.square() / 2 - found).exp() / math.sqrt(2 * math.pi)
        u = u + (found - wanted) / hazard
    return PEAK + WIDTH * u
