"""Control of Python's cyclic garbage collector."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Switch garbage collection off in the context, where a collection would take seconds or destroy something."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def own_garbage_collected() -> Iterator[None]:
    """Collect at the end the garbage that was made in the context.

    Older objects, such as the modules of torch, are not looked at, which would take 0.2 s.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.collect()
        gc.unfreeze()
