"""Hashes of the code that a row depends on: what a file uses of otbench and of its author's own
modules, followed transitively. Its author's are the modules beside it, those of its own package,
also where that is installed, and all that are not installed.

A definition (function, class or assignment at the top of a module) is hashed by its syntax tree,
without docstrings, with the origins of the names that it uses from other packages; so are the
definitions that it names, in its own module or imported. Comments, formatting and the place of a
module do not count. Annotations are not followed: a type that stands nowhere else changes no
number. Nor is what is found by a text at run time (``importlib``, ``getattr`` of a module by a
variable counts as all of the module); a solver names the solvers that it calls in ``solvers``.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


PACKAGE = Path(__file__).parent
# The abstract bases say what a task and a solver are; what they inherit from there does nothing.
BORDER = {(PACKAGE / "problem.py", "Task"), (PACKAGE / "solver.py", "Solver")}
# Scores hang on these, and on the random streams that all runs draw from.
SCORING = ("scoring", "metrics", "randomness.py")

Reference = tuple[Path, str | None]  # a module and a name in it; None: all of the module
Origin = Reference | str  # the dotted name of what another package gives


@dataclass(frozen=True)
class Definition:
    """One definition: its digest, and what it uses of modules that are followed."""

    digest: bytes
    uses: frozenset[Reference]


@dataclass(frozen=True)
class Module:
    """The definitions of a module by name; under None what its other statements do.

    Attributes:
        digest: of all of them, in order.
        definitions: by name.
        imports: where each imported name comes from; of several places where branches differ.
    """

    digest: bytes
    definitions: Mapping[str | None, Definition]
    imports: Mapping[str, Sequence[Origin]]


def source_hash(path: Path) -> str:
    """Hash of everything in a file and of all that it uses, 12 hexadecimal digits."""
    return _digest(_whole(path.resolve(), functools.cache(_module)))


def scoring_hash() -> str:
    """Hash of scoring, metrics and verdict, of the random streams, and of all that they use."""
    places = [PACKAGE / name for name in SCORING]
    files = {file for place in places for file in (place, *place.rglob("*.py")) if file.is_file()}
    module_of = functools.cache(_module)
    return _digest(set().union(*(_whole(file, module_of) for file in files)))


def _whole(path: Path, module_of: Callable[[Path], Module]) -> set[bytes]:
    """Digests of a file and of all that it uses; ``module_of`` reads each file once."""
    module = module_of(path)
    waiting: list[tuple[Path, str | None]] = [(path, name) for name in module.definitions]
    seen = set(waiting)
    digests = {module.digest}
    while waiting:
        at, name = waiting.pop()
        definition = module_of(at).definitions[name]
        digests.add(definition.digest)
        for reference in definition.uses:
            found = set(_resolve(reference, module_of)) - seen
            seen |= found
            waiting += found
    return digests


def _resolve(
    reference: Reference, module_of: Callable[[Path], Module]
) -> Iterator[tuple[Path, str | None]]:
    """The definitions that a reference stands for, through names that packages pass on."""
    waiting, seen = [reference], {reference}
    while waiting:
        path, wanted = here = waiting.pop()
        if here in BORDER:
            continue
        module = module_of(path)
        passed: Sequence[Origin] = module.imports.get(wanted, ()) if wanted else ()
        if wanted in module.definitions and wanted is not None:
            yield here
            yield from ((path, other) for other in [None] if None in module.definitions)
        elif wanted is not None and (submodule := _inside(path, wanted)):
            passed = [(submodule, None)]
        elif not passed:  # a star, or what cannot be seen: all of it
            yield from ((path, defined) for defined in module.definitions)
            passed = [origin for origins in module.imports.values() for origin in origins]
        found = {origin for origin in passed if not isinstance(origin, str)} - seen
        seen |= found
        waiting += found


def _module(path: Path) -> Module:
    """What a file defines, read anew where it was edited; a folder without a file of its own
    defines nothing.
    """
    return _parse(path, b"" if path.is_dir() else path.read_bytes())


@functools.cache
def _parse(path: Path, text: bytes) -> Module:
    statements = list(_run(ast.parse(text).body))
    imports = _gathered(_imports(statements, path))
    own: dict[str | None, list[ast.stmt]] = {}
    others = [s for s in statements if not isinstance(s, (ast.Import, ast.ImportFrom))]
    for statement in others:
        for name in set(_bound(statement)) or {None}:
            own.setdefault(name, []).append(statement)
    definitions = {
        # What is bound more than once hangs on the order of all.
        name: _definition(others if name and len(of_name) > 1 else of_name, path, imports, own)
        for name, of_name in own.items()
    }
    external = sorted(
        f"{name}={o}" for name, origins in imports.items() for o in origins if isinstance(o, str)
    )
    return Module(_sha(*map(_written, others), *external), definitions, imports)


def _definition(
    statements: Sequence[ast.stmt],
    path: Path,
    imports: Mapping[str, Sequence[Origin]],
    own: Iterable[str | None],
) -> Definition:
    stars = {name: origins for name, origins in imports.items() if name[0] == "*"}
    uses = {o for origins in stars.values() for o in origins if not isinstance(o, str)}
    external = set(stars)
    for statement in statements:
        nested = _gathered(_imports([statement], path, nested=True))
        for name, attributes in _used(statement):
            uses |= {(path, name)} if name in own else set()
            for origin in (*imports.get(name, ()), *nested.get(name, ())):
                if isinstance(origin, str):
                    external.add(name)
                else:
                    uses.add(_attribute(origin, attributes))
    origins = sorted(
        f"{name}={o}"
        for name in external
        for o in imports.get(name, (None,))
        if o is None or isinstance(o, str)
    )
    return Definition(_sha(*map(_written, statements), *origins), frozenset(uses))


def _gathered(imports: Iterable[tuple[str, Origin]]) -> dict[str, Sequence[Origin]]:
    """The origins of each name: branches may take one name from several."""
    found: dict[str, dict[Origin, None]] = {}
    for name, origin in imports:
        found.setdefault(name, {})[origin] = None
    return {name: tuple(origins) for name, origins in found.items()}


def _attribute(origin: Reference, attributes: Sequence[str]) -> Reference:
    """What ``a.b.c`` stands for, ``a`` being a package, a module or a name."""
    path, name = origin
    for attribute in attributes if name is None else ():
        submodule = _inside(path, attribute)
        if submodule is None:
            return path, attribute
        path = submodule
    return path, name


def _written(node: object) -> str:
    """A syntax tree as text, the same in every version of Python: without docstrings, and without
    the modules that are followed.
    """
    if isinstance(node, list):
        return f"[{','.join(map(_written, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    parts = [type(node).__name__]
    of_otbench = isinstance(node, (ast.ImportFrom, ast.alias)) and _of_otbench(node)
    for name in node._fields:
        value = getattr(node, name, None)
        if value is None or value == [] or name in ("ctx", "level"):
            continue
        if of_otbench and (name == "module" or (isinstance(node, ast.alias) and name == "name")):
            value = "otbench" if isinstance(node, ast.ImportFrom) else value.split(".")[-1]
        elif name == "body" and isinstance(value, list) and _is_docstring(value[0]):
            value = value[1:]
        parts.append(f"{name}={_written(value)}")
    return f"({' '.join(parts)})"


def _of_otbench(node: ast.ImportFrom | ast.alias) -> bool:
    name = node.module if isinstance(node, ast.ImportFrom) else node.name
    return (name or "").split(".")[0] == PACKAGE.name


def _used(node: ast.AST) -> Iterator[tuple[str, list[str]]]:
    """The names that are evaluated, each with the attributes taken of it; annotations are not."""
    attributes: list[str] = []
    inner = node
    while isinstance(inner, ast.Attribute):
        attributes.insert(0, inner.attr)
        inner = inner.value
    if isinstance(inner, ast.Name):
        yield inner.id, attributes
        return
    for field, value in ast.iter_fields(inner):
        if field not in ("annotation", "returns"):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from _used(child)


def _run(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that are run, without docstrings: not those for type checkers."""
    for statement in body:
        if isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
            negated = isinstance(statement.test, ast.UnaryOp)
            yield from _run(statement.body if negated else statement.orelse)
        elif not _is_docstring(statement):
            yield statement


