"""One run: build the problem, fit, push or take the plans, score, and repeat what was short."""

from __future__ import annotations

import copy
import math
import statistics
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from otbench.data.catalogue import fetch_named
from otbench.errors import DivergedError, InvalidOutputError
from otbench.job import Job, Result, RunSpec
from otbench.metrics import entries
from otbench.problem import (
    AmortizedProblem,
    DiscreteProblem,
    MapProblem,
    Problem,
    Task,
    without_answers,
)
from otbench.randomness import Randomness
from otbench.runner import outputs, truths
from otbench.runner.clock import REPEAT_S, CallTimes, Clock, MemoryMeter, repeated, timed
from otbench.runner.measure import Measured, Phases, Send
from otbench.runner.saving import Saver
from otbench.scoring.convergence import certified
from otbench.scoring.maps import MapScoring
from otbench.scoring.plans import checked_plan, score_plans, unscored
from otbench.scoring.verdict import judge, late_value
from otbench.solver import FitContext, Solver, Transport
from otbench.statuses import Phase, Status


if TYPE_CHECKING:
    import torch

T = TypeVar("T")

REDRAWN_S = 1.0  # a problem that is built sooner is drawn anew for the repeats of its fit
REPEATED = 2**24  # entries of the largest plan that is held while others are made
REMEMBERED = 0.1  # of the first fit: what a faster repeat returns is compared with the first
PROBES = 256  # points
# The metrics that say what no certificate does, of a plan without potentials.
OF_PLANS = {
    "marginal_error": ("marginal_l1",),
    "duality_gap": ("entropic_gap", "cost_gap", "cost_gap_bound"),
}


