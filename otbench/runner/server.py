"""The coordinator's end of the fork server: its workers, what they send, and their limits.

`Server.step` is one turn of a loop over one selector: results and output of the workers, starts and
ends from the fork server, and ten times a second a look at the memory of each worker's process
tree. A worker says in which phase it is, and each phase is charged to its own limit: the imports,
the task's own work, or the solver's.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from otbench.job import Gpu, Job, Result
from otbench.runner.clock import MIB
from otbench.runner.devices import defaults
from otbench.runner.executor import Finished, Limits
from otbench.runner.outcome import NO_ROOM
from otbench.runner.processes import tree_memory
from otbench.statuses import Phase, Status


POLL_S = 0.1
LOG_BYTES = 64 * 1024  # of what a run prints, the end is kept
IMPORT_S = 300.0  # for a worker's imports
EVENT_BYTES = 64 * 2**20  # of an event that does not end


@dataclass
class Worker:
    """The coordinator's view of one job in flight."""

    job: int
    members: int
    slot: int
    events: int
    output: int
    gpu: Gpu | None = None
    gpu_runs: int = 1  # on its GPU at a time, the most so far
    phase: Phase = Phase.IMPORT
    since: float = field(default_factory=time.monotonic)  # when the phase began
    spent: defaultdict[str, float] = field(
        default_factory=lambda: defaultdict(float)
    )  # seconds before it, by who pays
    pid: int | None = None
    buffer: bytes = b""
    log: bytes = b""
    place: dict[str, Any] = field(default_factory=dict)
    results: dict[int, Result] = field(default_factory=dict)
    curves: defaultdict[int, list[dict[str, Any]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    killed: tuple[Status, str] | None = None

    @property
    def payer(self) -> str:
        """To whose limit the phase is charged."""
        return "task" if self.phase.of_task else "import" if self.phase == "import" else "solver"

    def enter(self, phase: Phase, now: float) -> None:
        """Note the beginning of a phase, and charge the one before."""
        self.spent[self.payer] += now - self.since
        self.phase, self.since = phase, now

    @property
    def counted(self) -> dict[str, int]:
        """The column that says how many shared the GPU."""
        return {} if self.gpu is None else {"gpu_runs": self.gpu_runs}

    def ended(self, status: Status, message: str) -> list[Finished]:
        """The results of its runs; of those that sent none, how the job ended."""
        status = Status.BROKEN if self.phase.of_task else status
        end = Result(status, message, {**self.place, **self.counted, "phase": self.phase})
        log = self.log.decode(errors="replace")
        results = [self.results.get(member, end) for member in range(self.members)]
        return [
            Finished(self.job, member, replace(result, curve=self.curves[member]), log)
            for member, result in enumerate(results)
        ]


def crowded_out(run: Finished) -> bool:
    """Whether a run that failed says, or has printed, that there was no room on the GPU."""
    failed = run.result.status in (Status.OOM, Status.ERROR, Status.CRASHED, Status.BROKEN)
    return failed and NO_ROOM.search(f"{run.result.message}\n{run.log}") is not None


class ServerDiedError(Exception):
    """The fork server is gone."""


class Server:
    """The coordinator's end of the fork server, and the workers it started."""

    def __init__(self, limits: Limits, threads: int, device: str = "cpu") -> None:
        self.limits, self.threads, self.device = limits, threads, device
        self.workers: dict[int, Worker] = {}
        self.selector = selectors.DefaultSelector()
        self.buffer = b""
        self.exits: list[tuple[int, int]] = []  # runs that ended, with their exit status
        self.ended: list[Finished] = []
        self.crowded: list[int] = []  # jobs that lacked GPU memory beside others
        self.last_look = 0.0
        self.spawn = False
        self.ready = False

    def __enter__(self) -> Server:
        ours, theirs = socket.socketpair()
        threads = str(self.threads)
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            **defaults(self.device),
        }
        command = [sys.executable, "-m", "otbench.runner.forkserver", str(theirs.fileno())]
        # A session of its own: Ctrl-C reaches the coordinator alone.
        self.process = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            env=environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        theirs.close()
        self.control = ours
        self.selector.register(ours, selectors.EVENT_READ)
        return self

    def __exit__(self, *_: object) -> None:
        if not self.ready:
            self.process.kill()  # it is importing, and has no worker yet
        with contextlib.suppress(OSError):
            self.control.shutdown(socket.SHUT_WR)  # the server kills its workers and ends
            self.control.settimeout(10)
            while self.control.recv(1 << 16):
                pass
        self.control.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for worker in self.workers.values():
            os.close(worker.events)
            os.close(worker.output)
        self.selector.close()

    def start(self, preload: Sequence[str], plugins: Sequence[str], runs: int = 1) -> None:
        """Import the frameworks; spawn instead of fork where importing them opened a device."""
        self.send({"preload": list(preload), "plugins": list(plugins), "runs": runs})
        answer = self.receive()
        while not answer:
            answer = self.receive()
        self.spawn = bool(answer[0]["unsafe"])
        self.ready = True

    def start_worker(self, place: int, slot: int, job: Job) -> None:
        """Have the fork server start a worker for a job."""
        events, their_events = os.pipe()
        output, their_output = os.pipe()
        worker = Worker(place, len(job.specs), slot, events, output, job.gpu)
        self.workers[place] = worker
        if job.gpu is not None:
            beside = [other for other in self.workers.values() if other.gpu == job.gpu]
            for other in beside:
                other.gpu_runs = max(other.gpu_runs, len(beside))
        request = json.dumps({"run": place, "job": job.to_json(), "spawn": self.spawn}) + "\n"
        try:
            socket.send_fds(self.control, [request.encode()], [their_events, their_output])
        except OSError as error:
            raise ServerDiedError from error
        finally:
            os.close(their_events)
            os.close(their_output)
        for fd in (events, output):
            os.set_blocking(fd, False)
            self.selector.register(fd, selectors.EVENT_READ, place)

    def drain(self) -> Iterator[Finished]:
        """The runs that ended since the last call."""
        while self.ended:
            yield self.ended.pop()

    def step(self) -> None:
        """Wait for something to happen, and see to it."""
        for key, _ in self.selector.select(0 if self.exits else POLL_S):
            if key.fileobj is self.control:
                self.take(self.receive())
            elif key.data in self.workers:
                self.read(self.workers[key.data], key.fd)
        while self.exits:
            place, status = self.exits.pop()
            worker, runs = self.workers[place], self.end_worker(place, status)
            if worker.gpu_runs > 1 and not worker.killed and any(map(crowded_out, runs)):
                self.crowded.append(place)
            else:
                self.ended += runs
        now = time.monotonic()
        if now - self.last_look >= POLL_S:
            self.last_look = now
            for worker in self.workers.values():
                self.watch(worker, now)

    def take(self, messages: list[dict[str, Any]]) -> None:
        """Note starts and ends of workers."""
        for message in messages:
            if "started" in message:
                self.workers[message["started"]].pid = message["pid"]
            elif "exit" in message:
                self.exits.append((message["exit"], message["status"]))

    def read(self, worker: Worker, fd: int) -> bool:
        """Take in what a worker sent or printed; False once there is nothing more for now."""
        try:
            data = os.read(fd, 1 << 16)
        except BlockingIOError:
            return False
        if not data:
            self.selector.unregister(fd)
        elif fd == worker.output:
            worker.log = (worker.log + data)[-LOG_BYTES:]
        else:
            *lines, worker.buffer = (worker.buffer + data).split(b"\n")
            worker.buffer = worker.buffer[-EVENT_BYTES:]
            for line in lines:
                self.note(worker, line)
        return bool(data)

    def note(self, worker: Worker, line: bytes) -> None:
        """One event of a worker. What is no event (a solver may write anywhere) is passed over."""
        try:
            event = json.loads(line)
            kind, member = event.pop("event"), event.pop("member", 0)
            if member not in range(worker.members):
                return
            if kind == "result":
                result = Result.from_json(event)
                measured = {**result.measured, **worker.counted}
                worker.results[member] = replace(result, measured=measured)
            elif kind == "phase" and not worker.killed:
                worker.enter(Phase(event["phase"]), time.monotonic())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return
        if kind == "checkpoint":
            worker.curves[member].append(event)
        elif kind in ("started", "resumed"):
            known = ("threads", "machine", "driver", "began", "resumed")
            worker.place |= {name: event[name] for name in known if name in event}

    def watch(self, worker: Worker, now: float) -> None:
        """Kill a worker that is over a limit."""
        if worker.killed:
            return
        together = f" for {worker.members} seeds together" if worker.members > 1 else ""
        limit_s, remedy = {
            "import": (IMPORT_S, "import it alone to see why"),
            "task": (worker.members * self.limits.task_seconds, "Limits.task_seconds gives more"),
            "solver": (worker.members * self.limits.seconds, "give more with --timeout"),
        }[worker.payer]
        limit = self.limits.bytes + self.limits.task_bytes * worker.phase.of_task
        if worker.spent[worker.payer] + now - worker.since > limit_s:
            spent = f"{limit_s:g} s{together}, in phase {worker.phase}"
            worker.killed = Status.TIMEOUT, f"killed after {spent}; {remedy}"
        elif worker.pid is not None and (used := tree_memory(worker.pid)) > limit:
            spent = f"{used / MIB:.0f} MiB, over the limit of {limit / MIB:.0f} MiB{together}"
            worker.killed = (
                Status.OOM,
                f"killed at {spent}, in phase {worker.phase}; give more with --memory",
            )
        if worker.killed:
            self.send({"kill": worker.job})

    def end_worker(self, place: int, status: int) -> list[Finished]:
        """The end of a job, with everything it still had to say."""
        worker = self.workers.pop(place)
        self.hear(worker)
        for fd in (worker.events, worker.output):
            if fd in self.selector.get_map():
                self.selector.unregister(fd)
            os.close(fd)
        if worker.killed:
            return worker.ended(*worker.killed)
        phase = f"in phase {worker.phase}"
        if status < 0:
            name = signal.Signals(-status).name
            hint = " (the kernel may have run out of memory)" if name == "SIGKILL" else ""
            return worker.ended(Status.CRASHED, f"died of {name}{hint}, {phase}")
        return worker.ended(
            Status.CRASHED, f"exited with status {status} without a result, {phase}"
        )

    def hear(self, worker: Worker) -> None:
        """Take in all that a worker has sent and printed up to now."""
        for fd in (worker.events, worker.output):
            while fd in self.selector.get_map() and self.read(worker, fd):
                pass

    def send(self, message: dict[str, Any]) -> None:
        """One line to the server."""
        try:
            self.control.sendall((json.dumps(message) + "\n").encode())
        except OSError as error:
            raise ServerDiedError from error

    def receive(self) -> list[dict[str, Any]]:
        """The complete lines that have come from the server."""
        try:
            data = self.control.recv(1 << 16)
        except ConnectionError:
            data = b""
        if not data:
            raise ServerDiedError
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        return [json.loads(line) for line in lines]
