"""MM:R and MMv2:R: the gradient of a dense quadratic network, trained against a potential of the
same form (Korotin et al. 2021).

Two solvers of the Wasserstein-2 benchmark's own comparison, by their names in its tables. Both seek
the saddle of ``otm``; R says that the map from source to target is the one that is learned
directly. The networks of MM:R are free, those of MMv2:R (after Makkuva et al. 2020) are kept convex
by clamping their weights after each step.

Presets:

* ``cpu``, the defaults of ``mm-r``, deviates from the benchmark's code: training starts at the
  linear map, in coordinates that make it the identity (see `otbench.methods.neural.frames`), with
  smaller batches, fewer map steps, larger and decaying learning rates, averaged weights.
* ``paper`` has the benchmark's settings: Adam at 1e-3, batches of 1,024, 15 map steps, 50,001
  rounds. Its networks are pretrained to the identity; here they start there, and the convex ones
  have a learned quadratic term for that, beside which its small fixed one, of strong convexity
  1e-4, is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from otbench.methods.neural.maxmin import MaxMinSolver, Start
from otbench.methods.neural.maxmin_networks import Form
from otbench.methods.neural.training import Decay


@dataclass(frozen=True)
class MmR(MaxMinSolver):
    """Max-min training of a gradient map."""

    name: ClassVar[str] = "mm-r"
    presets: ClassVar[Mapping[str, Mapping[str, float | str]]] = {
        "cpu": {},
        "paper": {
            "steps": 50_001,
            "batch": 1024,
            "map_updates": 15,
            "lr": 1e-3,
            "lr_potential": 1e-3,
            "beta1": 0.9,
            "beta2": 0.999,
            "decay": "none",
            "start": "identity",
            "rates": "equal",
            "pull": 0.0,
            "ema": 0.0,
        },
    }

    steps: int = 4000
    map_updates: int = 5
    lr: float = 8e-3
    lr_potential: float = 4e-3
    decay: Decay = "cosine"
    form: Form = "gradient"
    start: Start = "linear"
    pull: float = 0.7


@dataclass(frozen=True)
class MmV2R(MmR):
    """The same with convex networks."""

    name: ClassVar[str] = "mmv2-r"

    form: Form = "convex"
