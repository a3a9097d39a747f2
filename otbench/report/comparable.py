"""Which times of two sets of results may be compared: those measured in turn, on one machine, with
as many threads and under like load.

A machine that is busy with other work while one side is measured and quiet during the other makes a
solver that did not change look many times slower; and what is measured in one block after the other
differs by all that drifts, such as the clock of the cores.
"""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false
# (pandas' own annotations join all that an operation may return, so that they fit almost nothing)

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from otbench.report.selected import shared_gpu


if TYPE_CHECKING:
    import pandas as pd

ALIKE = 0.1  # what load may slow one side more than the other by
TICKS_S = 0.02  # to which others' CPU time of a run is known
HOW = (
    "to compare times, measure both sides in turn, seed by seed, nothing else running: "
    "`for n in 1 2 3 4 5; do otbench run ... --seeds $n --results BASE; otbench run ... --seeds $n "
    "--results NEW; done`, each from its own checkout (docs/tutorial/ci.md)"
)


def obstacles(base: pd.DataFrame, new: pd.DataFrame) -> pd.Series:
    """Why the times of each pair of runs are not comparable, such as ``not interleaved; load
    differs (0.01, 0.92)``; empty where they are. Told of all seeds of a task and a solver at once.

    Args:
        base: successful runs.
        new: those of the other side, a pair in the rows of one label.
    """
    import pandas as pd

    found = pd.Series("", index=base.index)
    names = ["task_label", "solver_label", "device", "dtype"]
    for _, group in base.groupby(names):
        found[group.index] = "; ".join(_obstacles(group, new.loc[group.index]))
    return found


def kinds(found: pd.Series) -> dict[str, int]:
    """How often each obstacle stands in the way, the most frequent first."""
    each = found[found != ""].str.split("; ").explode()
    return each.str.partition(" (")[0].value_counts().to_dict()


def _obstacles(base: pd.DataFrame, new: pd.DataFrame) -> Iterator[str]:
    """Of the runs of one task and solver."""
    recorded = True
    for name, what in (("machine", "machine"), ("threads", "number of threads")):
        known = base[name].notna().all() and new[name].notna().all()
        recorded &= known
        if known and (base[name] != new[name]).any():
            yield f"other {what} ({_values(base[name])}, {_values(new[name])})"
    if base.resumed.notna().any() or new.resumed.notna().any():
        yield "resumed fits"
    if any(shared_gpu(side).any() for side in (base, new)):
        yield "shared GPUs"
    sides = base, new
    needed = ("began", "when", "load")
    recorded &= all(side[name].notna().all() for side in sides for name in needed)
    if not recorded:
        yield "machine or load not recorded"
        return
    if len(base) < 2:
        yield "one seed alone cannot alternate"
    elif not _alternate(base, new):
        yield "not interleaved"
    lengths = [_seconds(side) for side in sides]
    if not all((length > 0).all() for length in lengths):
        yield "ended before it began"
        return
    loads = [float(side.load.astype(float).mean()) for side in sides]
    left = [max(1 - load, 0.01) for load in loads]
    allowed = max(ALIKE, TICKS_S / min(float(length.mean()) for length in lengths))
    if max(left) > (1 + allowed) * min(left):
        yield f"load differs ({loads[0]:.2f}, {loads[1]:.2f})"


def _alternate(base: pd.DataFrame, new: pd.DataFrame) -> bool:
    """Whether the sides took turns: one run of each, in either order, then one of each again."""
    import pandas as pd

    turns = pd.concat([base[["began"]].assign(side=1), new[["began"]].assign(side=-1)])
    ahead = turns.sort_values("began", key=_moments, kind="stable").side.cumsum()
    return bool(ahead.abs().max() == 1)


def _seconds(runs: pd.DataFrame) -> pd.Series:
    """From the start of each run to its end."""
    return (_moments(runs.when) - _moments(runs.began)).dt.total_seconds()


def _moments(times: pd.Series) -> pd.Series:
    import pandas as pd

    return pd.to_datetime(times, utc=True, format="ISO8601")


def _values(column: pd.Series) -> str:
    return " and ".join(sorted(map(str, column.unique())))
