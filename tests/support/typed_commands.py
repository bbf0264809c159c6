"""Reads printed commands as a shell and the program's own parsers would."""

from __future__ import annotations

import argparse
import importlib
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import pytest

from utils import commands
from utils.commands import ROOT, Words

OF_OTHERS = ("wandb",)
"""Modules of other projects, whose parsers are not asked."""
INTERPRETER = sys.executable
JOIN = commands._joined


class ParsedError(Exception):
    """A command line was understood."""


class Printed:
    """Commands that the program has made, each with the folder that it was made in."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, Path], None] = {}

    def join(self, words: Words) -> str:
        """Return what the program's own function does, and remember it."""
        command = JOIN(words)
        if sys.executable == INTERPRETER:  # a test has put another program in its place, else
            self._made[command, Path.cwd()] = None
        return command

    def check(self) -> None:
        """Read every command that was made since the last time.

        Raises:
            AssertionError: Names the first that its program does not understand.
        """
        made, self._made = self._made, {}
        for command, place in made:
            try:
                read_as_typed(command, place)
            except SystemExit as error:
                raise AssertionError(f"its program does not understand `{command}`") from error


@contextmanager
def remembered() -> Iterator[Printed]:
    """Remember the commands that the program makes inside the context."""
    printed = Printed()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands, "_joined", printed.join)
        yield printed


def read_as_typed(command: str, place: Path | None = None) -> argparse.Namespace:
    """Return what the program that a command names understands; nothing of it is run.

    Args:
        command: As it was printed.
        place: The folder that it was printed in; the current one where None.

    Raises:
        SystemExit: Where its parser refuses the command.
    """
    here, words = place or Path.cwd(), shlex.split(command)
    while "=" in words[0]:
        words.pop(0)
    assert (here / words[0]).exists() if "/" in words[0] else shutil.which(words[0]) is not None, words[0]
    if "torchrun" in words[0]:
        assert words[1] == "--nproc-per-node"
        words = [words[0], *words[3:]]
    if words[1] == "-m":
        module, arguments = words[2], words[3:]
        assert "/" not in module
    else:
        assert (here / words[1]).resolve().parent == ROOT, words[1]
        module, arguments = Path(words[1]).stem, words[2:]
    return argparse.Namespace() if module in OF_OTHERS else _understood(module, tuple(arguments))


@lru_cache
def _understood(module: str, arguments: tuple[str, ...]) -> argparse.Namespace:
    main: Callable[[list[str]], object] = importlib.import_module(module).main
    understood: list[argparse.Namespace] = []
    parse = argparse.ArgumentParser.parse_args

    def stop(parser: argparse.ArgumentParser, *given: object) -> None:
        understood.append(parse(parser, *given))  # type: ignore[call-overload]
        raise ParsedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        try:
            main(list(arguments))
        except ParsedError:
            return understood[0]
        except SystemExit as ended:
            if ended.code == 0:  # --help
                return argparse.Namespace()
            raise
    raise AssertionError(f"{module} reads no command line")
