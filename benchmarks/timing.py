"""How the GPU benchmarks measure."""

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
        call: What is timed.
        times: How often.
        warm_up: Calls before that.
        before: Queued before each timing begins. Work that keeps the GPU busy for a while hides the time it takes to
            launch what is timed.
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
    """Return the first line of what went wrong: a setting that does not compile is a row of a table."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:120]


@contextmanager
def changed(settings: dict[str, int], changes: dict[str, int]) -> Iterator[None]:
    """Change settings for a while."""
    kept = dict(settings)
    settings.update(changes)
    try:
        yield
    finally:
        settings.clear()
        settings.update(kept)


@contextmanager
def replaced(module: Any, name: str, replacement: object) -> Iterator[None]:  # noqa: ANN401
    """Replace a module's attribute for a while."""
    kept = getattr(module, name)
    setattr(module, name, replacement)
    try:
        yield
    finally:
        setattr(module, name, kept)
