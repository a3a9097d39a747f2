"""What a person sees while runs go on: a live display on a terminal or in a notebook, plain lines
elsewhere.
"""

from __future__ import annotations

from collections import Counter

from rich import progress
from rich.console import Console
from rich.text import Text

from otbench.job import Row
from otbench.statuses import UNDECIDED, Status


class Progress:
    """Counts runs as they start and end. Use as a context manager.

    Args:
        total: runs to be done.
        console: where to write.
    """

    def __init__(self, total: int, console: Console) -> None:
        self.total, self.console, self.done = total, console, 0
        self.statuses: Counter[Status] = Counter()
        self.live = console.is_terminal or console.is_jupyter
        self.bars = progress.Progress(
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.TextColumn("{task.fields[count]}"),
            progress.TimeElapsedColumn(),
            progress.TextColumn("{task.fields[left]}"),
            console=console,
            transient=True,
            disable=not self.live,
        )
        self.all = self.bars.add_task("runs", total=total, count=f"0/{total}", left="? left")
        self.running: dict[int, progress.TaskID] = {}

    def __enter__(self) -> Progress:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def started(self, job: int, label: str) -> None:
        """A job began, maybe again."""
        if self.live and job not in self.running:
            self.running[job] = self.bars.add_task(label, total=None, count="", left="")

    def finished(self, job: int | None, label: str, row: Row) -> None:
        """A run ended: a line for each where there is no live display, else for failures only."""
        if job in self.running:
            self.bars.remove_task(self.running.pop(job))
        self.done += 1
        status = Status(row.status)
        self.statuses[status] += 1
        failures = sum(count for status, count in self.statuses.items() if status.failed)
        count = f"{self.done}/{self.total}, {failures} failed"
        elapsed = self.bars.tasks[0].elapsed or 0.0
        left = f"about {duration(elapsed / self.done * (self.total - self.done))} left"
        self.bars.update(self.all, completed=self.done, count=count, left=left)
        if self.live and not status.failed and status not in UNDECIDED:
            return
        line = Text(f"[{self.done:>{len(str(self.total))}}/{self.total}] ")
        style = "green" if status is Status.OK else "red" if status.failed else "yellow"
        line.append(f"{status.value:8}", style=style)
        line.append(f" {label}  {result(row)}")
        self.console.print(line, soft_wrap=True)

    def summary(self) -> str:
        """Runs by status."""
        counts = (f"{count} {status.value}" for status, count in self.statuses.most_common())
        return ", ".join(counts) or "nothing"


def result(row: Row) -> str:
    """A run in a line: its accuracy, verdict and fit time, or why there is none."""
    if row.status != Status.OK:
        return row.message
    shown = ("l2_uvp", "cost_gap", "cost_gap_bound")
    parts = [f"{name} {row.metrics[name]:.4g}" for name in shown if name in row.metrics]
    parts += [row.verdict] if row.verdict else []
    if row.fit_cold_s is not None:
        parts.append(f"fit {row.fit_cold_s:.3g} s")
    elif row.fit_together_s is not None:
        parts.append(f"{row.together} seeds fit together in {row.fit_together_s:.3g} s")
    if row.gpu_runs is not None and row.gpu_runs > 1:
        parts.append(f"one of {row.gpu_runs} runs on its GPU")
    return "  ".join([*parts, *([row.message] if row.message else [])])


def duration(seconds: float) -> str:
    """Hours and minutes, minutes and seconds, or seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
