"""Metrics: pure functions of named arrays, and one table that says what each number means.

`arrays` registers what they are functions of. A metric applies to a run exactly where all of its
arrays are known: where the optimal map is unknown or not unique there is no ``optimal``, and so no
``l2_uvp``. Reports read `METRICS` and nothing else.
"""

from otbench.metrics.arrays import ARRAYS
from otbench.metrics.declare import Metric, metric
from otbench.metrics.defects import cost_visible, direction_visible, map_defect
from otbench.metrics.distances import (
    EXACT_DIM,
    discrepancies,
    exact_w2_squared,
    largest_slice,
    plugin_w2_squared,
    sliced_w2_squared,
)
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
    barycentric_map,
    dense_blocks,
    entries,
    marginal,
    marginal_l1,
    merged,
    rounded_cost,
    rounded_entropy,
    rounding,
    row_blocks,
    without_negative,
)
from otbench.metrics.table import CURVES, DEFECTS, METRICS, score


__all__ = [
    "ARRAYS",
    "CURVES",
    "DEFECTS",
    "EXACT_DIM",
    "METRICS",
    "Metric",
    "barycentric_map",
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
    "dense_blocks",
    "direction_visible",
    "discrepancies",
    "energy_distance",
    "entries",
    "exact_w2_squared",
    "grad_cos",
    "grad_l2",
    "l2_uvp",
    "largest_slice",
    "map_defect",
    "marginal",
    "marginal_l1",
    "merged",
    "metric",
    "npe",
    "overshoot",
    "plugin_w2_squared",
    "rounded_cost",
    "rounded_entropy",
    "rounding",
    "row_blocks",
    "score",
    "sliced_w2_squared",
    "target_gap",
    "w2",
    "w2_floor",
    "without_negative",
    "wrong_atom",
]
