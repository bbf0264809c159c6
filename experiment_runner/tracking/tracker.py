"""Tracking: processes that copy run folders to Weights & Biases, and the messages about them.

Training only starts them, checks on them after each epoch, and closes their standard input. One that fails or hangs
only causes a message.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from experiment_runner.runtime.console import Console
from experiment_runner.tracking.wandb_copy import change_state, read_state
from utils.commands import ROOT, python_command
from utils.config.schema import ExperimentConfig

LONGEST_START = 60.0
"""Seconds after which a copy that has not begun is mentioned."""
LONGEST_END = 30.0
"""Seconds that the end of the program waits for all copies together."""
QUIET_END = 3.0
"""Seconds of that wait without a message."""


@dataclass
class _Copy:
    """One copying process."""

    folder: Path
    process: subprocess.Popen[bytes]
    began: float = field(default_factory=time.monotonic)

    @property
    def problem(self) -> str | None:
        """Its problem, if any, as far as can be seen without waiting."""
        state, status = read_state(self.folder), self.process.poll()
        if status:
            return state.get("error") or f"the copying process ended with status {status}"
        is_waiting = status is None and not state.get("started")
        is_late = time.monotonic() - self.began > LONGEST_START
        return f"no answer for {LONGEST_START:.0f} s" if is_waiting and is_late else None


class Tracking:
    """The copies of one session.

    Args:
        console: Where the first failure is reported; for the others, only what was not copied.
    """

    def __init__(self, console: Console) -> None:
        self._screen = console
        self._copies: list[_Copy] = []
        self._has_told = False

    def follow(self, config: ExperimentConfig, folder: Path) -> None:
        """Copy a run from now on if the experiment requests it; an earlier copy process of it is ended first."""
        if config.tracking == "wandb":
            self._end([copy for copy in self._copies if copy.folder == folder])
            self._copies = [copy for copy in self._copies if copy.folder != folder]
            try:
                self._copies.append(_Copy(folder, _start(folder)))
            except OSError as error:
                self._report(f"the copying process cannot be started ({error})")

    def look(self) -> None:
        """Report copies that failed or have not begun; never waits."""
        for copy in self._copies:
            if copy.problem:
                self._report(copy.problem)

    def release(self, folder: Path) -> None:
        """Let the copy of a run send the rest and end on its own."""
        for copy in self._copies:
            if copy.folder == folder and copy.process.stdin is not None and not copy.process.stdin.closed:
                # Decoding processes also hold the pipe open, so closing it would not be noticed.
                with suppress(OSError):
                    copy.process.stdin.write(b"\n")
                    copy.process.stdin.close()

    def close(self) -> None:
        """Wait a bounded time for all copies, and print where they are or how to make them again."""
        self._end(self._copies)
        self._show()
        self._copies.clear()

    def _end(self, copies: list[_Copy]) -> None:
        """Let copies send the rest, and stop those that take too long."""
        for copy in copies:
            self.release(copy.folder)
        if _wait(copies, QUIET_END):
            self._screen.line(f"tracking: waiting for W&B, {LONGEST_END:.0f} s at most")
        late = _wait(copies, LONGEST_END)
        self.look()
        for copy in late:
            copy.process.kill()
            copy.process.wait()
            self._report(f"not finished {LONGEST_END:.0f} s after its run")

    def _report(self, what: str) -> None:
        if not self._has_told:
            self._has_told = True
            self._screen.warn(f"tracking: W&B: {what.rstrip('.')}; nothing is lost, metrics.jsonl has every figure")

    def _show(self) -> None:
        states = {copy.folder: read_state(copy.folder) for copy in self._copies}
        for folder, state in states.items():
            if state.get("finished") and state["mode"] == "online":
                self._screen.line(f"tracking: {folder}: {state['url']}")
        offline = [
            folder.resolve() / "wandb" / state["files"]
            for folder, state in states.items()
            if state.get("finished") and state["mode"] == "offline"
        ]
        if offline:
            command = python_command("wandb", ["sync", *offline])
            self._screen.line(f"tracking: W&B was offline (there is no WANDB_TOKEN); to send it: {command}")
        missing = [folder for folder, state in states.items() if not state.get("finished")]
        if missing:
            command = python_command("experiment_runner.tracking.wandb_copy", missing)
            self._screen.line(f"tracking: not copied; to copy it later: {command}")


def _wait(copies: list[_Copy], seconds: float) -> list[_Copy]:
    """Return the copies that have not ended after that time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(copy.process.poll() is None for copy in copies):
        time.sleep(0.05)
    return [copy for copy in copies if copy.process.poll() is None]


def _start(folder: Path) -> subprocess.Popen[bytes]:
    """Start the copying process in its own session, so that an interrupt of the training does not reach it."""
    if read_state(folder):
        change_state(folder, started=False, finished=False, error="")
    return subprocess.Popen(
        [sys.executable, "-m", "experiment_runner.tracking.wandb_copy", str(folder.resolve()), "--follow"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
