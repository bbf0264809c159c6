"""A batch of utterances as models take it: waveforms, or the cached frames of the upstream's frozen part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Waveforms:
    """Waveforms of several utterances, end to end.

    Attributes:
        samples: (total_samples,) float32, 16 kHz mono, normalised.
        counts: Samples of each utterance, known on the host.
    """

    samples: Tensor
    counts: tuple[int, ...]

    def padded(self) -> Tensor:
        """Return (batch, longest), with zeros at the end of the shorter utterances."""
        return pad_end(self.split(), max(self.counts))

    def split(self) -> list[Tensor]:
        """Return each utterance's samples, (samples,), as a view."""
        return list(torch.split(self.samples, list(self.counts)))

    def pin_memory(self) -> Waveforms:
        """Copy to page-locked memory."""
        return Waveforms(self.samples.pin_memory(), self.counts)

    def to(self, device: torch.device) -> Waveforms:
        """Copy to a device, without waiting where the memory is pinned."""
        return Waveforms(self.samples.to(device, non_blocking=True), self.counts)


def pad_end(pieces: Sequence[Tensor], length: int) -> Tensor:
    """Stack pieces of shape (samples,) as (pieces, length), with zeros at their ends, in one copy."""
    zeros = pieces[0].new_zeros(length)
    return torch.cat([part for piece in pieces for part in (piece, zeros[len(piece) :])]).view(-1, length)


@dataclass(frozen=True)
class FrozenFrames:
    """Cached output of an upstream's frozen part, in place of the utterances' waveforms.

    Attributes:
        values: Output of `net.upstream.Upstream.frozen_frames` for the known utterances, end to end.
        counts: Samples of every utterance, in batch order.
        is_known: Whether `values` holds the utterance, for each of the batch.
        others: Waveforms of the unknown utterances, in batch order; None if all are known.
        starts: First row of each utterance in `values` and the end of the last one, (batch + 1,) int32, if all are
            known. Rows behind that end are filling.
    """

    values: Tensor
    counts: tuple[int, ...]
    is_known: tuple[bool, ...]
    others: Waveforms | None
    starts: Tensor | None = None

    def to(self, device: torch.device) -> FrozenFrames:
        """Copy to a device, without waiting where the memory is pinned."""
        others = None if self.others is None else self.others.to(device)
        starts = None if self.starts is None else self.starts.to(device, non_blocking=True)
        return replace(self, values=self.values.to(device, non_blocking=True), others=others, starts=starts)

    def pin_memory(self) -> FrozenFrames:
        """Copy tensors that are not in page-locked memory yet to it."""
        others = None if self.others is None else self.others.pin_memory()
        starts = None if self.starts is None else self.starts.pin_memory()
        return replace(self, values=self.values.pin_memory(), others=others, starts=starts)

    def joined_with(self, computed: Tensor, lengths: Sequence[int]) -> Tensor:
        """Merge the frames computed from `others` with the known ones, in batch order.

        Args:
            computed: Frozen frames of `others`, end to end, laid out like `values`.
            lengths: Frames of every utterance of the batch.
        """
        pairs = list(zip(lengths, self.is_known, strict=True))
        known = iter(torch.split(self.values, [length for length, is_known in pairs if is_known]))
        new = iter(torch.split(computed, [length for length, is_known in pairs if not is_known]))
        return torch.cat([next(known if is_known else new) for is_known in self.is_known])


Inputs = Waveforms | FrozenFrames
"""A batch of utterances, as an upstream takes it."""