class Run:
    """One run of a job.

    Args:
        job: what the worker was told.
        member: place of the run in the job.
        task, solver: built.
        phases: of the worker.
        send: takes an event.
        known: columns that are known before the run, among them where it is made.
    """

    def __init__(
        self,
        job: Job,
        member: int,
        task: Task,
        solver: Solver,
        phases: Phases,
        send: Send,
        known: Mapping[str, Any],
    ) -> None:
        import torch

        self.job, self.task, self.solver = job, task, solver
        self.spec: RunSpec = job.specs[member]
        dtype: torch.dtype = getattr(torch, self.spec.dtype)
        self.randomness = Randomness(self.spec.seed, self.spec.device, dtype)
        self.measured = Measured(known, phases, send, member)
        if solver.tuning:
            self.measured.report({"tuning": solver.tuning})
        self.transport: Transport | None = None
        self.clock = Clock()  # of the first fit

    def build(self) -> Problem:
        """The problem of the seed."""
        with self.measured.booked("problem_s", Phase.BUILD):
            problem = self._drawn(self.randomness)
            if self.job.floors is None:
                return problem
            path = Path(self.job.floors) / f"{self.spec.problem_key}-truth.pt"
            return truths.shared(problem, path)

    def _drawn(self, randomness: Randomness) -> Problem:
        with fetch_named(self.task.files):
            return self.task.problem(
                randomness.problem(), device=self.spec.device, dtype=randomness.dtype
            )

    def given(self, problem: Problem) -> Problem:
        """The problem as the solver sees it."""
        return problem if self.solver.control else without_answers(problem)

    def result(self, problem: Problem) -> Result:
        """Fit, score, and fit again where that is short."""
        given, phases = self.given(problem), self.measured.phases
        phases.enter(Phase.FIT)
        self.clock.start()  # `supports` has the problem in hand
        reason = refusal(self.solver, given)
        self.clock.stop()
        if reason is not None:
            return self.measured.ended(Status.SKIPPED, reason)
        if isinstance(problem, MapProblem):
            self.transport, plan = self._map(problem, given), None
        else:
            self.transport, plan = self._plans(problem, given)
        self.measured.report(self.transport.info)
        phases.enter(Phase.REPEAT)
        # What the first fit held is free by now but for a plan, so a repeat has as much room.
        warm = self._warm_s(given, self.transport, plan)
        if warm is not None:
            columns = self.measured.columns
            columns["fit_warm_s"], columns["fit_device_s"] = warm
        return self.measured.finished()

    def _warm_s(
        self, given: Problem, transport: Transport, plan: Any
    ) -> tuple[float, float | None] | None:
        """Median seconds, and seconds by the GPU, of up to three more fits, each with a push, of
        another draw of the problem where that is soon drawn: nothing that was remembered or put off
        is fast then.

        None where the first fit took long or its plan is large, where the other draw could not be
        solved, or where the repeats are far faster and yet give the answer of the first.
        """
        cold = self.measured.columns["fit_cold_s"]
        if cold >= REPEAT_S or (plan is not None and entries(plan).numel() > REPEATED):
            return None
        try:
            return self._repeated_s(given, transport, plan, cold)
        except Exception:
            traceback.print_exc()
            return None

    def _repeated_s(
        self, given: Problem, transport: Transport, plan: Any, cold: float
    ) -> tuple[float, float | None] | None:
        import torch

        randomness = self.randomness
        if self.measured.columns["problem_s"] < REDRAWN_S:
            randomness = randomness.other()
            with self.measured.phases.during(Phase.BUILD):
                given = self.given(self._drawn(randomness))
        if isinstance(given, MapProblem):
            x = given.source.sample(PROBES, randomness.test_points())

        def answer(found: Transport, plan: Any) -> Any:
            return found.push(x.clone()) if isinstance(given, MapProblem) else plan  # type: ignore[misc]

        answers: deque[Any] = deque(maxlen=1)
        warm = repeated(
            lambda context: answers.append(answer(*self._solve(given, context))),
            randomness.context,
            cold,
        )
        if warm is None or warm[0] > REMEMBERED * cold:
            return warm
        first, again = answer(transport, plan), answers[-1]
        same = isinstance(first, torch.Tensor) and first.shape == again.shape
        return None if same and _equal(first, again) else warm

    def context(self, clock: Clock, memory: MemoryMeter) -> FitContext:
        """What the first fit is given; its state is saved and restored where that was asked for."""
        context = self.randomness.context()
        if self.job.saving and len(self.job.specs) == 1:
            place = {name: self.measured.columns[name] for name in ("threads", "machine")}
            saver = Saver(self.spec, self.job.saving, place, self.measured, clock, memory)
            saver.attach(context)
        return context

    def keep(self, arrays: Callable[[], outputs.Arrays]) -> None:
        """Keep raw outputs where that was asked for."""
        if self.job.outputs is None:
            return
        try:
            outputs.keep(Path(self.job.outputs) / f"{self.spec.key}.npz", arrays())
        except OSError as error:
            self.measured.remark(f"raw output not kept: {error.strerror}")

    def _map(self, problem: MapProblem, given: Problem) -> Transport:
        memory = MemoryMeter()
        run = MapRun(self, problem, self.clock, memory)
        self.clock.start()
        with self.measured.warned():
            transport, _ = self._solve(given, run.context)
        self._fitted()
        run.score(transport, memory)
        return transport

    def _plans(
        self, problem: DiscreteProblem | AmortizedProblem, given: Problem
    ) -> tuple[Transport, torch.Tensor | None]:
        """Fit and take the plan of every pair, in the amortized setting timed one by one."""
        pairs = [problem] if isinstance(problem, DiscreteProblem) else problem.test
        as_given = copy.deepcopy(pairs)  # scored on these: a solver may write into its own
        memory = MemoryMeter()
        context = self.context(self.clock, memory)
        self.clock.start()
        with self.measured.warned():
            transport, plan = self._solve(given, context)
            self._fitted()
            plans = [plan]
            if isinstance(problem, AmortizedProblem):
                self.measured.phases.enter(Phase.PUSH)
                plans = self._predicted(transport, [without_answers(pair) for pair in pairs])
        self.measured.memory(memory)
        with self.measured.booked("score_s", Phase.SCORE):
            self._certify(transport, as_given, plans)
            potential = transport.pair_potential and self._called(transport.pair_potential)
            scored = replace(transport, pair_potential=potential)
            self.measured.metrics |= score_plans(as_given, plans, scored)
            self.measured.info |= unscored(as_given)
            for name, metrics in OF_PLANS.items():
                known = (self.measured.metrics[m] for m in metrics if m in self.measured.metrics)
                if self.measured.columns.get(name) is None:
                    self.measured.columns[name] = next(known, None)
            self.keep(lambda: outputs.plan_arrays(as_given, plans))
        return transport, plan

    def _fitted(self) -> None:
        """Note what the first fit took."""
        self.measured.columns["fit_cold_s"] = self.clock.stop()
        self.measured.columns["fit_device_s"] = self.clock.device_s

    def _certify(
        self, transport: Transport, pairs: Sequence[DiscreteProblem], plans: Sequence[torch.Tensor]
    ) -> None:
        """Certify the plans that were returned, beside the potentials that they were found with."""
        plans = [checked_plan(pair, plan) for pair, plan in zip(pairs, plans, strict=True)]
        if transport.coupled:
            self.measured.certified(certified(transport.coupled, pairs, plans))

    def _called(self, function: Callable[..., T]) -> Callable[..., T]:
        """A function of the solver, that is called while its answer is scored."""

        def call(*args: Any) -> T:
            with self.measured.phases.calling():
                return function(*args)

        return call

    def _predicted(
        self, transport: Transport, pairs: Sequence[DiscreteProblem]
    ) -> list[torch.Tensor]:
        solve = transport.plan
        assert solve is not None
        # The first to be timed is the last pair: not the next one, which a cache would know.
        _, first = timed(partial(solve, pairs[-1]))
        plans, seconds = zip(*(timed(partial(solve, pair)) for pair in pairs), strict=True)
        self.measured.columns["infer_cold_ms"] = 1e3 * first
        self.measured.columns["infer_ms_per_pair"] = 1e3 * statistics.median(seconds)
        return list(plans)

    def _solve(self, problem: Problem, context: FitContext) -> tuple[Transport, Any]:
        """What a fit's time is of: the transport, and in the discrete setting its plan."""
        transport = checked(self.solver.fit(problem, context), problem)
        discrete = isinstance(problem, DiscreteProblem) and transport.plan is not None
        return transport, transport.plan(problem) if discrete else None  # type: ignore[misc]


