"""The hashes of tasks, solvers and scoring as their code is now, which rows are compared with."""

from __future__ import annotations

import hashlib
import os
from functools import cache, cached_property

from otbench.data.files import checksum
from otbench.errors import UserError
from otbench.registry import Kind, Selection
from otbench.sources import scoring_hash


class Code:
    """The hashes of tasks, solvers and scoring as they are now, each computed once."""

    def __init__(self) -> None:
        self.task = cache(task_hash)
        self.solver = cache(lambda solver: solver.source_hash)

    @cached_property
    def scoring(self) -> str:
        """Of the code of scoring, metrics and verdict."""
        return scoring_hash()

    def recorded(
        self, kind: Kind, name: str, params: str, plugins: tuple[str, ...] = ()
    ) -> str | None:
        """That of the task or solver of a row; None where the code has none of this name and these
        parameters (as JSON), or cannot be read.
        """
        hash_of = self.task if kind == "task" else self.solver
        try:
            return hash_of(Selection.built(kind, name, params, plugins))
        except (UserError, SyntaxError, OSError, KeyError, TypeError, ValueError):
            return None

    def of(self, task: Selection, solver: Selection) -> dict[str, str]:
        """By the names of their columns."""
        return {
            "task_hash": self.task(task),
            "solver_hash": self.solver(solver),
            "scoring_hash": self.scoring,
        }


def task_hash(task: Selection) -> str:
    """SHA-256 prefix of what a task is made from: its source code, the names of its files and, of
    the user's own, their content.

    Of some data there are several archives, of more or of fewer images: which one was found is in
    the names.

    Raises:
        UserError: such a file cannot be read.
    """
    files = task.build().files
    if not files:
        return task.entry.source_hash
    try:
        contents = [checksum(path) if os.path.isabs(path) else path for path in files]
    except OSError as error:
        raise UserError(
            f"{error.filename}: {error.strerror}: make it readable, or name another file"
        ) from None
    return hashlib.sha256("".join([task.entry.source_hash, *contents]).encode()).hexdigest()[:12]
