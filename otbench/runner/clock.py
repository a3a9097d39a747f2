"""The clock and the meters of memory and load, which the runner owns and adapters never touch.

JAX and CUDA return before they compute: every reading of the clock waits for the device first.
``jax.block_until_ready`` over ``jax.live_arrays()`` waits without help from the adapter;
``effects_barrier()`` does not.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import psutil


if TYPE_CHECKING:
    import torch

    from otbench.solver import Transport

MIB = 2**20
OF_POINTS = ("push", "sample", "potential", "target_potential", "path")  # of a transport
LATE_S, LATE = 0.05, 2.0  # what a call takes more than a steady one, in seconds and in such calls
REPEATS = 3  # of a short fit or push
REPEAT_S = 5.0  # what is short, in seconds

S = TypeVar("S")
T = TypeVar("T")


def sync() -> None:
    """Wait until the devices have finished all that was asked of them."""
    for cuda in cuda_in_use():
        cuda.synchronize()
    for jax in jax_in_use():
        for platform in sys.modules["jax._src.xla_bridge"].backends():
            jax.block_until_ready(jax.live_arrays(platform))


def cuda_in_use() -> list:
    """``[torch.cuda]`` once torch has opened a CUDA device in this process, else nothing."""
    torch = sys.modules.get("torch")
    return [torch.cuda] if torch is not None and torch.cuda.is_initialized() else []


def jax_in_use() -> list:
    """``[jax]`` once JAX has opened a backend in this process, else nothing. (JAX has no public way
    to ask without opening one.)
    """
    bridge = sys.modules.get("jax._src.xla_bridge")
    return [sys.modules["jax"]] if bridge is not None and bridge.backends_are_initialized() else []


def jax_on_gpu() -> bool:
    """Whether JAX has opened a GPU in this process."""
    return any(jax.default_backend() != "cpu" for jax in jax_in_use())


class Clock:
    """Seconds of solver time. ``paused()`` stops it, synchronised, for scoring.

    Attributes:
        seconds: so far, up to its last stop.
        device_s: the same by the GPU: between a CUDA event as it started, the device idle, and one
            as it was stopped, behind all work on torch's current stream. None where torch had not
            opened CUDA all along, and where JAX, whose streams are its own, has opened the GPU.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.device_s: float | None = 0.0
        self._since: float | None = None
        self._event: Any = None

    def start(self) -> None:
        """Let it run."""
        sync()
        self._event = recorded_event()
        self._since = time.perf_counter()

    def stop(self) -> float:
        """Stop it once the devices are idle; the seconds so far."""
        end = recorded_event() if self._since is not None else None
        sync()
        if self._since is not None:
            self.seconds += time.perf_counter() - self._since
            if self._event is None or end is None or self.device_s is None or jax_on_gpu():
                self.device_s = None
            else:
                self.device_s += self._event.elapsed_time(end) / 1e3
            self._since = None
        return self.seconds

    @contextlib.contextmanager
    def paused(self) -> Iterator[float]:
        """The seconds so far, with the clock stopped inside the block."""
        try:
            yield self.stop()
        finally:
            self.start()


class MemoryMeter:
    """Peak memory of solver code in MiB, above what stood there before it: host (this process) and
    device.

    Linux lets a process reset its own high-water mark; elsewhere the host peak is that of the whole
    process.
    """

    def __init__(self) -> None:
        self._base = self._read("VmRSS")
        self._host_peak, self._device_peak = self._base, 0
        self.resume()

    def resume(self) -> None:
        """Start watching (again), forgetting what happened while paused."""
        for cuda in cuda_in_use():
            cuda.reset_peak_memory_stats()
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")

    def pause(self) -> None:
        """Take in the high-water marks since the last resume."""
        self._host_peak = max(self._host_peak, self._read("VmHWM"))
        for cuda in cuda_in_use():
            self._device_peak = max(self._device_peak, cuda.max_memory_allocated())

    def host_peak_mib(self) -> float:
        """Host peak above the start, of all the time not paused."""
        return max(0.0, (self._host_peak - self._base) / MIB)

    def device_peak_mib(self) -> float | None:
        """Device peak by torch's and JAX's own allocators (JAX's since it opened the device), None
        without a device.
        """
        peaks = [self._device_peak / MIB for _ in cuda_in_use()]
        for jax in jax_in_use():
            on_device = [device for device in jax.local_devices() if device.platform != "cpu"]
            peaks += [
                (device.memory_stats() or {}).get("peak_bytes_in_use", 0) / MIB
                for device in on_device
            ]
        return sum(peaks) if peaks else None

    @staticmethod
    def _read(field_name: str) -> int:
        """A memory field of this process in bytes: VmRSS (now) or VmHWM (high-water mark)."""
        try:
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith(field_name + ":"):
                    return int(line.split()[1]) * 1024
        except OSError:
            pass
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
            1 if sys.platform == "darwin" else 1024
        )


