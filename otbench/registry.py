"""Find tasks and solvers, and select among them.

Found, in this order: every file of ``tasks/`` and ``solvers/``; entry points ``otbench.tasks`` /
``otbench.solvers`` of installed packages, which name a module or a class; files and packages given
by ``--plugins``. Dropping a file in is all it takes. Nothing is imported but those files, which
import no framework.

Selection: ``name[param=value,param=[v1,v2]]``; a list of values sweeps. ``preset=name`` sets every
parameter of a preset that the solver has under this name, before those that stand beside it.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
import importlib.util
import inspect
import itertools
import json
import re
import sys
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from otbench import docstrings
from otbench.environments import interpreter
from otbench.errors import MissingError, UserError, nearest
from otbench.plugins import classes, content, files
from otbench.problem import Task
from otbench.selection import format_value, parse_selection, parse_value
from otbench.solver import Solver
from otbench.sources import package_of, source_hash


Kind = Literal["task", "solver"]
BASES: dict[Kind, type] = {"task": Task, "solver": Solver}

# Where the name to import and the name to install differ.
DISTRIBUTIONS = {
    "ot": "pot",
    "ott": "ott-jax",
    "sklearn": "scikit-learn",
    "skimage": "scikit-image",
    "PIL": "pillow",
    "cv2": "opencv-python",
}
# Code that is no package, by the name to import: the repository to clone, and its folder.
CLONES = {"HR_OT": ("https://github.com/raphael-group/HiRef", "src")}


@dataclass(frozen=True)
class Entry:
    """One registered class.

    Attributes:
        name: the registered name.
        cls: a frozen dataclass, subclass of `Task` or `Solver`.
        origin: the file it stands in.
    """

    name: str
    cls: type
    origin: Path

    @property
    def source_hash(self) -> str:
        """Hash of the code as it is now: the file of the class and all that it uses; tells stale
        rows from current ones. Empty for a class that stands in no file.
        """
        return source_hash(self.origin) if self.origin.is_file() else ""

    @functools.cached_property
    def parameters(self) -> dict[str, Any]:
        """Parameters and their defaults, a whole number standing for a float made one."""
        types_ = typing.get_type_hints(self.cls)
        defaults = {f.name: f.default for f in dataclasses.fields(self.cls)}
        return {
            name: float(value) if types_[name] is float and type(value) is int else value
            for name, value in defaults.items()
        }

    @property
    def presets(self) -> dict[str, dict[str, Any]]:
        """Named values of parameters, in the types of the defaults."""
        named = getattr(self.cls, "presets", {})
        return {
            name: {
                k: float(v) if type(self.parameters[k]) is float else v for k, v in values.items()
            }
            for name, values in named.items()
        }

    @property
    def summary(self) -> str:
        """First paragraph of the module's docstring."""
        return docstrings.summary(sys.modules[self.cls.__module__].__doc__ or self.cls.__doc__)


