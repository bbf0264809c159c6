"""Errors whose messages name the remedy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from utils.text import printable

ALL_WELL, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130
"""Exit statuses of commands; a training that can be resumed has its own, see `runtime/interruption.py`."""


class UserError(Exception):
    """An expected failure: its message says what is wrong and names the remedy, and no traceback is shown.

    Attributes:
        exit_status: exit status of a command that it ends: 2 for wrong input, 1 for what may work later or elsewhere.
    """

    exit_status: ClassVar[int] = FAILED


class DataError(UserError):
    """A corpus that cannot be used as it is; each problem is a sentence naming the file, the row and the remedy.

    Attributes:
        problems: One or more sentences.
    """

    exit_status = WRONG_INPUT

    def __init__(self, *problems: str) -> None:
        super().__init__(*problems)
        self.problems = problems

    def __str__(self) -> str:
        return "; ".join(self.problems)


@dataclass(frozen=True)
class Problem:
    """One mistake: the file, the TOML path inside it, and a sentence with the remedy."""

    file: Path
    path: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.file}: {self.path}: {self.sentence}" if self.path else f"{self.file}: {self.sentence}"


class ConfigurationError(UserError):
    """A configuration that cannot be run; the message names every problem, one per line."""

    exit_status = WRONG_INPUT

    def __init__(self, problems: Iterable[object]) -> None:
        self.problems = list(dict.fromkeys(printable(str(problem)) for problem in problems))
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple[type[ConfigurationError], tuple[list[str]]]:
        """Pickle the list of problems, not the message made from it."""
        return type(self), (self.problems,)
