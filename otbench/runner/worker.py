"""The child process: build the problem, fit, push, score, and send one result.

Between coordinator and worker there is only data: a job (a JSON object, see
    `otbench.runner.plan.RunSpec.job`) goes in; events, one JSON object
per line, come out: ``{"event": "started"}`` once imports are done, ``{"event": "resumed", ...}``
    where a saved fit goes on,
``{"event": "checkpoint", ...}`` as they are scored, and ``{"event": "result", ...}``. The process
may be killed at any time.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import json
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from otbench.errors import DivergedError, InvalidOutputError, MissingError
from otbench.metrics import rounded_images
from otbench.problem import AmortizedProblem, DiscreteProblem, MapProblem, Problem, Task, Truth
from otbench.registry import registry
from otbench.runner.clock import Clock, MemoryMeter, cuda_in_use
from otbench.runner.contract import findings
from otbench.scoring.maps import MapScoring, score_plans
from otbench.scoring.verdict import Verdict, judge
from otbench.solver import FitContext, Solver, Transport
from otbench.statuses import Status
from otbench.store import DamagedError, read_state, write_state


if TYPE_CHECKING:
    import numpy as np
    import torch

    Arrays = dict[str, np.ndarray]

T = TypeVar("T")
Job = Mapping[str, Any]
Info = Mapping[str, Any]
Send = Callable[[dict[str, Any]], None]

REPEATS = 3  # of a fit or a push, as long as all of them together
REPEAT_S = 5.0  # have taken less than these seconds

# What is kept of a raw output.
KEPT_PAIRS = 2  # of the plans, those of the first pairs
KEPT_ENTRIES = 2**16  # of a plan, the heaviest
KEPT_PATHS = 200  # of the test points, the first
KEPT_TIMES = 21  # of a path, at most
KEPT_IMAGES = 64  # of the points, the first, where they are images


def perform(job: Job, send: Send, imported: Mapping[str, float]) -> None:
    """Do one run, or those of several seeds together, and send a result for each, whatever the
    solver does in this process.

    Args:
        job: what to run.
        send: takes one event.
        imported: seconds that packages imported ahead of the fork took.
    """
    left = dict.fromkeys(range(len(job["members"])))

    def send_result(member: int, result: dict[str, Any]) -> None:
        del left[member]
        send({"event": "result", "member": member, **result})

    try:
        _run(job, send, send_result, imported)
    except BaseException as error:
        with contextlib.suppress(Exception):  # a solver may have closed stderr
            traceback.print_exc()
        for member in list(left):
            send_result(member, _failure(error, job))


def _run(
    job: Job,
    send: Send,
    send_result: Callable[[int, dict[str, Any]], None],
    imported: Mapping[str, float],
) -> None:
    """Import, build task and solver, and send what comes of them."""
    import torch

    _use_threads(job["threads"], job.get("cpus"))
    began = time.perf_counter()
    plugins = tuple(job["plugins"])
    task: Task = registry("task", plugins).entries[job["task"]].cls(**job["task_params"])
    solver: Solver = registry("solver", plugins).entries[job["solver"]].cls(**job["solver_params"])
    needs = ("torch", *task.needs, *solver.needs)
    for name in needs:
        importlib.import_module(name)
    import_s = time.perf_counter() - began + sum(imported.get(name, 0.0) for name in set(needs))
    send({"event": "started"})

    torch.set_num_threads(job["threads"])
    if job["device"] == "cuda":
        torch.zeros(1, device="cuda")  # opens the context before any clock
    benches = [
        _Bench(job, member, task, solver, send, {"import_s": import_s})
        for member in range(len(job["members"]))
    ]
    if len(benches) == 1:
        send_result(0, benches[0].result())
    else:
        for member, result in enumerate(_together(benches)):
            send_result(member, result)


def _failure(error: BaseException, job: Job) -> dict[str, Any]:
    """The result of a run that ended so."""
    result: dict[str, Any] = {"status": status_of(error), "message": describe(error)}
    if (
        result["status"] == Status.DIVERGED
        and registry("task", tuple(job["plugins"])).entries[job["task"]].cls.setting == "map"
    ):
        result["verdict"] = Verdict.DIVERGED
    return result


def status_of(error: BaseException) -> Status:
    """The status that an exception in a worker stands for."""
    if isinstance(error, MissingError):
        return Status.MISSING
    if isinstance(error, DivergedError):
        return Status.DIVERGED
    refused = "can't allocate memory" in str(error) or "RESOURCE_EXHAUSTED" in str(
        error
    )  # torch on the host, JAX
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or refused:
        return Status.OOM
    return Status.ERROR


def describe(error: BaseException) -> str:
    """One line: kind of the error, its text, and the place in the code nearest to the solver."""
    if isinstance(error, (MissingError, DivergedError, InvalidOutputError)):
        return str(error)
    text = str(error).strip().splitlines()
    kind = "called sys.exit" if isinstance(error, SystemExit) else type(error).__name__
    frames = [
        f
        for f in traceback.extract_tb(error.__traceback__)
        if Path(f.filename).name != Path(__file__).name
    ]
    place = f" ({Path(frames[0].filename).name}:{frames[0].lineno})" if frames else ""
    return f"{kind}: {text[0] if text else 'no message'}"[:500] + place


class _Bench:
    """One run, in order. Every number of the result is a field measured on the way."""

    def __init__(
        self, job: Job, member: int, task: Task, solver: Solver, send: Send, fields: dict[str, Any]
    ) -> None:
        import numpy as np
        import torch

        self.job, self.member, self.task, self.solver, self.send, self.fields = (
            job,
            member,
            task,
            solver,
            send,
            fields,
        )
        self.own: Job = job["members"][member]
        self.dtype: torch.dtype = getattr(torch, job["dtype"])
        self.device: str = job["device"]
        self.problem_stream, self.algorithm_stream, self.test_stream = np.random.SeedSequence(
            self.own["seed"]
        ).spawn(3)
        self.curve: list[dict[str, Any]] = []

    def result(self) -> dict[str, Any]:
        """Fields of the row."""
        problem = self.build()
        reason = refusal(self.solver, problem)
        if reason is not None:
            return {**self.fields, "status": Status.SKIPPED, "message": reason}
        if self.job.get("contract"):
            return {
                "status": Status.OK,
                "message": "",
                "findings": findings(self.solver, problem, self.device, self.dtype),
            }
        info, metrics = (
            self._map_run(problem) if isinstance(problem, MapProblem) else self._plan_run(problem)
        )
        # What the first fit held is free by now, so a repeat has as much room.
        self.fields["fit_warm_s"] = self._repeated(
            lambda run: self._solve(problem, run), first=self.fields["fit_cold_s"]
        )
        return self.row(info, metrics)

    def build(self) -> Problem:
        """The problem of this seed."""
        import numpy as np

        with self._booked("problem_s"):
            return self.task.problem(
                np.random.default_rng(self.problem_stream), device=self.device, dtype=self.dtype
            )

    def row(self, info: Info, metrics: Mapping[str, float]) -> dict[str, Any]:
        """All that was measured."""
        import torch

        self.fields["tf32"] = bool(cuda_in_use()) and torch.backends.cuda.matmul.allow_tf32
        named = {f"metric_{name}": value for name, value in metrics.items()}
        info = {f"info_{name}": _plain(name, value) for name, value in info.items()}
        return {"status": Status.OK, "message": "", **self.fields, **named, **info}

    def prepare(self, problem: MapProblem, clock: Clock, memory: MemoryMeter) -> FitContext:
        """Draw the test points; the run, whose checkpoints are scored with the clock stopped."""
        import torch

        with self._booked("problem_s"):
            generator = torch.Generator(self.device).manual_seed(
                int(self.test_stream.generate_state(1)[0])
            )
            self.scoring = MapScoring(
                problem, generator, Path(self.own["floors"]) if self.own["floors"] else None
            )
        self.diverged: DivergedError | None = None

        def on_checkpoint(step: int, transport: Transport) -> None:
            with clock.paused() as seconds:
                memory.pause()
                try:
                    if transport.push is not None and self.diverged is None:
                        self._note_point(
                            {
                                "step": step,
                                "seconds": seconds,
                                **self.scoring.score_checkpoint(transport),
                            }
                        )
                except DivergedError as error:
                    if len(self.job["members"]) == 1:
                        raise
                    self.diverged = (
                        error  # the end of this run, but not of those that it is solved with
                    )
                memory.resume()

        run = self._saved_run(clock, memory)
        run.on_checkpoint = on_checkpoint
        return run

    def score(self, transport: Transport, memory: MemoryMeter | None = None) -> dict[str, float]:
        """Push the test points, score; then repeat a short push. ``memory`` has watched the fit,
        where it was of this run alone.
        """
        assert transport.push is not None
        push, given = transport.push, self.scoring.x.clone()
        pushed, self.fields["push_cold_s"] = timed(lambda: push(given))
        if memory is not None:
            self._note_memory(memory)
        with self._booked("score_s"):
            values = {
                point["step"]: point["saddle_value"]
                for point in self.curve
                if "saddle_value" in point
            }
            metrics = self.scoring.score(transport, pushed, _late(values))
            self.fields |= {"verdict": judge(metrics), "no_map": self.scoring.problem.truth.no_map}
            if self.own["output"]:
                self._keep(Path(self.own["output"]), _map_arrays(self.scoring, transport, pushed))

        given = self.scoring.x.clone()  # the first push may have written into its argument
        push_s = (
            self._repeated(lambda _: push(given), first=self.fields["push_cold_s"])
            or self.fields["push_cold_s"]
        )
        self.fields["push_us_per_point"] = 1e6 * push_s / len(given)
        return metrics

    def _map_run(self, problem: MapProblem) -> tuple[Info, dict[str, float]]:
        """Fit, push, score."""
        memory, clock = MemoryMeter(), Clock()
        run = self.prepare(problem, clock, memory)
        clock.start()
        transport, _ = self._solve(problem, run)
        self.fields["fit_cold_s"] = clock.stop()
        metrics = self.score(transport, memory)
        return {**transport.info, **self.scoring.notes}, metrics

    def _plan_run(
        self, problem: DiscreteProblem | AmortizedProblem
    ) -> tuple[Info, dict[str, float]]:
        """Fit, take the plan of every pair (in the amortized setting timed one by one), score."""
        pairs = [problem] if isinstance(problem, DiscreteProblem) else problem.test
        as_given = copy.deepcopy(pairs)  # scored on these: a solver may write into its own
        if isinstance(
            problem, AmortizedProblem
        ):  # and does not see the answers that it is to predict
            pairs = [replace(pair, truth=Truth("none")) for pair in pairs]
            problem = replace(problem, test=pairs)
        memory, clock = MemoryMeter(), Clock()
        run = self._saved_run(clock, memory)
        clock.start()
        transport, plan = self._solve(problem, run)
        self.fields["fit_cold_s"], plans = clock.stop(), [plan]
        if isinstance(problem, AmortizedProblem):
            solve = transport.plan
            assert solve is not None
            _, first = timed(
                partial(solve, pairs[-1])
            )  # not the next to be timed, which a cache would know
            plans, seconds = zip(*(timed(partial(solve, pair)) for pair in pairs), strict=True)
            self.fields |= {
                "infer_cold_ms": 1e3 * first,
                "infer_ms_per_pair": 1e3 * statistics.median(seconds),
            }
        self._note_memory(memory)
        with self._booked("score_s"):
            metrics = score_plans(as_given, plans, transport)
            if self.own["output"]:
                kept = enumerate(map(_pair_arrays, as_given[:KEPT_PAIRS], plans))
                self._keep(
                    Path(self.own["output"]),
                    {f"{k}_{name}": array for k, arrays in kept for name, array in arrays.items()},
                )
        return transport.info, metrics

    def _solve(self, problem: Problem, run: FitContext) -> tuple[Transport, Any]:
        """What a fit's time is of: the transport, and in the discrete setting its plan."""
        transport = _checked(self.solver.fit(problem, run), problem)
        return transport, transport.plan(problem) if isinstance(
            problem, DiscreteProblem
        ) and transport.plan else None

    def _note_memory(self, memory: MemoryMeter) -> None:
        memory.pause()
        self.fields["host_peak_mib"] = memory.host_peak_mib()
        self.fields["device_peak_mib"] = memory.device_peak_mib()

    @contextlib.contextmanager
    def _booked(self, name: str) -> Iterator[None]:
        """Add the seconds of the block to a field."""
        began = time.perf_counter()
        yield
        self.fields[name] = self.fields.get(name, 0.0) + time.perf_counter() - began

    def _repeated(self, call: Callable[[FitContext], object], first: float) -> float | None:
        """Median seconds of repeats; None where the first time was too long for any."""
        seconds: list[float] = []
        while len(seconds) < REPEATS and first + sum(seconds) < REPEAT_S:
            run = self._fresh_run()
            seconds.append(timed(lambda run=run: call(run))[1])
        return statistics.median(seconds) if seconds else None

    def _fresh_run(self) -> FitContext:
        """The algorithm's randomness from its beginning, in every generator a solver may use, each
        with a seed of its own.
        """
        import random

        import numpy as np
        import torch

        seed, of_generator, of_torch, of_numpy, of_python = map(
            int, self.algorithm_stream.generate_state(5)
        )
        random.seed(of_python)
        np.random.seed(of_numpy)  # noqa: NPY002  (libraries that draw from numpy's global state)
        if self.device == "cpu":
            torch.default_generator.manual_seed(
                of_torch
            )  # manual_seed also notes a stack trace for a CUDA that may come
        else:
            torch.manual_seed(of_torch)
        return FitContext(
            self.device, self.dtype, seed, torch.Generator(self.device).manual_seed(of_generator)
        )

    def _saved_run(self, clock: Clock, memory: MemoryMeter) -> FitContext:
        """A fresh run; where that was asked for it is saved as it goes, and goes on from where it
        was saved before.
        """
        run, saving = self._fresh_run(), self.own["saving"]
        if saving is None:
            return run
        path, due = Path(saving["path"]), time.monotonic() + saving["every_s"]
        context = {"made_by": saving["made_by"], "where": saving["where"], "resumed": 0}

        def save(state: Callable[[], Any]) -> None:
            nonlocal due
            if time.monotonic() < due:
                return
            with clock.paused() as seconds:
                memory.pause()
                message = self.fields.get("message", "")
                kept = {
                    **context,
                    "seconds": seconds,
                    "message": message,
                    "curve": self.curve,
                    "state": state(),
                }
                check_plain(kept)
                try:
                    write_state(path, kept)
                except OSError as error:
                    self._remark(f"fit not saved: {error.strerror}")
                memory.resume()
            due = time.monotonic() + saving["every_s"]

        def restore() -> Any:
            with clock.paused():
                memory.pause()
                kept = self._read_fit(path, saving["made_by"])
                memory.resume()
            if kept is None:
                return None
            self._remark(kept["message"])
            if kept["where"] != saving["where"]:
                self._remark("begun elsewhere or with other threads: the seconds are of both")
            clock.seconds += kept["seconds"]
            context["resumed"] = kept["resumed"] + 1
            self.send({"event": "resumed", "resumed": context["resumed"]})
            for point in kept["curve"]:
                self._note_point(point)
            return kept["state"]

        run.on_save, run.on_restore = save, restore
        return run

    def _read_fit(self, path: Path, made_by: Mapping[str, str]) -> dict[str, Any] | None:
        """What was saved of this fit; None where that is nothing, or nothing to go on with."""
        try:
            kept = read_state(path)
        except DamagedError:
            self._remark(f"begun anew: the saved fit {path.name}, kept as .old, is damaged")
            os.replace(path, path.with_suffix(".old"))
            return None
        if kept is not None and kept["made_by"] != made_by:
            other = ", ".join(
                name for name, value in made_by.items() if kept["made_by"].get(name) != value
            )
            self._remark(
                f"begun anew: the saved fit {path.name}, kept as .old, is of another {other}"
            )
            os.replace(path, path.with_suffix(".old"))
            return None
        return kept

    def _note_point(self, point: dict[str, Any]) -> None:
        """One point of the curve."""
        self.curve.append(point)
        self.send({"event": "checkpoint", "member": self.member, **point})

    def _remark(self, text: str) -> None:
        """What the message of the row says beside a success."""
        said = self.fields.get("message", "")
        if text not in said:
            self.fields["message"] = f"{said}; {text}" if said else text

    def _keep(self, path: Path, arrays: dict[str, Any]) -> None:
        """Raw arrays, whole or not at all: a new metric can score an old run on them, pictures show
        them.
        """
        import numpy as np

        unfinished = path.with_suffix(".part")
        try:
            path.parent.mkdir(exist_ok=True)
            with open(unfinished, "wb") as file:
                np.savez_compressed(file, **arrays)
            os.replace(unfinished, path)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            self._remark(f"raw output not kept: {error.strerror}")


