"""Checks of what a solver returned: type, shape, device, dtype, finite values; and the points that
its map or plan sends test points to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otbench import metrics
from otbench.errors import DivergedError, InvalidOutputError
from otbench.problem import MapProblem
from otbench.solver import Transport


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

LARGEST = 1e150  # whose squares can be summed in float64, in which scores are taken
OFF_SPACE = 1e-3  # how far from the space of the cost a mapped point may lie


def check_output(what: str, value: object, shape: tuple[int, ...], like: Tensor) -> None:
    """Raise unless ``value`` is a finite tensor of this shape on the device and of the dtype of
    ``like``.

    Raises:
        InvalidOutputError: it is something else.
        DivergedError: it has values that are not finite, or whose squares are not.
    """
    import torch

    # Another subclass runs code of its own in whatever is computed of it.
    if not isinstance(value, torch.Tensor) or type(value) not in (torch.Tensor, torch.nn.Parameter):
        raise InvalidOutputError(
            f"{what} returned {type(value).__name__}, expected a torch.Tensor of shape {shape}"
        )
    if tuple(value.shape) != shape:
        raise InvalidOutputError(f"{what} returned shape {tuple(value.shape)}, expected {shape}")
    if value.device != like.device:
        raise InvalidOutputError(
            f"{what} returned a tensor on {value.device}, expected {like.device}"
        )
    if value.dtype != like.dtype:
        raise InvalidOutputError(f"{what} returned {value.dtype}, expected {like.dtype}")
    if value.layout != torch.strided and not (what == "plan" and _is_sparse_matrix(value)):
        raise InvalidOutputError(
            f"{what} returned layout {value.layout}, expected a dense tensor"
            + (" or a sparse COO one with its indices inside" if what == "plan" else "")
        )
    held = metrics.entries(value).detach()
    if not held.numel():
        return
    extremes = torch.stack(held.aminmax()).abs()  # without a second array of the plan's size
    if not torch.isfinite(extremes).all():
        bad = int((~torch.isfinite(held)).sum())
        raise DivergedError(f"{what} returned {bad} of {held.numel()} values that are not finite")
    largest = float(extremes.max())
    if held.dtype.is_floating_point and largest > LARGEST:
        raise DivergedError(f"{what} returned values up to {largest:.3g}: too large to square")


def _is_sparse_matrix(value: Tensor) -> bool:
    """Whether it is sparse COO in both dimensions, with indices that are inside."""
    import torch

    if value.layout != torch.sparse_coo or value.sparse_dim() != 2:
        return False
    shape = torch.tensor(value.shape, device=value.device)[:, None]
    indices = value._indices()
    return bool(((indices >= 0) & (indices < shape)).all())


@dataclass(frozen=True)
class Outputs:
    """Where a solver sends points, checked at every call.

    Attributes:
        problem: what was solved.
        transport: what the solver returned.
        noise_seed: of the noise that ``transport.sigma`` asks for, always the same, so that no
            score depends on how many were taken before.
    """

    problem: MapProblem
    transport: Transport
    noise_seed: int

    @property
    def stochastic(self) -> bool:
        """Whether an x has several mapped points: the solver is judged by draws from its plan, or
        has a map of noisy x.
        """
        return self._sample is not None or self.transport.sigma > 0

    @property
    def _sample(self) -> Callable[[Tensor, int], Tensor] | None:
        """What draws from the plan; none where its barycentres are judged as an estimate of a
        map.
        """
        by_means = self.transport.estimates_map and self.problem.truth.plan_is_map
        return None if by_means else self.transport.sample

    def push(self, x: Tensor) -> Tensor:
        """T(x)."""
        assert self.transport.push is not None
        return self.checked_push(self.transport.push(x.clone()), x)

    def checked_push(self, pushed: Tensor, x: Tensor) -> Tensor:
        """T(x) as it was returned, without its gradients."""
        check_output("push", pushed, (len(x), *self.problem.target.shape), like=x)
        return self._in_space("push", pushed)

    def mapped(self, x: Tensor, pushed: Tensor) -> Tensor:
        """One mapped point of each x: a draw, or where the solver has a map alone ``pushed``."""
        return self.draws(x, 1) if self.stochastic else pushed

    def draws(self, x: Tensor, k: int) -> Tensor:
        """``k`` draws for each x, ``(n * k, *target shape)``, those of one x in a row."""
        sample = self._sample
        if sample is None:
            return self.push(self.smoothed(x.repeat_interleave(k, 0)))
        drawn = sample(x.clone(), k)
        check_output("sample", drawn, (len(x), k, *self.problem.target.shape), like=x)
        return self._in_space("sample", drawn.flatten(0, 1))

    def smoothed(self, x: Tensor) -> Tensor:
        """Points under the noise of ``transport.sigma``."""
        import torch

        stream = torch.Generator(x.device).manual_seed(self.noise_seed)
        noise = torch.randn(x.shape, generator=stream, device=x.device, dtype=x.dtype)
        return x + self.transport.sigma * noise

    def _in_space(self, what: str, points: Tensor) -> Tensor:
        points, cost = points.detach(), self.problem.cost
        off = float((points - cost.project(points)).abs().max())
        if off > OFF_SPACE:
            raise InvalidOutputError(
                f"{what} returned points off the space of the {cost.name} cost, by up to {off:.3g}"
            )
        return points
