"""Optimiser steps on kept frames of a frozen upstream, each recorded whole as one CUDA graph.

What is left to compute of them is a few hundred small kernels; launching these one by one takes the host many times as
long as running them takes the GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from net.buckets import round_frames
from net.inputs import FrozenFrames
from net.loss_modules import Terms
from net.step_graphs import MOST_RECORDINGS, SPARE
from utils.dataset.collation import Batch


@dataclass(frozen=True)
class _Recording:
    """One recorded step.

    Attributes:
        graph: From the places to all that a step changes.
        batch: The places: a batch's frames, filled up, and its labels.
        names: Of the loss terms.
        terms: Their values, (terms,).
    """

    graph: torch.cuda.CUDAGraph
    batch: Batch
    names: tuple[str, ...]
    terms: Tensor


class RecordedSteps:
    """Takes optimiser steps by recordings: one for each bucket of the frames and each number of utterances.

    Args:
        take: Takes a step with a batch on the GPU, without waiting for it. It must have run before, so that what is
            made once is there; all that it changes must stay at its place in memory.
    """

    def __init__(self, take: Callable[[Batch], Terms]) -> None:
        self._take = take
        self._recordings: dict[tuple[int, int], _Recording] = {}
        self._values: Tensor | None = None
        self._pool: Any = None

    @staticmethod
    def can_take(window: list[Batch]) -> bool:
        """Return whether an effective batch is a single one of which everything is kept, on a GPU."""
        inputs = window[0].inputs
        if len(window) > 1 or not isinstance(inputs, FrozenFrames):
            return False
        return inputs.starts is not None and inputs.values.is_cuda

    def __call__(self, batch: Batch) -> Terms:
        """Take a step; return the loss terms, which stay what they are in later steps."""
        inputs = _frames_of(batch)
        frames, width = inputs.values.shape
        bucket = round_frames(frames)
        if self._values is None or len(self._values) < bucket or len(self._recordings) >= MOST_RECORDINGS:
            self._recordings, self._pool = {}, torch.cuda.graph_pool_handle()
            self._values = inputs.values.new_zeros((bucket + bucket // SPARE, width))
        kind = bucket, len(batch.rows)
        if kind not in self._recordings:
            self._recordings[kind] = self._record(batch, self._values[:bucket])
        recording = self._recordings[kind]
        self._fill(recording.batch, batch)
        recording.graph.replay()
        return dict(zip(recording.names, recording.terms.clone().unbind(), strict=True))

    def _record(self, batch: Batch, values: Tensor) -> _Recording:
        inputs = _frames_of(batch)
        assert inputs.starts is not None
        places = replace(
            batch,
            inputs=replace(inputs, values=values, starts=inputs.starts.clone()),
            labels=replace(batch.labels, values=batch.labels.values.clone()),
        )
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            terms = self._take(places)
            values_of_terms = torch.stack([term.detach() for term in terms.values()])
        return _Recording(graph, places, tuple(terms), values_of_terms)

    @staticmethod
    def _fill(places: Batch, batch: Batch) -> None:
        """Copy a batch to where a recording reads it; frames behind its own are zeros."""
        there, given = _frames_of(places), _frames_of(batch)
        assert there.starts is not None
        assert given.starts is not None
        count = len(given.values)
        there.values[:count].copy_(given.values)
        if count < len(there.values):
            there.values[count:].zero_()
        there.starts.copy_(given.starts)
        places.labels.values.copy_(batch.labels.values)


def _frames_of(batch: Batch) -> FrozenFrames:
    assert isinstance(batch.inputs, FrozenFrames)
    return batch.inputs