@dataclass
class MapRun:
    """A run of the map setting: its test points, checkpoints scored with the clock stopped.

    Attributes:
        run: what is measured.
        problem: of its seed.
        clock, memory: of the fit.
        context: for the solver.
        diverged: the error of a checkpoint, where the fit is also that of other seeds.
        failed: the error of a checkpoint, which a solver may have caught.
    """

    run: Run
    problem: MapProblem
    clock: Clock
    memory: MemoryMeter
    diverged: DivergedError | None = None
    failed: Exception | None = None
    calls: CallTimes = field(init=False)

    def __post_init__(self) -> None:
        """Draw the test points."""
        run, floors = self.run, self.run.job.floors
        self.calls = CallTimes(run.measured.phases.calling)
        with run.measured.booked("problem_s", Phase.BUILD):
            shared = Path(floors) / run.spec.problem_key if floors else None
            stream, calling = run.randomness.test_points(), run.measured.phases.calling
            self.scoring = MapScoring(self.problem, stream, shared, calling)
        self.context = run.context(self.clock, self.memory)
        self.context.on_checkpoint = self._checkpoint

    def _checkpoint(self, step: int, transport: Transport) -> None:
        if not isinstance(step, int) or step < 0:
            raise InvalidOutputError(f"checkpoint of step {step!r}, expected a whole number")
        with self.clock.paused() as seconds:
            self.memory.pause()
            try:
                with self.run.measured.phases.during(Phase.SCORE):
                    if transport.push is not None and self.diverged is None:
                        scores = self.scoring.score_checkpoint(self.calls.of(transport))
                        self.run.measured.checkpoint({"step": step, "seconds": seconds, **scores})
            except DivergedError as error:
                self.failed = error
                if len(self.run.job.specs) == 1:
                    raise
                self.diverged = error  # the end of this run, not of those it is solved with
            except Exception as error:
                self.failed = error
                raise
            finally:
                self.memory.resume()

    def score(self, transport: Transport, memory: MemoryMeter | None = None) -> None:
        """Push the test points and score them; then repeat a short push. What a solver had put off
        until then is booked to its fit.

        Args:
            transport: what the solver returned.
            memory: has watched the fit, where it was of this run alone.
        """
        if self.failed is not None:
            raise self.failed
        transport = self.calls.of(transport)
        assert transport.push is not None
        push, measured, scoring = transport.push, self.run.measured, self.scoring
        x = scoring.x.clone()
        measured.phases.enter(Phase.PUSH)
        pushed, first = timed(lambda: push(x))
        measured.columns["push_cold_s"] = first
        if memory is not None:
            measured.memory(memory)
        with measured.booked("score_s", Phase.SCORE):
            curve = measured.curve
            if transport.coupled:
                measured.certified(certified(transport.coupled))
            values = {p["step"]: p["saddle_value"] for p in curve if "saddle_value" in p}
            measured.metrics |= scoring.score(transport, pushed, late_value(values))
            measured.columns["verdict"] = judge(measured.metrics)
            measured.columns["no_map"] = self.problem.truth.no_map
            self.run.keep(lambda: outputs.map_arrays(scoring, transport, pushed))
        measured.info |= scoring.notes
        measured.phases.enter(Phase.REPEAT)

        x = scoring.x.clone()  # the first push may have written into its argument
        again = repeated(lambda _: push(x), self.run.randomness.context, first)
        measured.columns["push_us_per_point"] = 1e6 * (again[0] if again else first) / len(x)
        if "fit_cold_s" in measured.columns:
            self.calls.repeat_single(transport, x)
            if late := self.calls.late():
                measured.columns["fit_cold_s"] += late
                measured.columns["fit_device_s"] = None


