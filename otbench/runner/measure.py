"""The columns of one run, which fill up as it is measured, and the phase that it is in."""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from otbench.job import Result
from otbench.runner.clock import MemoryMeter, cuda_in_use
from otbench.runner.info import columns
from otbench.scoring.convergence import Certificate
from otbench.statuses import Phase, Status


Send = Callable[[dict[str, Any]], None]

OF_CODE = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)  # not of a run's numbers
MOST_WARNINGS = 3
LONGEST_WARNING = 200  # characters


class Phases:
    """The phase that a worker is in, which it sends as it changes: should it be killed, that is
    where.

    Attributes:
        now: the phase.
    """

    def __init__(self, send: Send) -> None:
        self.now, self._send = Phase.IMPORT, send
        self._raised: tuple[BaseException | None, Phase] = None, self.now

    def enter(self, phase: Phase) -> None:
        """Go on to a phase."""
        if phase != self.now:
            self.now = phase
            self._send({"event": "phase", "phase": phase})

    @contextlib.contextmanager
    def during(self, phase: Phase) -> Iterator[None]:
        """Be in a phase for the block, and back in the one before after it, also after an error."""
        before = self.now
        self.enter(phase)
        try:
            yield
        except BaseException as error:
            self._raised = error, self.of(error)
            raise
        finally:
            self.enter(before)

    def of(self, error: BaseException) -> Phase:
        """The phase that an error was raised in."""
        raised, phase = self._raised
        return phase if raised is error else self.now

    @contextlib.contextmanager
    def calling(self) -> Iterator[None]:
        """A function of the solver is called in the block: amid the task's own work that is the
        solver's.
        """
        with self.during(Phase.PUSH if self.now.of_task else self.now):
            yield


class Measured:
    """The columns of one run, as they are measured.

    Args:
        columns: what is known already.
        phases: of the worker.
        send: takes an event; checkpoints are sent as they come, a killed run keeps them.
        member: place of the run in its job.
    """

    def __init__(
        self, columns: Mapping[str, Any], phases: Phases, send: Send, member: int = 0
    ) -> None:
        self.columns, self.phases = dict(columns), phases
        self.metrics: dict[str, float] = {}
        self.info: dict[str, float | int | str | bool] = {}
        self.curve: list[dict[str, Any]] = []
        self.message = ""
        self.send, self.member = send, member

    @contextlib.contextmanager
    def booked(self, name: str, phase: Phase) -> Iterator[None]:
        """Add the seconds of the block, which is a phase, to a column."""
        began = time.perf_counter()
        try:
            with self.phases.during(phase):
                yield
        finally:
            self.columns[name] = self.columns.get(name, 0.0) + time.perf_counter() - began

    def checkpoint(self, point: dict[str, Any]) -> None:
        """Add a point to the curve, without the metrics that are not finite."""
        point = {name: value for name, value in point.items() if math.isfinite(value)}
        self.curve.append(point)
        self.send({"event": "checkpoint", "member": self.member, **point})

    def remark(self, text: str) -> None:
        """Add a sentence to the message of a run that goes on."""
        if text not in self.message:
            self.message = f"{self.message}; {text}" if self.message else text

    @contextlib.contextmanager
    def warned(self) -> Iterator[None]:
        """What libraries warn of in the block becomes part of the message, beside the log."""
        heard: set[str] = set()
        with warnings.catch_warnings():
            show = warnings.showwarning

            def hear(message: Warning | str, category: type[Warning], *place: Any) -> None:
                show(message, category, *place)
                text = " ".join(str(message).split())[:LONGEST_WARNING]
                if not issubclass(category, OF_CODE) and len(heard) < MOST_WARNINGS:
                    heard.add(text)
                    self.remark(f"{category.__name__}: {text}")

            warnings.showwarning = hear
            yield

    def certified(self, certificate: Certificate) -> None:
        """Note how a discrete solver stopped, and say so where that is short of its tolerance."""
        self.columns |= certificate.columns
        if certificate.stopped.short:
            self.remark(str(certificate))

    def memory(self, meter: MemoryMeter) -> None:
        """Note the peaks up to now."""
        meter.pause()
        self.columns["host_peak_mib"] = meter.host_peak_mib()
        self.columns["device_peak_mib"] = meter.device_peak_mib()

    def report(self, info: object) -> None:
        """Take what a solver says of itself; what no column can hold is said in the message."""
        kept, changed = columns(info)
        self.info |= kept
        for sentence in changed:
            self.remark(sentence)

    def finished(self) -> Result:
        """The result of a run that was scored."""
        import torch

        for name in [name for name, value in self.metrics.items() if not math.isfinite(value)]:
            self.remark(f"{name} is {self.metrics.pop(name)}: left out")
        # In torch's words since 2.9: `allow_tf32` cannot be read where a solver used them.
        allowed = getattr(torch.backends.cuda.matmul, "fp32_precision", None)
        tf32 = torch.backends.cuda.matmul.allow_tf32 if allowed is None else allowed == "tf32"
        columns = {**self.columns, "tf32": bool(cuda_in_use()) and tf32}
        return Result(Status.OK, self.message, columns, self.metrics, self.info, self.curve)

    def ended(self, status: Status, message: str, **columns: Any) -> Result:
        """The result of a run that ended otherwise, with what was measured before."""
        return Result(status, message, {**self.columns, **columns}, curve=self.curve)
