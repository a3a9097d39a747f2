"""Metrics: pure functions of named arrays, and one table that says what each number means.

A metric applies to a run exactly when every array it names is known there: where the optimal map is
    unknown or not unique there is no
``optimal``, and so no ``l2_uvp``. The names are listed in `otbench.scoring.maps` and
`otbench.scoring.pictures`. Reports read `METRICS` and nothing else.
"""

from otbench.metrics import maps, one_to_many, defects, flows, plans, images  # isort: skip  (in this order they enter the table)
from otbench.metrics.defects import cost_visible
from otbench.metrics.distances import EXACT_DIM, discrepancies, exact_w2_squared, sliced_w2_squared
from otbench.metrics.flows import npe, w2, w2_floor
from otbench.metrics.maps import (
    coordinate_ks,
    cos,
    cost_ratio,
    d_target,
    d_target_floor,
    energy_distance,
    grad_cos,
    grad_l2,
    l2_uvp,
    overshoot,
    target_gap,
    wrong_atom,
)
from otbench.metrics.one_to_many import (
    branch_defect,
    branch_entropy,
    branch_imbalance,
    branch_off,
    branch_visible,
)
from otbench.metrics.plans import (
    entries,
    marginal,
    marginal_l1,
    rounded_cost,
    rounded_entropy,
    rounded_images,
    rounding,
    without_negative,
)
from otbench.metrics.table import METRICS, Metric, metric, score


__all__ = [
    "EXACT_DIM",
    "METRICS",
    "Metric",
    "branch_defect",
    "branch_entropy",
    "branch_imbalance",
    "branch_off",
    "branch_visible",
    "coordinate_ks",
    "cos",
    "cost_ratio",
    "cost_visible",
    "d_target",
    "d_target_floor",
    "defects",
    "discrepancies",
    "energy_distance",
    "entries",
    "exact_w2_squared",
    "flows",
    "grad_cos",
    "grad_l2",
    "images",
    "l2_uvp",
    "maps",
    "marginal",
    "marginal_l1",
    "metric",
    "npe",
    "one_to_many",
    "overshoot",
    "plans",
    "rounded_cost",
    "rounded_entropy",
    "rounded_images",
    "rounding",
    "score",
    "sliced_w2_squared",
    "target_gap",
    "w2",
    "w2_floor",
    "without_negative",
    "wrong_atom",
]
