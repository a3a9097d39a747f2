"""What passes between coordinator, worker and store: RunSpec, Job, Result and Row, as plain values.

Each has ``to_json`` and ``from_json``, so that a worker may be a process, or on another machine. A
row is made here and nowhere else (`Row.of`), and its columns have their meaning and unit here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from otbench.statuses import Phase, Status, Stopped


DEVICES = ("auto", "cpu", "cuda")  # that may be asked for
NUMBERED = re.compile(r"cuda:\d{1,4}")  # one GPU, where runs are made
DTYPES = ("float32", "float64")
SCHEMA = 2  # of the rows written now; rows without a number are of schema 1


class _Json:
    """To and from a JSON object with a key for each field."""

    def to_json(self) -> dict[str, Any]:
        """Plain values by the name of the field."""
        return dataclasses.asdict(self)  # type: ignore[call-overload]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`.

        Raises:
            TypeError: a field is unknown, or one without a default is missing.
        """
        return cls(**values)


@dataclass(frozen=True)
class RunSpec(_Json):
    """One run to be done: a task, a solver and a seed, and the code that they stand for.

    Attributes:
        task, solver: registered names.
        task_label, solver_label: as they are selected on the command line.
        task_params, solver_params: all parameters, as canonical JSON.
        ruleset: how the parameters of the solver were chosen, see `otbench.registry.Selection`.
        trivial, learns, control: of the solver, see `otbench.solver.Solver`.
        seed: all random streams of the run are spawned from it.
        device, dtype: of the problem.
        task_hash, solver_hash, scoring_hash: of the code, see `otbench.sources`.
    """

    task: str
    task_label: str
    task_params: str
    solver: str
    solver_label: str
    solver_params: str
    ruleset: str
    trivial: bool
    learns: bool
    control: bool
    seed: int
    device: str
    dtype: str
    task_hash: str
    solver_hash: str
    scoring_hash: str

    @property
    def key(self) -> str:
        """Hash of the plain values that say what the run is; the code is not among them.

        A tuned setting is another run than the same one set by hand, or by default.
        """
        names = (self.task, self.task_params, self.solver, self.solver_params)
        tuned = (self.ruleset,) if self.ruleset.startswith("tuned") else ()
        return _hash(*names, self.seed, self.device, self.dtype, *tuned)

    @property
    def problem_key(self) -> str:
        """Hash of what decides the problem and its test points: the same for every solver."""
        return _hash(self.task, self.task_params, self.seed, self.device, self.dtype)

    @property
    def label(self) -> str:
        """The run in the words of the command line."""
        return f"{self.task_label} x {self.solver_label} seed {self.seed}"

    @property
    def code(self) -> dict[str, str]:
        """The hashes of the code by the names of their columns."""
        names = ("task_hash", "solver_hash", "scoring_hash")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Saving(_Json):
    """How the state of a fit is saved: the folder, and the least seconds between two saves."""

    folder: str
    every_s: float


@dataclass(frozen=True)
class Gpu(_Json):
    """A GPU, or a MIG device of one.

    Attributes:
        visible: what ``CUDA_VISIBLE_DEVICES`` is in a process that has it for its only one.
        card: UUID of the GPU, as ``nvidia-smi --id`` takes it.
        name: with the profile of a MIG device, such as ``NVIDIA H200 MIG 1g.18gb``.
        driver: its version.
        max_clock: of the streaming multiprocessors, with its unit.
        power_limit: with its unit.
    """

    visible: str
    card: str
    name: str
    driver: str
    max_clock: str = ""
    power_limit: str = ""


@dataclass(frozen=True)
class Job(_Json):
    """What a worker is told: one run, or several that differ in their seeds alone.

    Attributes:
        specs: the runs.
        plugins: files with more tasks and solvers.
        purpose: ``run``, or ``contract`` to try a solver's contract instead.
        cpus: the cores to stay on; empty for all.
        threads: CPU threads.
        outputs: folder to keep raw outputs in, ``<key>.npz``.
        floors: folder for what the runs on one problem share.
        saving: of the fit, where it is not that of several seeds as one.
        gpu: to run on, the only one that the worker sees; None on a CPU.
    """

    specs: tuple[RunSpec, ...]
    plugins: tuple[str, ...] = ()
    purpose: Literal["run", "contract"] = "run"
    cpus: tuple[int, ...] = ()
    threads: int = 1
    outputs: str | None = None
    floors: str | None = None
    saving: Saving | None = None
    gpu: Gpu | None = None

    @property
    def label(self) -> str:
        """The first run in the words of the command line, and how many more there are."""
        more = len(self.specs) - 1
        return self.specs[0].label + (f" and {more} more" if more else "")

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Job:
        """The inverse of `to_json`."""
        specs = tuple(RunSpec.from_json(spec) for spec in values["specs"])
        saving = values["saving"] and Saving.from_json(values["saving"])
        gpu = values["gpu"] and Gpu.from_json(values["gpu"])
        lists = {name: tuple(values[name]) for name in ("plugins", "cpus")}
        return cls(**{**values, **lists, "specs": specs, "saving": saving, "gpu": gpu})


