"""Funnels onto atoms: each point of a Gaussian falls straight onto one of a few random points.

N(0, 1.5^2 I_d) goes to atoms c_j that attract by their distance plus an offset b_j, cost ||x - y||.
The potential u is the least of these funnels, and T follows its gradient down to the tip:

    u(x) = min_j (|x - c_j| + b_j),    T(x) = c_j(x), j(x) the argmin.

The target is the push-forward of the source. u is 1-Lipschitz and u(x) - u(T(x)) = |x - T(x)| by
the triangle inequality, which certifies T; every optimal plan takes x to an atom that attains the
minimum, of which there is one almost everywhere, so T is unique.

Hard for solvers that send points to the nearest atom: the cells are bounded by hyperboloids, and
many points do not go to the nearest. Solvers must find the weights of the atoms, not only their
places (the semi-discrete problem of Hartmann & Schuhmacher 2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from otbench import EUCLIDEAN, MapProblem, Measure, Task, Truth


if TYPE_CHECKING:
    import numpy as np
    import torch

    Tensor = torch.Tensor

SIGMA = 1.5  # of the source
BOX = 2.0  # the atoms are uniform on [-BOX, BOX]^d
TRIAL_POINTS = 4096  # of the source, which must not all fall into one funnel


@dataclass(frozen=True)
class FunnelAtoms(Task):
    """A Gaussian that falls onto random atoms along straight lines.

    Attributes:
        dim: dimension d, at least two.
        atoms: number of atoms, at least two.
        offset: standard deviation of the normal offsets b_j; with 0 every point goes to the nearest
            atom.
    """

    name: ClassVar[str] = "funnel-atoms"
    dim: int = 8
    atoms: int = 16
    offset: float = 0.3

    def __post_init__(self) -> None:
        """Check the parameters."""
        if self.dim < 2:
            raise ValueError(f"dim must be at least 2, got {self.dim}")
        if self.atoms < 2:
            raise ValueError(f"atoms must be at least 2, got {self.atoms}")
        self.require(not_negative=("offset",))

    def problem(self, rng: np.random.Generator, *, device: str, dtype: torch.dtype) -> MapProblem:
        """Draw the atoms and their offsets from ``rng``.

        Raises:
            ValueError: one funnel takes all the mass.
        """
        import torch

        atoms = torch.as_tensor(
            rng.uniform(-BOX, BOX, (self.atoms, self.dim)), device=device, dtype=dtype
        )
        offsets = torch.as_tensor(
            self.offset * rng.standard_normal(self.atoms), device=device, dtype=dtype
        )

        def funnels(x: Tensor) -> Tensor:
            return torch.cdist(x, atoms, compute_mode="donot_use_mm_for_euclid_dist") + offsets

        def push(x: Tensor) -> Tensor:
            return atoms[funnels(x).argmin(1)]

        trial = torch.as_tensor(
            SIGMA * rng.standard_normal((TRIAL_POINTS, self.dim)), device=device, dtype=dtype
        )
        if len(push(trial).unique(dim=0)) < 2:
            raise ValueError(
                f"offset must leave mass to two atoms, got {self.offset}: one funnel takes all, "
                "lower it or change the seed"
            )

        def potential(x: Tensor) -> Tensor:
            return funnels(x).amin(1)

        def draw(n: int, generator: torch.Generator) -> Tensor:
            return SIGMA * torch.randn(
                n, self.dim, generator=generator, device=generator.device, dtype=dtype
            )

        zero, eye = (
            torch.zeros(self.dim, device=device, dtype=dtype),
            torch.eye(self.dim, device=device, dtype=dtype),
        )
        source = Measure(
            (self.dim,), draw, mean=zero, cov=SIGMA**2 * eye, variance=self.dim * SIGMA**2
        )
        target = Measure((self.dim,), lambda n, generator: push(draw(n, generator)))
        reached = push(atoms).unique(dim=0)  # an atom inside the funnel of another has no cell
        truth = Truth(
            "dual_certificate",
            map=push,
            potential=potential,
            target_potential=lambda y: -potential(y),
            atoms=reached,
        )
        return MapProblem(source, target, EUCLIDEAN, truth)
