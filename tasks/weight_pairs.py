"""Weight pairs: learn from many transport problems on one grid to answer new ones at once.

The mass of one random smooth histogram on a square grid is to be moved to that of another, cost ||x
- y||^2, for many pairs (a, b):

    min <C, P>    over P >= 0 with P 1 = a and P' 1 = b,

with C the cost matrix of the centres of side x side cells of [0, 1]^2. The histograms are
independent and positive,

    a(x) ~ exp(sum_kl c_kl cos(pi k x_1) cos(pi l x_2)),    0 <= k, l <= 3, (k, l) != (0, 0),
    c_kl ~ N(0, 1 / (k^2 + l^2)).

Solvers learn from the training pairs, which are not solved, and are scored on the held-out ones,
whose truth is the exact linear program (network simplex, POT's ``ot.emd``) or, with an eps, the
plan of least <C, P> + eps KL(P | a b'), in float64, on weights as rounded to the dtype asked for.

Each pair alone is easy; hard is to predict without solving. A learned solver has few pairs without
answers to generalise from, while the optimal plans are sparse and change their support with the
weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from otbench import SQEUCLIDEAN, AmortizedProblem, DiscreteProblem, Task, Truth
from otbench.methods.discrete import certificate, solved


if TYPE_CHECKING:
    import numpy as np
    import torch

FREQUENCIES = 4


@dataclass(frozen=True)
class WeightPairs(Task):
    """Pairs of smooth histograms on a square grid.

    Attributes:
        side: cells along one axis; a histogram has side^2 weights.
        train: training pairs.
        test: held-out pairs, the same for every ``train``.
        eps: entropic regularisation in cost units; 0 asks for the linear program.
    """

    name: ClassVar[str] = "weight-pairs"
    setting: ClassVar[str] = "amortized"
    needs: ClassVar[tuple[str, ...]] = ("ot",)
    side: int = 8
    train: int = 20
    test: int = 10
    eps: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a grid with one cell, and nothing to score on."""
        for field, least in (("side", 2), ("train", 0), ("test", 1)):
            if getattr(self, field) < least:
                raise ValueError(f"{field} must be at least {least}, got {getattr(self, field)}")
        self.require(not_negative=("eps",))

    def problem(
        self, rng: np.random.Generator, *, device: str, dtype: torch.dtype
    ) -> AmortizedProblem:
        """Draw the histograms from ``rng``."""
        import numpy as np
        import torch

        centers = (np.arange(self.side) + 0.5) / self.side
        grid = torch.as_tensor(
            np.stack(np.meshgrid(centers, centers, indexing="ij"), -1).reshape(-1, 2),
            device=device,
            dtype=dtype,
        )
        test, train = (
            torch.as_tensor(_histograms(rng, (n, 2), centers), device=device, dtype=dtype)
            for n in (self.test, self.train)
        )
        train_pairs, test_pairs = (
            [
                DiscreteProblem(grid, a, grid, b, SQEUCLIDEAN, Truth("none"), self.eps)
                for a, b in pairs
            ]
            for pairs in (train, test)
        )
        held_out = [solved(pair) for pair in test_pairs]
        return AmortizedProblem(train_pairs, held_out, SQEUCLIDEAN, Truth(certificate(self.eps)))


def _histograms(
    rng: np.random.Generator, shape: tuple[int, ...], centers: np.ndarray
) -> np.ndarray:
    """``(*shape, side^2)`` histograms, each summing to one."""
    import numpy as np

    k = np.arange(FREQUENCIES)
    waves = np.cos(np.pi * np.outer(k, centers))
    squared = k[:, None] ** 2 + k**2
    squared[0, 0] = 1  # its coefficient only scales the density
    coefficients = rng.standard_normal((*shape, FREQUENCIES, FREQUENCIES)) / np.sqrt(squared)
    density = np.exp(np.einsum("...kl,ki,lj->...ij", coefficients, waves, waves)).reshape(
        *shape, len(centers) ** 2
    )
    return density / density.sum(-1, keepdims=True)
