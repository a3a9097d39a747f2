"""What an adapter costs over its library: ``fit`` on clouds of 2,000 points beside a direct call on
the same arrays, in turn, CPU seconds of this process.

    python tests/perf/adapters.py [NAME ...]

Both begin with points and weights and end with a plan (or a potential, where the library forms no
plan). The ratio is of the medians over the rounds.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch

import otbench
from otbench import SQEUCLIDEAN, DiscreteProblem, FitContext, Truth
from otbench.methods.discrete import DiscreteSolver


N, DIM, EPS, ITERATIONS = 2000, 8, 0.05, 20
GIVEN = f"eps={EPS},max_iters={ITERATIONS},tolerance=1e-12"  # as much work on both sides


def problem() -> DiscreteProblem:
    """Two Gaussian clouds of equal weights."""
    stream = torch.Generator().manual_seed(1000)
    x, y = (torch.randn(N, DIM, generator=stream, dtype=torch.float64) for _ in range(2))
    weights = torch.full((N,), 1 / N, dtype=torch.float64)
    return DiscreteProblem(x, weights, y + 1, weights, SQEUCLIDEAN, Truth("none"))


def direct_calls(pair: DiscreteProblem) -> dict[str, Callable[[], Any]]:
    """The library's own call for each adapter, by its selection."""
    import jax
    import ot
    from geomloss.ot import solve as geomloss
    from ott.geometry.geometry import Geometry
    from ott.geometry.pointcloud import PointCloud
    from ott.solvers import linear
    from ott.tools.unreg import hungarian
    from scipy.optimize import linear_sum_assignment

    a, b, x, y = pair.a, pair.b, pair.x, pair.y
    mean = float(a @ SQEUCLIDEAN.matrix(x, y) @ b)
    eps = EPS * mean
    host = x.numpy(), y.numpy(), a.numpy(), b.numpy()

    def costs() -> Any:
        return ot.dist(x, y)

    @jax.jit
    def ott(x: Any, y: Any, a: Any, b: Any) -> Any:
        cloud = PointCloud(x, y, epsilon=eps)
        return linear.solve(cloud, a, b, max_iterations=ITERATIONS, threshold=1e-12).matrix

    def ott_sinkhorn() -> Any:
        with jax.enable_x64(True):
            return jax.block_until_ready(ott(*map(jax.numpy.asarray, host)))

    def ott_hungarian() -> Any:
        with jax.enable_x64(True):
            cost = jax.numpy.asarray(costs().numpy())
            return jax.block_until_ready(hungarian(Geometry(cost_matrix=cost))[1].paired_indices)

    def lazy_sinkhorn() -> Any:
        result: Any = ot.bregman.empirical_sinkhorn(
            x, y, eps, a=a, b=b, isLazy=True, numIterMax=ITERATIONS, stopThr=1e-12, log=True
        )
        return result[2]["lazy_plan"][:]

    def geomloss_plan() -> Any:
        result: Any = geomloss(costs(), reg=eps, a=a, b=b, max_iter=ITERATIONS)
        return result.plan

    stop = {"numItermax": ITERATIONS, "stopThr": 1e-12 / N**0.5}
    return {
        "pot-emd": lambda: ot.emd(host[2], host[3], costs().numpy(), numItermax=10**7),
        "pot-lazy-emd": lambda: ot.lp.emd2_lazy(*host, numItermax=10**7, log=True),
        "scipy-assignment": lambda: linear_sum_assignment(costs().numpy()),
        "ott-hungarian": ott_hungarian,
        f"pot-sinkhorn[{GIVEN}]": lambda: ot.sinkhorn(
            a, b, costs(), eps, method="sinkhorn_log", **stop
        ),
        f"pot-lazy-sinkhorn[{GIVEN}]": lazy_sinkhorn,
        f"ott-sinkhorn[{GIVEN}]": ott_sinkhorn,
        f"geomloss[{GIVEN}]": geomloss_plan,
        "pot-bsp": lambda: ot.bsp.compute_bspot_bijection(*host[:2]),
    }


def seconds(call: Callable[[], Any]) -> float:
    """CPU seconds of a call."""
    began = time.process_time()
    call()
    return time.process_time() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="of solvers (default: all)")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # that so few iterations do not converge
    pair = problem()
    print(f"{'solver':20} {'direct s':>9} {'adapter s':>9} {'ratio':>6}")
    for text, direct in direct_calls(pair).items():
        solver = otbench.get_solver(text)
        if options.names and solver.name not in options.names:
            continue
        assert isinstance(solver, DiscreteSolver)

        def adapter(solver: DiscreteSolver = solver) -> None:
            context = FitContext("cpu", torch.float64, 1000, torch.Generator().manual_seed(0))
            solver.fit(pair, context)

        direct()  # compiles
        adapter()
        pairs = [(seconds(direct), seconds(adapter)) for _ in range(options.rounds)]
        library, ours = (statistics.median(side) for side in zip(*pairs, strict=True))
        print(f"{solver.name:20} {library:9.3f} {ours:9.3f} {ours / library:6.2f}", flush=True)


if __name__ == "__main__":
    main()