def _map_arrays(scoring: MapScoring, transport: Transport, pushed: torch.Tensor) -> Arrays:
    """Of a map: test points ``x``, their images ``pushed`` and ``optimal``, a ``target`` sample,
    and of the first points the ``path``.

    The path is ``(times, points, *shape)``, from time 0 to time 1. Where points are images, there
    are few of them, with what each was made from (``partner``), ``pushed`` are draws of a
    stochastic plan, and ``image`` is ``(channels, height, width)``.
    """
    import numpy as np
    import torch

    image = scoring.problem.target.image
    rows = None if image is None else KEPT_IMAGES
    if image is not None:
        pushed = scoring.outputs(transport, scoring.x, pushed)
    kept = {"x": scoring.x, "pushed": pushed.detach(), "target": scoring.known["target_sample"]}
    kept |= {name: scoring.known[name] for name in ("optimal", "partner") if name in scoring.known}
    kept = {name: values[:rows] for name, values in kept.items()}
    if transport.path is not None:
        path = transport.path(scoring.x[:KEPT_PATHS][:rows].clone()).detach()
        kept["path"] = path[
            torch.linspace(0, len(path) - 1, min(KEPT_TIMES, len(path)))
            .round()
            .long()
            .to(path.device)
        ]
    arrays = {name: values.cpu().numpy() for name, values in kept.items()}
    return arrays if image is None else {**arrays, "image": np.array(image)}


