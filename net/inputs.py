"""A batch of utterances as models take it: waveforms, or what a frozen part made of them before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Waveforms:
    """Waveforms of several utterances end to end.

    Attributes:
        samples: (total_samples,) float32, 16 kHz mono, normalised.
        counts: Samples of each utterance, known on the host.
    """

    samples: Tensor
    counts: tuple[int, ...]

    def padded(self) -> Tensor:
        """Return (batch, longest), zeros at the end of the shorter utterances."""
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
    """Lay pieces of shape (samples,) below each other, (pieces, length), with zeros at their ends, in one copy."""
    zeros = pieces[0].new_zeros(length)
    return torch.cat([part for piece in pieces for part in (piece, zeros[len(piece) :])]).view(-1, length)


@dataclass(frozen=True)
class FrozenFrames:
    """What an upstream's frozen part made of utterances before, in place of their waveforms.

    Attributes:
        values: What `net.upstream.Upstream.frozen_frames` returned, of the utterances that are known, end to end.
        counts: Samples of every utterance of the batch, in its order.
        is_known: For each, whether `values` holds it.
        others: Waveforms of those that are not known, in the batch's order; None where all are.
        starts: Where each utterance begins in `values` and the last one ends, (batch + 1,) int32, where all are known.
            What is behind the last one is filling.
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
        """Copy to page-locked memory what does not lie there."""
        others = None if self.others is None else self.others.pin_memory()
        starts = None if self.starts is None else self.starts.pin_memory()
        return replace(self, values=self.values.pin_memory(), others=others, starts=starts)

    def joined_with(self, computed: Tensor, lengths: Sequence[int]) -> Tensor:
        """Put what was computed of the others between what is known, each utterance in its place.

        Args:
            computed: Of `others`, end to end, as `values` is of the known.
            lengths: Frames of every utterance of the batch.
        """
        pairs = list(zip(lengths, self.is_known, strict=True))
        known = iter(torch.split(self.values, [length for length, is_known in pairs if is_known]))
        new = iter(torch.split(computed, [length for length, is_known in pairs if not is_known]))
        return torch.cat([next(known if is_known else new) for is_known in self.is_known])


Inputs = Waveforms | FrozenFrames
"""A batch of utterances, as an upstream takes it."""
