"""A coupling and a smooth map that explain each other, by kernel ridge regression (Perrot et al.
2016), POT's ``ot.mapping.joint_OT_mapping_kernel``, in float64.

    min_{P, L}    |K L - n P Y|^2 + mu n <C, P> + eta tr(L' K L)

over couplings P of equal weights and L by turns, with ``K_ij = exp(-|x_i - x_j|^2 / (2 sigma^2))``;
T(x) is the row of x in K, times L. POT's defaults suppose data of size one, and are given such (see
`otbench.methods.sample_maps`). Far from the sample T goes to the mean of the target, as it goes to
zero in POT. POT's ``MappingTransport`` is this function, but moves the sample itself by the
coupling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from otbench import FitContext, Transport
from otbench.methods.sample_maps import SampleMap


if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class PotKernelMap(SampleMap):
    """Kernel ridge regression of a coupling that is fitted with it.

    Attributes:
        mu: weight of the cost of the coupling.
        eta: ridge.
        sigma: bandwidth of the Gaussian kernel, in units of the spread of the source.
        steps: most updates of coupling and map.
    """

    name: ClassVar[str] = "pot-kernel-map"
    needs: ClassVar[tuple[str, ...]] = ("ot",)
    tuning: ClassVar[str] = (
        "defaults of POT but for eta, which is 0.001 there: gaussian in dimensions 2 and 16, seed "
        "1000, 6 settings of mu, eta and sigma"
    )
    n: int = 512
    mu: float = 1.0
    eta: float = 0.1
    sigma: float = 1.0
    steps: int = 100

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        self.require(positive=("mu", "eta", "sigma", "steps"))

    def between(self, x: torch.Tensor, y: torch.Tensor, context: FitContext) -> Transport:
        """Fit until the objective falls by less than 1e-5 of itself, or ``steps`` are made."""
        import ot.mapping
        import ot.utils

        fit: Any = ot.mapping.joint_OT_mapping_kernel
        kernel: Any = ot.utils.kernel
        stop = {"numItermax": self.steps, "log": True}
        _, weights, log = fit(x, y, self.mu, self.eta, sigma=self.sigma, **stop)
        return Transport(
            push=lambda new: kernel(new, x, sigma=self.sigma) @ weights,
            info={"iterations": len(log["loss"]) - 1},
        )
