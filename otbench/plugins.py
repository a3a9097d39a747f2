"""Import the modules that hold tasks and solvers: built-in files, what entry points of installed
packages name, files and packages given by ``--plugins``.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import pkgutil
import sys
import types
from collections.abc import Iterator, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path

from otbench.errors import UserError, nearest
from otbench.sources import package_of


PLACES: set[Path] = set()  # folders that plugins were imported from
IMPORTED: dict[Path, str] = {}  # the content of files of packages when they were imported


def classes(kind: str, base: type, plugins: Sequence[str]) -> Iterator[type]:
    """Every concrete subclass of ``base`` that is built in, installed, or in a plugin.

    Args:
        kind: ``task`` or ``solver``.
        base: of its classes.
        plugins: Python files and folders of such files.

    Raises:
        UserError: something cannot be imported, or an entry point names what is no such class.
    """
    package = importlib.import_module(f"otbench.{kind}s")
    for info in pkgutil.iter_modules(package.__path__):
        module = _import(f"otbench.{kind}s.{info.name}", f"{kind}s/{info.name}.py")
        yield from _defined(module, base)
    for point in importlib.metadata.entry_points(group=f"otbench.{kind}s"):
        yield from _named(point, kind, base)
    for file in files(plugins):
        yield from _defined(_import_file(file), base)


def files(plugins: Sequence[str]) -> list[Path]:
    """The files that plugins stand for: of a folder all but those whose names begin with an
    underscore, of a package its ``__init__.py``, too.

    Raises:
        UserError: there is no such file or folder.
    """
    found: list[Path] = []
    for path in map(Path, plugins):
        if path.is_dir():
            init = path / "__init__.py"
            found += [init] if init.is_file() else []
            found += sorted(file for file in path.glob("*.py") if not file.name.startswith("_"))
        elif path.is_file() and path.suffix == ".py":
            found.append(path)
        else:
            raise UserError(f"--plugins {path}: no such Python file or folder")
    return found


def content(path: Path) -> str:
    """What tells a file, as it is now, from others."""
    return hashlib.sha256(f"{path.resolve()}\n".encode() + path.read_bytes()).hexdigest()[:12]


def loaded() -> list[types.ModuleType]:
    """The modules that were imported from plugins, or from beside them: no other process has them
    by name.
    """
    places = {place.resolve() for place in PLACES}
    return [
        module
        for module in list(sys.modules.values())
        if (file := getattr(module, "__file__", None))
        and any(place in Path(file).resolve().parents for place in places)
        and not any(part in ("site-packages", "dist-packages") for part in Path(file).parts)
        and module.__name__.partition(".")[0] != "otbench"
    ]


def _named(point: EntryPoint, kind: str, base: type) -> Iterator[type]:
    """The class that an entry point names, or those that the module that it names defines."""
    what = f"entry point {point.name!r} of group otbench.{kind}s"
    if not EntryPoint.pattern.match(point.value):
        raise UserError(f"{what} names {point.value!r}: write module, or module:Class")
    found: object = _import(point.module, what)
    for name in point.attr.split(".") if point.attr else ():
        if not hasattr(found, name):
            raise UserError(
                f"{what} names {point.value}, but there is no {name} in "
                f"{getattr(found, '__name__', found)}{nearest(name, vars(found))}"
            )
        found = getattr(found, name)
    if isinstance(found, types.ModuleType):
        defined = list(_defined(found, base))
        if not defined:
            raise UserError(
                f"{what} names {point.value}, which defines no {kind}: name the class, as "
                "module:Class"
            )
        yield from defined
    elif not isinstance(found, type) or not issubclass(found, base):
        raise UserError(f"{what} names {point.value}, no subclass of otbench.{base.__name__}")
    elif inspect.isabstract(found):
        lacking = ", ".join(sorted(found.__abstractmethods__))
        raise UserError(f"{what} names {point.value}, which does not define {lacking}")
    else:
        yield found


def _import(name: str, what: object) -> types.ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise _refused(what, error) from error


def _refused(what: object, error: BaseException) -> UserError:
    return UserError(f"cannot import {what}: {type(error).__name__}: {error}")


def _import_file(path: Path) -> types.ModuleType:
    """A plugin's module: part of its package where it stands in one, else on its own. What stands
    beside it can be imported by it.
    """
    path = path.absolute()
    package = package_of(path)
    beside = str((package or path).parent)
    PLACES.add(Path(beside))
    if beside not in sys.path:
        sys.path.append(beside)
    if package is not None:
        return _import_of_package(path, package)
    name = f"otbench_plugin_{path.stem}_{content(path)}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _refused(path, error) from error
    return module


def _import_of_package(path: Path, package: Path) -> types.ModuleType:
    """A module of a package by its own name, anew with all of the package where it was edited."""
    parts = path.relative_to(package.parent).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    now = content(path)
    if IMPORTED.setdefault(path, now) != now:
        IMPORTED[path] = now
        for known in [m for m in sys.modules if m.partition(".")[0] == package.name]:
            del sys.modules[known]
    places = list(getattr(_import(package.name, path), "__path__", ()))
    if not any(Path(place).resolve() == package.resolve() for place in places):
        raise UserError(
            f"cannot import {path}: there is another package named {package.name} "
            f"({', '.join(places) or 'a module'}): rename one"
        )
    return _import(name, path)


def _defined(module: types.ModuleType, base: type) -> Iterator[type]:
    """The concrete subclasses of ``base`` that a module defines; a package gives those that it
    takes from its own modules, too.
    """
    own, is_package = f"{module.__name__}.", hasattr(module, "__path__")
    for value in vars(module).values():
        if (
            isinstance(value, type)
            and issubclass(value, base)
            and not inspect.isabstract(value)
            and f"{value.__module__}.".startswith(own)
            and (is_package or value.__module__ == module.__name__)
        ):
            yield value
