"""What goes wrong, in sentences that name the remedy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from utils.text import printable

ALL_WELL, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130
"""Exit statuses of commands; a training that was interrupted and goes on has its own, see `runtime/interruption.py`."""


class UserError(Exception):
    """Something that was foreseen: its text says what is wrong and names the remedy, and no traceback is shown.

    Attributes:
        exit_status: Of a command that it ends: 2 for wrong input, 1 for what may work later or elsewhere.
    """

    exit_status: ClassVar[int] = FAILED


class DataError(UserError):
    """A corpus cannot be used as it is; each problem is a sentence that names the file, the row and the remedy.

    Attributes:
        problems: The sentences; at least one.
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
    """The configuration cannot be run; its text names every problem, one a line."""

    exit_status = WRONG_INPUT

    def __init__(self, problems: Iterable[object]) -> None:
        self.problems = list(dict.fromkeys(printable(str(problem)) for problem in problems))
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple[type[ConfigurationError], tuple[list[str]]]:
        """Travel between processes by the problems, not by the text made of them."""
        return type(self), (self.problems,)
