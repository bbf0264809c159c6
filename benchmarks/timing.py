"""Timing for the GPU benchmarks."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

TIMES, WARM_UP = 20, 3


def median_ms(
    call: Callable[[], object],
    times: int = TIMES,
    warm_up: int = WARM_UP,
    before: Callable[[], object] = lambda: None,
) -> float:
    """Return the median time of a call on the GPU, in milliseconds.

    Args:
        call: Function to time.
        times: Number of timed calls.
        warm_up: Number of calls before them.
        before: Work queued before each timing begins. If it keeps the GPU busy for a while, it hides the time that
            launching the call takes.
    """
    for _ in range(warm_up):
        call()
    found: list[float] = []
    for _ in range(times):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        before()
        begin.record()
        call()
        end.record()
        end.synchronize()
        found.append(begin.elapsed_time(end))
    return float(statistics.median(found))


def first_line(error: Exception) -> str:
    """Return the first line of an error, for the table: a setting that does not compile is a row of it."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:120]


@contextmanager
def changed(settings: dict[str, int], changes: dict[str, int]) -> Iterator[None]:
    """Change settings temporarily."""
    kept = dict(settings)
    settings.update(changes)
    try:
        yield
    finally:
        settings.clear()
        settings.update(kept)


@contextmanager
def replaced(module: Any, name: str, replacement: object) -> Iterator[None]:  # noqa: ANN401
    """Replace a module's attribute temporarily."""
    kept = getattr(module, name)
    setattr(module, name, replacement)
    try:
        yield
    finally:
        setattr(module, name, kept)
