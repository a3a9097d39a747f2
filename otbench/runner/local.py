"""The local executor: every run in a process of its own on this machine, several at a time.

Slots have a GPU each, or share them round-robin. What fails for want of GPU memory beside others is
done again, alone on a GPU, once the others are done, and only then told.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence, Set
from dataclasses import replace

from otbench.errors import UserError
from otbench.job import Gpu, Job
from otbench.registry import registry, requirements
from otbench.runner.executor import Event, Limits, Started
from otbench.runner.server import Server, ServerDiedError, Worker
from otbench.statuses import Status


# What a worker may need and is slow to import, in this order. The rest is imported by the worker
# itself: a package that kills its importer kills one run.
FRAMEWORKS = ("torch", "jax", "ott", "ot")


class Local:
    """Runs jobs on this machine; an `otbench.runner.executor.Executor`."""

    def __init__(self, slots: int, limits: Limits, gpus: Sequence[Gpu] = ()) -> None:
        self.slots, self.limits = slots, limits
        self.gpus = [gpus[slot % len(gpus)] if gpus else None for slot in range(slots)]
        self.cpus = core_sets(slots)
        self.threads = len(self.cpus[0])

    def execute(self, jobs: Sequence[Job]) -> Generator[Event, None, None]:
        """Run every job in a process of its own and yield what happens."""
        waiting = list(reversed(range(len(jobs))))
        suspects: set[int] = set()
        alone: set[int] = set()
        preload = preloaded(jobs)
        while waiting:
            first = jobs[waiting[-1]]
            with Server(self.limits, self.threads, first.specs[0].device) as server:
                try:
                    server.start(preload, first.plugins, len(waiting))
                    while waiting or server.workers or server.ended:
                        while waiting:
                            place = waiting[-1]
                            slot = self.slot(server.workers, place, suspects, alone)
                            if slot is None:
                                break
                            waiting.pop()
                            job = self.placed(jobs[place], slot)
                            # A fit that others slowed down is begun anew.
                            job = replace(job, saving=None) if place in alone else job
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
                waiting[:0] = server.crowded  # last of all
                alone |= {*server.crowded}

    def slot(
        self, workers: Mapping[int, Worker], place: int, suspects: Set[int], alone: Set[int]
    ) -> int | None:
        """The slot that a job can start in now, on a GPU with the fewest others; None where it must
        wait.

        Args:
            workers: those alive, by the place of their job.
            place: of the job.
            suspects: jobs that run beside no other.
            alone: jobs that run beside no other on their GPU. They wait for the others to end, so
                that no other comes beside them either.
        """
        if len(workers) >= (1 if suspects & {place, *workers} else self.slots):
            return None
        held = Counter(worker.gpu for worker in workers.values())
        free = set(range(self.slots)) - {worker.slot for worker in workers.values()}
        best = min(free, key=lambda slot: (held[self.gpus[slot]], slot))
        return None if place in alone and held[self.gpus[best]] else best

    def placed(self, job: Job, slot: int) -> Job:
        """The job with the cores and the GPU of a slot."""
        cpus = self.cpus[slot]
        return replace(job, cpus=tuple(cpus), threads=len(cpus), gpu=self.gpus[slot])


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