def _nested(statement: ast.stmt) -> Iterator[ast.stmt]:
    """The statement and those inside it that are run with it: not bodies of functions."""
    yield statement
    if not isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        for node in ast.iter_child_nodes(statement):
            inside = [node] if isinstance(node, ast.stmt) else []
            if isinstance(node, (ast.ExceptHandler, ast.match_case)):
                inside = node.body
            for each in inside:
                yield from _nested(each)


def _imports(
    statements: Iterable[ast.stmt], path: Path, nested: bool = False
) -> Iterator[tuple[str, Origin]]:
    """The names that are imported, and where from.

    Args:
        statements: of the module.
        path: of its file.
        nested: also in bodies of functions and classes.
    """
    for statement in statements:
        for node in ast.walk(statement) if nested else _nested(statement):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    top = alias.name.split(".")[0]
                    name = alias.name if alias.asname else top
                    found = _file(name, 0, path)
                    yield alias.asname or top, (found, None) if found else name
            elif isinstance(node, ast.ImportFrom):
                module = _file(node.module or "", node.level, path)
                for alias in node.names:
                    bound = alias.asname or alias.name
                    if module is None:
                        yield _star(bound, node), f"{node.module}.{alias.name}"
                    elif bound == "*":
                        yield _star(bound, node), (module, None)
                    else:
                        inside = _inside(module, alias.name)
                        yield bound, (inside, None) if inside else (module, alias.name)


