"""Recording GPU work as a CUDA graph."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from utils.garbage import no_garbage_collection


@contextmanager
def captured(graph: torch.cuda.CUDAGraph, pool: Any) -> Iterator[None]:  # noqa: ANN401 - torch's own
    """Record the GPU work of the context, while other threads, such as one that pins batches, go on.

    Garbage collection is off meanwhile: it could free the graphs of an earlier training, which CUDA does not permit
    during a recording and which would abort it.

    Args:
        graph: Graph that receives the recording.
        pool: Memory pool that recordings share.
    """
    with no_garbage_collection(), torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
        yield
