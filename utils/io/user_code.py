"""The user's own code, which TOML files name as `package.module:Name` wherever a registered name can be used.

It is found on Python's path and beside the TOML files of a command, and nowhere else: run folders, the hub and other
people's models only name the code that they need. A hash of its sources identifies it.
"""

from __future__ import annotations

import importlib
import os
import sys
import sysconfig
import traceback
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from utils.errors import WRONG_INPUT, UserError
from utils.io.syntax_hash import PACKAGES, PROGRAM, hash_sources, sources_of
from utils.registry import Contract, is_user_code
from utils.text import did_you_mean

INSTALLED = ("site-packages", "dist-packages")
"""Folders in which a module's neighbours do not belong to it."""
FOREIGN = (*(f"{PROGRAM / package}{os.sep}" for package in PACKAGES), *map(sysconfig.get_path, ("stdlib", "purelib")))
"""Beginnings of the paths of files that are not the user's: this program's and the libraries'."""
GUIDE = "docs/extending.md has a complete example"
MAY_BE_RECORDED = "runs_in_cuda_graphs"
"""Attribute by which the user's own code says that it can be recorded into CUDA graphs."""


class UserCodeError(UserError):
    """The user's own code cannot be used; the message names the remedy."""

    exit_status = WRONG_INPUT


def look_beside(*files: Path) -> None:
    """Let modules be found in the folders of the TOML files that a command was given, after Python's path."""
    for folder in dict.fromkeys(str(file.resolve().parent) for file in files):
        if folder not in sys.path:
            sys.path.append(folder)


def import_user_code(name: str, contract: Contract) -> Any:  # noqa: ANN401 - whatever the user has written
    """Return the user's own code of a name.

    Args:
        name: `package.module:Name`.
        contract: What it must provide.

    Raises:
        UserCodeError: If it cannot be imported, or does not provide that.
    """
    module, _, attribute = name.partition(":")
    imported = _import(name, module)
    if not hasattr(imported, attribute):
        known = [text for text in vars(imported) if not text.startswith("_")]
        raise UserCodeError(f'"{name}": {imported.__file__} has no {attribute}; {did_you_mean(attribute, known)}')
    value = getattr(imported, attribute)
    problem = contract.problem(value)
    if problem is not None:
        raise UserCodeError(f'"{name}" {problem}; {GUIDE}')
    return value


def hash_user_code(names: Iterable[str]) -> dict[str, str]:
    """Return the hash of the sources behind each name of imported user code, in the order of the names.

    The sources are the module and what it imports of its own package, or, for a module that belongs to no package, of
    the modules beside it. Comments, docstrings and layout do not change the hash, nor does the folder.
    """
    return {
        name: hash_sources(sources, root)[:16] for name in sorted(names) for root, sources in [sources_behind(name)]
    }


def changed_user_code(stored: Mapping[str, str]) -> list[str]:
    """Return the names of imported user code that had other hashes before.

    Args:
        stored: Hashes by name; code that has not been imported is left out.
    """
    imported = [name for name in stored if is_user_code(name) and name.partition(":")[0] in sys.modules]
    return [name for name, digest in hash_user_code(imported).items() if digest != stored[name]]


def sources_behind(name: str) -> tuple[Path, list[Path]]:
    """Return the folder that contains the module of imported user code, and the source files behind a name.

    Args:
        name: `package.module:Name`.
    """
    module = name.partition(":")[0]
    file = Path(str(sys.modules[module].__file__)).resolve()
    root = file.parents[module.count(".") + (file.name == "__init__.py")]
    is_alone = "." not in module and file.name != "__init__.py" and root.name not in INSTALLED
    beside = {path.stem for path in root.glob("*.py")} | {path.parent.name for path in root.glob("*/__init__.py")}
    packages = beside - set(PACKAGES) if is_alone else {module.split(".")[0]}
    parents = [".".join(module.split(".")[:depth]) for depth in range(1, module.count(".") + 1)]
    with_code = [parent for parent in parents if getattr(sys.modules[parent], "__file__", None)]
    return root, sources_of([*with_code, module], program=root, packages=packages)


def import_trusted(name: str, digest: str | None, contract: Contract, trusted: Collection[str]) -> None:
    """Import the user's own code that a stored model needs, if its module is trusted.

    Args:
        name: `package.module:Name`.
        digest: Its hash when the model was trained, as `hash_user_code` returned it.
        contract: What it must provide.
        trusted: Modules that may be imported.

    Raises:
        UserCodeError: If the module is not trusted, cannot be imported, or contains other code.
    """
    module = name.partition(":")[0]
    if module not in trusted:
        raise UserCodeError(
            f'the model needs the code "{name}", which is not part of it; put the module {module} of its author on '
            f"Python's path, and trust it with --trust {module}"
        )
    import_user_code(name, contract)
    if hash_user_code([name])[name] != digest:
        raise UserCodeError(
            f'"{name}": {sys.modules[module].__file__} is not the code that the model was trained with; restore that '
            "version"
        )


def modules_of(names: Iterable[str]) -> list[str]:
    """Return the modules of the user's own code."""
    return [name.partition(":")[0] for name in names]


def not_recordable(names: Iterable[object]) -> list[str]:
    """Return the names of user code that does not say that it can be recorded into CUDA graphs."""
    own = [name for name in map(str, names) if is_user_code(name)]
    return [name for name in own if not getattr(_loaded(name), MAY_BE_RECORDED, False)]


def _loaded(name: str) -> object:
    module, _, attribute = name.partition(":")
    return getattr(sys.modules[module], attribute)


def _import(name: str, module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise UserCodeError(f'"{name}" cannot be imported: {place_of(error)}{error}; install it') from error
        raise UserCodeError(
            f'"{name}": there is no module {error.name} on Python\'s path or beside the TOML files; correct the name, '
            "or put the module there"
        ) from error
    except Exception as error:  # noqa: BLE001 - the user's code can fail in any way
        raise UserCodeError(
            f'"{name}" cannot be imported: {place_of(error)}{type(error).__name__}: {error}; correct it'
        ) from error


def place_of(error: Exception) -> str:
    """Return the innermost line of the user's code that an error passed through, as `file, line n: `."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}: "
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    users = [frame for frame in frames if not frame.filename.startswith(FOREIGN)] or frames
    return f"{users[-1].filename}, line {users[-1].lineno}: " if len(frames) > 1 else ""
