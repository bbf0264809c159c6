"""Console output: the plan, the progress of an epoch, one line per epoch, and the table at the end."""

from __future__ import annotations

import io
import os
import re
import sys
import time
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from rich.console import Console as RichConsole
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from experiment_runner.runtime.table_layout import choose_layout, describe_columns, filled
from utils.io.files import abandon
from utils.io.secrets import Redaction
from utils.text import printable

PLAIN_WIDTH = 160
"""Width of outputs that are not a terminal, unless the environment variable COLUMNS is set."""
COMMAND = re.compile(r"(?<!\w)(?:PYTHONPATH=\S+ )?(?:\S*/)?(?:python[\d.]*|pip|torchrun|apt-get) [^;`]*")
"""A command within a sentence: it stays on one line, so that it can be copied."""
SECONDS_BETWEEN_LINES = 60.0


class _GivingUp(RichConsole):
    """Gives up an output that can no longer be written to; the program continues."""

    def _check_buffer(self) -> None:
        """Write pending output: lines, tables and bars (which have their own thread) all pass through here."""
        try:
            super()._check_buffer()
        except OSError:
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        """Stop writing, where rich would end the program."""
        self.quiet = True
        abandon(self.file)


class EpochProgress:
    """The progress of one epoch: a bar on a terminal, else a plain line every minute.

    Args:
        epoch: Counted from 1.
        utterances: Utterances in the epoch.
        bar: Progress bar, disabled where there is no terminal.
        say: Prints a plain line.
    """

    def __init__(self, epoch: int, utterances: int, bar: Progress, say: Callable[[str], None]) -> None:
        self._epoch, self._utterances, self._bar, self._say = epoch, utterances, bar, say
        self._task = bar.add_task(f"epoch {epoch}", total=utterances, loss="", rate="")
        self._done = 0
        self._loss = ""
        self._started = self._said = time.monotonic()

    def advance(self, utterances: int) -> None:
        """Count utterances that were trained on."""
        self._done += utterances
        now = time.monotonic()
        rate = self._done / max(now - self._started, 1e-9)
        self._bar.update(self._task, advance=utterances, loss=self._loss, rate=f"{rate:.1f} utterances/s")
        if self._bar.disable and now - self._said >= SECONDS_BETWEEN_LINES:
            self._said = now
            minutes = (self._utterances - self._done) / rate / 60
            done = f"{self._done:,} of {self._utterances:,} utterances"
            self._say(f"epoch {self._epoch}  {done}  {self._loss}  {rate:.1f} utterances/s  {minutes:.1f} min left")

    def show_loss(self, loss: float) -> None:
        """Set the mean loss of the epoch so far, to be shown from now on."""
        self._loss = f"loss {loss:.4f}"


