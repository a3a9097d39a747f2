"""Quantities that a report can show: metrics and numeric columns, their units, numbers as text."""

# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportIndexIssue=false
# pyright: reportReturnType=false
# (pandas' own annotations join all that an operation may return, so that they fit almost nothing)

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from otbench.errors import UserError, nearest
from otbench.metrics import METRICS


if TYPE_CHECKING:
    import pandas as pd

# A task is judged by the first of these that is measured on it.
ACCURACY = (
    "l2_uvp",
    "psnr_db",
    "entropic_gap",
    "cost_gap",
    "cost_gap_bound",
    "frechet_scattering",
    "target_gap",
)


UNITS = {
    "_s": "s",
    "_us_per_point": "µs per point",
    "_ms": "ms",
    "_ms_per_pair": "ms per pair",
    "_mib": "MiB",
}
TIMES = ("s", "µs per point", "ms", "ms per pair")


INFER = "infer_ms_per_pair"


FIT = "fit_s"  # fit_warm_s where a fit is short enough to be repeated, else fit_cold_s


@dataclass(frozen=True)
class Quantity:
    """A number of a run that a report can show: a metric, or a numeric column.

    Attributes:
        name: as the user writes it.
        column: its column in the runs.
        unit: as shown, empty for a plain number.
        better: the direction, None where there is no better or worse.
        worst: the loss of a failed run where no trivial run was measured.
    """

    name: str
    column: str
    unit: str
    better: Literal["lower", "higher", "one"] | None
    worst: float = math.inf

    @property
    def is_metric(self) -> bool:
        """A metric of the answer, not a cost of finding it."""
        return self.name in METRICS

    @property
    def positive(self) -> bool:
        """Above zero by what it is, but for what is exactly right."""
        if not self.is_metric:
            return bool(self.unit)
        return self.better in ("lower", "one") and not METRICS[self.name].signed

    @property
    def is_time(self) -> bool:
        """Seconds or parts of one: compared only on one machine with one number of threads."""
        return not self.is_metric and is_time(self.column)

    @property
    def title(self) -> str:
        """Such as ``l2_uvp (%, lower is better)``."""
        direction = {
            "lower": "lower is better",
            "higher": "higher is better",
            "one": "closest to 1 is best",
            None: "",
        }[self.better]
        inside = ", ".join(
            part for part in (self.unit if self.unit != "1" else "", direction) if part
        )
        return f"{self.name} ({inside})" if inside else self.name

    def loss(self, values: Any) -> Any:
        """The values turned so that lower is better."""
        return METRICS[self.name].loss(values) if self.is_metric else values


def quantity(name: str, runs: pd.DataFrame) -> Quantity:
    """The quantity of this name.

    Raises:
        UserError: no such metric or numeric column (with the nearest match), or no run here has it.
    """
    import pandas as pd

    name = name.removeprefix("metric_")
    costs = [column for column in runs.columns if _unit(column)]
    numbers = [
        column
        for column in runs.select_dtypes("number").columns
        if not column.startswith("metric_")
    ]
    known = [*METRICS, *dict.fromkeys([*costs, *numbers])]
    if name not in known:
        raise UserError(
            f"unknown metric or numeric column {name!r}{nearest(name, known)}; `otbench list "
            "metrics` names the metrics"
        )
    if name in METRICS:
        metric = METRICS[name]
        found = Quantity(
            name, f"metric_{name}", metric.unit, metric.better, metric.loss(metric.worst)
        )
    else:
        found = Quantity(name, name, _unit(name), "lower" if _unit(name) else None)
    # Seeds solved together have no more than that.
    wholes = name == FIT and "fit_together_s" in runs and runs.fit_together_s.notna().any()
    if not wholes and (found.column not in runs or pd.to_numeric(runs[found.column]).isna().all()):
        raise UserError(
            f"no run here has {name!r}; measured: {', '.join(measured(runs)) or 'nothing'}"
        )
    return found


def measured(runs: pd.DataFrame) -> list[str]:
    """Names of the metrics that any of the runs has."""
    return [
        name
        for name in METRICS
        if f"metric_{name}" in runs and runs[f"metric_{name}"].notna().any()
    ]


def accuracy_of(runs: pd.DataFrame) -> str | None:
    """The metric that the runs on one task are judged by, None where none was measured."""
    return next((name for name in ACCURACY if name in measured(runs)), None)


def number(mean: float, half: float | None = None) -> str:
    """``1.63 ± 0.05``: three significant digits of the larger, up to two more to show the
    half-width; a power of ten far from one.
    """
    largest = max(abs(mean), half or 0.0)
    if not math.isfinite(largest):
        return str(mean)
    exponent = math.floor(math.log10(largest)) if largest else 0
    # Rounding may carry to the next power of ten: 9.996 is 10.0, not 10.00.
    exponent += f"{largest / 10.0**exponent:.2f}" == "10.00"
    if -3 <= exponent < 5:
        decimals = max(0, 2 - exponent) if largest else 0
        if half and decimals < -math.floor(math.log10(half)) <= 4 - exponent:
            decimals = -math.floor(math.log10(half))
        return f"{mean:.{decimals}f}" + (f" ± {half:.{decimals}f}" if half is not None else "")
    mean /= 10.0**exponent
    return (
        f"{mean:.2f}e{exponent}"
        if half is None
        else f"({mean:.2f} ± {half / 10.0**exponent:.2f})e{exponent}"
    )


def is_time(column: str) -> bool:
    """Whether a column of the rows is a time, by the unit in its name."""
    return _unit(column) in TIMES


def _unit(column: str) -> str:
    return next((unit for suffix, unit in UNITS.items() if column.endswith(suffix)), "")
