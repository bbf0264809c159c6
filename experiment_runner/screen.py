"""What a person sees: the plan, the progress of an epoch, a line an epoch, and the table at the end."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

PLAIN_WIDTH = 160


class EpochProgress:
    """The progress bar of one epoch; nothing is drawn where the output is not a terminal."""

    def __init__(self, bar: Progress | None, epoch: int, utterances: int) -> None:
        self._bar = bar
        self._task = bar.add_task(f"epoch {epoch}", total=utterances, loss="", rate="") if bar else None

    def advance(self, utterances: int) -> None:
        """Count utterances that were trained on."""
        if self._bar is not None and self._task is not None:
            self._bar.advance(self._task, utterances)
            speed = self._bar.tasks[0].speed
            self._bar.update(self._task, rate=f"{speed:.1f} utterances/s" if speed else "")

    def show_loss(self, loss: float) -> None:
        """Show the mean loss of the epoch so far."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, loss=f"loss {loss:.4f}")


class Screen:
    """Prints to the terminal, and to a run's log while one is attached."""

    def __init__(self) -> None:
        is_terminal = sys.stdout.isatty()
        self.console = Console(highlight=False, soft_wrap=True, width=None if is_terminal else PLAIN_WIDTH)
        self._log: Path | None = None

    @contextmanager
    def log_to(self, path: Path) -> Iterator[None]:
        """Copy every line to a file while the context lasts."""
        self._log = path
        try:
            yield
        finally:
            self._log = None

    def line(self, text: str, style: str = "") -> None:
        """Print one line."""
        self.console.print(escape(text), style=style or None)
        if self._log is not None:
            with self._log.open("a", encoding="utf-8") as file:
                file.write(f"{datetime.now().astimezone().isoformat(timespec='seconds')} {text}\n")

    def warn(self, text: str) -> None:
        """Print a line that must not be overlooked."""
        self.line(f"WARNING: {text}", style="bold yellow")

    def error(self, text: str) -> None:
        """Print what went wrong."""
        self.line(f"ERROR: {text}", style="bold red")

    @contextmanager
    def epoch_progress(self, epoch: int, utterances: int) -> Iterator[EpochProgress]:
        """Show a bar with loss, utterances a second and time left while an epoch runs."""
        if not self.console.is_terminal:
            yield EpochProgress(None, epoch, utterances)
            return
        columns = [
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}  {task.fields[rate]}"),
            TimeRemainingColumn(),
        ]
        with Progress(*columns, console=self.console, transient=True) as bar:
            yield EpochProgress(bar, epoch, utterances)

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], numeric: range) -> None:
        """Print a table; the columns of `numeric` are aligned right."""
        table = Table(title=title, title_justify="left", title_style="bold")
        for index, column in enumerate(columns):
            table.add_column(column, justify="right" if index in numeric else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        self.console.print(table)