def _pair_arrays(pair: DiscreteProblem, plan: torch.Tensor) -> Arrays:
    """Of a plan: the problem ``x, a, y, b, cost, pixels, target_pixels``, the heaviest entries ``i,
    j, mass``, ``images`` of the points.

    Images are barycentric, under the plan rounded to its marginals. Of the true plan they are
    ``optimal_images``, and so on.
    """
    import numpy as np

    kept = {
        "x": pair.x,
        "a": pair.a,
        "y": pair.y,
        "b": pair.b,
        "pixels": pair.pixels,
        "target_pixels": pair.target_pixels,
    }
    for prefix, coupling in (("", plan.detach()), ("optimal_", pair.truth.plan)):
        if coupling is not None:
            i, j, mass = _heaviest(coupling, KEPT_ENTRIES)
            images = rounded_images(
                coupling.double(), pair.a.double(), pair.b.double(), pair.y.double().flatten(1)
            )
            kept |= {
                f"{prefix}i": i,
                f"{prefix}j": j,
                f"{prefix}mass": mass,
                f"{prefix}images": images.view(-1, *pair.y.shape[1:]),
            }
    arrays = {
        name: (v.float() if v.is_floating_point() else v.int()).cpu().numpy()
        for name, v in kept.items()
        if v is not None
    }
    return {"cost": np.array(pair.cost.name), **arrays}


