"""Maps that anyone has: the mean of the target, the identity, the linear map between Gaussians. A
solver that is no better than they are has found nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from otbench.methods.gaussian_maps import gaussian_map
from otbench.problem import MapProblem


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

POINTS = 16384  # that moments are taken of
COORDINATES = 2**25  # of a sample: of long points fewer are drawn
LINEAR_DIM = 512  # most coordinates of a linear map


def trivial_maps(
    problem: MapProblem, generator: torch.Generator
) -> Iterator[Callable[[Tensor], Tensor]]:
    """The trivial maps of a problem; the identity and the linear one where both spaces are one.

    Args:
        problem: whose measures are sampled.
        generator: of the samples.
    """
    source, target, cost = problem.source, problem.target, problem.cost
    n = max(2, min(POINTS, COORDINATES // max(source.dim, target.dim)))
    y = target.sample(n, generator)
    mean = cost.project(y.double().mean(0, keepdim=True)).to(y.dtype)
    yield lambda x: mean.expand(len(x), *target.shape)
    if source.shape == target.shape:
        yield lambda x: x
        if cost.power == 2 and len(target.shape) == 1 and target.dim <= LINEAR_DIM:
            yield gaussian_map(source.sample(n, generator), y)
