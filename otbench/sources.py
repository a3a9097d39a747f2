"""Hashes of the code that a row depends on: what a file uses of otbench and of its author's own
modules, followed transitively.

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
        imports: where each imported name comes from.
    """

    digest: bytes
    definitions: Mapping[str | None, Definition]
    imports: Mapping[str, Origin]


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
    path, wanted = reference
    if reference in BORDER:
        return
    module = module_of(path)
    if wanted in module.definitions and wanted is not None:
        yield reference
        yield from ((path, other) for other in [None] if None in module.definitions)
    elif wanted is not None and (submodule := _inside(path, wanted)):
        yield from _resolve((submodule, None), module_of)
    elif wanted is not None and wanted in module.imports:
        origin = module.imports[wanted]
        if not isinstance(origin, str):
            yield from _resolve(origin, module_of)
    else:  # a star, or what cannot be seen: all of it
        yield from ((path, defined) for defined in module.definitions)


def _module(path: Path) -> Module:
    """What a file defines, read anew where it was edited."""
    return _parse(path, path.read_text())


@functools.cache
def _parse(path: Path, text: str) -> Module:
    statements = list(_run(ast.parse(text).body))
    imports = dict(_imports(statements, path))
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
    external = sorted(f"{name}={o}" for name, o in imports.items() if isinstance(o, str))
    return Module(_sha(*map(_written, others), *external), definitions, imports)


def _definition(
    statements: Sequence[ast.stmt],
    path: Path,
    imports: Mapping[str, Origin],
    own: Iterable[str | None],
) -> Definition:
    uses: set[Reference] = {o for n, o in imports.items() if n[0] == "*" and not isinstance(o, str)}
    external = {name for name in imports if name[0] == "*"}
    for statement in statements:
        known = {**imports, **dict(_imports([statement], path, nested=True))}
        for name, attributes in _used(statement):
            origin = known.get(name)
            if origin is None:
                uses |= {(path, name)} if name in own else set()
            elif isinstance(origin, str):
                external.add(name)
            else:
                uses.add(_attribute(origin, attributes))
    origins = sorted(f"{name}={imports.get(name)}" for name in external)
    return Definition(_sha(*map(_written, statements), *origins), frozenset(uses))


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
    """The file of a module, without importing it; None for one of an installed package, whose
    version is in the provenance.

    Args:
        name: dotted.
        level: how many dots stand before it.
        importer: the file that imports it.
    """
    first, *rest = name.split(".")
    if level:
        folder = importer.parents[level - 1]
        return _below(folder, name.split(".") if name else [])
    if first == PACKAGE.name:
        return _below(PACKAGE, rest)
    if first in sys.stdlib_module_names:
        return None
    beside = _below(importer.parent, [first])
    if beside is None and not importer.is_relative_to(PACKAGE):
        try:
            spec = importlib.util.find_spec(first)
        except (ImportError, ValueError):
            spec = None
        beside = Path(spec.origin).resolve() if spec and spec.has_location else None  # type: ignore[arg-type]
    if beside is None or beside.suffix != ".py" or _installed(beside):
        return None
    return _below(beside.parent, rest) if rest else beside


def _installed(path: Path) -> bool:
    return bool({"site-packages", "dist-packages"} & set(path.parts))


def _below(folder: Path, parts: Sequence[str]) -> Path | None:
    """The file of ``parts`` in the folder of a package."""
    # Tasks and solvers of a checkout lie beside otbench.
    roots = sys.modules[PACKAGE.name].__path__ if folder == PACKAGE and parts else [folder]
    for root in roots:
        path = Path(root, *parts)
        for file in ([path.with_suffix(".py")] if parts else []) + [path / "__init__.py"]:
            if file.is_file():
                return file
    return None


def _inside(package: Path, name: str) -> Path | None:
    """The file of a submodule of a package."""
    return _below(package.parent, [name]) if package.name == "__init__.py" else None


def _sha(*texts: str) -> bytes:
    return hashlib.sha256("\n".join(texts).encode()).digest()


def _digest(digests: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()[:12]