class LoadMeter:
    """CPU load by other processes: the share of the time of some cores that they take, from now on.

    The system counts in hundredths of a second, so of a tenth of a second the share is rough.

    Args:
        cpus: the cores; empty for all.
    """

    def __init__(self, cpus: Sequence[int] = ()) -> None:
        self.cpus = cpus
        self._before = self._look()

    def share(self) -> float | None:
        """From 0 to 1; None where the system does not say."""
        now = self._look()
        if now is None or self._before is None:
            return None
        total, busy, own = (after - before for after, before in zip(now, self._before, strict=True))
        return min(1.0, max(0.0, (busy - own) / total)) if total > 0 else None

    def _look(self) -> tuple[float, float, float] | None:
        """Seconds so far of the cores, those that they were busy, and those of this process."""
        try:
            cores = psutil.cpu_times(percpu=True)
            chosen = [cores[cpu] for cpu in self.cpus] or cores
        except (OSError, IndexError):
            return None
        # What guests of a virtual machine take is counted in the time of its user, too.
        guests = sum(getattr(c, "guest", 0) + getattr(c, "guest_nice", 0) for c in chosen)
        total = sum(map(sum, chosen)) - guests
        idle = sum(c.idle + getattr(c, "iowait", 0) for c in chosen)
        own = os.times()
        reaped = own.children_user + own.children_system
        return total, total - idle, time.process_time() + reaped


@dataclass
class CallTimes:
    """Seconds of the calls of a transport's functions, in whose first a solver might train.

    Attributes:
        calling: entered for each call.
        calls: points and seconds of each call, by the name of the function.
    """

    calling: Callable[[], contextlib.AbstractContextManager[None]]
    calls: dict[str, list[tuple[int, float]]] = field(default_factory=dict)

    def of(self, transport: Transport) -> Transport:
        """The transport with its functions of points timed."""
        functions = {name: getattr(transport, name) for name in OF_POINTS}
        return replace(
            transport,
            **{name: self._timed(name, f) for name, f in functions.items() if f is not None},
        )

    def repeat_single(self, transport: Transport, x: torch.Tensor) -> None:
        """Call once more what was called once, so that its steady time is known.

        Args:
            transport: as `of` gives it.
            x: test points.
        """
        more: dict[str, tuple[int, ...]] = {"sample": (1,), "path": ()}
        for name, arguments in more.items():
            if len(self.calls.get(name, ())) == 1:
                getattr(transport, name)(x.clone(), *arguments)

    def late(self) -> float:
        """Seconds above what the calls take once they are steady: work of the fit, put off."""
        total = 0.0
        for calls in self.calls.values():
            steady = min(seconds / points for points, seconds in calls)
            for points, seconds in calls:
                late = seconds - points * steady
                total += late if late > max(LATE_S, LATE * points * steady) else 0.0
        return total

    def _timed(self, name: str, function: Callable[..., T]) -> Callable[..., T]:
        def call(x: torch.Tensor, *args: Any) -> T:
            with self.calling():
                value, seconds = timed(lambda: function(x, *args))
            self.calls.setdefault(name, []).append((max(1, len(x)), seconds))
            return value

        return call


def recorded_event() -> Any:
    """A CUDA event on torch's current stream, None where torch has not opened CUDA."""
    for cuda in cuda_in_use():
        event = cuda.Event(enable_timing=True)
        event.record()
        return event
    return None


def timed(call: Callable[[], T]) -> tuple[T, float]:
    """The value of a call and its seconds, the devices idle before and after."""
    value, clock = clocked(call)
    return value, clock.seconds


def clocked(call: Callable[[], T]) -> tuple[T, Clock]:
    """The value of a call and the clock that ran for it."""
    clock = Clock()
    clock.start()
    value = call()
    clock.stop()
    return value, clock


def repeated(
    call: Callable[[S], object], argument: Callable[[], S], first: float
) -> tuple[float, float | None] | None:
    """Median seconds of up to `REPEATS` more calls, each with a fresh argument, as long as all
    together have taken less than `REPEAT_S`, and the median of them by the GPU (`Clock.device_s`);
    None where the first alone took longer.
    """
    clocks: list[Clock] = []
    while len(clocks) < REPEATS and first + sum(clock.seconds for clock in clocks) < REPEAT_S:
        value = argument()
        clocks.append(clocked(lambda value=value: call(value))[1])
    if not clocks:
        return None
    on_device = [clock.device_s for clock in clocks if clock.device_s is not None]
    whole = len(on_device) == len(clocks)
    seconds = statistics.median(clock.seconds for clock in clocks)
    return seconds, statistics.median(on_device) if whole else None
