"""Recording what is computed on a GPU as a CUDA graph."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from utils.garbage import no_garbage_collection


@contextmanager
def captured(graph: torch.cuda.CUDAGraph, pool: Any) -> Iterator[None]:  # noqa: ANN401 - torch's own
    """Record what is computed, while other threads, such as one that pins batches, go on.

    Nothing is collected as garbage meanwhile: the graphs of an earlier training would be freed among it, which CUDA
    does not permit during a recording, and which breaks that off.

    Args:
        graph: What is recorded into.
        pool: Of the memory that recordings share.
    """
    with no_garbage_collection(), torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
        yield
