"""Isolation: every run in a process of its own, with a time and a memory limit, several at a time.

`execute` is a loop over one selector: results and output of the workers, births and deaths from the
fork server, and ten times a second a look at the memory of each worker's process tree. Time limits
count from the moment a worker has finished its imports.
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
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from otbench.errors import UserError
from otbench.runner.clock import MIB
from otbench.runner.processes import tree_memory
from otbench.statuses import Status


POLL_S = 0.1
LOG_BYTES = 64 * 1024  # of what a run prints, the end is kept
IMPORT_S = 120.0  # for a worker's imports, beside the time limit
EVENT_BYTES = 64 * 2**20  # of an event that does not end


@dataclass(frozen=True)
class Limits:
    """Seconds that one run may take, and bytes that one process may (several runs share it where
    seeds are solved together).
    """

    seconds: float
    bytes: int


@dataclass
class Started:
    """A run began. ``id`` is its place in the list of jobs."""

    id: int


@dataclass
class Finished:
    """A run ended: its place among the members of its job, the fields of its row, and the end of
    what it printed.
    """

    id: int
    member: int
    fields: dict[str, Any]
    log: str


@dataclass
class _Worker:
    """The coordinator's view of one job in flight."""

    id: int
    members: int
    slot: int
    events: int
    output: int
    deadline: float
    started: bool = False
    pid: int | None = None
    buffer: bytes = b""
    log: bytes = b""
    results: dict[int, dict[str, Any]] = field(default_factory=dict)
    curves: defaultdict[int, list[dict[str, Any]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    resumed: dict[str, int] = field(default_factory=dict)
    killed: tuple[Status, str] | None = None

    def ended(self, status: Status, message: str) -> list[Finished]:
        """The results of its runs; of those that sent none, how the job ended."""
        end, log = {"status": status, "message": message}, self.log.decode(errors="replace")
        members = range(self.members)
        return [
            Finished(
                self.id,
                i,
                {**self.results.get(i, end), **self.resumed, "curve": self.curves[i]},
                log,
            )
            for i in members
        ]


class ServerDiedError(Exception):
    """The fork server is gone."""


def core_sets(jobs: int) -> list[list[int]]:
    """The machine's cores, dealt out to ``jobs`` workers (several share a core where there are more
    jobs than cores).
    """
    cores = (
        sorted(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else list(range(os.cpu_count() or 1))
    )
    share = max(1, len(cores) // jobs)
    return [[cores[(slot * share + i) % len(cores)] for i in range(share)] for slot in range(jobs)]


def execute(
    jobs: Sequence[dict[str, Any]],
    *,
    slots: int,
    limits: Limits,
    preload: Sequence[str],
    plugins: Sequence[str],
) -> Generator[Started | Finished, None, None]:
    """Run every job in a process of its own, ``slots`` at a time, and yield what happens. Closing
    the iterator kills what is running.

    Args:
        jobs: as `RunSpec.job` makes them, all for one device; ``cpus`` and ``threads`` are set
            here.
        slots: workers at a time.
        limits: per run.
        preload: import names of the frameworks the workers need.
        plugins: as on the command line.
    """
    waiting = list(reversed(range(len(jobs))))
    suspects: set[int] = set()
    cpus = core_sets(slots)
    while waiting:
        with Server(limits, len(cpus[0]), jobs[0]["device"]) as server:
            try:
                server.start(preload, plugins, len(waiting))
                while waiting or server.workers or server.ended:
                    while waiting and server.has_room(
                        1 if suspects & {waiting[-1], *server.workers} else slots
                    ):
                        id, slot = waiting.pop(), server.free_slot(slots)
                        server.bear(
                            id, slot, {**jobs[id], "cpus": cpus[slot], "threads": len(cpus[slot])}
                        )
                        yield Started(id)
                    # Recording a run waits for the disk, so the slots are filled first.
                    yield from server.drain()
                    if server.workers:
                        server.step()
            except ServerDiedError:
                yield from server.drain()
                # A solver can kill the server. Whoever was in flight gets one more try, alone, so
                # that only the culprit pays.
                for worker in server.workers.values():
                    if worker.id in suspects:
                        yield from worker.ended(
                            Status.CRASHED, "took the process that started it down with it"
                        )
                    else:
                        waiting.append(worker.id)
                        suspects.add(worker.id)
                if not server.workers:
                    if not preload:
                        raise UserError(
                            "worker processes cannot be started: `python -m otbench.runner.forkserver 0` shows why"
                        ) from None
                    preload = []  # it died importing the frameworks: let each worker import its own


class Server:
    """The coordinator's end of the fork server, and the workers it bore."""

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

    def bear(self, id: int, slot: int, job: dict[str, Any]) -> None:
        """Have a worker started."""
        events, their_events = os.pipe()
        output, their_output = os.pipe()
        members = len(job["members"])
        self.workers[id] = _Worker(
            id,
            members,
            slot,
            events,
            output,
            time.monotonic() + members * self.limits.seconds + IMPORT_S,
        )
        request = json.dumps({"run": id, "job": job, "spawn": self.spawn}) + "\n"
        try:
            socket.send_fds(self.control, [request.encode()], [their_events, their_output])
        except OSError as error:
            raise ServerDiedError from error
        finally:
            os.close(their_events)
            os.close(their_output)
        for fd in (events, output):
            os.set_blocking(fd, False)
            self.selector.register(fd, selectors.EVENT_READ, id)

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
            self.ended += self.bury(*self.exits.pop())
        now = time.monotonic()
        if now - self.last_look >= POLL_S:
            self.last_look = now
            for worker in self.workers.values():
                self.watch(worker, now)

    def take(self, messages: list[dict[str, Any]]) -> None:
        """Note births and deaths."""
        for message in messages:
            if "born" in message:
                self.workers[message["born"]].pid = message["pid"]
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
            kind = event.pop("event")
        except (ValueError, KeyError, AttributeError):
            return
        if kind == "started":
            worker.started = True
            worker.deadline = time.monotonic() + worker.members * self.limits.seconds
        elif kind == "checkpoint":
            worker.curves[event.pop("member", 0)].append(event)
        elif kind == "resumed":
            worker.resumed = event
        elif kind == "result":
            worker.results[event.pop("member", 0)] = event

    def watch(self, worker: _Worker, now: float) -> None:
        """Kill a worker that is over a limit."""
        if worker.killed:
            return
        together = f" for {worker.members} seeds together" if worker.members > 1 else ""
        if now > worker.deadline:
            limit = worker.members * self.limits.seconds
            spent = f"{limit:g} s" if worker.started else f"{limit + IMPORT_S:g} s of importing"
            worker.killed = (
                Status.TIMEOUT,
                f"killed after {spent}{together}; give more with --timeout",
            )
        elif worker.pid is not None and (used := tree_memory(worker.pid)) > self.limits.bytes:
            limit = self.limits.bytes / MIB
            spent = f"{used / MIB:.0f} MiB, over the limit of {limit:.0f} MiB{together}"
            worker.killed = Status.OOM, f"killed at {spent}; give more with --memory"
        if worker.killed:
            self.send({"kill": worker.id})

    def bury(self, id: int, status: int) -> list[Finished]:
        """The end of a job, with everything it still had to say."""
        worker = self.workers.pop(id)
        for fd in (worker.events, worker.output):
            if fd in self.selector.get_map():
                while self.read(worker, fd):
                    pass
            if fd in self.selector.get_map():
                self.selector.unregister(fd)
            os.close(fd)
        if worker.killed:
            return worker.ended(*worker.killed)
        if status < 0:
            name = signal.Signals(-status).name
            hint = " (the kernel may have run out of memory)" if name == "SIGKILL" else ""
            return worker.ended(Status.CRASHED, f"died of {name}{hint}")
        return worker.ended(Status.CRASHED, f"exited with status {status} without a result")

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
