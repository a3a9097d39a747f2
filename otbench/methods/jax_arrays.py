"""Arrays that pass between torch and JAX without copies, for the adapters of JAX libraries.

They keep their dtype. JAX knows float64 only where it is told so: adapters call it under
``jax.enable_x64(True)``, which ends with the call and holds for one thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otbench.errors import DivergedError, MissingError


if TYPE_CHECKING:
    import jax
    import torch


def to_jax(tensor: torch.Tensor) -> jax.Array:
    """The same numbers, on the same device.

    Raises:
        MissingError: the tensor is on a GPU that this JAX does not know.
    """
    import jax

    if tensor.is_cuda and jax.default_backend() == "cpu":
        raise MissingError(
            "JAX does not know the device cuda: pip install 'jax[cuda12]', or run with --device cpu"
        )
    return jax.dlpack.from_dlpack(tensor.detach().contiguous())


def check_weights(name: str, weights: Any) -> None:
    """Refuse weights that are not finite.

    Args:
        name: of the solver.
        weights: of networks, arrays in any nesting.

    Raises:
        DivergedError: one of them is not.
    """
    import jax

    if not all(bool(jax.numpy.isfinite(leaf).all()) for leaf in jax.tree.leaves(weights)):
        raise DivergedError(f"{name}: the weights are not finite; lower lr")


def to_torch(array: jax.Array) -> torch.Tensor:
    """The same numbers, on the same device; to be read only."""
    import torch

    return torch.from_dlpack(array)
