"""OT-CFM by its authors' library, TorchCFM (Tong et al. 2024): flow matching on pairs of points
that an exact plan of each batch couples, ``ExactOptimalTransportConditionalFlowMatcher``, in an
environment of its own (``otbench env create torchcfm``), as the package requires some forty others.

Pairs, interpolation and the velocity to be regressed on are the library's, as is the network, its
``MLP`` of x and t with three layers of SELU; the training is that of its tutorials, Adam on fresh
batches. TorchCFM leaves the integration to others: here it is the Runge-Kutta method of order 4.
Points are in standard coordinates (`otbench.methods.standard`). `ot-cfm` is the same method on this
suite's training loop.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# (of the solver's own environment)

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from otbench import FitContext, MapProblem, Problem, Solver, Transport
from otbench.errors import DivergedError
from otbench.methods.extension import in_chunks
from otbench.methods.standard import Standard, no_standard


if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class TorchCfm(Solver):
    """Flow along the lines between points that exact plans of batches couple.

    Attributes:
        steps: of the training.
        batch: points of each measure in a step.
        lr: rate of Adam.
        width: of the layers.
        sigma: standard deviation of the noise around the lines, in standard coordinates.
        ode_steps: of the integration.
    """

    name: ClassVar[str] = "torchcfm"
    needs: ClassVar[tuple[str, ...]] = ("torchcfm",)
    environment: ClassVar[tuple[str, ...]] = ("torchcfm==1.0.7",)
    tuning: ClassVar[str] = "batch, width, lr and sigma of the library's tutorials; fewer steps"
    steps: int = 2000
    batch: int = 256
    lr: float = 1e-3
    width: int = 64
    sigma: float = 0.1
    ode_steps: int = 50

    def __post_init__(self) -> None:
        """Check the parameters."""
        self.require(
            positive=("steps", "batch", "lr", "width", "ode_steps"), not_negative=("sigma",)
        )

    def supports(self, problem: Problem) -> str | None:
        """Map problems between equal shapes, of squared Euclidean cost."""
        return no_standard(problem)

    def fit(self, problem: Problem, context: FitContext) -> Transport:
        """Train the velocity.

        Raises:
            DivergedError: the weights are not finite.
        """
        import torch
        from torchcfm import ExactOptimalTransportConditionalFlowMatcher
        from torchcfm.models.models import MLP

        assert isinstance(problem, MapProblem)
        stream, shape, dim = context.generator, problem.target.shape, problem.source.dim
        units = Standard.of(problem, stream)
        source, target = units.batches(problem, self.batch, stream)
        with _seeded(context):
            matcher = ExactOptimalTransportConditionalFlowMatcher(sigma=self.sigma)
            velocity = MLP(dim=dim, w=self.width, time_varying=True).to(context.device)
            adam = torch.optim.Adam(velocity.parameters(), self.lr)
            for _ in range(self.steps):
                x, y = next(source), next(target)
                t, at, wanted = matcher.sample_location_and_conditional_flow(x, y)
                adam.zero_grad()
                loss = (velocity(torch.cat([at, t[:, None]], 1)) - wanted).square().mean()
                loss.backward()
                adam.step()
        weights = torch.nn.utils.parameters_to_vector(velocity.parameters())
        if not weights.isfinite().all():
            raise DivergedError("torchcfm: the weights are not finite; lower lr")

        def slope(u: torch.Tensor, t: float) -> torch.Tensor:
            return velocity(torch.cat([u, u.new_full((len(u), 1), t)], 1))

        @torch.no_grad()
        def carried(u: torch.Tensor) -> torch.Tensor:
            h = 1 / self.ode_steps
            for i in range(self.ode_steps):
                first = slope(u, i * h)
                second = slope(u + h / 2 * first, (i + 0.5) * h)
                third = slope(u + h / 2 * second, (i + 0.5) * h)
                u = u + h / 6 * (first + 2 * (second + third) + slope(u + h * third, (i + 1) * h))
            return u

        return Transport(push=in_chunks(lambda x: units.push(carried, x, shape)))


@contextmanager
def _seeded(context: FitContext) -> Iterator[None]:
    """The library draws from the global generators of torch and NumPy."""
    import numpy as np
    import torch

    devices = [context.device] if context.device != "cpu" else []
    state = np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices):
        torch.manual_seed(context.seed)
        np.random.seed(context.seed)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(state)  # noqa: NPY002
