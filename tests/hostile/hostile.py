"""Solvers that misbehave, one way each. Read as a plugin by the tests of the runner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from typing import ClassVar

from otbench import (
    SQEUCLIDEAN,
    DiscreteProblem,
    DivergedError,
    MissingError,
    Problem,
    Solver,
    Task,
    Transport,
    Truth,
)
from otbench.problem import LazyTruth


@dataclass(frozen=True)
class Hostile(Solver):
    """Does what ``act`` names, in its fit or its push."""

    name: ClassVar[str] = "hostile"
    act: str = "none"
    seconds: float = 0.0
    path: str = ""

    def supports(self, problem: Problem) -> str | None:
        """Refuse on demand."""
        if self.act == "refuse_oddly":
            return True  # pyright: ignore[reportReturnType]
        return "does not feel like it" if self.act == "refuse" else None

    def fit(self, problem: Problem, context) -> Transport:
        """Misbehave."""
        return getattr(self, "_" + self.act)(problem, context)

    def _none(self, problem, context):
        return Transport(push=lambda x: x.clone())

    def _hang(self, problem, context):
        while True:
            time.sleep(1)

    def _busy_hang(self, problem, context):
        while True:
            pass

    def _ignore_sigterm(self, problem, context):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        return self._hang(problem, context)

    def _allocate(self, problem, context):
        hoard = []
        while True:
            hoard.append(bytearray(os.urandom(1 << 20)) * 32)

    def _segfault(self, problem, context):
        import ctypes

        ctypes.string_at(0)

    def _raise(self, problem, context):
        raise RuntimeError("the method\nfell over")

    def _nan(self, problem, context):
        return Transport(push=lambda x: x * float("nan"))

    def _nan_training(self, problem, context):
        raise DivergedError("the loss is not finite at step 3")

    def _wrong_shape(self, problem, context):
        return Transport(push=lambda x: x.repeat(1, 2)[:, : 3 - x.shape[1]])

    def _wrong_device(self, problem, context):
        return Transport(push=lambda x: x.to("meta"))

    def _wrong_dtype(self, problem, context):
        return Transport(push=lambda x: x.double())

    def _wrong_type(self, problem, context):
        return Transport(push=lambda x: x.numpy())  # pyright: ignore[reportArgumentType]

    def _no_push(self, problem, context):
        return Transport()

    def _no_transport(self, problem, context):
        return lambda x: x

    def _odd_info(self, problem, context):
        return Transport(push=lambda x: x.clone(), info={"history": [1, 2]})  # pyright: ignore[reportArgumentType]

    def _nan_info(self, problem, context):
        """Report what is no number, and a text that is none."""
        info = {"loss": float("nan"), "name": "\ud800", "steps": 3}
        return Transport(push=lambda x: x.clone(), info=info)

    def _nan_step(self, problem, context):
        """Offer a state of no step."""
        context.checkpoint(float("nan"), Transport(push=lambda x: x.clone()))
        return Transport(push=lambda x: x.clone())

    def _print_gigabyte(self, problem, context):
        line = b"x" * (1 << 20) + b"\n"
        for _ in range(1024):
            os.write(1, line)
        return self._none(problem, context)

    def _print_events(self, problem, context):
        print('{"event": "result", "status": "ok", "metric_l2_uvp": 0.0}', flush=True)
        print("\x00\xff not utf-8", flush=True)
        sys.stderr.write("and to stderr\n")
        return self._none(problem, context)

    def _write_everywhere(self, problem, context):
        for fd in range(3, 64):
            try:
                os.write(fd, b'\n{"event": "checkpoint", "member": [1]}\nnoise\n')
                os.write(fd, b'{"event": "result", "member": 7, "status": "ok"}\n')
            except OSError:
                continue
        return self._none(problem, context)

    def _forge(self, problem, context):
        """Send a result of its own."""
        self._send(b'{"event": "result", "status": "splendid"}')

    def _forge_columns(self, problem, context):
        """Send one whose columns are those of the run itself."""
        self._send(b'{"event": "result", "status": "ok", "measured": {"task": "mine"}}')

    def _send(self, event):
        for fd in range(3, 64):
            try:
                os.write(fd, b"\n" + event + b"\n")
            except OSError:
                continue
        os._exit(0)

    def _close_everything(self, problem, context):
        os.closerange(0, 1024)
        return self._none(problem, context)

    def _exit(self, problem, context):
        sys.exit(3)

    def _exit_hard(self, problem, context):
        os._exit(0)

    def _fork_children(self, problem, context):
        for _ in range(3):
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:  # a daemon, twice detached
                    self._note_pid()
                    time.sleep(3600)
                os._exit(0)
        subprocess.Popen(["sleep", "3600"], start_new_session=True)
        time.sleep(0.3)
        return self._none(problem, context)

    def _note_pid(self):
        with open(self.path, "a") as file:
            file.write(f"{os.getpid()}\n")

    def _children_hoard(self, problem, context):
        if os.fork() == 0:
            self._allocate(problem, context)
        return self._hang(problem, context)

    def _kill_parent(self, problem, context):
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(3600)

    def _kill_self(self, problem, context):
        os.kill(os.getpid(), signal.SIGKILL)

    def _sleep_in_fit(self, problem, context):
        time.sleep(self.seconds)
        return self._none(problem, context)

    def _sleep_in_push(self, problem, context):
        def push(x):
            time.sleep(self.seconds)
            return x.clone()

        return Transport(push=push)

    def _die_in_push(self, problem, context):
        return Transport(push=lambda x: os.kill(os.getpid(), signal.SIGKILL))  # pyright: ignore[reportArgumentType]

    def _sleep_in_sample(self, problem, context):
        def sample(x, k):
            time.sleep(self.seconds)
            return x[:, None].repeat_interleave(k, 1)

        return Transport(push=lambda x: x.clone(), sample=sample)

    def _checkpoints(self, problem, context):
        for step in range(3):
            time.sleep(self.seconds)
            context.checkpoint(step, Transport(push=lambda x: x.clone()))
        return self._none(problem, context)

    def _checkpoint_then_hang(self, problem, context):
        context.checkpoint(1, Transport(push=lambda x: x.clone()))
        return self._hang(problem, context)

    def _global_random(self, problem, context):
        import random

        import numpy as np
        import torch

        draws = float(torch.rand(1)) + random.random() + np.random.rand()  # noqa: NPY002
        mine, common = torch.randn(99, generator=context.generator), torch.randn(99)
        alike = float(torch.corrcoef(torch.stack([mine, common]))[0, 1])
        return Transport(push=lambda x: x.clone(), info={"draws": draws, "alike": alike})

    def _keep_memory(self, problem, context):
        hoard = bytearray(os.urandom(1 << 20)) * 300
        return Transport(push=lambda x: x + 0 * hoard[0])

    def _lazy_plan(self, problem, context):
        def plan(pair):
            time.sleep(self.seconds)
            return pair.a[:, None] * pair.b

        return Transport(plan=plan)

    def _lazy_first_plan(self, problem, context):
        trained = []

        def plan(pair):
            if not trained:
                time.sleep(self.seconds)
                trained.append(True)
            return pair.a[:, None] * pair.b

        return Transport(plan=plan)

    def _negative_plan(self, problem, context):
        def plan(pair):
            plan = pair.a[:, None] * pair.b
            plan[0, 0] -= 1
            plan[0, 1] += 1
            return plan

        return Transport(plan=plan)

    def _spoil_problem(self, problem, context):
        problem.x.zero_()
        problem.y.zero_()
        return Transport(plan=lambda pair: pair.a[:, None] * pair.b)

    def _plain_plan(self, problem, context):
        return Transport(plan=lambda pair: pair.a[:, None] * pair.b)

    def _gradients(self, problem, context):
        import torch

        weight = torch.ones(1, requires_grad=True)
        return Transport(push=lambda x: x * weight)

    def _allocate_at_once(self, problem, context):
        import torch

        return Transport(push=lambda x: torch.empty(10**14))

    def _close_stderr(self, problem, context):
        sys.stderr.close()
        raise RuntimeError("nobody hears")

    def _hold_memory(self, problem, context):
        hoard = bytearray(os.urandom(1 << 20)) * 300
        del hoard
        return self._none(problem, context)


@dataclass(frozen=True)
class SleepyImport(Solver):
    """Needs a package that takes its time to import."""

    name: ClassVar[str] = "sleepy-import"
    needs: ClassVar[tuple[str, ...]] = ("otbench_sleepy_package",)

    def fit(self, problem: Problem, context) -> Transport:
        """Nothing."""
        import otbench_sleepy_package  # pyright: ignore[reportMissingImports]  # noqa: F401

        return Transport(push=lambda x: x.clone())


@dataclass(frozen=True)
class NeedsAbsent(Solver):
    """Needs a package that nobody has."""

    name: ClassVar[str] = "needs-absent"
    needs: ClassVar[tuple[str, ...]] = ("package_that_is_not_there",)

    def fit(self, problem: Problem, context) -> Transport:
        """Never reached."""
        raise AssertionError


@dataclass(frozen=True)
class AsyncJax(Solver):
    """Returns at once, with the computation still going on in JAX."""

    name: ClassVar[str] = "async-jax"
    needs: ClassVar[tuple[str, ...]] = ("jax",)
    size: int = 400

    def fit(self, problem: Problem, context) -> Transport:
        """A chain of matrix products, as long as ``size`` makes it.

        Its ``info`` says whether it was done when this returned, and after how many seconds a push
        had its result.
        """
        import jax
        import jax.numpy as jnp

        @jax.jit
        def chain(a):
            return jax.lax.fori_loop(0, self.size, lambda _, b: jnp.tanh(b @ a), a)

        began = time.perf_counter()
        result = chain(jnp.full((400, 400), 1e-3))
        info: dict[str, float | str] = {"ready": int(result.is_ready())}

        def push(x):
            pushed = x + 0 * float(result[0, 0])
            info.setdefault("done_s", time.perf_counter() - began)
            return pushed

        return Transport(push=push, info=info)


@dataclass(frozen=True)
class AsyncTorch(Solver):
    """Returns at once, with the matrix products still queued on the GPU."""

    name: ClassVar[str] = "async-torch"
    size: int = 200
    wait: bool = False

    def fit(self, problem: Problem, context) -> Transport:
        """A chain of matrix products, as long as ``size`` makes it."""
        import torch

        a = torch.full((4096, 4096), 1e-4, device=context.device)
        b = a
        for _ in range(self.size):
            b = torch.tanh(b @ a)
        if self.wait:
            torch.cuda.synchronize()
        return Transport(push=lambda x: x + 0 * b[0, 0])


@dataclass(frozen=True)
class NoData(Task):
    """Its file is absent."""

    name: ClassVar[str] = "no-data"

    def problem(self, rng, *, device, dtype):
        """Never built."""
        raise MissingError("no data file x.npz: put it there")


@dataclass(frozen=True)
class BrokenTask(Task):
    """Falls over while it is built."""

    name: ClassVar[str] = "broken-task"

    def problem(self, rng, *, device, dtype):
        """Never built."""
        raise ZeroDivisionError("of the task")


@dataclass(frozen=True)
class Laborious(Task):
    """Two points, whose problem or truth is ``where`` something happens, as ``act`` has it."""

    name: ClassVar[str] = "laborious"
    setting: ClassVar[str] = "discrete"
    where: str = "build"
    act: str = "none"
    seconds: float = 0.0

    def problem(self, rng, *, device, dtype):
        """The problem."""
        import torch

        if self.where == "build":
            self._act()
        x, a = torch.arange(2, device=device, dtype=dtype)[:, None], torch.full((2,), 0.5)
        pair = DiscreteProblem(x, a, x, a, SQEUCLIDEAN, Truth("none"))
        return replace(pair, truth=LazyTruth("lp", self._solved, pair))

    def _solved(self, pair):
        import torch

        if self.where == "truth":
            self._act()
        return Truth("lp", 0.0, plan=torch.diag(pair.a))

    def _act(self):
        if self.act == "sleep":
            time.sleep(self.seconds)
        elif self.act == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.act == "hoard":
            hoard = bytearray(os.urandom(1 << 20)) * 900
            time.sleep(0.5)
            del hoard