def _star(name: str, node: ast.ImportFrom) -> str:
    return f"*{node.module}" if name == "*" else name


def _bound(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement defines, but for those that it imports."""
    for each in _nested(statement):
        if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield each.name
        items = [item.optional_vars for item in getattr(each, "items", ())]
        targets = [*getattr(each, "targets", ()), getattr(each, "target", None), *items]
        for target in filter(None, targets):
            yield from (node.id for node in ast.walk(target) if isinstance(node, ast.Name))


def _is_docstring(statement: ast.stmt) -> bool:
    value = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


@functools.cache
def _file(name: str, level: int, importer: Path) -> Path | None:
    """The file of a module, or the folder of a package that has none, without importing it; None
    for one of another installed package, whose version is in the provenance.

    Args:
        name: dotted.
        level: how many dots stand before it.
        importer: the file that imports it.
    """
    first, *rest = name.split(".")
    if level:
        return _below(importer.parents[level - 1], name.split(".") if name else [], True)
    if first == PACKAGE.name:
        return _below(PACKAGE, rest)
    if first in sys.stdlib_module_names:
        return None
    outside = not importer.is_relative_to(PACKAGE)
    place = _own_package(first, importer) if outside else None
    if place is None:
        place = _below(importer.parent, [first])
        if place is None and outside:
            place = _importable(first)
        if place is None or (_installed(place) and not _together(first, importer)):
            return None
    package = place.parent if place.is_file() else place
    return _below(package, rest, True) if rest else place


def _own_package(name: str, file: Path) -> Path | None:
    """The file of the package of this name that a file stands in."""
    folders = (folder for folder in file.parents if folder.name == name)
    return next(filter(Path.is_file, (folder / "__init__.py" for folder in folders)), None)


def _importable(name: str) -> Path | None:
    """The file, or the folder, of a package or module that Python would import by this name."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    places = [spec.origin] if spec and spec.has_location else []
    places += spec.submodule_search_locations or [] if spec and not places else []
    path = Path(places[0]).resolve() if places and places[0] else None
    return path if path and (path.suffix == ".py" or path.is_dir()) else None


def _installed(path: Path) -> bool:
    return bool({"site-packages", "dist-packages"} & set(path.parts))


def _together(name: str, importer: Path) -> bool:
    """Whether a module is installed by what installed its importer."""
    parts = importer.parts
    folders = [i for i, part in enumerate(parts) if part in ("site-packages", "dist-packages")]
    if not folders:
        return False
    of, top = _distributions(), parts[folders[-1] + 1].removesuffix(".py")
    return bool(set(of.get(name, ())) & set(of.get(top, ())))


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


def _below(folder: Path, parts: Sequence[str], of_author: bool = False) -> Path | None:
    """The file of ``parts`` in the folder of a package; of an author's package the folder itself
    where it has no file of its own.
    """
    # Tasks and solvers of a checkout lie beside otbench.
    roots = sys.modules[PACKAGE.name].__path__ if folder == PACKAGE and parts else [folder]
    for root in roots:
        path = Path(root, *parts)
        for file in ([path.with_suffix(".py")] if parts else []) + [path / "__init__.py"]:
            if file.is_file():
                return file
        if of_author and any(path.glob("*.py")):
            return path
    return None


def _inside(package: Path, name: str) -> Path | None:
    """The file of a submodule of a package."""
    if package.is_dir():
        return _below(package, [name], True)
    if package.name != "__init__.py":
        return None
    return _below(package.parent, [name], not package.is_relative_to(PACKAGE))


def package_of(file: Path) -> Path | None:
    """The folder of the outermost package that a file stands in; None where it stands in none."""
    found = None
    for folder in file.parents:
        if not (folder / "__init__.py").is_file():
            break
        found = folder
    return found


def _sha(*texts: str) -> bytes:
    return hashlib.sha256("\n".join(texts).encode()).digest()


def _digest(digests: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()[:12]
