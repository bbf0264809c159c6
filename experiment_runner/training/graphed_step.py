"""Optimiser steps after a frozen upstream, each recorded entirely as one CUDA graph.

After the upstream, a step consists of a few hundred small kernels; the host takes many times as long to launch them one
by one as the GPU takes to run them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from net.cuda_graphs.capture import captured
from net.inputs import FrozenFrames
from net.loss_modules import Terms
from net.packing.buckets import round_frames
from utils.dataset.collation import Batch

SHARE = 4
"""A recording pads its batches by at most 1/`SHARE` of their frames, which costs little."""
MOST_RECORDINGS = 64
Kind = tuple[int, int]
"""The batches that one recording serves: number of frames after padding, and number of utterances."""


class RecordingError(Exception):
    """A step cannot be recorded; the message names the remedy."""


class Graph(Protocol):
    """A `torch.cuda.CUDAGraph`."""

    def replay(self) -> None:
        """Run the recorded work again."""


@dataclass(frozen=True)
class Recording:
    """One recorded step.

    Attributes:
        graph: Graph of the step, which reads `batch` and changes all that a step changes.
        batch: Fixed input tensors: a batch's frames, padded, and its labels.
        names: Names of the loss terms.
        terms: Values of the loss terms, (terms,).
    """

    graph: Graph
    batch: Batch
    names: tuple[str, ...]
    terms: Tensor


class GraphedStep:
    """Takes optimiser steps, from the second batch of a kind on by replaying a recording.

    Args:
        take: Takes a step with a batch on the GPU, without waiting for it. All that it reads and changes must keep its
            memory address, and the model must stay in training mode; no graph of an earlier step may be alive.
        most_frames: Maximum frames of a recorded batch; steps with more are taken without a recording.
    """

    def __init__(self, take: Callable[[Batch], Terms], most_frames: int) -> None:
        self.recordings: dict[Kind, Recording] = {}
        self._take = take
        self._rows = round_frames(most_frames, SHARE)
        self._values: Tensor | None = None
        self._seen: set[Kind] = set()
        self._pool: Any = None

    @staticmethod
    def kind_of(batch: Batch) -> Kind:
        """Return the kind of a batch; batches of one kind share a recording."""
        return round_frames(len(_frames_of(batch).values), SHARE), len(batch.rows)

    def __call__(self, batch: Batch) -> Terms:
        """Take a step.

        Args:
            batch: Batch that holds the frames of all its utterances.

        Returns:
            The loss terms, which later steps do not overwrite.

        Raises:
            RecordingError: If the GPU cannot record the step.
        """
        kind = self.kind_of(batch)
        if kind not in self._seen or kind[0] > self._rows:
            self._seen.add(kind)
            return self._take(batch)
        if kind not in self.recordings:
            self._make_room(batch)
            self.recordings[kind] = self._record(kind, batch)
        recording = self.recordings[kind]
        self._fill(recording.batch, batch)
        recording.graph.replay()
        return dict(zip(recording.names, recording.terms.clone().unbind(), strict=True))

    def _make_room(self, batch: Batch) -> None:
        """Allocate once what recordings share; drop all recordings if there are too many."""
        if len(self.recordings) >= MOST_RECORDINGS:
            self.recordings, self._pool = {}, None
        if self._values is None:
            values = _frames_of(batch).values
            self._values = values.new_zeros((self._rows, values.shape[1]))

    def _places(self, kind: Kind, batch: Batch) -> Batch:
        """Return a batch of the kind, for a recording to read from."""
        inputs = _frames_of(batch)
        assert self._values is not None
        assert inputs.starts is not None
        return replace(
            batch,
            inputs=replace(inputs, values=self._values[: kind[0]], starts=inputs.starts.clone()),
            labels=replace(batch.labels, values=batch.labels.values.clone()),
        )

    def _record(self, kind: Kind, batch: Batch) -> Recording:
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph, places = torch.cuda.CUDAGraph(), self._places(kind, batch)
        try:
            with captured(graph, self._pool):
                terms = self._take(places)
                values = torch.stack([term.detach() for term in terms.values()])
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise RecordingError(f'a training step could not be recorded ({reason}); set compile = "off"') from error
        return Recording(graph, places, tuple(terms), values)

    @staticmethod
    def _fill(places: Batch, batch: Batch) -> None:
        """Copy a batch to where a recording reads it; the padding frames become zeros."""
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
