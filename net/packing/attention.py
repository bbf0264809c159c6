"""Assignment of frames to the programs of the attention kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from net.packing.buckets import Bucket

DROP_STEPS = 2**24
"""Dropout's rate is rounded to a multiple of 1 / DROP_STEPS."""
PHILOX_ROUNDS = 7
"""The fewest rounds that pass BigCrush; the usual 10 would cost more than the rest of a tile."""


@dataclass(frozen=True)
class KernelSettings:
    """Tile sizes, warps and pipeline stages of the three kernels.

    Smaller tiles waste less at the end of an utterance, larger ones read the keys less often. The backward's tiles are
    square and at least 32 wide: sums along diagonals need that.
    """

    forward_rows: int
    forward_columns: int
    forward_warps: int
    forward_stages: int
    backward_block: int
    query_warps: int
    query_stages: int
    key_warps: int
    key_stages: int


HALF_SETTINGS = {
    16: KernelSettings(64, 64, 4, 2, 64, 4, 2, 4, 2),
    32: KernelSettings(64, 64, 4, 2, 64, 4, 2, 4, 2),
    64: KernelSettings(64, 64, 4, 2, 64, 4, 2, 4, 2),
    128: KernelSettings(64, 64, 4, 2, 64, 8, 2, 8, 2),
}
FLOAT_SETTINGS = {
    16: KernelSettings(32, 32, 4, 2, 32, 4, 2, 4, 2),
    32: KernelSettings(32, 32, 4, 2, 32, 4, 2, 4, 2),
    64: KernelSettings(32, 32, 4, 2, 32, 4, 2, 4, 2),
    128: KernelSettings(32, 32, 8, 1, 32, 4, 2, 8, 1),
}
"""By head dimension, for half precision and for float32; chosen so that no kernel spills on compute capability 9.0."""


@dataclass(frozen=True, eq=False)
class AttentionPlan:
    """Positions of the utterances in one packed batch; built once per batch, shared by all layers.

    Attributes:
        lengths: Frames of each utterance, in the order of the pack.
        longest: Upper bound of an utterance's frames in such a batch.
        programs: By block size, (programs, 4) int32, longest utterances first: start and end of the program's
            utterance, the program's block within it, and the number of vectors of partial sums that the programs
            before it store. Programs that fill up the table have an utterance without frames.
        vectors: By block size, the number of vectors of partial sums that one head has room for.
        settings: Kernel settings in place of HALF_SETTINGS and FLOAT_SETTINGS.
    """

    lengths: tuple[int, ...]
    longest: int
    programs: dict[int, Tensor]
    vectors: dict[int, int]
    settings: KernelSettings | None = None

    @classmethod
    def of(
        cls, lengths: Sequence[int], settings: KernelSettings | None = None, bucket: Bucket | None = None
    ) -> AttentionPlan:
        """Plan a batch, which fills its bucket if there is one; on the host.

        Raises:
            ValueError: If there is no utterance, or one without frames.
        """
        lengths = tuple(lengths)
        if not lengths or min(lengths) < 1:
            raise ValueError(f"every utterance needs at least one frame, found lengths {lengths}")
        used = (settings,) if settings else (*HALF_SETTINGS.values(), *FLOAT_SETTINGS.values())
        sizes = sorted({size for entry in used for size in (entry.forward_rows, entry.backward_block)})
        found = {size: _program_rows(np.array(lengths), size, bucket) for size in sizes}
        programs = {size: torch.from_numpy(rows) for size, (rows, _) in found.items()}
        vectors = {size: count for size, (_, count) in found.items()}
        return cls(lengths, bucket.longest if bucket else max(lengths), programs, vectors, settings)

    def tables(self) -> list[Tensor]:
        """Return the tables, to be copied to another place."""
        return list(self.programs.values())

    def with_tables(self, tables: Sequence[Tensor]) -> AttentionPlan:
        """Return the plan with its tables in another place."""
        return replace(self, programs=dict(zip(self.programs, tables, strict=True)))


def _program_rows(
    lengths: npt.NDArray[np.int64], size: int, bucket: Bucket | None
) -> tuple[npt.NDArray[np.int32], int]:
    """Return one row per block, and the number of vectors of partial sums."""
    order = np.argsort(-lengths, kind="stable")
    blocks = -(-lengths[order] // size)
    ends = lengths.cumsum()
    programs = int(blocks.sum())
    stored = np.repeat(blocks + 1, blocks)
    rows = np.zeros((bucket.blocks(size) if bucket else programs, 4), dtype=np.int32)
    rows[:programs, 0] = np.repeat(ends[order] - lengths[order], blocks)
    rows[:programs, 1] = np.repeat(ends[order], blocks)
    rows[:programs, 2] = np.arange(programs) - np.repeat(blocks.cumsum() - blocks, blocks)
    rows[:programs, 3] = stored.cumsum() - stored
    if bucket is None:
        return rows, int(stored.sum())
    vectors = bucket.blocks(size) * (-(-bucket.longest // size) + 1) + 1
    rows[programs:, 3] = vectors - 1  # where programs without frames store their zeros
    return rows, vectors
