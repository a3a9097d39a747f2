"""Stacked networks: plain descriptions of shapes, with their weights kept apart.

A network is called with its weights and points: ``network(weights, x)`` for weights of shapes
``(stack, ...)`` and points ``(stack, n, inputs)``. Weights of all layers lie in one flat tensor, so
that an optimiser, a norm or an average is one operation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

Activation = Literal["silu", "selu", "elu", "leaky-relu"]
Rates = Literal["fan-in", "equal"]

SELU_SCALE, SELU_ALPHA = (
    1.0507009873554805,
    1.6732632423543772,
)  # x -> scale x where positive, scale alpha (exp(x) - 1) elsewhere
LEAK = 0.01  # slope of a leaky ReLU on the left, torch's default
ROOTS, FINAL = 0.1, 0.3  # factors of the initial roots and last weights of a `DenseQuadratic`
POLAR_ITERATIONS = 3  # from matrices that were orthonormal before one step of the optimiser
WIDE = (
    16,
    64,
    32,
)  # inputs of its first, inner and last layers from which on they learn at a lower rate


class Network(Protocol):
    """What `Weights` needs to know of a network. A method ``project(weights)``, where there is one,
    is called after each step.
    """

    @property
    def rates(self) -> Sequence[float]:
        """Learning rates of the tensors, as multiples of that of the network."""
        ...

    def initial(self, generator: torch.Generator, dtype: torch.dtype) -> list[Tensor]:
        """Weights of one member of the stack, on the generator's device."""
        ...


@dataclass(frozen=True)
class Weights:
    """Weights of a stack of networks.

    Attributes:
        flat: ``(stack, parameters)``.
        shapes: of one member's tensors.
        rates: their learning rates, as multiples of that of the network.
    """

    flat: Tensor
    shapes: tuple[tuple[int, ...], ...]
    rates: tuple[float, ...]

    @classmethod
    def draw(
        cls, network: Network, generators: Sequence[torch.Generator], dtype: torch.dtype
    ) -> Weights:
        """Initial weights, those of each member from its own generator."""
        import torch

        members = [network.initial(generator, dtype) for generator in generators]
        flat = torch.stack(
            [torch.cat([tensor.flatten() for tensor in member]) for member in members]
        )
        return cls(flat, tuple(tuple(tensor.shape) for tensor in members[0]), tuple(network.rates))

    @cached_property
    def tensors(self) -> list[Tensor]:
        """The tensors ``(stack, *shape)``, leaves of autograd that share memory with ``flat``."""
        parts = self.flat.detach().split([math.prod(shape) for shape in self.shapes], 1)
        return [
            part.unflatten(1, shape).requires_grad_()
            for part, shape in zip(parts, self.shapes, strict=True)
        ]

    def member(self, index: int) -> list[Tensor]:
        """The tensors ``(1, *shape)`` of one member as they are now, a copy."""
        return Weights(self.flat[index : index + 1].clone(), self.shapes, self.rates).frozen

    @cached_property
    def frozen(self) -> list[Tensor]:
        """The tensors without autograd."""
        return [tensor.detach() for tensor in self.tensors]


class Layer(NamedTuple):
    """An affine layer of each member of a stack.

    Attributes:
        matrix: ``(stack, inputs, outputs)``; of a convolution ``(stack, outputs, inputs, size,
            size)``.
        bias: ``(stack, 1, outputs)``; of a convolution ``(stack, outputs)``.
    """

    matrix: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """``(stack, n, inputs) -> (stack, n, outputs)``."""
        import torch

        return torch.baddbmm(self.bias, x, self.matrix)


def layers_of(weights: Sequence[Tensor]) -> list[Layer]:
    """The layers of weights in which matrices and biases alternate."""
    return [Layer(*pair) for pair in zip(weights[::2], weights[1::2], strict=True)]


def weights_of_each(
    networks: Sequence[Network], weights: Sequence[Tensor]
) -> Iterator[Sequence[Tensor]]:
    """The weights of each of several networks, which lie one after another."""
    remaining = iter(weights)
    for network in networks:
        yield list(islice(remaining, len(network.rates)))