@dataclass(frozen=True)
class Selection:
    """A registered class with a value for every parameter.

    Attributes:
        entry: the class.
        params: the values by name.
        tuned: in how many trials `otbench tune` chose them for the task; 0 where it did not.
    """

    entry: Entry
    params: tuple[tuple[str, Any], ...]
    tuned: int = 0

    @classmethod
    def of(cls, given: Task | Solver) -> Selection:
        """The selection that builds this task or solver.

        Raises:
            UserError: it is none, or no dataclass of plain parameters.
        """
        kind = type(given)
        if not isinstance(given, (Task, Solver)) or not isinstance(vars(kind).get("name"), str):
            raise UserError(
                f"{given!r} is no task or solver: an instance of a subclass of otbench.Task or "
                "otbench.Solver with a `name` is"
            )
        if not dataclasses.is_dataclass(given):
            raise UserError(f"{kind.__name__} is not a dataclass: decorate it with @dataclass")
        fields = dataclasses.fields(given)
        for f in fields:
            value = getattr(given, f.name)
            if value is not None and not isinstance(value, (bool, int, float, str)):
                raise UserError(
                    f"parameter {f.name} of {given.name} must be a number, string, boolean or "
                    f"None, got {value!r}"
                )
        try:
            origin = Path(inspect.getfile(kind))
        except (TypeError, OSError):  # typed at a prompt or into a notebook
            origin = Path()
        entry = Entry(given.name, kind, origin)
        return cls(entry, tuple((f.name, getattr(given, f.name)) for f in fields))

    @classmethod
    def built(cls, kind: Kind, name: str, params: str, plugins: tuple[str, ...]) -> Selection:
        """The selection of this name and these parameters, as JSON."""
        return cls(registry(kind, plugins).entries[name], tuple(json.loads(params).items()))

    def build(self) -> Any:
        """The task or solver itself."""
        return self.entry.cls(**dict(self.params))

    @property
    def source_hash(self) -> str:
        """Hash of the source code: of the entry, and of the solvers that a solver calls."""
        called = [
            selection.source_hash
            for text in getattr(self.build(), "solvers", ())
            for selection in registry("solver").select(text)
        ]
        own = self.entry.source_hash
        return hashlib.sha256("".join([own, *called]).encode()).hexdigest()[:12] if called else own

    @property
    def params_json(self) -> str:
        """All parameters as canonical JSON."""
        return json.dumps(dict(self.params), sort_keys=True)

    @property
    def label(self) -> str:
        """``name[param=value]`` with the parameters that differ from their defaults, or from a
        preset where those are fewer; ``name[tuned=trials]`` where they were chosen for each task.
        """
        named = {
            "": {},
            **{f"preset={name}": values for name, values in self.entry.presets.items()},
        }

        if self.tuned:
            return f"{self.entry.name}[tuned={self.tuned}]"

        def shown(preset: str) -> list[str]:
            expected = {**self.entry.parameters, **named[preset]}
            return [
                *([preset] if preset else []),
                *(f"{k}={format_value(v)}" for k, v in self.params if v != expected[k]),
            ]

        parts = min(map(shown, named), key=len)
        return self.entry.name + (f"[{','.join(parts)}]" if parts else "")

    @property
    def ruleset(self) -> str:
        """By which rule the parameters were chosen: ``default``, ``preset NAME``, ``tuned (N)`` in
        N trials, or ``set`` by hand.
        """
        if self.tuned:
            return f"tuned ({self.tuned})"
        values = dict(self.params)
        if values == self.entry.parameters:
            return "default"
        presets = self.entry.presets.items()
        named = (name for name, preset in presets if values == {**self.entry.parameters, **preset})
        return next((f"preset {name}" for name in named), "set")


class Registry:
    """All tasks or all solvers.

    Raises:
        UserError: a file cannot be imported, an entry point names no class, two classes share a
            name, or a class is not what the registry holds.
    """

    def __init__(self, kind: Kind, plugins: Sequence[str] = ()) -> None:
        self.kind = kind
        self.entries: dict[str, Entry] = {}
        for cls in classes(kind, BASES[kind], plugins):
            self._enter(cls, Path(inspect.getfile(cls)))

    def _enter(self, cls: type, origin: Path) -> None:
        name = vars(cls).get("name")
        if not isinstance(name, str):
            raise UserError(
                f'{origin}: {cls.__name__} has no `name`: add `name: ClassVar[str] = "..."` to the '
                "class"
            )
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
            raise UserError(
                f"{origin}: {self.kind} name {name!r} is not kebab-case: use small letters, digits "
                "and single dashes"
            )
        if not dataclasses.is_dataclass(cls) or not cls.__dataclass_params__.frozen:  # type: ignore[attr-defined]
            raise UserError(
                f"{origin}: {cls.__name__} is not a frozen dataclass: decorate it with "
                "@dataclass(frozen=True)"
            )
        for f in dataclasses.fields(cls):
            if f.default is dataclasses.MISSING:
                raise UserError(
                    f"{origin}: parameter {f.name} of {name} has no plain default value: give it "
                    "one"
                )
            if f.default is not None and not isinstance(f.default, (bool, int, float, str)):
                raise UserError(
                    f"{origin}: parameter {f.name} of {name} must be a number, string, boolean or "
                    f"None, got {f.default!r}"
                )
        for preset, values in getattr(cls, "presets", {}).items():
            if odd := sorted(set(values) - {f.name for f in dataclasses.fields(cls)}):
                raise UserError(
                    f"{origin}: preset {preset} of {name} sets {', '.join(odd)}, which {name} has "
                    "no parameter for"
                )
        known = self.entries.get(name)
        if known is not None and (known.origin.resolve(), known.cls.__qualname__) != (
            origin.resolve(),
            cls.__qualname__,
        ):
            raise UserError(
                f"two {self.kind}s are named {name!r}, in {known.origin} and {origin}: rename one"
            )
        self.entries[name] = Entry(name, cls, origin)

    def select(self, text: str) -> list[Selection]:
        """Every combination that ``name[param=value,param=[v1,v2]]`` stands for.

        Raises:
            UserError: unknown name or parameter (with the nearest match), a value of the wrong
                type, a malformed grid.
        """
        name, grid = parse_selection(text)
        if name not in self.entries:
            raise UserError(
                f"unknown {self.kind} {name!r}{nearest(name, self.entries)}; `otbench list "
                f"{self.kind}s` names them all, --plugins PATH adds those of your own file"
            )
        entry = self.entries[name]
        types_ = typing.get_type_hints(entry.cls)
        presets = (
            [_preset(entry, preset) for preset in grid.pop("preset")]
            if entry.presets and "preset" in grid
            else [{}]
        )
        for parameter in grid:
            if parameter not in entry.parameters:
                known = (
                    nearest(parameter, entry.parameters)
                    if entry.parameters
                    else f"; {name} has no parameters"
                )
                raise UserError(f"unknown parameter {parameter!r} of {self.kind} {name}{known}")
        selections = []
        for preset in presets:
            axes = [
                [parse_value(name, parameter, text, types_[parameter]) for text in grid[parameter]]
                if parameter in grid
                else [default]
                for parameter, default in {**entry.parameters, **preset}.items()
            ]
            selections += [
                Selection(entry, tuple(zip(entry.parameters, values, strict=True)))
                for values in itertools.product(*axes)
            ]
        for selection in selections:
            try:
                selection.build()
            except Exception as error:
                kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
                raise UserError(f"{self.kind} {selection.label}: {kind}{error}") from error
        return selections


