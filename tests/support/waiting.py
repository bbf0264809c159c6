"""Finds where a program waits for the GPU."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def watch_waiting() -> Iterator[list[str]]:
    """Yield a list that holds, at the end, where the program waited for the GPU."""
    places: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")  # torch also warns of the mode itself, once
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield places
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [warning for warning in caught if "called a synchronizing CUDA operation" in str(warning.message)]
    places += [f"{warning.filename}:{warning.lineno}" for warning in waits]
