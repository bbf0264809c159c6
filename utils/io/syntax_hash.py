"""Hashes of this program's sources by syntax: comments, docstrings and layout do not change them.

The hashed files are found by following a module's imports in the sources, so that a moved or added file cannot be
forgotten. Imports for type checkers have no effect and are not followed; dotted names in registries are, since these
modules are imported later.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Collection, Iterable
from functools import cache
from pathlib import Path

from utils.garbage import no_garbage_collection

PROGRAM = Path(__file__).resolve().parents[2]
PACKAGES = ("dataset_module", "experiment_runner", "net", "utils")
DOTTED = re.compile(rf"((?:{'|'.join(PACKAGES)})(?:\.\w+)+)(?::\w+)?")
"""Place of code in a registry: a module, or a name in a module."""


@cache
def syntax_hash(path: Path) -> bytes:
    """Return a hash of the code in a source file; of its bytes where it is not valid Python.

    The syntax tree is listed here, since the output of `ast.dump` differs between versions of Python.
    """
    return _read(path).digest


def hash_sources(paths: Iterable[Path], program: Path = PROGRAM) -> str:
    """Return one hash of several source files and their paths in the program, whatever their order.

    Args:
        paths: The files.
        program: The folder that contains them.
    """
    digest = hashlib.sha256()
    for path in sorted(set(paths)):
        digest.update(f"{path.relative_to(program).as_posix()}\0".encode() + syntax_hash(path))
    return digest.hexdigest()


def sources_of(
    modules: Iterable[str],
    without: Iterable[str] = (),
    program: Path = PROGRAM,
    packages: Collection[str] = PACKAGES,
) -> list[Path]:
    """Return the source files that modules reach through imports, including their own.

    Args:
        modules: Dotted names, such as `net.upstream`.
        without: Modules to leave out, along with what only they import.
        program: The folder of the packages.
        packages: Packages and modules in that folder whose imports are followed.

    Raises:
        ValueError: If a name is not a module of the program.
    """
    omitted = {_place_of(name, program, packages) for name in without}
    waiting = [_place_of(name, program, packages) for name in modules]
    reached: set[Path] = set()
    with no_garbage_collection():  # it would walk through all the trees again and again
        while waiting:
            path = waiting.pop()
            if path not in reached and path not in omitted:
                reached.add(path)
                names = (_absolute(name, path, program) for name in _read(path).imports)
                waiting += [place for name in names if (place := _find(name, program, packages)) is not None]
    return sorted(reached)


class _Source:
    """A source file's hash and the names that it imports."""

    def __init__(self, path: Path) -> None:
        content = path.read_bytes()
        self.imports: tuple[str, ...] = ()
        try:
            tree = ast.parse(content)
        except (SyntaxError, ValueError):
            self.digest = hashlib.sha256(content).digest()
            return
        listing: list[str] = []
        imports: list[str] = []
        _list_node(tree, listing, imports)
        self.digest = hashlib.sha256("\0".join(listing).encode("utf-8", "surrogatepass")).digest()
        self.imports = tuple(dict.fromkeys(imports))


@cache
def _read(path: Path) -> _Source:
    return _Source(path)


def _list_node(node: ast.AST, listing: list[str], imports: list[str]) -> None:
    """List a node's kind and its fields, without positions, empty fields and string statements."""
    kind = type(node).__name__
    listing.append(kind)
    if isinstance(node, ast.Constant):
        listing.append(repr(node.value))
        if isinstance(node.value, str) and (place := DOTTED.fullmatch(node.value)):
            imports.append(place[1])
        return
    is_for_types = isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
    if isinstance(node, ast.Import):
        imports += [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        source = "." * node.level + (f"{node.module}." if node.module else "")
        imports += [f"{source}{alias.name}" for alias in node.names]
    for field in node._fields:
        value = getattr(node, field, None)
        if value is None or value == [] or (is_for_types and field == "body"):
            continue
        listing.append(field)
        _list_value(value, listing, imports)
    listing.append(")")


def _list_value(value: object, listing: list[str], imports: list[str]) -> None:
    if isinstance(value, ast.AST):
        _list_node(value, listing, imports)
    elif isinstance(value, list):
        for item in value:
            if not _is_text_alone(item):
                _list_value(item, listing, imports)
    else:
        listing.append(repr(value))


def _is_text_alone(item: object) -> bool:
    """Whether an item is a string statement, such as a docstring."""
    return isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant) and isinstance(item.value.value, str)


def _absolute(name: str, path: Path, program: Path) -> str:
    """Return the dotted name of an import; a relative one starts at the package of the file that contains it."""
    level = len(name) - len(name.lstrip("."))
    if not level:
        return name
    package = path.relative_to(program).parent.parts
    return ".".join((*package[: len(package) + 1 - level], name[level:]))


def _find(name: str, program: Path, packages: Collection[str]) -> Path | None:
    """Return the file that an import reads: the module of that name, or else the one that defines the name."""
    return _module(name, program, packages) or _module(name.rpartition(".")[0], program, packages)


def _module(name: str, program: Path, packages: Collection[str]) -> Path | None:
    """Return the file of a module; None if it belongs to none of the packages."""
    if name.split(".")[0] not in packages:
        return None
    place = program.joinpath(*name.split("."))
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)


def _place_of(name: str, program: Path, packages: Collection[str]) -> Path:
    path = _module(name, program, packages)
    if path is None:
        raise ValueError(f"{name} is not a module below {program}")
    return path
