"""A process that has the frameworks imported and starts one worker per job.

The coordinator starts it as ``python -m otbench.runner.forkserver FD`` and talks over a socket, one
JSON object per line:

    -> {"preload": [...], "plugins": [...], "runs": n}      <- {"ready": true, "unsafe": reason}
    -> {"run": n, "job": {...}, "spawn": bool}              <- {"started": n, "pid": n}
       with two descriptors (events, output)                <- {"exit": n, "status": n}
    -> {"kill": n}

Each worker leads a session of its own. Worker and server adopt orphans (Linux), so whatever a
solver started, however it detached itself, is found and killed when its run ends; and all die with
the coordinator, even by SIGKILL: the closed socket says so.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import time
import warnings
from typing import Any

from otbench.environments import interpreter
from otbench.job import Job
from otbench.registry import registry
from otbench.runner import worker
from otbench.runner.clock import jax_in_use
from otbench.runner.processes import children


PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
MADV_COLLAPSE, HUGE_PAGE = 25, 2**21
CUDA_NOT_INITIALIZED = 3  # of the driver's results
MAX_DESCRIPTORS = 128  # in one reading of the socket
COLLAPSE_FROM = 50  # runs: it takes as long as it saves on about so many


class ForkServer:
    """The server's state: the socket and the workers alive."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.buffer = b""
        self.descriptors: list[int] = []
        self.workers: dict[int, int] = {}  # pid -> id
        self.imported: dict[str, float] = {}

    def serve(self) -> None:
        """Until the coordinator goes away."""
        adopt_orphans()
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        os.set_blocking(wake_read, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        selector = selectors.DefaultSelector()
        selector.register(self.control, selectors.EVENT_READ)
        selector.register(wake_read, selectors.EVENT_READ)
        try:
            while True:
                for key, _ in selector.select():
                    if key.fileobj == wake_read:
                        os.read(wake_read, 4096)
                        self.reap()
                    else:
                        self.take()
        except (ConnectionError, EOFError):
            pass  # the coordinator is gone
        finally:
            for pid in self.workers:
                kill_group(pid)
            self.reap()
            kill_orphans(())

    def take(self) -> None:
        """Read what the coordinator sent and do it."""
        data, descriptors, _, _ = socket.recv_fds(self.control, 1 << 16, MAX_DESCRIPTORS)
        if not data:
            raise EOFError
        self.descriptors += descriptors
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        for request in map(json.loads, lines):
            if "preload" in request:
                self.preload(request["preload"], request["plugins"], request["runs"])
            elif "run" in request:
                self.start_worker(request)
            elif "kill" in request:
                for pid in [pid for pid, name in self.workers.items() if name == request["kill"]]:
                    kill_group(pid)

    def preload(self, names: list[str], plugins: list[str], runs: int) -> None:
        """Import what workers will need, and say whether forking is still safe."""
        gc.disable()  # imports make no garbage worth the fifth of their time that looking takes
        for name in names:
            began = time.perf_counter()
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
                self.imported[name] = time.perf_counter() - began
        for kind in ("task", "solver"):
            registry(kind, tuple(plugins))
        gc.freeze()  # keeps the collector from touching, and so copying, the pages workers share
        gc.enable()
        if runs >= COLLAPSE_FROM:
            collapse_pages()
        opened = [*(["CUDA"] if cuda_is_open() else []), *(["JAX"] if jax_in_use() else [])]
        self.reply(
            {
                "ready": True,
                "unsafe": f"importing opened {' and '.join(opened)}" if opened else None,
            }
        )

    def start_worker(self, request: dict[str, Any]) -> None:
        """Fork one worker."""
        # Descriptors come no later than the bytes they were sent with, and in their order.
        events, output, *self.descriptors = self.descriptors
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # JAX warns of any fork; here no backend is open
            pid = os.fork()
        if pid == 0:
            self.become_worker(request, events, output)
        os.close(events)
        os.close(output)
        self.workers[pid] = request["run"]
        self.reply({"started": request["run"], "pid": pid})

    def become_worker(self, request: dict[str, Any], events: int, output: int) -> None:
        """In the child: detach from the server, then run. Never returns."""
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            die_with_parent()
            adopt_orphans()
            self.control.close()
            for stream in (1, 2):
                os.dup2(output, stream)
            os.close(output)
            job = Job.from_json(request["job"])
            if job.gpu is not None:
                # Before CUDA is opened, which reads it once: `preload` sees to it that it is not.
                os.environ["CUDA_VISIBLE_DEVICES"] = job.gpu.visible
            python = interpreter_of(job)
            if request["spawn"] or python != sys.executable:
                os.set_inheritable(events, True)
                module = ["-m", "otbench.runner.worker", str(events), json.dumps(request["job"])]
                os.execv(python, [python, *module])
            worker.perform(job, worker.sender(events), self.imported)
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(0)

    def reap(self) -> None:
        """Collect the workers that ended, and kill whatever they left running."""
        while True:
            try:
                # Look without reaping: while the leader is not collected, the number of its group
                # cannot be another's.
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            pid = ended.si_pid
            if pid in self.workers:
                kill_group(pid)
            _, status = os.waitpid(pid, 0)
            kill_orphans(self.workers)
            if pid in self.workers:
                self.reply(
                    {"exit": self.workers.pop(pid), "status": os.waitstatus_to_exitcode(status)}
                )

    def reply(self, message: dict[str, Any]) -> None:
        """One line to the coordinator."""
        with contextlib.suppress(BrokenPipeError):
            self.control.sendall((json.dumps(message) + "\n").encode())


def cuda_is_open() -> bool:
    """Whether anything in this process has opened the CUDA driver (`cuInit`).

    Workers forked from it could not use CUDA, nor choose a GPU. A package may do so without opening
    a device, such as by ``torch.cuda.is_available()``, and then ``torch.cuda.is_initialized()``
    does not tell.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1", mode=os.RTLD_NOLOAD)  # only where it is loaded
    except OSError:
        return False
    return driver.cuCtxGetDevice(ctypes.byref(ctypes.c_int())) != CUDA_NOT_INITIALIZED


def interpreter_of(job: Job) -> str:
    """The Python that runs the job: this one, or that of the solver's own environment."""
    solver = registry("solver", job.plugins).entries[job.specs[0].solver]
    return interpreter(solver.name, solver.cls.environment)


def kill_group(pid: int) -> None:
    """SIGKILL to a worker and to the group it leads, which it does from its first moments on."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def kill_orphans(workers: Any) -> None:
    """SIGKILL to the children that are no workers: orphans of a dead worker, handed to this
    process.
    """
    while orphans := [pid for pid in children(os.getpid()) if pid not in workers]:
        for pid in orphans:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in orphans:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)  # its own children come next


def collapse_pages() -> None:
    """Move this process's private memory to huge pages where the kernel can (Linux 6.1): there are
    fewer pages to copy at every fork.

    Memory that a worker allocates later is on ordinary pages, as it would be anywhere.
    """
    if sys.platform != "linux":
        return
    madvise = ctypes.CDLL(None).madvise
    with open("/proc/self/maps", errors="replace") as maps:
        for area, access, _, _, inode, *_ in map(str.split, maps):
            if access == "rw-p" and inode == "0":
                start, end = (int(address, 16) for address in area.split("-"))
                start, end = -(-start // HUGE_PAGE) * HUGE_PAGE, end // HUGE_PAGE * HUGE_PAGE
                if end > start:
                    madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), MADV_COLLAPSE)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies (Linux)."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def adopt_orphans() -> None:
    """Become the parent of orphaned descendants (Linux)."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the coordinator's to handle
    ForkServer(socket.socket(fileno=int(sys.argv[1]))).serve()
