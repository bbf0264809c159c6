"""Positions of frames in the padded copy that the positional convolution takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from net.packing.buckets import Bucket

COLUMNS = 128
"""A block is long enough for its outputs in one group to fill whole tiles of this many columns."""
ROW_MULTIPLE = 128
"""The table of blocks is filled up to a multiple of this, which every tile height divides."""


@dataclass(frozen=True, eq=False)
class PositionalPlan:
    """Positions of a batch's frames in a padded copy with zeros around every utterance.

    Attributes:
        lengths: Frames of each utterance.
        taps: Kernel size of the convolution.
        block: Frames of one block.
        padded_rows: Rows of the padded copy.
        sources: Packed frame that each padded row holds, or -1 for zeros, (padded_rows,) int32.
        blocks: First padded row of every block, its first packed frame and its number of valid frames, (3, blocks)
            int32; the blocks that fill up the table have no valid frames.
    """

    lengths: tuple[int, ...]
    taps: int
    block: int
    padded_rows: int
    sources: Tensor
    blocks: Tensor

    def tables(self) -> list[Tensor]:
        """Return the tables, to be copied to another place."""
        return [self.sources, self.blocks]

    def with_tables(self, tables: Sequence[Tensor]) -> PositionalPlan:
        """Return the plan with its tables in another place."""
        sources, blocks = tables
        return replace(self, sources=sources, blocks=blocks)


def plan_positions(
    lengths: Sequence[int], conv: nn.Conv1d, block: int | None = None, bucket: Bucket | None = None
) -> PositionalPlan:
    """Plan a batch, given the utterances' frames, which fill their bucket if there is one; on the host."""
    taps, channels = conv.kernel_size[0], conv.in_channels // conv.groups
    block = block or frames_per_block(channels)
    gap = taps // 2 + block
    frames = np.array(lengths)
    packed_starts = frames.cumsum() - frames
    padded_starts = packed_starts + gap * np.arange(1, len(lengths) + 1)
    padded_rows = int(frames.sum()) + gap * ((bucket.utterances if bucket else len(lengths)) + 1)
    packed_rows = np.arange(sum(lengths), dtype=np.int32)
    sources = np.full(padded_rows, -1, dtype=np.int32)
    sources[packed_rows + np.repeat(padded_starts - packed_starts, frames)] = packed_rows
    counts = (frames + block - 1) // block
    total = int(counts.sum())
    place = (np.arange(total) - np.repeat(counts.cumsum() - counts, counts)) * block
    room = bucket.blocks(block) if bucket else total
    blocks = np.zeros((3, -(-room // ROW_MULTIPLE) * ROW_MULTIPLE), dtype=np.int32)
    blocks[0, total:] = taps // 2  # their windows must lie in the padded copy too, and their frames in a gap
    blocks[0, :total] = np.repeat(padded_starts, counts) + place
    blocks[1, :total] = np.repeat(packed_starts, counts) + place
    blocks[2, :total] = np.minimum(np.repeat(frames, counts) - place, block)
    return PositionalPlan(tuple(lengths), taps, block, padded_rows, torch.from_numpy(sources), torch.from_numpy(blocks))


def frames_per_block(channels: int) -> int:
    """Return the number of frames whose outputs in one group fill whole tiles of columns, 16 at most."""
    block = 1
    while block < 16 and (block * channels) % COLUMNS:
        block *= 2
    return block
