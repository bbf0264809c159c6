"""Sizes that batches share, so that one CUDA graph serves many of them.

A batch is filled up with utterances of zeros to the frames of its bucket. No utterance sees another, and the output of
the filling is not used, so the results for the batch's own utterances do not change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SHARE = 32
"""A bucket exceeds its batches by at most 1 / SHARE, except for small ones."""
SMALLEST_STEP = 32
LONGEST_STEP = 128
UTTERANCES_STEP = 8


def round_frames(total: int, share: int = SHARE) -> int:
    """Return a bucket's frames, given those of a batch: at most 1 / `share` more, except for small ones."""
    step = _step_of(total, share)
    return -(-total // step) * step


def _step_of(total: int, share: int = SHARE) -> int:
    return max(SMALLEST_STEP, 1 << (total // share).bit_length() >> 1)


@dataclass(frozen=True)
class Bucket:
    """Bounds that all batches of a bucket respect.

    Attributes:
        frames: Frames of the filled batch.
        utterances: Upper bound of the number of utterances, filling included.
        longest: Upper bound of the frames of one utterance.
    """

    frames: int
    utterances: int
    longest: int

    @classmethod
    def around(cls, lengths: Sequence[int], other: Bucket | None = None) -> Bucket:
        """Return the bucket of a batch with these lengths, its bounds no narrower than another's."""
        total = sum(lengths)
        frames = round_frames(total)
        longest = -(-max(lengths) // LONGEST_STEP) * LONGEST_STEP
        utterances = -(-(len(lengths) + -(-_step_of(total) // longest)) // UTTERANCES_STEP) * UTTERANCES_STEP
        if other is None:
            return cls(frames, utterances, longest)
        return cls(frames, max(utterances, other.utterances), max(longest, other.longest))

    def fill(self, lengths: Sequence[int]) -> tuple[int, ...]:
        """Return the lengths, followed by those of the filling."""
        whole, rest = divmod(self.frames - sum(lengths), self.longest)
        return (*lengths, *([self.longest] * whole), *([rest] if rest else []))

    def blocks(self, size: int) -> int:
        """Return an upper bound of the blocks of `size` frames, where each utterance is cut into blocks by itself."""
        return self.frames // size + self.utterances
