"""Printed commands that can be pasted into a shell unchanged, in the folder where they were printed.

Where needed, they repeat options of the running command, such as `--config`.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RUN_OPTIONS = ("--config", "--experiments", "--only", "--device", "--output", "--with-code")
"""Options of `main.py` that say what is run, and where."""
Words = Iterable[Path | str]
Given = Mapping[str, tuple[Path | str, ...]]
NOTHING_GIVEN: Given = {}
_given: ContextVar[Given] = ContextVar("given", default=NOTHING_GIVEN)


@contextmanager
def repeating(options: Mapping[str, Path | str | Iterable[str] | None]) -> Iterator[None]:
    """Remember the options of the running command, for commands that are printed inside the context.

    Args:
        options: Option values by name; None where the option was left out.
    """
    values = {name: value for name, value in options.items() if value is not None}
    words = {
        name: (value,) if isinstance(value, (Path, str)) else tuple(map(str, value)) for name, value in values.items()
    }
    token = _given.set(words)
    try:
        yield
    finally:
        _given.reset(token)


def python_command(module: str, arguments: Words, repeat: Iterable[str] = ()) -> str:
    """Return `python -m module arguments`, with this interpreter, for a shell in the current folder.

    Args:
        module: Module that can be run with `-m`.
        arguments: See `script_command`.
        repeat: See `script_command`.
    """
    is_found = Path.cwd() == ROOT or not module.startswith(("experiment_runner.", "utils."))
    prefix = "" if is_found else f"PYTHONPATH={shlex.quote(str(ROOT))} "
    return prefix + _joined(
        [_executable("python", Path(sys.executable)), "-m", module, *arguments, *_again(arguments, repeat)]
    )


def script_command(script: str, arguments: Words = (), repeat: Iterable[str] = ()) -> str:
    """Return `python script arguments`, with this interpreter, for a shell in the current folder.

    Args:
        script: One of the program's commands, such as `main.py`.
        arguments: Its arguments; an option among them is not repeated.
        repeat: Options of the running command that the printed one needs too.
    """
    return _joined([_executable("python", Path(sys.executable)), ROOT / script, *arguments, *_again(arguments, repeat)])


def torchrun_command(processes: int, script: str, arguments: Words = (), repeat: Iterable[str] = ()) -> str:
    """Return `torchrun --nproc-per-node processes script arguments`; see `script_command`."""
    torchrun = _executable("torchrun", Path(sys.executable).with_name("torchrun"))
    count = ["--nproc-per-node", str(processes)]
    return _joined([torchrun, *count, ROOT / script, *arguments, *_again(arguments, repeat)])


def evaluation_command(run_folder: Path) -> str:
    """Return the command that evaluates a run, whichever output folder the run is in."""
    output = run_folder.parent.parent
    is_default = "--output" in _given.get() or output.resolve() == Path("runs").resolve()
    arguments: list[Path | str] = ["--test"] if is_default else ["--test", "--output", output]
    return script_command("main.py", arguments, RUN_OPTIONS)


def _again(arguments: Words, repeat: Iterable[str]) -> list[Path | str]:
    """Return those options of the running command that the printed one needs."""
    present = set(map(str, arguments))
    given = {name: values for name, values in _given.get().items() if name in set(repeat) - present}
    return [word for name, values in given.items() for word in (name, *values)]


def _executable(name: str, path: Path) -> Path | str:
    """Return a program's name if a shell finds the program by it, else its path."""
    by_name = shutil.which(name)
    is_same = by_name is not None and os.path.realpath(by_name) == os.path.realpath(path)
    return name if is_same and by_name is not None and Path(by_name).parent == path.parent else path


def _joined(words: Words) -> str:
    return " ".join(shlex.quote(_shown(word)) for word in words)


def _shown(word: Path | str) -> str:
    """Return a path relative to the current folder if it lies below that folder."""
    here = Path.cwd()
    return str(word.relative_to(here)) if isinstance(word, Path) and word.is_relative_to(here) else str(word)