def _equal(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether two dense or two sparse tensors of one shape are the same."""
    import torch

    if first.is_sparse and second.is_sparse:
        first, second = first.coalesce(), second.coalesce()
        if not torch.equal(first.indices(), second.indices()):
            return False
    return first.is_sparse == second.is_sparse and torch.equal(entries(first), entries(second))


def checked(outcome: object, problem: Problem) -> Transport:
    """What a fit returned.

    Raises:
        InvalidOutputError: it is nothing that can be scored, or torch is not as it was.
    """
    import torch

    if not isinstance(outcome, Transport):
        kind = type(outcome).__name__
        raise InvalidOutputError(f"fit returned {kind}, expected an otbench.Transport")
    wanted = "push" if isinstance(problem, MapProblem) else "plan"
    if getattr(outcome, wanted) is None:
        raise InvalidOutputError(
            f"fit returned a Transport without {wanted}, which the {problem.setting} setting needs"
        )
    sigma = outcome.sigma
    if not isinstance(sigma, (int, float)) or not 0 <= sigma < math.inf:
        raise InvalidOutputError(f"sigma is {sigma!r}, expected a number from 0 on")
    if torch.is_inference_mode_enabled() or not torch.is_grad_enabled():
        raise InvalidOutputError("fit left torch without gradients: leave the mode that it entered")
    if torch.get_default_device().type != "cpu":
        raise InvalidOutputError("fit left torch with another default device")
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
