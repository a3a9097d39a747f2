"""Published funnels: the pairs of the continuous Wasserstein-1 benchmark, from their official
files.

Mass crowded around a few centres spreads out along rays until it fills a cube evenly, cost ||x -
y|| (Korotin, Kolesov & Burnaev 2022). The target is uniform on [-2.5, 2.5]^d; each y moves down the
funnel it is in, towards its centre, to the x it comes from:

    u(y) = min_k (|y - a_k| + b_k),    x = a_k + t^8 (z - a_k)  where  y = a_k + t (z - a_k).

Here k is the funnel active at y, and z the upper end of the ray from a_k through y, where another
funnel takes over or the cube ends. ``w1-funnels`` draws such pairs at random; these are the
published ones, in the direction of the benchmark, whose gradient metric is taken on the moved
points.

u is 1-Lipschitz and u(y) - u(x) = |y - x|, which certifies the pairs (x, y) with the potentials f =
-u and g = u. The optimal map is not unique, since mass may be rearranged inside a ray: what is
scored is the gradient of f, the cost and the push-forward. The cost has no closed form.

Hard for discrete solvers, which meet the curse of dimension: between samples of high dimension most
of the cost is noise, and at d = 128 the directions of transport come out reversed.

The centres and offsets are found by `otbench.data.files` in
``w1_benchmark/nd/dim_{dim}/width_{width}/deg_8_seed_987.pt`` (MIT licence).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from otbench import MapProblem, Task
from otbench.data.catalogue import find_checked
from otbench.families.funnels import Funnels


if TYPE_CHECKING:
    import numpy as np
    import torch

DIMS = (2, 4, 8, 16, 32, 64, 128)
WIDTHS = (4, 16, 64, 256)
POWER = 8.0  # of the published pairs


@dataclass(frozen=True)
class W1Benchmark(Task):
    """One of the published pairs.

    Attributes:
        dim: dimension d, one of 2, 4, 8, 16, 32, 64, 128.
        width: number of funnels, one of 4, 16, 64, 256.
    """

    name: ClassVar[str] = "w1-benchmark"
    dim: int = 2
    width: int = 4

    def __post_init__(self) -> None:
        """Refuse what was not published."""
        for field, published in (("dim", DIMS), ("width", WIDTHS)):
            if getattr(self, field) not in published:
                raise ValueError(
                    f"{field} must be one of {', '.join(map(str, published))}, got "
                    f"{getattr(self, field)}"
                )

    @property
    def files(self) -> tuple[str]:
        """The centres and offsets."""
        return (f"w1_benchmark/nd/dim_{self.dim}/width_{self.width}/deg_8_seed_987.pt",)

    def problem(self, rng: np.random.Generator, *, device: str, dtype: torch.dtype) -> MapProblem:
        """Load the pair, the same for every ``rng``.

        Raises:
            MissingError: the file is absent, or is not the published one.
        """
        import torch

        path = find_checked(*self.files)
        state = torch.load(path, weights_only=True, map_location="cpu")
        centers, offsets = (state[f"net.{key}"].to(device, dtype) for key in ("centers", "bias"))
        return Funnels(centers, offsets).problem(POWER)