def registry(kind: Kind, plugins: tuple[str, ...] = ()) -> Registry:
    """The registry of tasks or of solvers, read once per process (a forked worker inherits it), and
    again where a plugin was edited.
    """
    return _registry(kind, plugins, tuple(map(content, files(plugins))))


@functools.cache
def _registry(kind: Kind, plugins: tuple[str, ...], _contents: tuple[str, ...]) -> Registry:
    return Registry(kind, plugins)


def requirements(task: str, solver: str, plugins: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Import names of everything that a run of this task and solver needs here: what a solver has
    in an environment of its own is not needed.
    """
    of_task = registry("task", plugins).entries[task].cls.needs
    cls = registry("solver", plugins).entries[solver].cls
    of_solver = () if cls.environment else cls.needs
    return tuple(dict.fromkeys(("torch", *of_task, *of_solver)))


def lacking(task: str, solver: str, plugins: tuple[str, ...] = ()) -> str | None:
    """What a run of this task and solver lacks here, and the remedy; None if it lacks nothing."""
    entry = registry("solver", plugins).entries[solver]
    return solver_lacks(entry) or absent(requirements(task, solver, plugins))


def solver_lacks(entry: Entry) -> str | None:
    """What a solver lacks here, its environment or packages, and the remedy."""
    try:
        interpreter(entry.name, entry.cls.environment)
    except MissingError as error:
        return str(error)
    return None if entry.cls.environment else absent(entry.cls.needs)


def absent(needs: Sequence[str]) -> str | None:
    """The line to show where a package of ``needs`` is not installed, without importing any."""
    lacking = [name for name in needs if not _installed(name)]
    if not lacking:
        return None
    packages = [DISTRIBUTIONS.get(name, name) for name in lacking if name not in CLONES]
    remedies = [f"pip install {' '.join(packages)}"] if packages else []
    remedies += [
        "git clone {}, and its folder {} on PYTHONPATH".format(*CLONES[name])
        for name in lacking
        if name in CLONES
    ]
    names = (DISTRIBUTIONS.get(name, name) for name in lacking)
    return f"not installed: {', '.join(names)}; remedy: {'; '.join(remedies)}"


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # the package of a module
        return False


def _preset(entry: Entry, name: str) -> dict[str, Any]:
    if name not in entry.presets:
        raise UserError(
            f"unknown preset {name!r} of {entry.name}{nearest(name, entry.presets)}; it has "
            f"{', '.join(entry.presets)}"
        )
    return entry.presets[name]


def code_files(plugins: Sequence[str] = ()) -> list[Path]:
    """The files of otbench, and those beside tasks and solvers or in their package."""
    found = set(Path(str(importlib.import_module("otbench").__file__)).parent.rglob("*.py"))
    for kind in BASES:
        for entry in registry(kind, tuple(plugins)).entries.values():
            package = package_of(entry.origin.absolute())
            found |= {*(package.rglob("*.py") if package else entry.origin.parent.glob("*.py"))}
    return sorted(found)
