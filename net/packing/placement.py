"""Positions of utterances in the signal and on the grids of the convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Placement:
    """Positions of a batch's utterances in the signal and on the grid of every layer.

    Attributes:
        counts: Samples of each utterance.
        kernels: Kernel size of every convolution.
        strides: Stride of every convolution.
        offsets: First sample of each utterance in the signal, multiples of the total stride.
        total_samples: Samples of the signal, a multiple of the total stride.
        lengths: For every layer, the valid frames of each utterance.
        rows: Valid rows of the last layer, (total_frames,) int32.
        slot_utterances: Utterance whose samples each stretch of one total stride holds, (total_samples / total
            stride,) int32.
        first_frames: First row and number of each utterance's frames in the first layer, (2, batch) int32.
    """

    counts: tuple[int, ...]
    kernels: tuple[int, ...]
    strides: tuple[int, ...]
    offsets: tuple[int, ...]
    total_samples: int
    lengths: tuple[tuple[int, ...], ...]
    rows: Tensor
    slot_utterances: Tensor
    first_frames: Tensor

    @property
    def rows_per_slot(self) -> int:
        """Rows of the first layer that share one entry of `slot_utterances`."""
        return prod(self.strides[1:])

    @property
    def first_rows(self) -> int:
        """Rows of the first layer's grid."""
        return (self.total_samples - self.kernels[0]) // self.strides[0] + 1

    def tables(self) -> list[Tensor]:
        """Return the tables, to be copied to another place."""
        return [self.rows, self.slot_utterances, self.first_frames]

    def with_tables(self, tables: Sequence[Tensor]) -> Placement:
        """Return the placement with its tables in another place."""
        rows, slot_utterances, first_frames = tables
        return replace(self, rows=rows, slot_utterances=slot_utterances, first_frames=first_frames)

    def lay_out(self, samples: Tensor) -> Tensor:
        """Spread packed samples (sum of counts,) to the signal (total_samples,), zeros between utterances."""
        longest_gap = samples.new_zeros(prod(self.strides))
        ends = (*self.offsets[1:], self.total_samples)
        pieces = []
        for piece, start, end in zip(torch.split(samples, list(self.counts)), self.offsets, ends, strict=True):
            pieces += [piece, longest_gap[: end - start - piece.shape[0]]]
        return torch.cat(pieces)


def place(counts: Sequence[int], kernels: Sequence[int], strides: Sequence[int]) -> Placement:
    """Place utterances, given their numbers of samples; on the host.

    Raises:
        ValueError: If an utterance is shorter than one frame.
    """
    total_stride = prod(strides)
    lengths, current = [], tuple(counts)
    for kernel, stride in zip(kernels, strides, strict=True):
        current = tuple((length - kernel) // stride + 1 for length in current)
        lengths.append(current)
    if min(current) < 1:
        raise ValueError(f"an utterance of {min(counts)} samples is shorter than one frame of the feature extractor")
    slots = np.array([-(-count // total_stride) for count in counts])
    starts = slots.cumsum() - slots
    frames = np.array(current)
    rows = np.arange(sum(current)) + np.repeat(starts - (frames.cumsum() - frames), frames)
    first = np.stack([starts * prod(strides[1:]), np.array(lengths[0])])
    return Placement(
        counts=tuple(counts),
        kernels=tuple(kernels),
        strides=tuple(strides),
        offsets=tuple((starts * total_stride).tolist()),
        total_samples=int(slots.sum()) * total_stride,
        lengths=tuple(lengths),
        rows=torch.from_numpy(rows).int(),
        slot_utterances=torch.from_numpy(np.repeat(np.arange(len(slots)), slots)).int(),
        first_frames=torch.from_numpy(first).int(),
    )
