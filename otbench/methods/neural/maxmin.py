r"""Max-min training of a map against a potential, the machine of OTM, OTP and MM:R.

For the cost ||Q(x) - y||^2 (Q the identity where the spaces are equal) all of them seek a saddle of

    inf_psi sup_G    E[<Q(x), G(x)> - psi(G(x))] + E[psi(y)]    (1)

(Makkuva et al. 2020; Korotin et al. 2021; Rout, Korotin & Burnaev 2022). At a saddle over an
absolutely continuous source G is the optimal map and grad psi its inverse. In cost units the
potential on the target side is g(y) = ||y||^2 - 2 psi(y).

The forms that G and psi may have, u and N being dense quadratic networks:

| form | map G(x) | potential psi(y) |
|---|---|---|
| ``plain`` | network(x) | d network(y) |
| ``direct`` | network(x) | \|y\|^2 / 2 - d network(y) / 2: g is d times the network |
| ``residual`` | Q(x) + network(x) | \|y\|^2 / 2 + network(y) |
| ``gradient`` | Q(x) + grad u(Q(x)) | \|y\|^2 / 2 + N(y) |
| ``convex`` | grad u(Q(x)), u convex | N(y), N convex |

The term \|y\|^2 / 2 bounds the inner supremum. The networks of the first three are MLPs, or for
images:

| network | map | potential |
|---|---|---|
| ``convolutions`` | a UNet of Q(x) | residual blocks |
| ``otm-restoration`` | a UNet of Q(x), bounded by a tanh | plain convolutions |
| ``otm-generation`` | a decoder of x, bounded by a tanh | residual blocks, each image normalised |

Those of the last two are Rout et al.'s (`otbench.methods.neural.published_networks`). With
``norm = "batch"`` maps of images are normalised over the batch in training. A map that is returned
is normalised by statistics of fresh batches, so that it acts point by point.

With ``start = "linear"`` the last three begin near the linear map between Gaussians of the same
moments instead of near Q, in the better conditioned coordinates of
`otbench.methods.neural.frames.Balanced`. Convolutions need pixels and begin near Q.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from otbench.errors import DivergedError
from otbench.methods.neural.maxmin_networks import Architecture, Form
from otbench.methods.neural.maxmin_training import MaxMinTraining
from otbench.methods.neural.networks import Activation, Rates
from otbench.methods.neural.published_networks import Decoder
from otbench.methods.neural.solver import NeuralSolver, as_maps
from otbench.methods.neural.training import Decay
from otbench.problem import SQEUCLIDEAN, MapProblem, Problem
from otbench.solver import FitContext, Transport


Start = Literal["identity", "linear"]


class Noise(NamedTuple):
    """What the source is smoothed with: x goes to m + keep (x - m + sigma xi), m being its mean and
    xi ~ N(0, I).

    The saddle of such points is, in other coordinates, one of the source convolved with N(0,
    sigma^2 I): with c = (1 - keep) m the objective (1) at z = x + sigma xi is that of G'(z) = G(c +
    keep z) and psi' = (psi - <c, .>) / keep.

    Attributes:
        sigma: standard deviation, in units of the source's largest along a line (of the target's,
            where the source is a point).
        keep: 1, or less for noise that preserves the variance.
    """

    sigma: float
    keep: float = 1.0


@dataclass(frozen=True)
class MaxMinSolver(NeuralSolver):
    """Base of the solvers that train a map G against a potential psi. The defaults are those of a
    slow potential.

    Attributes:
        steps: rounds of ``map_updates`` steps of the map and one of the potential.
        batch: points of each measure per micro-batch, fresh ones.
        accumulate: micro-batches per step, whose gradients are averaged.
        map_updates: steps of the map for each step of the potential.
        lr, lr_potential: learning rates of the map and of the potential, Adam.
        beta1, beta2: of Adam.
        decay: of the learning rates.
        form: of the networks, see the module's docstring.
        start: what the map begins near.
        network: ``mlp``, or for images ``convolutions`` and others, see the module's docstring.
        width, depth, activation: of the MLPs; of convolutions the width is the number of channels
            (of the potential of ``otm-generation`` half of it), and the depth how many times an
            image is halved or doubled.
        norm: ``batch`` normalises maps of images over the batch in training, or ``none``.
        mixed: convolutions compute in bfloat16 on a GPU.
        rates: of the layers of dense quadratic networks, ``fan-in`` (lower where a layer has many
            inputs) or ``equal``.
        clip: largest norm of a gradient in the weights; 0 does not clip.
        pull: largest size, as a root mean square over coordinates, of the inner objective's
            gradient in an image; 0 does not limit it.
        ema: averaging of the weights that are returned, per round; 0 returns the last.
        r1: weight of the penalty E||grad V(y)||^2 / 2 on the potential V = ||y||^2 / 2 - psi
            (Mescheder et al. 2018), in the coordinates that are trained in.
        go: weight of the penalty ||E grad psi(G(x)) - E Q(x)|| on the potential, the gradient
            optimality of Rout et al. 2022. In their code psi has another scale there, which pulls
            away from the saddle where the source is not centred; here both agree.
    """

    steps: int = 2500
    batch: int = 256
    accumulate: int = 1
    map_updates: int = 8
    lr: float = 1e-3
    lr_potential: float = 1e-4
    beta1: float = 0.5
    beta2: float = 0.9
    decay: Decay = "none"
    form: Form = "residual"
    start: Start = "identity"
    network: Architecture = "mlp"
    width: int = 64
    depth: int = 3
    activation: Activation = "silu"
    norm: Literal["none", "batch"] = "none"
    mixed: bool = False
    rates: Rates = "fan-in"
    clip: float = 0.0
    pull: float = 0.0
    ema: float = 0.99
    r1: float = 0.0
    go: float = 0.0

    def __post_init__(self) -> None:
        """Check the parameters."""
        self.require(
            positive=(
                "steps",
                "batch",
                "accumulate",
                "map_updates",
                "width",
                "depth",
                "lr",
                "lr_potential",
            ),
            not_negative=("clip", "pull", "r1", "go"),
            fractions=("beta1", "beta2", "ema"),
        )
        if self.start == "linear" and self.form in ("plain", "direct"):
            raise ValueError(
                f"form={self.form} has no start: choose start=identity, or another form"
            )
        if self.network != "mlp" and self.form in ("gradient", "convex"):
            raise ValueError(
                f"network={self.network} has no form={self.form}: choose plain, direct or residual"
            )
        if self.network != "mlp" and self.start == "linear":
            raise ValueError(
                f"network={self.network} has no start=linear, whose coordinates are no pixels: "
                "choose start=identity"
            )
        if self.network == "otm-generation" and self.width < 2:
            raise ValueError(
                f"width must be at least 2 with network={self.network}, got {self.width}"
            )
        if self.norm == "batch" and self.network == "mlp":
            raise ValueError("norm=batch is for maps of images: choose another network than mlp")
        if self.norm == "batch" and self.batch < 2:
            raise ValueError(f"batch must be at least 2 with norm=batch, got {self.batch}")

    def supports(self, problem: Problem) -> str | None:
        """Map problems between vectors, of squared Euclidean cost, embedded or not."""
        if not isinstance(problem, MapProblem):
            return "takes map problems only"
        if not problem.cost.name.endswith(SQEUCLIDEAN.name):
            return f"trains for the sqeuclidean cost, not {problem.cost.name}"
        if len(problem.source.shape) != 1 or len(problem.target.shape) != 1:
            return f"takes vectors, not shapes {problem.source.shape} and {problem.target.shape}"
        if self.network != "mlp" and problem.target.image is None:
            return f"network={self.network} takes images only"
        if self.network == "otm-generation" and problem.target.image is not None:
            side = Decoder(problem.source.dim, 1, self.width, self.depth).side
            if problem.target.image[1:] != (side, side):
                height, width = problem.target.image[1:]
                return (
                    f"network={self.network} with depth={self.depth} makes images of {side} x "
                    f"{side} pixels, not of {height} x {width}"
                )
        if self.start == "linear" and problem.cost != SQEUCLIDEAN:
            return "start=linear needs source and target in one space"
        return None

    def noise(self, part: float) -> Noise | None:
        """What the source is smoothed with at this part of the training."""
        return None

    def random_inputs(self, dim: int) -> int:
        """Coordinates of random input that the map has beside x, for targets of this dimension."""
        return 0

    def fit_together(
        self, problems: Sequence[Problem], contexts: Sequence[FitContext]
    ) -> list[Transport | DivergedError]:
        """Train one for each problem, all of the same shapes, as one stack."""
        return MaxMinTraining(self, as_maps(problems), contexts).train()


SLOW_POTENTIAL: Mapping[str, Any] = {
    field.name: field.default for field in dataclasses.fields(MaxMinSolver)
}
