"""Signals that ask the program to stop: deferred while something would be lost, and obeyed once it can be saved.

Does not import torch, so that the program can be interrupted before torch is imported.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""Signals that schedulers and people send; SLURM sends the last one if `sbatch --signal` requests it."""
WORKER_SECONDS = 60
"""Seconds that decoding processes outlive SIGTERM, so that the main process can finish its step and stop them."""
EXIT_STATUS = 75
"""Exit status of an interrupted program, which the same command resumes (`EX_TEMPFAIL` of sysexits.h)."""


class Interrupted(Exception):  # noqa: N818 - nothing went wrong
    """The program was asked to stop and has reached a point where nothing is lost; the message names the signal."""


class Interruption:
    """The signals that one process receives while the context lasts.

    Outside of `held`, the first one raises KeyboardInterrupt at once; inside, it waits for the next `check`. The second
    one ends the process at once.
    """

    def __init__(self) -> None:
        self._noted = ""
        self._is_held = False
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Interruption:
        with suppress(ValueError):  # in a thread that is not the main one, which gets no signals
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @contextmanager
    def held(self) -> Iterator[None]:
        """Defer signals to the next `check` or the end of the context."""
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
        if self._noted:
            raise KeyboardInterrupt(self._noted)

    @contextmanager
    def interrupt_wins(self) -> Iterator[None]:
        """Treat any failure after a signal as an effect of the signal.

        The exception that a signal raises can be lost, as in a weak reference's callback, or cause other errors where
        it strikes, as in an import.
        """
        try:
            yield
        except Exception:
            self.check()
            raise

    def check(self) -> None:
        """Obey a signal that has arrived.

        Raises:
            Interrupted: If one has.
        """
        if self._noted:
            raise Interrupted(self._noted)

    def _note(self, number: int, _: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self._noted:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._noted = name
        if not self._is_held:
            raise KeyboardInterrupt(name)


def outlive_signals() -> None:
    """In a child process, leave the handling of signals sent to all processes to the main process.

    SIGTERM also comes from a main process that ends and waits for this one, so it takes effect after a delay.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(WORKER_SECONDS))


def end_children() -> None:
    """Kill the child processes still running, which this process would otherwise wait for.

    Meanwhile their end is not treated as a failure, as torch would for decoding processes.
    """
    before = None
    with suppress(ValueError):  # in a thread that is not the main one
        before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for child in multiprocessing.active_children():
        child.kill()
        child.join()
    if before is not None:
        signal.signal(signal.SIGCHLD, before)