@dataclass(frozen=True)
class MLP:
    """Fully connected layers with an activation between them.

    Attributes:
        inputs, outputs: coordinates of a point and of its image.
        width, depth: units of a hidden layer, number of hidden layers.
        activation: ``silu``, ``selu``, ``elu`` or ``leaky-relu``.
        leak: slope of the leaky ReLU on the left; 0 makes it a ReLU.
    """

    inputs: int
    outputs: int
    width: int
    depth: int
    activation: Activation
    leak: float = LEAK

    @property
    def rates(self) -> list[float]:
        """All the same."""
        return [1.0] * 2 * (self.depth + 1)

    def initial(self, generator: torch.Generator, dtype: torch.dtype) -> list[Tensor]:
        """Uniform between -1 and 1 over the root of the number of inputs of the layer, as torch's
        linear layers are.
        """
        import torch

        def uniform(rows: int, outputs: int, inputs: int) -> Tensor:
            unit = torch.rand(
                rows, outputs, generator=generator, device=generator.device, dtype=dtype
            )
            return (2 * unit - 1) / math.sqrt(inputs)

        sizes = [self.inputs, *[self.width] * self.depth, self.outputs]
        return [
            tensor for i, o in pairwise(sizes) for tensor in (uniform(i, o, i), uniform(1, o, i))
        ]

    def __call__(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        """``(stack, n, inputs) -> (stack, n, outputs)``."""
        from torch.nn.functional import elu, leaky_relu, selu, silu

        activation = {
            "silu": silu,
            "selu": selu,
            "elu": elu,
            "leaky-relu": lambda x: leaky_relu(x, self.leak),
        }[self.activation]
        first, *others = layers_of(weights)
        x = first(x)
        for layer in others:
            x = layer(activation(x))
        return x

    def gradient(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        """Gradients ``(stack, n, inputs)`` of the one output: back-propagation written out, so that
        a penalty trains by first order.
        """
        import torch
        from torch.nn.functional import elu, selu

        *hidden, last = layers_of(weights)
        slopes = []
        for layer in hidden:
            x = layer(x)
            if self.activation == "silu":
                gate = x.sigmoid()
                x = x * gate
                slopes.append(gate + x * (1 - gate))
            elif self.activation == "selu":
                x = selu(x)
                slopes.append(torch.where(x > 0, SELU_SCALE, x + SELU_SCALE * SELU_ALPHA))
            elif self.activation == "elu":
                x = elu(x)
                slopes.append((x + 1).clamp(max=1))  # exp where the argument is negative
            else:
                slopes.append((x > 0).to(x.dtype).mul_(1 - self.leak).add_(self.leak))
                x = x * slopes[-1]
        outer = last.matrix.mT
        for layer, slope in zip(reversed(hidden), reversed(slopes), strict=True):
            outer = (outer * slope) @ layer.matrix.mT
        return outer


@dataclass(frozen=True)
class SpectralMLP(MLP):
    """The same with matrices of spectral norm one (Miyato et al. 2018), so that the network is
    1-Lipschitz.
    """

    def project(self, weights: Sequence[Tensor]) -> None:
        """Divide the matrices by their norms."""
        import torch

        for layer in layers_of(weights):
            data = layer.matrix.detach()
            data /= torch.linalg.matrix_norm(data.nan_to_num(), 2)[:, None, None]


@dataclass(frozen=True)
class SortingNetwork:
    """A scalar network of orthonormal matrices that sorts between them (Anil, Lucas & Grosse 2019).

    It is 1-Lipschitz, and its square layers lose none of its gradient.

    Attributes:
        inputs: dimension d.
        width, depth: units of a hidden layer, number of hidden layers.
        group: units that are sorted among each other, a divisor of the width; 2 sorts pairs.
    """

    inputs: int
    width: int
    depth: int
    group: int

    @property
    def rates(self) -> list[float]:
        """All the same."""
        return [1.0] * 2 * (self.depth + 1)

    def initial(self, generator: torch.Generator, dtype: torch.dtype) -> list[Tensor]:
        """Random orthonormal matrices; biases normal, so that the units of a layer differ."""
        import torch

        def normal(rows: int, columns: int) -> Tensor:
            return torch.randn(
                rows, columns, generator=generator, device=generator.device, dtype=dtype
            )

        def orthonormal(rows: int, columns: int) -> Tensor:
            q = torch.linalg.qr(normal(max(rows, columns), min(rows, columns)))[0]
            return q if rows >= columns else q.T.contiguous()

        sizes = [self.inputs, *[self.width] * self.depth, 1]
        return [
            tensor
            for i, o in pairwise(sizes)
            for tensor in (orthonormal(i, o), normal(1, o) / math.sqrt(self.width))
        ]

    def project(self, weights: Sequence[Tensor]) -> None:
        """Make the matrices orthonormal again after a step: the polar factor, by the iteration of
        Newton and Schulz.
        """
        for layer in layers_of(weights):
            q = layer.matrix.detach()
            for _ in range(POLAR_ITERATIONS):
                cubed = q @ (q.mT @ q) if q.shape[1] >= q.shape[2] else (q @ q.mT) @ q
                q.mul_(1.5).sub_(cubed, alpha=0.5)

    def __call__(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        """Values ``(stack, n, d) -> (stack, n, 1)``."""
        import torch

        *hidden, last = layers_of(weights)
        for layer in hidden:
            x = layer(x).unflatten(-1, (-1, self.group))
            # Far faster for pairs.
            x = torch.stack([x.amin(-1), x.amax(-1)], -1) if self.group == 2 else x.sort(-1).values
            x = x.flatten(-2)
        return last(x)

    def gradient(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        """Gradients ``(stack, n, d) -> (stack, n, d)``."""
        import torch

        training = torch.is_grad_enabled()
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(self(weights, x).sum(), x, create_graph=training)[0]


class _Quadratic(NamedTuple):
    """Weights of a `DenseQuadratic` by the letters of its formula."""

    forms: Layer  # A_0 ... A_K, W_0 ... W_K side by side, and a_0 ... a_K, b_0 ... b_K
    inner: list[Tensor]  # U_1 ... U_K
    final: Tensor  # w
    root: Tensor | None  # L, where the network is convex


@dataclass(frozen=True)
class DenseQuadratic:
    """A scalar network of quadratic layers (the architecture of the Wasserstein-2 benchmark,
    Korotin et al. 2021), with its gradient.

        u(x) = <w, h_K>,    h_0 = Q_0(x),    h_k = 1 + celu(h_{k-1} U_k + Q_k(x)),
        Q_k(x) = (x A_k + a_k)^2 + x W_k + b_k.

    Where it is to be convex, w and all U_k stay non-negative (see `project`), and there is a term
    ``|x L|^2 / 2`` beside, which lets its gradient start near the identity; the benchmark's
    networks are pretrained to that instead.

    Attributes:
        inputs: dimension d.
        widths: of the layers 0 ... K.
        convex: keep it convex.
        scaling: of the layers' learning rates: ``fan-in``, in inverse proportion to the inputs of a
            layer where they are many (Yang et al. 2021), so that one rate suits all dimensions; or
            ``equal``.
    """

    inputs: int
    widths: tuple[int, ...]
    convex: bool
    scaling: Rates = "fan-in"

    @property
    def rates(self) -> list[float]:
        """As multiples of that of the network."""
        if self.scaling == "equal":
            return [1.0] * (len(self.widths) + 2 + self.convex)
        inputs = (
            (self.inputs, WIDE[0]),
            *((width, WIDE[1]) for width in self.widths[:-1]),
            (self.widths[-1], WIDE[2]),
        )
        first, *others = (min(1.0, wide / n) for n, wide in inputs)
        return [first, 1.0, *others, *([1.0] if self.convex else [])]

    def initial(self, generator: torch.Generator, dtype: torch.dtype) -> list[Tensor]:
        """Normal, of variance one over the inputs of a layer; the roots and the last layer smaller,
        biases zero, L the identity.
        """
        import torch

        def normal(inputs: int, outputs: int, factor: float = 1.0) -> Tensor:
            tensor = torch.randn(
                inputs, outputs, generator=generator, device=generator.device, dtype=dtype
            )
            return tensor * (factor / math.sqrt(inputs))

        total = sum(self.widths)
        first = torch.cat([normal(self.inputs, total, ROOTS), normal(self.inputs, total)], 1)
        inner = [normal(*pair) for pair in pairwise(self.widths)]
        positive = [*inner, normal(self.widths[-1], 1, FINAL)]
        eye = torch.eye(self.inputs, device=generator.device, dtype=dtype)
        if self.convex:
            positive = [
                tensor.abs() / math.sqrt(len(tensor)) for tensor in positive
            ]  # sums of non-negative weights stay of order one
        return [first, first.new_zeros(1, 2 * total), *positive, *([eye] if self.convex else [])]

    def project(self, weights: Sequence[Tensor]) -> None:
        """Make the network convex again after a step, if it is to be."""
        if self.convex:
            _, inner, final, _ = self._named(weights)
            for tensor in (*inner, final):
                tensor.detach().clamp_(min=0)

    def __call__(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        """Values ``(stack, n, d) -> (stack, n, 1)``."""
        named = self._named(weights)
        value = self._forward(named, x)[0] @ named.final
        if named.root is None:
            return value
        return value + (x @ named.root).square().sum(-1, keepdim=True) / 2

    def gradient(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        """Gradients ``(stack, n, d) -> (stack, n, d)``: back-propagation written out, so that a map
        of them trains by first order.
        """
        import torch

        named = self._named(weights)
        _, roots, slopes = self._forward(named, x)
        outer = named.final.mT.expand(-1, x.shape[1], -1)
        outers = []
        for matrix, slope in zip(reversed(named.inner), reversed(slopes), strict=True):
            outer = outer * slope
            outers.append(outer)
            outer = outer @ matrix.mT
        of_forms = torch.cat([outer, *reversed(outers)], -1)
        gradient = torch.cat([2 * of_forms * roots, of_forms], -1) @ named.forms.matrix.mT
        return gradient if named.root is None else gradient + x @ named.root @ named.root.mT

    def _named(self, weights: Sequence[Tensor]) -> _Quadratic:
        matrix, bias, *rest = weights
        *inner, final = rest[: len(self.widths)]
        return _Quadratic(Layer(matrix, bias), inner, final, rest[-1] if self.convex else None)

    def _forward(self, named: _Quadratic, x: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The last hidden layer, the roots ``x A + a`` of all layers, the slopes of the
        activations.
        """
        import torch
        from torch.nn.functional import elu

        roots, linear = named.forms(x).chunk(2, -1)
        hidden, *forms = torch.addcmul(linear, roots, roots).split(self.widths, -1)
        slopes = []
        for matrix, form in zip(named.inner, forms, strict=True):
            hidden = 1 + elu(torch.baddbmm(form, hidden, matrix))
            slopes.append(
                hidden.clamp(max=1)
            )  # exp(s) where the argument s is negative, as 1 + celu(s) is there; else 1
        return hidden, roots, slopes
