"""Mini-batch flow: couplings of batches from a Gaussian and from a toy distribution, as flow
matching needs one at every step.

Each pair is a batch of N(0, I_2) and one of the target (eight Gaussians, two moons or an S-curve,
see `otbench.families.toys`), of equal weights, cost ||x - y||^2; what is asked for is the plan of

    min <C, P> + eps KL(P | a b')    over P >= 0 with P 1 = a and P' 1 = b.

All batches are fresh: pairs have no point in common. Solvers learn from the training pairs, which
are not solved, and are scored on the held-out ones, whose truth is Sinkhorn's algorithm run to a
marginal error of 1e-9 or, with eps = 0, the exact linear program (network simplex, POT's
``ot.emd``), both in float64 on the points as rounded to the dtype asked for.

Truong & Nguyen (2026) learn from 50 such batches of 512 for the flows that ``ot-cfm`` trains on
``flow-toy``. The eps of their code is 0.1 in one place and 5 in another; here it is 0.1. Sinkhorn's
algorithm comes to a halt there on batches that chance has made fall apart, two clusters with as
many points as the part of the source that goes there; Newton's method finishes them.

Hard for solvers that learn from weights on fixed points: here the weights are all the same, and
what varies are the points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from otbench import SQEUCLIDEAN, AmortizedProblem, DiscreteProblem, Measure, Task, Truth
from otbench.families.toys import normal, toy
from otbench.methods.discrete import certificate, solved


if TYPE_CHECKING:
    import numpy as np
    import torch

    Tensor = torch.Tensor

Target = Literal["8gaussians", "moons", "s-curve"]
TARGETS: tuple[Target, ...] = get_args(Target)


@dataclass(frozen=True)
class MinibatchFlow(Task):
    """Pairs of batches.

    Attributes:
        target: ``8gaussians``, ``moons`` or ``s-curve``.
        batch: points of a batch.
        train: training pairs.
        test: held-out pairs, the same for every ``train``.
        eps: entropic regularisation in cost units; 0 asks for the linear program.
    """

    name: ClassVar[str] = "minibatch-flow"
    setting: ClassVar[str] = "amortized"
    needs: ClassVar[tuple[str, ...]] = ("ot",)
    target: Target = "8gaussians"
    batch: int = 512
    train: int = 50
    test: int = 20
    eps: float = 0.1

    def __post_init__(self) -> None:
        """Refuse unknown targets, a batch of one point, and nothing to score on."""
        if self.target not in TARGETS:
            raise ValueError(f"target must be one of {', '.join(TARGETS)}, got {self.target!r}")
        for field, least in (("batch", 2), ("train", 0), ("test", 1)):
            if getattr(self, field) < least:
                raise ValueError(f"{field} must be at least {least}, got {getattr(self, field)}")
        self.require(not_negative=("eps",))

    def problem(
        self, rng: np.random.Generator, *, device: str, dtype: torch.dtype
    ) -> AmortizedProblem:
        """Draw the batches from ``rng``, on the host."""
        import torch

        source, target = (
            normal(device="cpu", dtype=dtype),
            toy(self.target, device="cpu", dtype=dtype),
        )
        weights = torch.full((self.batch,), 1 / self.batch, device=device, dtype=dtype)

        def pairs(number: int, stream: np.random.Generator) -> list[DiscreteProblem]:
            generator = torch.Generator().manual_seed(int(stream.integers(2**63)))

            def batch(measure: Measure) -> Tensor:
                return measure.sample(self.batch, generator).to(device)

            return [
                DiscreteProblem(
                    batch(source),
                    weights,
                    batch(target),
                    weights,
                    SQEUCLIDEAN,
                    Truth("none"),
                    self.eps,
                )
                for _ in range(number)
            ]

        train, test = rng.spawn(
            2
        )  # so that held-out pairs do not depend on the number of training pairs
        held_out = [solved(pair) for pair in pairs(self.test, test)]
        return AmortizedProblem(
            pairs(self.train, train), held_out, SQEUCLIDEAN, Truth(certificate(self.eps))
        )
