"""What a person sees while runs go on: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from otbench.statuses import Status


class Progress:
    """Counts runs as they start and end. Use as a context manager.

    Args:
        total: runs to be done.
        slots: workers at a time.
        console: where to write; a terminal gets the live display.
    """

    def __init__(self, total: int, slots: int, console: Console) -> None:
        self.total, self.slots, self.console = total, slots, console
        self.done = 0
        self.statuses: Counter[Status] = Counter()
        self.running: dict[int, tuple[str, float]] = {}
        self.began = time.monotonic()
        self.live = (
            Live(
                console=console, get_renderable=self._picture, refresh_per_second=4, transient=True
            )
            if console.is_terminal
            else None
        )

    def __enter__(self) -> Progress:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()

    def started(self, id: int, label: str) -> None:
        """A run began."""
        self.running[id] = label, time.monotonic()

    def finished(self, id: int, label: str, row: Mapping[str, Any]) -> None:
        """A run ended: a line for each where there is no live display, on a terminal for failures
        only.
        """
        self.running.pop(id, None)
        self.done += 1
        status = Status(row["status"])
        self.statuses[status] += 1
        if self.live and not status.failed and status is not Status.MISSING:
            return
        line = Text(f"[{self.done:>{len(str(self.total))}}/{self.total}] ")
        line.append(
            f"{status.value:8}",
            style="green" if status is Status.OK else "red" if status.failed else "yellow",
        )
        line.append(f" {label}  {_result(row)}")
        self.console.print(line, soft_wrap=True)

    def summary(self) -> str:
        """Runs by status."""
        return (
            ", ".join(f"{count} {status.value}" for status, count in self.statuses.most_common())
            or "nothing"
        )

    def _picture(self) -> Group:
        now = time.monotonic()
        elapsed = now - self.began
        left = elapsed / self.done * (self.total - self.done) if self.done else None
        failures = sum(count for status, count in self.statuses.items() if status.failed)
        head = Text(f"{self.done}/{self.total} runs  ")
        head.append(f"{failures} failed  ", style="red" if failures else "")
        head.append(
            f"{_duration(elapsed)} gone, {'about ' + _duration(left) if left is not None else '?'} left"
        )
        lines = [
            Text(f"  {label}  {now - since:.0f} s", style="cyan", no_wrap=True)
            for label, since in self.running.values()
        ]
        top = Table.grid(padding=(0, 2))
        top.add_row(ProgressBar(total=self.total, completed=self.done, width=40), head)
        return Group(top, *lines)


def _result(row: Mapping[str, Any]) -> str:
    if row["status"] != Status.OK:
        return str(row["message"])
    shown = [
        f"{name} {row[f'metric_{name}']:.4g}"
        for name in ("l2_uvp", "cost_gap")
        if f"metric_{name}" in row
    ]
    shown += [row["verdict"]] if row.get("verdict") else []
    fit = (
        f"fit {row['fit_cold_s']:.3g} s"
        if "fit_cold_s" in row
        else f"{row['together']} seeds fit together in {row['fit_together_s']:.3g} s"
    )
    return "  ".join([*shown, fit, *([row["message"]] if row["message"] else [])])


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes} min"
        if hours
        else f"{minutes} min {seconds} s"
        if minutes
        else f"{seconds} s"
    )