class Console:
    """Prints to the terminal, and to a run's log while one is attached.

    Args:
        is_silent: Whether only errors are printed and nothing is logged, because another process reports for this one.
        to_stderr: Whether messages go to standard error, which leaves standard output to the program's results.
    """

    def __init__(self, is_silent: bool = False, to_stderr: bool = False) -> None:
        stream = sys.stderr if to_stderr else sys.stdout
        is_terminal = stream.isatty() and not is_silent
        width = width_of_environment()
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names that the terminal cannot show must not cause errors
        self.rich = _GivingUp(
            stderr=to_stderr,
            highlight=False,
            soft_wrap=True,
            width=None if is_terminal else width or PLAIN_WIDTH,
            quiet=is_silent,
            force_terminal=False if is_silent else None,
        )
        self._is_silent = is_silent
        self._breaks_lines = is_terminal or width is not None
        self._log: Path | None = None
        self._redact = Redaction()

    @contextmanager
    def log_to(self, path: Path) -> Iterator[None]:
        """Copy every line to a file while the context lasts."""
        self._log = None if self._is_silent else path
        try:
            yield
        finally:
            self._log = None

    def line(self, *texts: str | None, style: str = "") -> None:
        """Print lines, with tokens redacted; those that are None or empty are left out."""
        for text in filter(None, texts):
            self._print(text, style)

    def _print(self, text: str, style: str) -> None:
        text = printable(self._redact(text))
        self.rich.print(escape(self._readable(text)), style=style or None)
        if self._log is not None:
            now = datetime.now().astimezone().isoformat(timespec="seconds")
            try:
                with self._log.open("a", encoding="utf-8") as file:
                    file.write(f"{now} {text}\n")
            except OSError as error:
                path, self._log = self._log, None
                self.warn(f"{path} cannot be written ({error.strerror}); the run continues without it")

    def warn(self, *texts: str | None) -> None:
        """Print warning lines that stand out; those that are None or empty are left out."""
        self.line(*(f"WARNING: {text}" for text in texts if text), style="bold yellow")

    def error(self, *texts: str) -> None:
        """Print what went wrong."""
        was_quiet, self.rich.quiet = self.rich.quiet, False
        self.line(*(f"ERROR: {text}" for text in texts), style="bold red")
        self.rich.quiet = was_quiet

    @contextmanager
    def epoch_progress(self, epoch: int, utterances: int) -> Iterator[EpochProgress]:
        """Show loss, utterances per second and time left while an epoch runs."""
        figures = TextColumn("{task.fields[loss]}  {task.fields[rate]}")
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), figures, TimeRemainingColumn())
        with self._bar(columns) as bar:
            yield EpochProgress(epoch, utterances, bar, self.line)

    @contextmanager
    def count(self, total: int, things: str) -> Iterator[Callable[[int], None]]:
        """Show how many things are done: a bar on a terminal, else a plain line every minute."""
        done, last_line = 0, time.monotonic()
        with self._bar((*Progress.get_default_columns(), MofNCompleteColumn())) as bar:
            task = bar.add_task(things, total=total)

            def advance(number: int) -> None:
                nonlocal done, last_line
                done += number
                bar.update(task, advance=number)
                if bar.disable and time.monotonic() - last_line >= SECONDS_BETWEEN_LINES:
                    last_line = time.monotonic()
                    self.line(f"{done:,} of {total:,} {things}")

            yield advance

    def _bar(self, columns: Iterable[ProgressColumn]) -> Progress:
        return Progress(*columns, console=self.rich, transient=True, disable=not self.rich.is_terminal)

    def _readable(self, text: str) -> str:
        """Break a line between words if there is a width limit; a terminal would break it inside words."""
        return "\n".join(at_words(text, self.rich.width)) if self._breaks_lines else text

    def table(
        self,
        title: str,
        columns: Sequence[str],
        rows: Iterable[Sequence[str]],
        numeric: range,
        notes: Iterable[str] = (),
        *,
        keys: int = 1,
        prose: Container[int] = (),
        lists: Container[int] = (),
    ) -> None:
        """Print a table as wide as the screen allows, see `table_layout`, with notes below.

        Args:
            title: Title above the table.
            columns: Titles of the columns.
            rows: Cells of each row.
            numeric: Indices of numeric columns, which are aligned right.
            notes: Notes below the table; empty ones are left out.
            keys: Number of columns, from the left, that name a row.
            prose: Indices of columns of sentences, which may be broken between words.
            lists: Indices of columns of lists, which may be broken after commas.
        """
        cells = [[printable(self._redact(cell)) for cell in row] for row in rows]
        described = describe_columns(columns, numeric, prose, lists)
        if title:
            self.rich.print(Text(printable(self._redact(title)), style="bold"))
        for part in choose_layout(described, cells, self.rich.width, keys).parts:
            self.rich.print(part)
        for note in filter(None, notes):
            for line in at_words(printable(self._redact(note)), self.rich.width):
                self.rich.print(Text(line, style="bold yellow"))


def width_of_environment() -> int | None:
    """Return the environment variable COLUMNS; None if it is not set or not a number."""
    columns = os.environ.get("COLUMNS", "")
    return int(columns) if columns.isdecimal() and int(columns) else None


def at_words(text: str, width: int) -> list[str]:
    """Split a text into lines between words; words longer than a line and commands are left to the terminal."""
    commands = COMMAND.findall(text)
    for command in commands:
        text = text.replace(command, command.replace(" ", "\0"))
    return [line.replace("\0", " ") for line in filled(text.split(" "), width)]
