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
    of the cost is noise, and at d = 128
the directions of transport come out reversed.

The centres and offsets are found by `otbench.data.files` in
``w1_benchmark/nd/dim_{dim}/width_{width}/deg_8_seed_987.pt`` (MIT licence).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from otbench import MapProblem, Task
from otbench.data import files as data
from otbench.families.funnels import Funnels


if TYPE_CHECKING:
    import numpy as np
    import torch

DIMS = (2, 4, 8, 16, 32, 64, 128)
WIDTHS = (4, 16, 64, 256)
POWER = 8.0  # of the published pairs

# SHA-256 of the published file for each dim and width, where known.
CHECKSUMS: Mapping[tuple[int, int], str] = {
    (2, 4): "c9c8361014f34d583412f137e06f48f7ece753b3a443a6fd293354bb874954a5",
    (2, 64): "c1b19097a6d69aa40cc1461b6a9d314222896d7879b997f747f2e9eac8475d0d",
    (4, 4): "dc4b5ef2e8120b266bb88d160ef2cc47f57a777b2d73144c6459cca0e59c96a6",
    (4, 64): "6fd58e18ee477d4a46afe502a2fa6d373ddb25c68dca4e0be524808ac2d65d05",
    (8, 4): "e2b59b6d0b9119f93b2667393a9708784c69a92f85c796dc1e0a9ec441458468",
    (8, 64): "9968f17242eef5db86259397bc5f602ae83a0d78af67f9a1aec8a2f567567162",
    (16, 4): "2e67f37dc1b180d8496eaccf274fa21ab5300fbd1dc44893973a6344d22cd4ee",
    (16, 64): "1a956e1fcadb0a453f2b84dd1518e1d1c912bbd7dd320d118eb0e8302a109666",
    (64, 4): "fb4198a29d1093e4d51bf10518069ad271753960ef38987a35944af4ce1c010a",
    (64, 64): "f7f06031ce278a9ddd493a77702ebb796bf53455d0e60a3c72b9ba26850a409e",
    (128, 4): "37d3e0f294f04f43f1e36e29a827aff984b0eb1f12bc9af9f56967c80023ba1f",
    (128, 64): "12adf4288b829f4be332532ad111494e34b1b2e5aab4a1e702325e690bced99d",
}


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
                    f"{field} must be one of {', '.join(map(str, published))}, got {getattr(self, field)}"
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

        path = data.find(*self.files, CHECKSUMS.get((self.dim, self.width)))
        state = torch.load(path, weights_only=True, map_location="cpu")
        centers, offsets = (state[f"net.{key}"].to(device, dtype) for key in ("centers", "bias"))
        return Funnels(centers, offsets).problem(POWER)
