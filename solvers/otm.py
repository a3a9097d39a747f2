"""OTM: a map and a potential trained against each other, neither of them convex (Rout, Korotin &
Burnaev 2022, algorithm 1).

    inf_psi sup_G    E[<Q(x), G(x)> - psi(G(x))] + E[psi(y)],
    Q the embedding of the source where the dimensions differ.

Where the source is degenerate a saddle need not be a transport map: such spurious solutions are
what the tasks ``perpendicular``, ``one-to-many`` and their kin are for (Choi, Choi & Kwon 2025).

Presets:

* ``cpu``, the defaults, deviates from the paper: residual networks (see
  `otbench.methods.neural.maxmin`), so that training starts at the identity with a finite inner
  supremum; the potential learns slower than the map, all learning rates decay; no regulariser.
  Some 14 to 21 s on one core.
* ``paper`` is as the official code trains on points of the plane: plain MLPs, the potential in
  units of means over coordinates, 16 map steps for each of the potential's, gradient optimality of
  weight 1 (in its corrected form), constant learning rates, 10,001 rounds.
* ``paper-restoration`` and ``paper-inpainting`` are as it restores faces of 64 x 64 pixels, for a
  GPU: a UNet of 256 channels with batch normalisation and a tanh, a potential of four plain
  convolutions with means over 3 x 3 pixels between them, five map steps for each of the potential's
  (two for inpainting), 301 epochs.
* ``paper-generation`` and ``paper-generation-64`` are as it makes digits of 32 x 32 pixels in three
  channels and faces of 64 x 64 from 192 normal numbers: a decoder of them with batch normalisation
  and a tanh, a residual potential with instance normalisation, two map steps, gradient optimality
  of weight 10, 101 epochs (94,637 rounds) and 201. The tasks are
  ``image-generation[data=mnist,side=32,latent=8,channels=3]`` and
  ``image-generation[data=celeba,side=64,latent=8]``.
* ``cpu-8x8`` and ``cpu-28`` are for images of these sizes on one core, MLPs and convolutions.
  ``cpu-28-dense``, MLPs, is for degradations that are not local: on MNIST it completes a missing
  half at 15 dB where ``cpu-28`` does at 12, but leaves noise where it is.
* ``slow-potential`` has the settings of ``otp``, for comparisons in which nothing but the smoothing
  differs.

What is not as in the paper's code. There a map normalises each batch by itself when it is scored,
too, so that an image's outcome depends on the others; here a returned map has fixed statistics
(`otbench.methods.neural.normalisation`). Rounds begin with the map, there with the potential;
images are drawn with replacement, there by epochs. An epoch has as many rounds as the data have
batches of 64. How many images restoration takes, 90,000 to be degraded and as many clean ones, and
that the paper trained digits for 30 epochs where its code has 101, stand in a secondary source
only: neither is confirmed. Its networks for CIFAR-10, for 128 x 128 pixels (not confirmed) and for
the images of the Wasserstein-2 benchmark are not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from otbench.methods.neural.maxmin import SLOW_POTENTIAL, MaxMinSolver
from otbench.methods.neural.training import Decay


IMAGES: Mapping[str, float | str] = {
    "batch": 64,
    "beta1": 0.0,
    "beta2": 0.9,
    "decay": "none",
    "form": "plain",
    "width": 256,
    "norm": "batch",
    "ema": 0.0,
}
RESTORATION: Mapping[str, float | str] = {
    **IMAGES,
    "steps": 301 * (90_000 // 64),
    "map_updates": 5,
    "lr": 1e-4,
    "lr_potential": 1e-4,
    "network": "otm-restoration",
    "depth": 4,
    "go": 0.0,
}
GENERATION: Mapping[str, float | str] = {
    **IMAGES,
    "steps": 101 * (60_000 // 64),
    "map_updates": 2,
    "lr": 2e-4,
    "lr_potential": 2e-4,
    "network": "otm-generation",
    "depth": 3,
    "go": 10.0,
}


@dataclass(frozen=True)
class Otm(MaxMinSolver):
    """Max-min training of a deterministic map."""

    name: ClassVar[str] = "otm"
    presets: ClassVar[Mapping[str, Mapping[str, float | str]]] = {
        "cpu": {},
        "paper": {
            "steps": 10_001,
            "batch": 400,
            "map_updates": 16,
            "lr": 1e-3,
            "lr_potential": 1e-3,
            "beta1": 0.5,
            "beta2": 0.99,
            "decay": "none",
            "form": "plain",
            "width": 128,
            "depth": 3,
            "activation": "leaky-relu",
            "ema": 0.0,
            "go": 1.0,
        },
        "paper-restoration": RESTORATION,
        "paper-inpainting": {**RESTORATION, "map_updates": 2},
        "paper-generation": GENERATION,
        "paper-generation-64": {**GENERATION, "steps": 201 * (202_599 // 64), "depth": 4},
        "cpu-8x8": {"batch": 128, "lr_potential": 2e-3},
        "cpu-28": {
            "steps": 300,
            "batch": 16,
            "map_updates": 4,
            "lr": 5e-4,
            "lr_potential": 5e-4,
            "network": "convolutions",
            "width": 16,
            "depth": 2,
        },
        "cpu-28-dense": {
            "steps": 3000,
            "batch": 64,
            "map_updates": 3,
            "lr": 1e-3,
            "lr_potential": 3e-3,
            "width": 512,
            "depth": 2,
            "activation": "leaky-relu",
        },
        "slow-potential": SLOW_POTENTIAL,
    }

    steps: int = 1000
    map_updates: int = 5
    lr_potential: float = 5e-4
    beta2: float = 0.99
    decay: Decay = "cosine"
    width: int = 128
