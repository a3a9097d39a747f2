"""What `otbench tune` chose for a solver on a task: a file that ``otbench run --tuned`` reads."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from otbench.errors import UserError
from otbench.registry import Entry, Selection


@dataclass(frozen=True)
class Tuned:
    """Parameters of a solver that were chosen for a task, and how.

    Attributes:
        solver: its name.
        task: as it is selected on the command line.
        params: all parameters.
        budget: how many settings were tried.
        seeds: that they were tried on.
        metric: by which they were chosen, of `otbench.metrics`.
        value: its mean over these seeds.
        default_value: that of the defaults; None where they failed or did not converge.
        solver_hash, task_hash: of the code then.
    """

    solver: str
    task: str
    params: Mapping[str, Any]
    budget: int
    seeds: Sequence[int]
    metric: str
    value: float
    default_value: float | None
    solver_hash: str
    task_hash: str

    def selection(self, entry: Entry) -> Selection:
        """The solver with these parameters.

        Raises:
            UserError: it has other parameters now, or refuses these values.
        """
        if set(self.params) != set(entry.parameters):
            odd = ", ".join(sorted(set(self.params) ^ set(entry.parameters)))
            raise UserError(
                f"{self.solver} was tuned on {self.task} when it had other parameters ({odd}): "
                "tune it again"
            )
        values = tuple((name, self.params[name]) for name in entry.parameters)
        selection = Selection(entry, values, self.budget)
        try:
            selection.build()
        except (ValueError, TypeError) as error:
            raise UserError(f"tuned parameters of {self.solver} on {self.task}: {error}") from error
        return selection

    def write(self, path: Path) -> None:
        """Write it as JSON, with a digest that tells edited values from tuned ones.

        Raises:
            UserError: it cannot be written.
        """
        values = dataclasses.asdict(self)
        text = json.dumps({**values, "digest": _digest(values)}, indent=1)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}") from error


def read_tuned(paths: Sequence[Path]) -> list[Tuned]:
    """What was tuned, from files, and all files ``*.json`` of folders.

    Raises:
        UserError: a file is absent or is none that `otbench tune` wrote, or two are of one solver
            and task.
    """
    files = [
        file
        for path in paths
        for file in (sorted(path.glob("*.json")) if path.is_dir() else [path])
    ]
    if paths and not files:
        raise UserError(f"no *.json in {paths[0]}: name what `otbench tune` wrote")
    found: dict[tuple[str, str], Path] = {}
    tuned = []
    for file in files:
        tuned.append(_read(file))
        name = tuned[-1].solver, tuned[-1].task
        if name in found:
            raise UserError(
                f"{file} and {found[name]} are both of {name[0]} on {name[1]}: name one of them"
            )
        found[name] = file
    return tuned


def _read(file: Path) -> Tuned:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        digest = values.pop("digest", None)
        tuned = Tuned(**values)
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is no file of `otbench tune`: {error}") from error
    named = isinstance(tuned.solver, str) and isinstance(tuned.task, str)
    tried = type(tuned.budget) is int and tuned.budget > 0
    seeded = isinstance(tuned.seeds, list) and all(type(seed) is int for seed in tuned.seeds)
    if not (named and tried and seeded and tuned.seeds and isinstance(tuned.params, dict)):
        raise UserError(
            f"{file} is no file of `otbench tune`: solver, task, params, budget or seeds are odd"
        )
    if digest != _digest(values):
        raise UserError(
            f"{file} was edited after `otbench tune` wrote it: tune it again, or select "
            f"{tuned.solver}[param=value]"
        )
    return tuned


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
