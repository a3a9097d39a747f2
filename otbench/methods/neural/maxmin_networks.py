"""The networks of max-min training: a map and a potential, by their form and architecture (see
`otbench.methods.neural.maxmin`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from otbench.methods.neural.convolutions import ImageMap, ResidualCritic, UNet
from otbench.methods.neural.networks import MLP, DenseQuadratic
from otbench.methods.neural.published_networks import Decoder, InstanceNormCritic, otm_critic
from otbench.problem import MapProblem


if TYPE_CHECKING:
    import torch

    from otbench.methods.neural.maxmin import MaxMinSolver
    from otbench.methods.neural.normalisation import Moments

    Tensor = torch.Tensor

Architecture = Literal["mlp", "convolutions", "otm-restoration", "otm-generation"]
Form = Literal["plain", "direct", "residual", "gradient", "convex"]


def square_plus(
    network: Callable[[Sequence[Tensor], Tensor], Tensor],
    weights: Sequence[Tensor],
    x: Tensor,
    scale: Tensor | float,
) -> Tensor:
    """``(stack, n)``: |x|^2 / 2 and a network of the scaled points."""
    return x.square().sum(-1) / 2 + network(weights, scale * x)[..., 0]


def square_plus_gradient(
    network: MLP | DenseQuadratic, weights: Sequence[Tensor], x: Tensor, scale: Tensor | float
) -> Tensor:
    """``(stack, n, d)``: the gradient of `square_plus`."""
    return x + scale * network.gradient(weights, scale * x)


class Networks:
    """Map and potential in one of the forms of `otbench.methods.neural.maxmin`, on points ``(stack,
    n, d)``; ``scale`` is that of the frame.

    Args:
        settings: which networks.
        problem: between what spaces.
        random_inputs: coordinates of random input that the map has beside x.
    """

    def __init__(self, settings: MaxMinSolver, problem: MapProblem, random_inputs: int) -> None:
        self.form, dim, image = settings.form, problem.target.dim, problem.target.image
        inputs, mixed, norm = problem.source.dim + random_inputs, settings.mixed, settings.norm
        if settings.network != "mlp":
            assert image is not None, "refused by supports"
            width, depth = settings.width, settings.depth
            unet = UNet(image, image[0], width, depth, random_inputs, mixed, norm == "batch")
            if settings.network == "convolutions":
                self.map, self.potential = unet, ResidualCritic(image, width, depth, mixed)
            elif settings.network == "otm-restoration":
                self.map = dataclasses.replace(unet, published=True)
                self.potential = otm_critic(image, width, depth, mixed)
            else:
                self.map = Decoder(inputs, image[0], width, depth, norm == "batch", mixed)
                self.potential = InstanceNormCritic(image, width // 2, depth, mixed)
        elif settings.form in ("plain", "direct", "residual"):
            hidden = settings.width, settings.depth, settings.activation
            self.map, self.potential = (
                MLP(inputs, dim, *hidden),
                MLP(dim, 1, *hidden),
            )
        else:
            widths = (max(2 * dim, 64), max(2 * dim, 64), max(dim, 32))
            self.map = self.potential = DenseQuadratic(
                dim, widths, settings.form == "convex", settings.rates
            )

    def push(
        self,
        weights: Sequence[Tensor],
        x: Tensor,
        q: Tensor,
        scale: Tensor | float,
        fixed: Sequence[Moments] | None = None,
    ) -> Tensor:
        """Images of inputs ``x`` embedded at ``q``; ``fixed`` statistics take the place of the
        batch's.
        """
        if isinstance(self.map, (MLP, ImageMap)):
            y = (
                self.map(weights, x)
                if isinstance(self.map, MLP)
                else self.map(weights, self.seen(x, q), fixed)
            )
            return q + y if self.form == "residual" else y
        if self.form == "convex":
            return self.map.gradient(weights, q)
        return square_plus_gradient(self.map, weights, q, scale)

    def seen(self, x: Tensor, q: Tensor) -> Tensor:
        """What a map of images takes in: a UNet sees pixels."""
        import torch

        if not isinstance(self.map, UNet):
            return x
        return torch.cat([q, x[..., x.shape[-1] - self.map.random :]], -1)

    def statistics(
        self, weights: Sequence[Tensor], batches: Iterable[tuple[Tensor, Tensor]]
    ) -> Sequence[Moments]:
        """What the map normalises by, over batches of inputs and Q of them."""
        assert isinstance(self.map, ImageMap), "refused by the settings"
        return self.map.statistics(weights, (self.seen(x, q) for x, q in batches))

    def psi(self, weights: Sequence[Tensor], y: Tensor, scale: Tensor | float) -> Tensor:
        """``(stack, n)``."""
        if self.form == "plain":
            return y.shape[-1] * self.potential(weights, y)[..., 0]
        if self.form == "convex":
            return self.potential(weights, y)[..., 0]
        if self.form == "direct":
            return (y.square().sum(-1) - y.shape[-1] * self.potential(weights, y)[..., 0]) / 2
        return square_plus(self.potential, weights, y, scale)

    def slope(self, weights: Sequence[Tensor], y: Tensor, scale: Tensor | float) -> Tensor:
        """``(stack, n, d)``: the gradient of psi in y."""
        import torch

        if not isinstance(self.potential, DenseQuadratic):
            y.requires_grad_()
            return torch.autograd.grad(self.psi(weights, y, scale).sum(), y)[0]
        with torch.no_grad():
            return self.push(weights, y, y, scale)  # of the same form as a map that is a gradient

    def project(self, weights: Sequence[Tensor]) -> None:
        """Keep convex what is to be."""
        if isinstance(self.map, DenseQuadratic):
            self.map.project(weights)
