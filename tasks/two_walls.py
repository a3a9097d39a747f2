"""Two walls: a square moves onto two parallel segments, and which half goes where does not matter.

The source is uniform on the square [1, 2] x [0, 1], the target on the walls {0} x [0, 1] and {-1} x
[0, 1] with half the mass each, cost ||x - y||. Every plan that moves along the first axis costs the
same:

    u(x) = x_1,    W1 = E x_1 - E y_1 = 2.

u is 1-Lipschitz and falls by |x - y| along the first axis, which proves it. The near half of the
square may serve the near wall, the far half may, or alternate strips: the optimal map is not
unique, and solvers are scored by their cost and their push-forward only.

Hard for W1 solvers that move points along the gradient of a potential: a potential alone tells the
optimal map where the target has codimension two or more (Milne, Bilocq & Nachman 2022); here it has
one, and the rays of u never end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from otbench import EUCLIDEAN, MapProblem, Measure, Task, Truth


if TYPE_CHECKING:
    import numpy as np
    import torch

    Tensor = torch.Tensor


@dataclass(frozen=True)
class TwoWalls(Task):
    """A square in front of two walls. Nothing about it is random; it has no parameters."""

    name: ClassVar[str] = "two-walls"

    def problem(self, rng: np.random.Generator, *, device: str, dtype: torch.dtype) -> MapProblem:
        """The problem, the same for every ``rng``."""
        import torch

        def square(n: int, generator: torch.Generator) -> Tensor:
            x = torch.rand(n, 2, generator=generator, device=generator.device, dtype=dtype)
            x[:, 0] += 1
            return x

        def serve(x: Tensor) -> Tensor:
            """The near half goes to the near wall, the far half to the far wall."""
            return torch.stack([-(x[:, 0] > 1.5).to(dtype), x[:, 1]], 1)

        def pairs(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            x = square(n, generator)
            return x, serve(x)

        source_mean, target_mean = (
            torch.tensor(mean, device=device, dtype=dtype) for mean in ([1.5, 0.5], [-0.5, 0.5])
        )
        source_cov, target_cov = (
            torch.diag(torch.tensor(v, device=device, dtype=dtype))
            for v in ([1 / 12, 1 / 12], [1 / 4, 1 / 12])
        )
        source = Measure((2,), square, mean=source_mean, cov=source_cov, variance=1 / 6)
        target = Measure(
            (2,),
            lambda n, generator: pairs(n, generator)[1],
            mean=target_mean,
            cov=target_cov,
            variance=1 / 3,
        )
        truth = Truth(
            "closed_form",
            2.0,
            no_map="not unique: either wall may take any half of the square",
            pairs=pairs,
            potential=lambda x: x[:, 0],
            target_potential=lambda y: -y[:, 0],
        )
        return MapProblem(source, target, EUCLIDEAN, truth)
