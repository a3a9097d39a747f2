"""WGAN-GP and WGAN-LP: critics with a penalty on their slopes (Gulrajani et al. 2017; Petzka,
Fischer & Lukovnikov 2018).

    max_u    E u(x) - E u(y) - lambda E[(||grad u(z)|| - 1)^2]    (GP),
    with max(||grad u(z)|| - 1, 0)^2 for LP,

z being random points between source and target. They are known as parts of generative models; here
they are what the Wasserstein-1 benchmark tests (Korotin, Kolesov & Burnaev 2022), potentials. The
map is that of their rays, see `otbench.methods.neural.critics`.

Presets:

* ``cpu``, the defaults, has a higher, decaying learning rate, smaller batches, fewer steps and
  averaged weights.
* ``paper`` has the benchmark's settings: 40,000 steps of Adam at 2e-4, batches of 1,024, no decay.

Both have the benchmark's networks: two hidden layers of 128 ReLUs, or of twice the dimension where
that is more, and lambda 10.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from otbench.methods.neural.critics import BenchmarkCritic, Sides


@dataclass(frozen=True)
class WganGp(BenchmarkCritic):
    """A critic with a two-sided penalty."""

    name: ClassVar[str] = "wgan-gp"
    presets: ClassVar[Mapping[str, Mapping[str, float | str]]] = {
        "cpu": {},
        "paper": {**BenchmarkCritic.published, "steps": 40_000},
    }

    lr: float = 1e-3
    penalty: float = 10.0
    sides: Sides = "two"


@dataclass(frozen=True)
class WganLp(WganGp):
    """A critic with a one-sided penalty."""

    name: ClassVar[str] = "wgan-lp"

    sides: Sides = "one"
