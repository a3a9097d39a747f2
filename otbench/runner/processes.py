"""Process trees: who descends from whom, and how much memory they hold."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import psutil


def children(pid: int) -> list[int]:
    """Children of a process. Where the kernel keeps no list of them, every process is asked for its
    parent, which takes longer.
    """
    tasks = Path(f"/proc/{pid}/task")
    try:
        return [
            int(child)
            for task in os.listdir(tasks)
            for child in (tasks / task / "children").read_text().split()
        ]
    except OSError:
        pass
    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        return [child.pid for child in psutil.Process(pid).children()]
    return []


def descendants(pid: int) -> list[int]:
    """Children, their children, and so on."""
    found = children(pid)
    for child in found:  # grows meanwhile
        found += [grandchild for grandchild in children(child) if grandchild not in found]
    return found


def tree_memory(pid: int) -> int:
    """Bytes that a process tree holds: resident memory of the process, and what each descendant has
    for itself alone.
    """
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        total = psutil.Process(pid).memory_info().rss
    for descendant in descendants(pid):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            total += psutil.Process(descendant).memory_full_info().uss
    return total
