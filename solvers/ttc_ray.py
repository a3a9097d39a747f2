"""TTC-ray: one critic, and each point goes to the end of its ray (the map of the theorem of Milne,
Bilocq & Nachman 2022).

    T(x) = x - alpha(x) grad u(x),    alpha(x) = sup { t >= 0 : u(x) - u(x - t grad u(x)) = t },

found by a search on the defect of all points at once, see `otbench.methods.neural.critics`. Where
the target is thin, a kink of u marks the end of a ray; a network rounds it off, so that points stop
short of it. `ttc-semidual` has the kinks by construction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from otbench.methods.neural.critics import RaySolver


@dataclass(frozen=True)
class TtcRay(RaySolver):
    """The ray map of one critic."""

    name: ClassVar[str] = "ttc-ray"
