"""Signals that ask the program to end: noted where something would be lost, and obeyed where it can be saved.

Without torch, so that the program can be interrupted before torch is imported.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""What schedulers and people send; SLURM sends the last one where `sbatch --signal` says so."""
WORKER_SECONDS = 60
"""That processes which decode outlive SIGTERM, for the main process to finish its step and to end them."""
EXIT_STATUS = 75
"""Of a program that was interrupted: the same command goes on (`EX_TEMPFAIL` of sysexits.h)."""


class Interrupted(Exception):  # noqa: N818 - nothing went wrong
    """The program was asked to end and has come to where nothing is lost; the message names the signal."""


class Interruption:
    """The signals that one process gets while the context lasts.

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
        """Let signals wait for a `check`, or for the end of the context."""
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
        if self._noted:
            raise KeyboardInterrupt(self._noted)

    @contextmanager
    def interrupt_wins(self) -> Iterator[None]:
        """Take whatever fails after a signal for what the signal did.

        The exception that it raises can be lost, as in a weak reference's callback, or break what it comes into, as an
        import, in ways of its own.
        """
        try:
            yield
        except Exception:
            self.check()
            raise

    def check(self) -> None:
        """Obey a signal that came.

        Raises:
            Interrupted: Where one did.
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
    """Leave it to the main process what a signal to all of its processes means; for those that it has started.

    SIGTERM also comes from a main process that ends, and waits for this one: it gives the main process a while.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(WORKER_SECONDS))


def end_children() -> None:
    """Kill the processes that this one has started and not ended, which would be waited for.

    Meanwhile nothing takes their end for a failure, as torch does of those that decode.
    """
    before = None
    with suppress(ValueError):  # in a thread that is not the main one
        before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for child in multiprocessing.active_children():
        child.kill()
        child.join()
    if before is not None:
        signal.signal(signal.SIGCHLD, before)


@contextmanager
def stopped_as_by_keyboard() -> Iterator[None]:
    """Let SIGTERM, as a batch system sends it, stop a program like Ctrl-C."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    earlier = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)
