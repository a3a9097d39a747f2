"""TTC with kinks: the map of the theorem of Milne, Bilocq & Nachman (2022) for a potential that is
an infimum over target points.

On the source, a Kantorovich potential of the cost ||x - y|| is the c-transform of its values v on
the target,

    u(x) = min_y ||x - y|| + v(y),    and W1 = max_v E_x[min_y ||x - y|| + v(y)] - E_y v(y),

the semi-dual problem. This u is 1-Lipschitz whatever v is, and its rays end on the target, at the
minima: T(x) = x - alpha(x) grad u(x) = argmin_y ||x - y|| + v(y). What is trained is v, an MLP,
against minima over a batch of fresh target points (as Mallasto et al. 2019 train WGANs); images are
taken among a larger pool of them.

Where the target is thin, a few thousand points cover it. Where it has the full dimension they do
not, and the potential has the defect of discrete transport between samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from otbench import DivergedError, FitContext, MapProblem, Problem, Transport
from otbench.methods.neural.critics import PotentialSolver, Training
from otbench.methods.neural.sampling import Stream
from otbench.methods.neural.solver import as_maps


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

ROWS = 2**10  # of a matrix of distances held at a time


@dataclass(frozen=True)
class TtcSemidual(PotentialSolver):
    """The rays of a c-transform.

    Attributes:
        candidates: target points per step among which minima are taken.
        pool: target points among which the images are.
    """

    name: ClassVar[str] = "ttc-semidual"

    candidates: int = 1024
    pool: int = 16384

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        self.require(positive=("width", "candidates", "pool"))

    def fit_together(
        self, problems: Sequence[Problem], contexts: Sequence[FitContext]
    ) -> list[Transport | DivergedError]:
        """Train one potential for each problem, as one stack."""
        return SemidualTraining(self, as_maps(problems), contexts).solve()


class SemidualTraining(Training[TtcSemidual]):
    """A stack of semi-dual problems."""

    def __init__(
        self, settings: TtcSemidual, problems: Sequence[MapProblem], contexts: Sequence[FitContext]
    ) -> None:
        super().__init__(settings, settings.critic(problems[0]), problems, contexts)
        self.y = Stream(
            [problem.target.sample for problem in problems], self.generators, settings.candidates
        )
        self.pools = [
            problem.target.sample(settings.pool, context.generator)
            for problem, context in zip(problems, contexts, strict=True)
        ]

    def loss(self) -> Tensor:
        """``(stack,)``: the negative of the semi-dual objective, up to E ||x - y|| at the minima,
        which v does not change.
        """
        import torch

        x, y = self.x.next(), self.y.next()
        v = self.network(self.weights.tensors, y)[..., 0]
        with torch.no_grad():
            image = (torch.cdist(x, y) + v[:, None]).argmin(2)
        return v.mean(1) - v.gather(1, image).mean(1)

    def transport(self, member: int) -> Transport:
        """The map onto the pool, and u.

        The pair of u and -u is feasible; -u is not offered for a saddle, whose c-transform would
        take a hundred times as long as the map.
        """
        import torch

        v, pool = self.potential(member), self.pools[member]

        found: list[Tensor] = []  # at the first push, and saved with it

        def height() -> Tensor:
            if not found:
                with torch.no_grad():
                    found.append(v(pool))
            return found[0]

        def image(x: Tensor) -> Tensor:
            with torch.no_grad():
                return torch.cat(
                    [(torch.cdist(part, pool) + height()).argmin(1) for part in x.split(ROWS)]
                )

        def potential(x: Tensor) -> Tensor:
            end = image(x)
            return (x - pool[end]).norm(dim=1) + height()[end]

        return Transport(lambda x: pool[image(x)], potential=potential)
