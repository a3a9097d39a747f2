"""How a run can end, and in which phase. Each outcome carries the sentence shown to the user."""

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
    OOM = "oom", "out of memory, or killed at the memory limit (--memory)"
    CRASHED = "crashed", "the process died: a signal, or an exit without a result"
    BROKEN = (
        "broken",
        "ended in the task's own work, which says nothing of the solver; always tried again",
    )

    @property
    def failed(self) -> bool:
        """A failure counts against the solver: skipped, missing and broken runs do not."""
        return self not in (Status.OK, Status.SKIPPED, *UNDECIDED)


UNDECIDED = (Status.MISSING, Status.BROKEN)  # another try may end otherwise, whoever the solver


class Stopped(Outcome):
    """Where a discrete solver stopped, by its plan and potentials alone. The worst comes first."""

    FAILED = "numerical failure", "the plan or the potentials are not finite"
    LIMIT = "iteration limit", "as many iterations as are allowed, and not converged"
    EARLY = "not converged", "it stopped before its tolerance was met"
    FEASIBLE = (
        "feasible",
        "the marginals are met; how far the plan is from the optimum no potentials tell",
    )
    CONVERGED = "converged", "the marginals are met and the duality gap is closed"

    @property
    def short(self) -> bool:
        """Whether the plan is not what the solver was asked for."""
        return self in (Stopped.FAILED, Stopped.LIMIT, Stopped.EARLY)


NOT_CONVERGED = tuple(reason.value for reason in Stopped if reason.short)


class Phase(Outcome):
    """What a worker is at. Limits of time and memory are the solver's in its own phases alone."""

    IMPORT = "import", "importing packages"
    BUILD = "build", "building the problem and drawing its test points"
    FIT = "fit", "the solver's fit, or whether it takes the problem"
    PUSH = "push", "a function that the solver returned: push, plan, samples, potentials"
    SCORE = "score", "scoring, and solving a discrete problem to score by"
    REPEAT = "repeat", "repeats of a short fit or push"

    @property
    def of_task(self) -> bool:
        """Whether it is the task's own work, which is never charged to the solver."""
        return self in (Phase.BUILD, Phase.SCORE)
