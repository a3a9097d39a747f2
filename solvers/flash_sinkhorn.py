"""Sinkhorn's algorithm without a cost matrix, on an NVIDIA GPU, by FlashSinkhorn (package
flash-sinkhorn, in Triton), its ``sinkhorn_flashstyle_alternating``, in float32.

The library's squared Euclidean cost is ``||x - y||^2`` and its plan ``P_ij = a_i b_j exp((f_i + g_j
- C_ij) / eps)``, as here. It returns potentials; the plan is made of them here, once, in float64.
The clouds are given about the mean of the target, and unlike by default products are not rounded to
TF32, which would cost eps its meaning. The library looks every fifth iteration whether the
potentials have changed by less than a threshold, and warns where they never do: ``eps * tolerance``
implies ``tolerance`` in the l1 norm of a marginal. The first fit of a size tunes the kernels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from otbench import SQEUCLIDEAN, DiscreteProblem, FitContext, MissingError, Problem
from otbench.methods.adapting import centred
from otbench.methods.discrete import Coupling, SinkhornSolver
from otbench.methods.refusals import other_cost


@dataclass(frozen=True)
class FlashSinkhorn(SinkhornSolver):
    """Entropic optimal transport between two clouds on a GPU, squared Euclidean cost."""

    name: ClassVar[str] = "flash-sinkhorn"
    needs: ClassVar[tuple[str, ...]] = ("flash_sinkhorn",)

    def supports(self, problem: Problem) -> str | None:
        """The squared Euclidean cost, where there is a GPU."""
        import torch

        if reason := other_cost(problem, SQEUCLIDEAN):
            return reason
        return None if torch.cuda.is_available() else "runs on an NVIDIA GPU only: there is none"

    def couple(self, pair: DiscreteProblem, context: FitContext) -> Coupling:
        """Iterate until the potentials stand still.

        Raises:
            MissingError: the problem is not on the GPU.
        """
        if not pair.x.is_cuda:
            raise MissingError("flash-sinkhorn runs on an NVIDIA GPU only: run with --device cuda")
        from flash_sinkhorn.sinkhorn_solvers import (  # pyright: ignore[reportMissingImports]
            sinkhorn_flashstyle_alternating,
        )

        cost = pair.cost.matrix(pair.x, pair.y)
        mean_cost = float(pair.a @ cost @ pair.b)
        eps = self.in_cost_units(pair, mean_cost)
        x, y, _ = centred(pair)
        f, g, iterations = sinkhorn_flashstyle_alternating(
            x.float(),
            y.float(),
            *(weights.float() for weights in (pair.a, pair.b)),
            eps=eps,
            n_iters=self.max_iters,
            allow_tf32=False,
            threshold=eps * self.tolerance,
            return_n_iters=True,
        )
        f, g = f.double(), g.double()
        plan = (g - cost).add_(f[:, None]).div_(eps).exp_().mul_(pair.a[:, None]).mul_(pair.b)
        return Coupling(plan, g, eps, info=self.report(eps, mean_cost, iterations))
