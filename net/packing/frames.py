"""Values of several utterances end to end, and the few operations that respect their borders.

Pooling and heads use only these operations, or a kernel that takes the borders from `starts`. They are therefore
independent of how an upstream lays out its batch (padded or packed), and no operation can mix two utterances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from net.packing.device_tables import to_device


@dataclass(frozen=True)
class Frames:
    """Frames of `batch` utterances, one utterance after the other.

    Attributes:
        values: Values of all frames, (total_frames, dim).
        lengths: Frames of each utterance, known on the host; each at least 1.
        known_starts: `starts`, if they are on the device already. Then there may be more values than frames: rows
            behind the last utterance are filling, which `sum`, `spread` and `softmax` do not accept.
    """

    values: Tensor
    lengths: tuple[int, ...]
    known_starts: Tensor | None = None

    def __post_init__(self) -> None:
        filling = self.values.shape[0] - sum(self.lengths)
        if filling < 0 or min(self.lengths) < 1 or (filling and self.known_starts is None):
            raise ValueError(f"lengths {self.lengths} do not describe {self.values.shape[0]} frames")

    @cached_property
    def starts(self) -> Tensor:
        """First row of each utterance and the end of the last one, (batch + 1,) int32 on the values' device."""
        if self.known_starts is not None:
            return self.known_starts
        return to_device(starts_of(self.lengths), self.values.device)

    def sum(self, values: Tensor) -> Tensor:
        """Sum (total_frames, dim) over each utterance's frames: (batch, dim)."""
        summed: Tensor = _SumPerUtterance.apply(values, self._lengths, self._utterance)  # type: ignore[no-untyped-call]
        return summed

    def spread(self, per_utterance: Tensor) -> Tensor:
        """Repeat (batch, dim) over each utterance's frames: (total_frames, dim)."""
        spread: Tensor = _SpreadOverFrames.apply(per_utterance, self._lengths, self._utterance)  # type: ignore[no-untyped-call]
        return spread

    def softmax(self, scores: Tensor) -> Tensor:
        """Softmax of (total_frames, dim) over each utterance's frames: (total_frames, dim)."""
        with torch.no_grad():
            highest = _reduce(scores.detach(), "max", self._lengths)
            highest = highest.index_select(0, self._utterance)
        weights = torch.exp(scores - highest)
        return weights / self.spread(self.sum(weights))

    @cached_property
    def _lengths(self) -> Tensor:
        if sum(self.lengths) != self.values.shape[0]:
            raise ValueError(f"what is behind the {sum(self.lengths)} frames can be left out by `starts` alone")
        return torch.tensor(self.lengths).to(self.values.device, non_blocking=True)

    @cached_property
    def _utterance(self) -> Tensor:
        """The utterance of every frame, (total_frames,)."""
        utterances = torch.arange(len(self.lengths), device=self.values.device)
        return torch.repeat_interleave(utterances, self._lengths, output_size=self.values.shape[0])


def starts_of(lengths: Sequence[int]) -> Tensor:
    """Return the first row of each utterance and the end of the last one, (batch + 1,) int32 on the host."""
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)


def from_padded(padded: Tensor, lengths: Sequence[int]) -> Tensor:
    """Take the valid frames out of a padded tensor of shape (batch, time, dim): (total_frames, dim)."""
    time = padded.shape[1]
    flat = padded.flatten(0, 1)
    if all(length == time for length in lengths):
        return flat
    total = sum(lengths)
    counts = torch.tensor(lengths).to(flat.device, non_blocking=True)
    padding_before = torch.arange(len(lengths), device=flat.device) * time - (counts.cumsum(0) - counts)
    rows = torch.arange(total, device=flat.device)
    rows += torch.repeat_interleave(padding_before, counts, output_size=total)
    return flat.index_select(0, rows)


def _reduce(values: Tensor, how: str, lengths: Tensor) -> Tensor:
    """Reduce over each utterance; `unsafe` only skips checks of the lengths that would wait for the device."""
    return torch.segment_reduce(values.contiguous(), how, lengths=lengths, axis=0, unsafe=True)


class _SumPerUtterance(torch.autograd.Function):
    """The gradient of a sum is a spread, which needs no atomic additions: results repeat bit for bit."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, lengths: Tensor, utterance: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(utterance)
        return _reduce(values, "sum", lengths)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        (utterance,) = ctx.saved_tensors
        return gradients[0].index_select(0, utterance), None, None


class _SpreadOverFrames(torch.autograd.Function):
    """The gradient of a spread is a sum."""

    @staticmethod
    def forward(ctx: Any, per_utterance: Tensor, lengths: Tensor, utterance: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(lengths)
        return per_utterance.index_select(0, utterance)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        (lengths,) = ctx.saved_tensors
        return _reduce(gradients[0], "sum", lengths), None, None
