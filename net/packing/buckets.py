"""Sizes that batches share, so that one recording of the GPU's work serves many of them.

A batch is filled up with utterances of zeros to the frames of its bucket. No utterance sees another, and nothing is
asked of the filling, so what is computed of the batch's own utterances stays what it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SHARE = 32
"""A bucket is at most one part in so many larger than its batches, but for small ones."""
SMALLEST_STEP = 32
LONGEST_STEP = 128
UTTERANCES_STEP = 8


def round_frames(total: int, share: int = SHARE) -> int:
    """Return the frames of the bucket of a batch of so many, at most one part in `share` more, but for small ones."""
    step = _step_of(total, share)
    return -(-total // step) * step


def _step_of(total: int, share: int = SHARE) -> int:
    return max(SMALLEST_STEP, 1 << (total // share).bit_length() >> 1)


@dataclass(frozen=True)
class Bucket:
    """Bounds that all batches of a bucket keep.

    Attributes:
        frames: Of the batch when it is filled up.
        utterances: The most, filling included.
        longest: The most frames of one utterance.
    """

    frames: int
    utterances: int
    longest: int

    @classmethod
    def around(cls, lengths: Sequence[int], other: Bucket | None = None) -> Bucket:
        """Return the bucket of a batch of such lengths, its bounds no narrower than another's."""
        total = sum(lengths)
        frames = round_frames(total)
        longest = -(-max(lengths) // LONGEST_STEP) * LONGEST_STEP
        utterances = -(-(len(lengths) + -(-_step_of(total) // longest)) // UTTERANCES_STEP) * UTTERANCES_STEP
        if other is None:
            return cls(frames, utterances, longest)
        return cls(frames, max(utterances, other.utterances), max(longest, other.longest))

    def fill(self, lengths: Sequence[int]) -> tuple[int, ...]:
        """Return the lengths with those of the filling behind them."""
        whole, rest = divmod(self.frames - sum(lengths), self.longest)
        return (*lengths, *([self.longest] * whole), *([rest] if rest else []))

    def blocks(self, size: int) -> int:
        """Return the most blocks of `size` frames into which the utterances can be cut, each one by itself."""
        return self.frames // size + self.utterances
