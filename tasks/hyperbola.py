"""Hyperbola or hyperplane: a Gaussian and two atoms, of which the W1 map and the W2 map differ.

The same N(0, sigma^2 I_d) goes to the same two atoms -e_1 and e_1, at the cost ||x - y|| or ||x -
y||^2. Both optimal maps are known, and they are not the same: for W1 a hyperboloid divides the
points between the atoms, for W2 a hyperplane. With w the weight of e_1,

    W1:    T(x) = e_1 iff |x + e_1| - |x - e_1| > offset,
    W1 = E|x + e_1| - int_offset^2 w(s) ds - offset w;
    W2:    T(x) = e_1 iff x_1 > t = sigma Phi^{-1}(1 - w),
    W2^2 = d sigma^2 + 1 - 4 sigma phi(t / sigma).

With |x_rest| = rho, w = E Phi(-h(rho) / sigma), h(rho) = a sqrt(1 + rho^2 / (1 - a^2)), a = offset
/ 2, and rho / sigma of the chi law of d - 1 degrees. W1 follows because E min(|x + e_1|, |x - e_1|
+ s) has the derivative w(s) in s; the integrals are quadratures. Both maps are certified by
potentials of the form min_j (c(x, c_j) - g_j), and unique because the boundary is a null set.

Hard for solvers that mistake one cost for the other, and the push-forward does not give them away:
they match the target all the same, and send a known share of the points to the wrong atom.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from otbench import COSTS, MapProblem, Measure, Task, Truth


if TYPE_CHECKING:
    import numpy as np
    import torch

    Tensor = torch.Tensor

ON_ATOM = 1e-3  # distance up to which a rounded point is an atom


@dataclass(frozen=True)
class Hyperbola(Task):
    """A Gaussian and two atoms, whose weights are fixed by the W1 problem. Nothing about it is
    random.

    Attributes:
        offset: difference of the distances to the atoms on the boundary of the W1 problem, between
            -2 and 2; 0 makes the weights equal. The boundary must be at most four standard
            deviations away for a typical rho.
        dim: dimension d, at least two.
        sigma: standard deviation of the source.
        cost: the map depends on it, the source and the target do not.
    """

    name: ClassVar[str] = "hyperbola"
    offset: float = 1.6
    dim: int = 2
    sigma: float = 2.0
    cost: Literal["euclidean", "sqeuclidean"] = "euclidean"

    def __post_init__(self) -> None:
        """Refuse an offset that leaves an atom without mass, a line, no source, or another cost."""
        if not abs(self.offset) < 2:
            raise ValueError(f"offset must be between -2 and 2, got {self.offset}")
        if self.dim < 2:
            raise ValueError(f"dim must be at least 2, got {self.dim}")
        self.require(positive=("sigma",))
        if self.cost not in ("euclidean", "sqeuclidean"):
            raise ValueError(f"cost must be euclidean or sqeuclidean, got {self.cost!r}")
        a = self.offset / 2
        deviations = abs(a) * math.hypot(1 / self.sigma, math.sqrt((self.dim - 1) / (1 - a**2)))
        if deviations > 4:
            raise ValueError(
                f"offset must leave mass to both atoms, got {self.offset}: {deviations:.1f} "
                "standard deviations to the boundary"
            )

    def problem(self, rng: np.random.Generator, *, device: str, dtype: torch.dtype) -> MapProblem:
        """The problem, the same for every ``rng``."""
        import torch
        from torch.nn.functional import pad

        weight, threshold, value = self._solution()
        cost = COSTS[self.cost]
        shift = 0.0 if cost.power == 1 else 2 * threshold
        atoms = pad(torch.tensor([[-1.0], [1.0]], device=device, dtype=dtype), (0, self.dim - 1))
        offsets = torch.tensor(
            [0.0, self.offset] if cost.power == 1 else [-shift, shift], device=device, dtype=dtype
        )

        def costs(x: Tensor) -> Tensor:
            return (
                torch.cdist(x, atoms, compute_mode="donot_use_mm_for_euclid_dist") ** cost.power
                + offsets
            )

        def push(x: Tensor) -> Tensor:
            return atoms[costs(x).argmin(1)]

        def potential(x: Tensor) -> Tensor:
            return costs(x).amin(1)

        def target_potential(y: Tensor) -> Tensor:
            if cost.power == 1:
                return -potential(y)
            on_atom = torch.cdist(y, atoms).amin(1) < ON_ATOM
            return torch.where(on_atom, -shift * y[:, 0], -torch.inf)

        def draw(n: int, generator: torch.Generator) -> Tensor:
            return self.sigma * torch.randn(
                n, self.dim, generator=generator, device=generator.device, dtype=dtype
            )

        def draw_atoms(n: int, generator: torch.Generator) -> Tensor:
            return atoms[
                (
                    torch.rand(n, generator=generator, device=generator.device, dtype=torch.float64)
                    < weight
                ).long()
            ]

        zero, eye = (
            torch.zeros(self.dim, device=device, dtype=dtype),
            torch.eye(self.dim, device=device, dtype=dtype),
        )
        variance = 4 * weight * (1 - weight)
        source = Measure(
            (self.dim,), draw, mean=zero, cov=self.sigma**2 * eye, variance=self.dim * self.sigma**2
        )
        target = Measure(
            (self.dim,),
            draw_atoms,
            mean=(2 * weight - 1) * atoms[1],
            cov=variance * torch.diag(atoms[1]),
            variance=variance,
        )
        truth = Truth(
            "closed_form",
            value,
            push,
            potential=potential,
            target_potential=target_potential,
            atoms=atoms,
        )
        return MapProblem(source, target, cost, truth)

    def _solution(self) -> tuple[float, float, float]:
        """The weight of e_1, the threshold t and the optimal cost, by quadrature over rho and, with
        s = 2 sin(angle), over s.
        """
        import numpy as np
        from scipy.special import hyp1f1
        from scipy.stats import chi, norm

        nodes, weights = np.polynomial.legendre.leggauss(200)
        middle = math.sqrt(self.dim - 1)
        low, high = max(0.0, middle - 12), middle + 12
        rho = low + (high - low) * (nodes + 1) / 2
        rho_weights = (high - low) / 2 * weights * chi.pdf(rho, self.dim - 1)

        def weight_of(angle: np.ndarray) -> np.ndarray:
            boundary = np.sin(angle) * np.hypot(1 / self.sigma, rho[:, None] / np.cos(angle))
            return rho_weights @ norm.sf(boundary)

        start = math.asin(self.offset / 2)
        weight = float(weight_of(np.array([start]))[0])
        quantile = float(norm.isf(weight))
        if self.cost == "sqeuclidean":
            return (
                weight,
                self.sigma * quantile,
                self.dim * self.sigma**2 + 1 - 4 * self.sigma * float(norm.pdf(quantile)),
            )
        angle = start + (math.pi / 2 - start) * (nodes + 1) / 2
        integral = (
            (math.pi / 2 - start) / 2 * float(weights @ (weight_of(angle) * 2 * np.cos(angle)))
        )
        gamma = math.exp(math.lgamma((self.dim + 1) / 2) - math.lgamma(self.dim / 2))
        distance = (
            self.sigma
            * math.sqrt(2)
            * gamma
            * float(hyp1f1(-0.5, self.dim / 2, -0.5 / self.sigma**2))
        )
        return weight, self.sigma * quantile, distance - integral - self.offset * weight
