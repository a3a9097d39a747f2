"""The local executor: every run in a process of its own on this machine, several at a time.

`Local.execute` is a loop over one selector: results and output of the workers, starts and ends from
the fork server, and ten times a second a look at the memory of each worker's process tree. A worker
says in which phase it is, and each phase is charged to its own limit: the imports, the task's own
work, or the solver's.
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
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from otbench.errors import UserError
from otbench.job import Job, Result
from otbench.registry import registry, requirements
from otbench.runner.clock import MIB
from otbench.runner.executor import Event, Finished, Limits, Started
from otbench.runner.processes import tree_memory
from otbench.statuses import Phase, Status


POLL_S = 0.1
LOG_BYTES = 64 * 1024  # of what a run prints, the end is kept
IMPORT_S = 300.0  # for a worker's imports
EVENT_BYTES = 64 * 2**20  # of an event that does not end

# What a worker may need and is slow to import, in this order. The rest is imported by the worker
# itself: a package that kills its importer kills one run.
FRAMEWORKS = ("torch", "jax", "ott", "ot")


@dataclass
class _Worker:
    """The coordinator's view of one job in flight."""

    job: int
    members: int
    slot: int
    events: int
    output: int
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

    def ended(self, status: Status, message: str) -> list[Finished]:
        """The results of its runs; of those that sent none, how the job ended."""
        status = Status.BROKEN if self.phase.of_task else status
        end = Result(status, message, {**self.place, "phase": self.phase})
        log = self.log.decode(errors="replace")
        results = [self.results.get(member, end) for member in range(self.members)]
        return [
            Finished(self.job, member, replace(result, curve=self.curves[member]), log)
            for member, result in enumerate(results)
        ]


class ServerDiedError(Exception):
    """The fork server is gone."""


class Local:
    """Runs jobs on this machine; an `otbench.runner.executor.Executor`."""

    def __init__(self, slots: int, limits: Limits) -> None:
        self.slots, self.limits = slots, limits
        self.cpus = core_sets(slots)
        self.threads = len(self.cpus[0])

    def execute(self, jobs: Sequence[Job]) -> Generator[Event, None, None]:
        """Run every job in a process of its own and yield what happens."""
        waiting = list(reversed(range(len(jobs))))
        suspects: set[int] = set()
        preload = preloaded(jobs)
        while waiting:
            first = jobs[waiting[-1]]
            with Server(self.limits, self.threads, first.specs[0].device) as server:
                try:
                    server.start(preload, first.plugins, len(waiting))
                    while waiting or server.workers or server.ended:
                        while waiting and server.has_room(
                            1 if suspects & {waiting[-1], *server.workers} else self.slots
                        ):
                            place, slot = waiting.pop(), server.free_slot(self.slots)
                            cpus = self.cpus[slot]
                            job = replace(jobs[place], cpus=tuple(cpus), threads=len(cpus))
                            server.start_worker(place, slot, job)
                            yield Started(place)
                        # Recording a run waits for the disk, so the slots are filled first.
                        yield from server.drain()
                        if server.workers:
                            server.step()
                except ServerDiedError:
                    yield from server.drain()
                    # A solver can kill the server. Whoever was in flight gets one more try, alone,
                    # so that only the culprit pays.
                    for worker in server.workers.values():
                        if worker.job in suspects:
                            server.hear(worker)
                            yield from worker.ended(
                                Status.CRASHED,
                                "took the process that started it down with it, in phase "
                                f"{worker.phase}",
                            )
                        else:
                            waiting.append(worker.job)
                            suspects.add(worker.job)
                    if not server.workers:
                        if not preload:
                            raise UserError(
                                "worker processes cannot be started: "
                                "`python -m otbench.runner.forkserver 0` shows why"
                            ) from None
                        preload = []  # it died importing: let each worker import its own


def preloaded(jobs: Iterable[Job]) -> list[str]:
    """What the fork server imports: the frameworks that the jobs need, and what the machine itself
    uses in every worker.
    """
    wanted: set[str] = set()
    setting = set()
    for task, solver, plugins in {(j.specs[0].task, j.specs[0].solver, j.plugins) for j in jobs}:
        wanted |= set(requirements(task, solver, plugins))
        setting.add(registry("task", plugins).entries[task].cls.setting)
    scored = ["scipy.optimize"] if "map" in setting else []
    return [*(name for name in FRAMEWORKS if name in wanted), "numpy.random", *scored]


def core_sets(jobs: int) -> list[list[int]]:
    """The machine's cores, dealt out to ``jobs`` workers (several share a core where there are more
    jobs than cores).
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = sorted(affinity(0)) if affinity else list(range(os.cpu_count() or 1))
    share = max(1, len(cores) // jobs)
    return [[cores[(slot * share + i) % len(cores)] for i in range(share)] for slot in range(jobs)]


class Server:
    """The coordinator's end of the fork server, and the workers it started."""

    def __init__(self, limits: Limits, threads: int, device: str = "cpu") -> None:
        self.limits, self.threads, self.device = limits, threads, device
        self.workers: dict[int, _Worker] = {}
        self.selector = selectors.DefaultSelector()
        self.buffer = b""
        self.exits: list[tuple[int, int]] = []  # runs that ended, with their exit status
        self.ended: list[Finished] = []
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
        }
        if self.device == "cpu":
            environment.setdefault("JAX_PLATFORMS", "cpu")  # else JAX takes the GPU that it finds
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
        self.workers[place] = _Worker(place, len(job.specs), slot, events, output)
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

    def has_room(self, slots: int) -> bool:
        """Whether another worker may start beside those alive."""
        return len(self.workers) < slots

    def free_slot(self, slots: int) -> int:
        """A set of cores that no worker is on."""
        return min(set(range(slots)) - {worker.slot for worker in self.workers.values()})

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
            self.ended += self.end_worker(*self.exits.pop())
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

    def read(self, worker: _Worker, fd: int) -> bool:
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

    def note(self, worker: _Worker, line: bytes) -> None:
        """One event of a worker. What is no event (a solver may write anywhere) is passed over."""
        try:
            event = json.loads(line)
            kind, member = event.pop("event"), event.pop("member", 0)
            if member not in range(worker.members):
                return
            if kind == "result":
                worker.results[member] = Result.from_json(event)
            elif kind == "phase" and not worker.killed:
                worker.enter(Phase(event["phase"]), time.monotonic())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return
        if kind == "checkpoint":
            worker.curves[member].append(event)
        elif kind in ("started", "resumed"):
            known = ("threads", "machine", "began", "resumed")
            worker.place |= {name: event[name] for name in known if name in event}

    def watch(self, worker: _Worker, now: float) -> None:
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

    def hear(self, worker: _Worker) -> None:
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
