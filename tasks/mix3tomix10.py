"""Mix3toMix10: three clusters bent into many, the high-dimensional pairs of the Wasserstein-2
benchmark.

A mixture of three Gaussians goes to its image under a smooth map, cost ||x - y||^2 (Korotin et al.
2021, section 4.2):

    T(x) = scale (grad v1(x) + grad v2(x) + shift),    v(x) = <w, h_K> + 0.01 |x|^2 / 2,
    h_0 = Q_0(x),    h_k = celu(U_k h_{k-1} + Q_k(x)),    Q_k(x) = (x A_k)^2 + W_k x + b_k,
    U_k, w >= 0.

v1 and v2 are the published input-convex networks of this form; their gradients were fitted to two
mixtures of ten Gaussians. T is the gradient of a convex function, hence optimal and unique (Brenier
1991) between the source and its push-forward, which is the target. ``scale`` and ``shift``
standardise the target, and ``target.variance`` is the benchmark's own estimate of its variance, so
that L2-UVP compares with published numbers. Costs are E |x - y|^2, twice the benchmark's; they are
estimated on the reference points of the run.

Hard in high dimension, above all for regularised solvers: T is far from affine. The linear map
between the moments leaves an L2-UVP of 14 % at d = 2 and, as published, 67 % at d = 256, where the
trained solvers published range from 0.51 to 88 % and one diverged.

The files are found by `otbench.data.files`: ``w2_benchmark/Mix3toMix10/{dim}_v1.pt`` and ``_v2.pt``
as published (MIT licence), and ``w2_benchmark/frozen_D{dim}.npz``, which freezes what the
benchmark's code draws at random: ``centers`` (3, d), ``maps`` (3, d, d) and ``std`` of the source
(component k is centers[k] + std maps[k] z, z ~ N(0, I)), ``scale``, ``shift`` and ``var_out`` of
the target, and golden points ``X`` with their images ``T``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from otbench import SQEUCLIDEAN, MapProblem, Measure, Task, Truth
from otbench.data.catalogue import find_checked


if TYPE_CHECKING:
    import numpy as np
    import torch

    Tensor = torch.Tensor

DIMS = (2, 4, 8, 16, 32, 64, 128, 256)
CONVEXITY = 0.01  # coefficient of |x|^2 / 2 in each network
CHUNK = 8192  # points mapped at a time


@dataclass(frozen=True)
class Mix3ToMix10(Task):
    """One of the published pairs.

    Attributes:
        dim: dimension d, one of 2, 4, 8, 16, 32, 64, 128, 256.
    """

    name: ClassVar[str] = "mix3tomix10"
    dim: int = 2

    def __post_init__(self) -> None:
        """Refuse a dimension without a published pair."""
        if self.dim not in DIMS:
            raise ValueError(f"dim must be one of {', '.join(map(str, DIMS))}, got {self.dim}")

    @property
    def files(self) -> tuple[str, ...]:
        """The two potentials and the frozen draws."""
        return (
            *(f"w2_benchmark/Mix3toMix10/{self.dim}_v{i}.pt" for i in (1, 2)),
            f"w2_benchmark/frozen_D{self.dim}.npz",
        )

    def problem(self, rng: np.random.Generator, *, device: str, dtype: torch.dtype) -> MapProblem:
        """Load the pair, the same for every ``rng``.

        Raises:
            MissingError: a file is absent, or is not the published one.
        """
        import numpy as np
        import torch

        *weights, frozen = map(find_checked, self.files)
        potentials = [
            _Potential(torch.load(path, weights_only=True, map_location="cpu"), device, dtype)
            for path in weights
        ]
        with np.load(frozen) as arrays:
            scale, std, variance = (float(arrays[key]) for key in ("scale", "std", "var_out"))
            centers, maps, shift = (
                torch.as_tensor(arrays[key], device=device, dtype=dtype)
                for key in ("centers", "maps", "shift")
            )

        def push(x: Tensor) -> Tensor:
            with torch.no_grad():
                return torch.cat(
                    [
                        scale * (sum(v.gradient(part) for v in potentials) + shift)
                        for part in x.split(CHUNK)
                    ]
                )

        def draw(n: int, generator: torch.Generator) -> Tensor:
            component = torch.randint(
                len(centers), (n,), generator=generator, device=generator.device
            )
            x = torch.randn(n, self.dim, generator=generator, device=generator.device, dtype=dtype)
            for k, (center, matrix) in enumerate(zip(centers, maps, strict=True)):
                x[component == k] = center + std * x[component == k] @ matrix.T
            return x

        mean = centers.mean(0)
        cov = (centers - mean).T @ (centers - mean) / len(centers) + std**2 * (maps @ maps.mT).mean(
            0
        )
        source = Measure((self.dim,), draw, mean=mean, cov=cov, variance=float(cov.trace()))
        target = Measure(
            (self.dim,), lambda n, generator: push(draw(n, generator)), variance=variance
        )
        return MapProblem(source, target, SQEUCLIDEAN, Truth("brenier", map=push))


class _Potential:
    """One input-convex network (see the module's docstring) from its state dictionary, and its
    gradient.
    """

    def __init__(self, state: Mapping[str, Tensor], device: str, dtype: torch.dtype) -> None:
        state = {name: weight.to(device, dtype) for name, weight in state.items()}
        depth = sum(name.startswith("convex_layers.") for name in state)
        self.a = [
            state[f"quadratic_layers.{k}.quadratic_decomposed"].squeeze(1) for k in range(depth + 1)
        ]
        self.w = [state[f"quadratic_layers.{k}.weight"] for k in range(depth + 1)]
        self.b = [state[f"quadratic_layers.{k}.bias"] for k in range(depth + 1)]
        self.u = [state[f"convex_layers.{k}.weight"] for k in range(depth)]  # U_1, U_2, ...
        self.final = state["final_layer.weight"]

    def gradient(self, x: Tensor) -> Tensor:
        """``(n, d)`` gradients at ``(n, d)`` points: back-propagation written out, with celu'(s) =
        exp(min(s, 0)).
        """
        import torch

        roots = [x @ a for a in self.a]
        quadratics = [
            root.square() + x @ w.T + b for root, w, b in zip(roots, self.w, self.b, strict=True)
        ]
        hidden, slopes = quadratics[0], []
        for u, quadratic in zip(self.u, quadratics[1:], strict=True):
            inner = hidden @ u.T + quadratic
            hidden = torch.nn.functional.celu(inner)
            slopes.append(inner.clamp(max=0).exp())

        def pull(k: int, outer: Tensor) -> Tensor:
            """Gradient of <outer, Q_k(x)>."""
            return outer @ self.w[k] + 2 * (outer * roots[k]) @ self.a[k].T

        gradient, outer = CONVEXITY * x, self.final
        for k in range(len(self.u), 0, -1):
            outer = outer * slopes[k - 1]
            gradient += pull(k, outer)
            outer = outer @ self.u[k - 1]
        return gradient + pull(0, outer)
