"""Hashes of the code that a row depends on: what a file uses from otbench, followed transitively.

A definition (function, class or assignment at the top of a module) is hashed by its syntax tree,
without docstrings and without the modules that it imports from, and so are the definitions that it
names, in its own module or imported. Comments, formatting and the place of a file do not count.
Annotations are not followed: a type that stands nowhere else changes no number.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path


# The abstract bases say what a task and a solver are; what they inherit from there does nothing.
BORDER = {("otbench.problem", "Task"), ("otbench.solver", "Solver")}
SCORING = ("otbench.scoring", "otbench.metrics")

Reference = tuple[str, str | None]  # a module and a name in it; None: all of the module


@dataclass(frozen=True)
class Definition:
    """One definition: its digest, and what it names of otbench."""

    digest: bytes
    uses: frozenset[Reference]


@dataclass(frozen=True)
class Module:
    """The definitions of a module by name; under None what its other statements do.

    Attributes:
        definitions: by name. A name that is bound twice has the last definition.
        imports: where each imported name of otbench comes from.
    """

    definitions: dict[str | None, Definition]
    imports: dict[str, Reference]


def source_hash(path: Path) -> str:
    """Hash of everything in a file and of all that it uses from otbench, 12 hexadecimal digits."""
    module = _parse(path, str(path))
    return _digest(_reached(module, module.definitions))


@functools.cache
def scoring_hash() -> str:
    """Hash of scoring, metrics and verdict, and of all that they use from otbench."""
    package = Path(__file__).parent
    digests: set[bytes] = set()
    for name in SCORING:
        folder = package / name.removeprefix("otbench.")
        for path in folder.rglob("*.py"):
            module = _parse(path, _name(path, package))
            digests |= _reached(module, module.definitions)
    return _digest(digests)


def _reached(module: Module, names: Iterable[str | None]) -> set[bytes]:
    """Digests of definitions and of all that they use."""
    waiting = [(module, name) for name in names]
    seen: set[tuple[int, str | None]] = set()
    digests = set()
    while waiting:
        module, name = waiting.pop()
        if (id(module), name) in seen:
            continue
        seen.add((id(module), name))
        definition = module.definitions[name]
        digests.add(definition.digest)
        for reference in definition.uses:
            waiting += _resolve(reference)
    return digests


def _resolve(reference: Reference) -> Iterator[tuple[Module, str | None]]:
    """The definitions that a reference stands for, through names that packages pass on."""
    name, wanted = reference
    if reference in BORDER:
        return
    path = _file(name)
    if path is None:
        return
    module = _parse(path, name)
    if wanted is None:
        yield from ((module, defined) for defined in module.definitions)
    elif wanted in module.definitions:
        yield module, wanted
        yield from ((module, other) for other in [None] if None in module.definitions)
    elif wanted in module.imports:
        yield from _resolve(module.imports[wanted])
    else:  # a submodule of a package, or nothing that can be seen: all of it
        submodule = f"{name}.{wanted}"
        yield from _resolve((submodule if _file(submodule) else name, None))


def _parse(path: Path, name: str) -> Module:
    """The definitions of a file; ``name`` is that of the module."""
    return _parse_text(path.read_text(), name)


@functools.cache
def _parse_text(text: str, name: str) -> Module:
    tree = ast.parse(text)
    imports = dict(_imports(tree.body, name))
    own: dict[str, list[ast.stmt]] = {}
    rest: list[ast.stmt] = []
    for statement in tree.body:
        if isinstance(statement, (ast.Import, ast.ImportFrom)) or _for_types_only(statement):
            continue
        bound = list(_bound(statement))
        for each in bound:
            own.setdefault(each, []).append(statement)
        if not bound:
            rest.append(statement)
    definitions: dict[str | None, Definition] = {
        each: _definition(statements, name, imports, own) for each, statements in own.items()
    }
    if remaining := [statement for statement in rest if not _is_docstring(statement)]:
        definitions[None] = _definition(remaining, name, imports, own)
    return Module(definitions, imports)


def _definition(
    statements: list[ast.stmt],
    module: str,
    imports: dict[str, Reference],
    own: Iterable[str],
) -> Definition:
    uses: set[Reference] = set()
    trees = []
    for statement in statements:
        nodes = list(_evaluated(statement))
        imported = {**imports, **dict(_imports(nodes, module))}
        for node in nodes:
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                origin = imported.get(node.value.id)
                if origin is not None and origin[1] is None:
                    uses.add((origin[0], node.attr))
            elif isinstance(node, ast.Name) and node.id in imported:
                uses.add(imported[node.id])
            elif isinstance(node, ast.Name) and node.id in own:
                uses.add((module, node.id))
        trees.append(_written(statement))
    # `import otbench.x as x; x.f` has named x.f: the module itself is not used as a whole.
    attributes = {name for name, attribute in uses if attribute is not None}
    uses = {use for use in uses if use[1] is not None or use[0] not in attributes}
    return Definition(hashlib.sha256("\n".join(trees).encode()).digest(), frozenset(uses))


def _written(node: object) -> str:
    """A syntax tree as text, the same in every version of Python: without docstrings, and without
    the modules of otbench that names are imported from.
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
    return (name or "").split(".")[0] == "otbench"


def _evaluated(statement: ast.stmt) -> Iterator[ast.AST]:
    """The nodes of a statement that are evaluated: all but annotations."""
    waiting: list[ast.AST] = [statement]
    while waiting:
        node = waiting.pop()
        yield node
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns"):
                continue
            children = value if isinstance(value, list) else [value]
            waiting += [child for child in children if isinstance(child, ast.AST)]


def _imports(nodes: Iterable[ast.AST], module: str) -> Iterator[tuple[str, Reference]]:
    """What imports among the nodes bind to names: modules and definitions of otbench."""
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in filter(_of_otbench, node.names):
                yield alias.asname or "otbench", (alias.name if alias.asname else "otbench", None)
        elif isinstance(node, ast.ImportFrom) and _of_otbench(node):
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                origin = (submodule, None) if _file(submodule) else (node.module, alias.name)
                yield alias.asname or alias.name, origin  # type: ignore[misc]


def _bound(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement defines."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield statement.name
    elif isinstance(statement, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        for node in (node for target in targets for node in ast.walk(target)):
            if isinstance(node, ast.Name):
                yield node.id


def _for_types_only(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test)


def _is_docstring(statement: ast.stmt) -> bool:
    value = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


@functools.cache
def _file(name: str) -> Path | None:
    """The source file of a module of otbench, without importing it."""
    package, *parts = name.split(".")
    if package != "otbench":
        return None
    for root in importlib.import_module("otbench").__path__:
        path = Path(root, *parts)
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if parts and file.is_file():
                return file
    return Path(__file__).parent / "__init__.py" if not parts else None


def _name(path: Path, package: Path) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def _digest(digests: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()[:12]
