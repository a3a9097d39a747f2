"""ICNN mixture: clusters of points bent by the gradient of a random input-convex network.

A Gaussian mixture in R^d goes to its image under a random smooth map, cost ||x - y||^2. It is a
relative of the Mix3toMix10 pairs (Korotin et al. 2021) for any dimension and seed, without data
files. The network v is, with Q_k(x) = (x A_k)^2 + W_k x + b_k,

    h_0 = Q_0(x),   h_k = celu(U_k h_{k-1} + Q_k(x)),   v(x) = <w, h_2>,   U_k, w >= 0,
    T(x) = scale (grad v(x) - shift) + 0.2 x.

T is the gradient of a strongly convex function, hence optimal and unique (Brenier 1991) between the
mixture and its push-forward, which is the target. There is no closed form of the cost. ``scale``
and ``shift`` give the first term mean 0 and total variance d.

Hard for methods with few points or a stiff network: T is smooth and far from affine. The linear map
between the moments leaves an L2-UVP of 29 % at the defaults.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from otbench import SQEUCLIDEAN, MapProblem, Measure, Task, Truth


if TYPE_CHECKING:
    import numpy as np
    import torch

    Tensor = torch.Tensor

# Every unit is normalised on a fixed sample, so that its argument has mean -THRESHOLD and standard
# deviation 1 in units of ``steepness``: units that are rarely active keep the sum of many from
# becoming linear as d grows. There too the first term of T gets mean 0 and total variance d, by
# ``scale`` and ``shift``. For d = 2, 4, 8, 16, 32, 64 and seeds 0 to 4 the linear map between the
# moments leaves an L2-UVP of 17 to 41 % and the identity 34 to 93 % (Mix3toMix10: 14 to 64 % and 33
# to 136 %).

STD = 0.4  # of a component about its centre, in the mean over directions
CONVEXITY = 0.2  # the least slope of T
DEPTH = 2  # convex layers after the first quadratic one
THRESHOLD = 1.5  # standard deviations between the mean argument of a unit and its kink
CALIBRATION = 2**13  # points of the sample on which the network is normalised
CHUNK = 8192  # points mapped at a time


@dataclass(frozen=True)
class IcnnMixture(Task):
    """A mixture of Gaussians and its image under a random input-convex network's gradient.

    Attributes:
        dim: dimension d.
        components: number of equally likely Gaussians of the source; their centres are N(0, I_d),
            their covariances random.
        steepness: standard deviation of every unit's argument; the larger, the sharper the kinks of
            the potential.
    """

    name: ClassVar[str] = "icnn-mixture"
    dim: int = 16
    components: int = 3
    steepness: float = 5.0

    def __post_init__(self) -> None:
        """Check the parameters."""
        self.require(at_least_one=("dim", "components"), positive=("steepness",))

    def problem(self, rng: np.random.Generator, *, device: str, dtype: torch.dtype) -> MapProblem:
        """Draw the mixture and the network from ``rng``."""
        import numpy as np
        import torch

        centers = rng.standard_normal((self.components, self.dim))
        factors = rng.standard_normal((self.components, self.dim, self.dim)) / self.dim**0.5
        covs = STD**2 / 2 * (np.eye(self.dim) + factors @ factors.mT)
        roots = np.linalg.cholesky(covs)

        component = rng.integers(self.components, size=CALIBRATION)
        sample = rng.standard_normal((CALIBRATION, self.dim))
        for k in range(self.components):
            sample[component == k] = centers[k] + sample[component == k] @ roots[k].T
        network = _Network(rng, torch.as_tensor(sample), self.steepness)
        gradients = torch.cat(
            [network.gradient(part) for part in torch.as_tensor(sample).split(CHUNK)]
        )
        shift = gradients.mean(0).to(device, dtype)
        scale = float((self.dim / gradients.var(0).sum()).sqrt())
        network.to(device, dtype)

        def push(x: Tensor) -> Tensor:
            with torch.no_grad():
                return torch.cat(
                    [
                        scale * (network.gradient(part) - shift) + CONVEXITY * part
                        for part in x.split(CHUNK)
                    ]
                )

        m, r = (torch.as_tensor(array, device=device, dtype=dtype) for array in (centers, roots))

        def draw(n: int, generator: torch.Generator) -> Tensor:
            component = torch.randint(
                self.components, (n,), generator=generator, device=generator.device
            )
            x = torch.randn(n, self.dim, generator=generator, device=generator.device, dtype=dtype)
            for k in range(self.components):
                x[component == k] = m[k] + x[component == k] @ r[k].T
            return x

        mean = centers.mean(0)
        cov = covs.mean(0) + (centers - mean).T @ (centers - mean) / self.components
        moments = (torch.as_tensor(array, device=device, dtype=dtype) for array in (mean, cov))
        source = Measure((self.dim,), draw, *moments, variance=float(cov.trace()))
        target = Measure((self.dim,), lambda n, generator: push(draw(n, generator)))
        return MapProblem(source, target, SQEUCLIDEAN, Truth("brenier", map=push))


class _Network:
    """A random input-convex network (see the module's docstring), normalised on ``sample``, a
    float64 ``(n, d)``; and its gradient.
    """

    def __init__(self, rng: np.random.Generator, sample: Tensor, steepness: float) -> None:
        import torch

        dim = sample.shape[1]
        width = max(2 * dim, 64)

        def normal(rows: int, columns: int) -> Tensor:
            return torch.as_tensor(rng.standard_normal((rows, columns))) / dim**0.5

        def positive(*shape: int) -> Tensor:
            return torch.as_tensor(rng.exponential(size=shape)) / width

        self.a = [0.2 * normal(dim, width) for _ in range(DEPTH + 1)]
        self.w = [normal(width, dim) for _ in range(DEPTH + 1)]
        self.b = [sample.new_zeros(width) for _ in range(DEPTH + 1)]
        self.u = [0.3 * positive(width, width) for _ in range(DEPTH)]
        self.final = positive(width)

        hidden = (sample @ self.a[0]).square() + sample @ self.w[0].T
        for k in range(1, DEPTH + 1):
            argument = (
                hidden @ self.u[k - 1].T + (sample @ self.a[k]).square() + sample @ self.w[k].T
            )
            factor = steepness / argument.std(0)
            self.u[k - 1] *= factor[:, None]
            self.a[k] *= factor.sqrt()
            self.w[k] *= factor[:, None]
            self.b[k] = -factor * argument.mean(0) - THRESHOLD * steepness
            hidden = torch.nn.functional.celu(factor * argument + self.b[k])

    def to(self, device: str, dtype: torch.dtype) -> None:
        """Move the weights."""
        for weights in (self.a, self.w, self.b, self.u):
            weights[:] = [weight.to(device, dtype) for weight in weights]
        self.final = self.final.to(device, dtype)

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
            argument = hidden @ u.T + quadratic
            hidden = torch.nn.functional.celu(argument)
            slopes.append(argument.clamp(max=0).exp())

        def pull(k: int, outer: Tensor) -> Tensor:
            """Gradient of <outer, Q_k(x)>."""
            return outer @ self.w[k] + 2 * (outer * roots[k]) @ self.a[k].T

        gradient, outer = torch.zeros_like(x), self.final
        for k in range(DEPTH, 0, -1):
            outer = outer * slopes[k - 1]
            gradient += pull(k, outer)
            outer = outer @ self.u[k - 1]
        return gradient + pull(0, outer)
