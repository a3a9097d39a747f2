"""How a run can end. Each outcome carries the sentence shown to the user."""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class Outcome(StrEnum):
    """A string that knows what it means: members are pairs of the value and its ``meaning``, which
    a reader of a table is told.
    """

    meaning: str

    def __new__(cls, value: str, meaning: str) -> Self:
        """Split the pair."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member


class Status(Outcome):
    """How one run ended."""

    OK = "ok", "finished and scored"
    SKIPPED = "skipped", "the solver does not take this problem, and says why"
    MISSING = "missing", "a package or a data file is absent; the message names the remedy"
    DIVERGED = "diverged", "values that are not finite"
    ERROR = (
        "error",
        "the solver raised, or returned something that is not a transport of this problem",
    )
    TIMEOUT = "timeout", "killed at the time limit (--timeout)"
    OOM = "oom", "killed at the memory limit (--memory)"
    CRASHED = "crashed", "the process died: a signal, or an exit without a result"

    @property
    def failed(self) -> bool:
        """A failure counts against the solver: skipped and missing runs do not."""
        return self not in (Status.OK, Status.SKIPPED, Status.MISSING)
