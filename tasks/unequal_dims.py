"""Unequal dimensions: a low-dimensional latent moved into a larger space, as in generative
modelling.

The latent z ~ N(0, I_h) goes to a law on a thin set of R^d. The cost ||B z - y||^2, with B a random
(d, h) matrix, compares the two spaces (Rout et al. 2022 transport between spaces of unequal
dimensions so, with an up-sampling for B). The map, with phi convex and differentiable on R^d, and
its two kinds are

    G(z) = grad phi(B z),
    affine:    phi(x) = <x, A x> / 2 + <m, x>,    A symmetric positive definite,
    W^2 = ||(I - A) B||_F^2 + |m|^2;
    softmax:  phi(x) = 0.3 |x|^2 / 2 + 0.5 log sum_k exp((<a_k, x> + b_k) / 0.5).

The target is the law of G(z). Kantorovich duality with the potentials |x|^2 - 2 phi(x) and |y|^2 -
2 phi*(y) proves G optimal, though B z has no density; it is unique because phi is differentiable.
The softmax has no closed form of the cost.

Hard for solvers with learned potentials: the target has no density on R^d, and nothing constrains
what they learn off it. Solvers that need both measures in one space cannot take part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from otbench import SQEUCLIDEAN, MapProblem, Measure, Task, Truth


if TYPE_CHECKING:
    import numpy as np
    import torch

    Tensor = torch.Tensor

SLOPES = (0.3, 3.0)  # least and greatest eigenvalue of A
ATOMS, RADIUS, TAU, EPS, OFFSET = (
    32,
    3.0,
    0.5,
    0.3,
    0.5,
)  # of the softmax: |a_k| = RADIUS, b_k ~ N(0, OFFSET^2)


@dataclass(frozen=True)
class UnequalDims(Task):
    """A Gaussian latent and its image in a space of another dimension.

    Attributes:
        source_dim: dimension h of the latent.
        dim: dimension d of the target, above h.
        kind: the potential, ``affine`` (whose gradient is affine) or ``softmax``.
    """

    name: ClassVar[str] = "unequal-dims"
    source_dim: int = 2
    dim: int = 16
    kind: Literal["affine", "softmax"] = "affine"

    def __post_init__(self) -> None:
        """Check the parameters."""
        self.require(at_least_one=("source_dim",))
        if self.dim <= self.source_dim:
            raise ValueError(
                f"dim must be above source_dim, {self.source_dim}, got {self.dim}: no room is left "
                "to be singular in"
            )
        if self.kind not in ("affine", "softmax"):
            raise ValueError(f"kind must be affine or softmax, got {self.kind!r}")

    def problem(self, rng: np.random.Generator, *, device: str, dtype: torch.dtype) -> MapProblem:
        """Draw B and the potential from ``rng``."""
        import torch

        embedding = rng.standard_normal((self.dim, self.source_dim)) / self.source_dim**0.5
        b = torch.as_tensor(embedding, device=device, dtype=dtype)
        zero = torch.zeros(self.source_dim, device=device, dtype=dtype)
        eye = torch.eye(self.source_dim, device=device, dtype=dtype)

        def embed(z: Tensor) -> Tensor:
            return z @ b.T.to(z.dtype)

        def draw(n: int, generator: torch.Generator) -> Tensor:
            return torch.randn(
                n, self.source_dim, generator=generator, device=generator.device, dtype=dtype
            )

        moments: dict[str, Any] = {}
        if self.kind == "affine":
            truth, moments = _affine(rng, embedding, embed, device=device, dtype=dtype)
        else:
            truth = _softmax(rng, self.dim, embed, device=device, dtype=dtype)
        push = truth.map
        assert push is not None
        source = Measure(
            (self.source_dim,), draw, mean=zero, cov=eye, variance=float(self.source_dim)
        )
        target = Measure((self.dim,), lambda n, generator: push(draw(n, generator)), **moments)
        return MapProblem(source, target, SQEUCLIDEAN.embedded(embed), truth)


def _affine(
    rng: np.random.Generator,
    embedding: np.ndarray,
    embed: Callable[[Tensor], Tensor],
    *,
    device: str,
    dtype: torch.dtype,
) -> tuple[Truth, dict[str, Any]]:
    """The truth with a random A and m, and the moments of the target."""
    import numpy as np
    import torch

    dim = len(embedding)
    axes = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    slopes = np.geomspace(*SLOPES, dim)
    a, inverse, shift = (axes * slopes) @ axes.T, (axes / slopes) @ axes.T, rng.standard_normal(dim)
    image = a @ embedding
    cov = image @ image.T
    matrix, back, m, covariance = (
        torch.as_tensor(array, device=device, dtype=dtype) for array in (a, inverse, shift, cov)
    )

    def push(z: Tensor) -> Tensor:
        return embed(z) @ matrix + m

    def potential(z: Tensor) -> Tensor:
        x = embed(z)
        return (x * (x - x @ matrix - 2 * m)).sum(1)

    def target_potential(y: Tensor) -> Tensor:
        return y.square().sum(1) - ((y - m) @ back * (y - m)).sum(1)

    cost = float(((embedding - image) ** 2).sum() + shift @ shift)
    truth = Truth("closed_form", cost, push, potential=potential, target_potential=target_potential)
    return truth, {"mean": m, "cov": covariance, "variance": float(cov.trace())}


def _softmax(
    rng: np.random.Generator,
    dim: int,
    embed: Callable[[Tensor], Tensor],
    *,
    device: str,
    dtype: torch.dtype,
) -> Truth:
    """The truth with random slopes a_k and constants b_k."""
    import numpy as np
    import torch

    slopes = rng.standard_normal((ATOMS, dim))
    slopes *= RADIUS / np.linalg.norm(slopes, axis=1, keepdims=True)
    a = torch.as_tensor(slopes, device=device, dtype=dtype)
    offsets = torch.as_tensor(OFFSET * rng.standard_normal(ATOMS), device=device, dtype=dtype)

    def push(z: Tensor) -> Tensor:
        x = embed(z)
        return EPS * x + ((x @ a.T + offsets) / TAU).softmax(1) @ a

    return Truth("brenier", map=push)