@dataclass(frozen=True)
class Result(_Json):
    """How one run ended, as its worker or, for a killed worker, its executor tells it.

    Attributes:
        status, message: the outcome.
        measured: columns of the row that were measured, by name.
        metrics, info: numbers by name, without the prefix of their columns.
        curve: checkpoints, ``{step, seconds, <metric>: value}``.
        findings: sentences on a solver that breaks its contract, where that was tried.
    """

    status: str
    message: str = ""
    measured: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    info: Mapping[str, float | int | str | bool] = field(default_factory=dict)
    curve: Sequence[Mapping[str, float]] = ()
    findings: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Refuse what is no column.

        Raises:
            TypeError: a name in ``measured`` is not a field of `Row`.
        """
        if odd := set(self.measured) - set(FIXED):
            raise TypeError(f"no columns of a row: {', '.join(sorted(odd))}")


def _column(meaning: str, unit: str = "") -> Any:
    return field(default=None, metadata={"meaning": meaning, "unit": unit})


@dataclass(frozen=True)
class Row:
    """One recorded run. Each field is a column; None where nothing applies or was measured."""

    key: str = _column(
        "hash of task, solver, their parameters, seed, device and dtype: what the run is"
    )
    task: str = _column("task name")
    task_label: str = _column(
        "task with the parameters that differ from their defaults, as it is selected on the "
        "command line"
    )
    task_params: str = _column("all parameters of the task, as JSON")
    solver: str = _column("solver name")
    solver_label: str = _column("solver with the parameters that differ from their defaults")
    solver_params: str = _column("all parameters of the solver, as JSON")
    ruleset: str | None = _column(
        "how they were chosen: `default`, `preset NAME`, `tuned (N)` in N trials of `otbench "
        "tune`, or `set` by hand"
    )
    trivial: bool = _column("true for the rows that a real method must beat")
    learns: bool = _column("true for solvers that learn from training pairs before they answer")
    control: bool | None = _column("true for the rows of a known map, which are never ranked")
    seed: int = _column("the seed all random streams of the run are spawned from")
    device: str = _column("cpu or cuda")
    dtype: str = _column("floating point type of the problem's tensors")
    tf32: bool | None = _column("whether TF32 matrix products were allowed (CUDA)")
    threads: int | None = _column("CPU threads of the worker")
    machine: str | None = _column(
        "CPU, number of cores and GPU of the worker, of a MIG device with its profile; times of "
        "different machines are never put together"
    )
    driver: str | None = _column("version of the GPU's driver; empty on a CPU")
    environment: str | None = _column(
        "packages of an environment of its own that the solver ran in (`otbench env`)"
    )
    status: str = _column("how the run ended: " + ", ".join(Status))
    verdict: str | None = _column(
        "map setting: ok, spurious, unconverged, diverged or inaccurate, see "
        "`otbench.scoring.verdict`"
    )
    stopped: str | None = _column(
        "where a solver of clouds stopped, by its plan and potentials: "
        + ", ".join(Stopped)
        + "; the worst of an amortized row's pairs, in the map setting of the clouds it sampled"
    )
    marginal_error: float | None = _column(
        "of that plan as it was returned: sum of the l1 norms of P 1 - a and P' 1 - b", "1"
    )
    duality_gap: float | None = _column(
        "how far that plan, rounded to its marginals, is at most above the optimum of the problem "
        "that its solver solves (entropic where it has an eps), as a share of its cost; of a plan "
        "without potentials by the optimum of the task, where that is known",
        "1",
    )
    no_map: str | None = _column(
        "map setting: why the map is not scored point by point, where no optimal map exists or it "
        "is not unique (plans are then scored on draws), or it is not known"
    )
    message: str = _column(
        "one line saying why the status is not ok, and the remedy; of a run that is ok what it and "
        "its libraries warn of"
    )
    load: float | None = _column(
        "share of the CPU time of the run's cores, 0 to 1, that other processes took while it ran; "
        "empty where the system does not say; what others do on a GPU is not seen"
    )
    gpu_runs: int | None = _column(
        "the most runs of the same command that were on the run's GPU, or MIG device, at a time "
        "while it ran, itself included, seeds solved together as one; of the last attempt where a "
        "fit was resumed; reports leave out the times of rows above 1; empty on a CPU"
    )
    gpu_clock_mhz: float | None = _column(
        "clock of the GPU's streaming multiprocessors at the end of the run; empty on a CPU", "MHz"
    )
    phase: str | None = _column("in which phase a run ended that is not ok: " + ", ".join(Phase))
    import_s: float | None = _column("importing the solver's packages, before any clock", "s")
    problem_s: float | None = _column("building the problem and drawing its test points", "s")
    fit_cold_s: float | None = _column(
        "first fit (discrete setting: until the plan is there), compilation included, scoring "
        "excluded",
        "s",
    )
    fit_warm_s: float | None = _column(
        "median of up to three more fits, where the first took under five seconds", "s"
    )
    fit_device_s: float | None = _column(
        "the fit by the GPU's clock: between two CUDA events on torch's current stream, one as "
        "the clock starts and one before it waits for the device to stop it; median of the repeats "
        "where there is `fit_warm_s`, else of the first fit. Empty on a CPU, where JAX computes on "
        "the GPU, of a resumed fit and where work was put off until after it",
        "s",
    )
    resumed: int | None = _column(
        "how often the fit was interrupted and went on from where it was saved (`otbench run "
        "--save-fits`); the seconds before that count, peak memory is that of the last attempt"
    )
    together: int | None = _column(
        "how many seeds were solved as one with this one (`otbench run --together`)"
    )
    fit_together_s: float | None = _column(
        "all of these seeds together, scoring excluded; none of them has a fit time of its own",
        "s",
    )
    push_cold_s: float | None = _column("first push of the test points", "s")
    push_us_per_point: float | None = _column(
        "push of one test point, median of up to three repeats where the first took under five "
        "seconds",
        "µs",
    )
    infer_cold_ms: float | None = _column(
        "amortized setting: the first held-out pair, compilation included", "ms"
    )
    infer_ms_per_pair: float | None = _column(
        "amortized setting: a held-out pair, median over pairs", "ms"
    )
    score_s: float | None = _column(
        "scoring, off the clock; solving a discrete problem to score by is part of it", "s"
    )
    host_peak_mib: float | None = _column(
        "peak resident memory during fit and push above that before the fit (not of seeds solved "
        "together)",
        "MiB",
    )
    device_peak_mib: float | None = _column(
        "peak device memory by the frameworks' own allocators; empty on a CPU", "MiB"
    )
    task_hash: str = _column(
        "hash of the task's code and all of otbench that it uses, and of the user's own data files"
    )
    solver_hash: str = _column("hash of the solver's code and all of otbench that it uses")
    scoring_hash: str | None = _column("hash of the code of scoring, metrics and verdict")
    batch: str = _column("the invocation's folder name")
    began: str | None = _column(
        "start of the run's process, of the last attempt where a fit was resumed, ISO 8601 UTC"
    )
    when: str = _column("end of the run, ISO 8601 UTC")
    schema: int = _column(f"version of these columns; {SCHEMA} now, 1 for rows that have none")
    metrics: Mapping[str, float] = field(default_factory=dict)
    info: Mapping[str, float | int | str | bool] = field(default_factory=dict)
    curve: Sequence[Mapping[str, float]] = ()

    @classmethod
    def of(cls, spec: RunSpec, result: Result, batch: str, when: str) -> Row:
        """The row of a run that ended so.

        Raises:
            TypeError: the result measured something that is no column.
        """
        return cls(
            **spec.to_json(),
            **result.measured,
            key=spec.key,
            status=result.status,
            message=result.message,
            metrics=result.metrics,
            info=result.info,
            curve=tuple(result.curve),
            batch=batch,
            when=when,
            schema=SCHEMA,
        )

    def to_json(self) -> dict[str, Any]:
        """One flat object: fields that are None are left out, metrics and info get a prefix."""
        values = {name: getattr(self, name) for name in FIXED}
        flat = {name: value for name, value in values.items() if value is not None}
        flat |= {f"metric_{name}": value for name, value in self.metrics.items()}
        flat |= {f"info_{name}": value for name, value in self.info.items()}
        return {**flat, "curve": list(self.curve)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Row:
        """The inverse of `to_json`, also of rows of schema 1; unknown columns are left out."""
        by_prefix = {
            prefix: {
                name.removeprefix(prefix): value
                for name, value in values.items()
                if name.startswith(prefix)
            }
            for prefix in ("metric_", "info_")
        }
        return cls(
            **{name: values[name] for name in FIXED if name in values and name != "schema"},
            schema=values.get("schema", 1),
            metrics=by_prefix["metric_"],
            info=by_prefix["info_"],
            curve=tuple(values.get("curve") or ()),
        )


FIXED = tuple(f.name for f in dataclasses.fields(Row) if f.metadata)

COLUMNS: Mapping[str, str] = {
    **{
        f.name: f.metadata["meaning"] + (f" ({f.metadata['unit']})" if f.metadata["unit"] else "")
        for f in dataclasses.fields(Row)
        if f.metadata
    },
    "metric_*": "metrics, see `otbench list metrics`",
    "info_*": "what the solver reports of itself, units in the names; and by the name of a metric "
    "why it could not be taken",
    "curve": "checkpoints: a list of {step, seconds, <metric>: value}; seconds of solver time (in "
    "frames: the table `curves`)",
}


def _hash(*values: object) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]