def _heaviest(plan: torch.Tensor, most: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows, columns and values of the largest entries of a dense or sparse plan that are not zero,
    in falling order.
    """
    if plan.is_sparse:
        plan = plan.coalesce()
        mass, at = plan.values().topk(min(most, plan.values().numel()))
        i, j = plan.indices()[:, at]
    else:
        mass, at = plan.flatten().topk(min(most, plan.numel()))
        i, j = at // plan.shape[1], at % plan.shape[1]
    moved = mass > 0
    return i[moved], j[moved], mass[moved]


def _together(benches: Sequence[_Bench]) -> Iterator[dict[str, Any]]:
    """Results of the seeds of one task that are solved as one. Time and memory are not those of one
    run: only the whole's time is given.
    """
    solver, problems = benches[0].solver, [bench.build() for bench in benches]
    for problem in problems:
        if (reason := refusal(solver, problem)) is not None:
            yield from [
                {**bench.fields, "status": Status.SKIPPED, "message": reason} for bench in benches
            ]
            return
    maps = [problem for problem in problems if isinstance(problem, MapProblem)]
    if len(maps) < len(problems):
        raise InvalidOutputError(f"{solver.name} is batched, which is for map problems only")
    memory, clock = MemoryMeter(), Clock()
    runs = [
        bench.prepare(problem, clock, memory) for bench, problem in zip(benches, maps, strict=True)
    ]
    clock.start()
    outcomes = solver.fit_together(problems, runs)
    shared = {"together": len(benches), "fit_together_s": clock.stop()}
    for bench, problem, outcome in zip(benches, maps, outcomes, strict=True):
        bench.fields |= shared
        try:
            if failure := bench.diverged or (
                outcome if isinstance(outcome, DivergedError) else None
            ):
                raise failure
            transport = _checked(outcome, problem)
            metrics = bench.score(transport)
            row = bench.row({**transport.info, **bench.scoring.notes}, metrics)
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            row = {**bench.fields, **_failure(error, bench.job)}
        yield row


def _checked(outcome: object, problem: Problem) -> Transport:
    """What a fit returned.

    Raises:
        InvalidOutputError: it is nothing that can be scored.
    """
    if not isinstance(outcome, Transport):
        raise InvalidOutputError(
            f"fit returned {type(outcome).__name__}, expected an otbench.Transport"
        )
    wanted = "push" if isinstance(problem, MapProblem) else "plan"
    if getattr(outcome, wanted) is None:
        raise InvalidOutputError(
            f"fit returned a Transport without {wanted}, which the {problem.setting} setting needs"
        )
    return outcome


def refusal(solver: Solver, problem: Problem) -> str | None:
    """Why the solver does not take the problem, in its own words; None if it does.

    Raises:
        InvalidOutputError: it says neither.
    """
    reason = solver.supports(problem)
    if reason is not None and not isinstance(reason, str):
        raise InvalidOutputError(
            f"supports returned {reason!r}, expected None or the reason why not, as a string"
        )
    return reason


def _late(values: Mapping[int, float]) -> float | None:
    """The value at the step nearest to nine tenths of the last one, where there is one near."""
    last = max(values, default=0)
    near = [step for step in values if 0.8 * last <= step <= 0.95 * last]
    return values[min(near, key=lambda step: abs(step - 0.9 * last))] if near else None


def timed(call: Callable[[], T]) -> tuple[T, float]:
    """The value of a call and its seconds, the devices idle before and after."""
    clock = Clock()
    clock.start()
    value = call()
    return value, clock.stop()


def _plain(name: str, value: object) -> float | int | str | bool:
    if isinstance(value, (bool, int, float, str)):
        return value
    raise InvalidOutputError(
        f"info[{name!r}] is {type(value).__name__}, expected a plain number, string or boolean"
    )


def check_plain(state: object) -> None:
    """Raise unless a state can be read back without running code that it names."""
    import torch

    if type(state) is dict:
        state = [*state, *state.values()]
    if type(state) in (list, tuple):
        for part in cast(Sequence[object], state):
            check_plain(part)
    elif not isinstance(state, torch.Tensor) and type(state) not in (
        bool,
        int,
        float,
        str,
        type(None),
    ):
        raise InvalidOutputError(
            f"run.save was given {type(state).__name__}: make the state of tensors, plain numbers and strings in dicts, lists and tuples"
        )


def _use_threads(threads: int, cpus: Sequence[int] | None) -> None:
    """Keep this process on its own cores, so that every library's thread pool is as large as it
    should be.
    """
    if cpus and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cpus)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)


def sender(fd: int) -> Send:
    """Events as JSON lines into a file descriptor."""

    def send(event: dict[str, Any]) -> None:
        line = (
            f"\n{json.dumps(event)}\n".encode()
        )  # a line of its own, whatever a solver wrote before it
        while line:
            line = line[os.write(fd, line) :]

    return send


if (
    __name__ == "__main__"
):  # python -m otbench.runner.worker FD JOB: the spawned form, for where forking is not safe
    perform(json.loads(sys.argv[2]), sender(int(sys.argv[1])), {})
    os._exit(0)
