"""Values of several utterances end to end, and the few operations that respect their borders.

Pooling and heads are written in these operations alone, so that how an upstream lays out its batch (padded, packed)
never reaches them, and no operation can mix two utterances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Frames:
    """Frames of `batch` utterances, one utterance after the other.

    Attributes:
        values: (total_frames, dim).
        lengths: Frames of each utterance, known on the host; each at least 1.
    """

    values: Tensor
    lengths: tuple[int, ...]

    def __post_init__(self) -> None:
        if sum(self.lengths) != self.values.shape[0] or min(self.lengths) < 1:
            raise ValueError(f"lengths {self.lengths} do not describe {self.values.shape[0]} frames")

    @classmethod
    def from_padded(cls, padded: Tensor, lengths: Sequence[int]) -> Frames:
        """Take the valid frames out of a padded tensor of shape (batch, time, dim)."""
        time = padded.shape[1]
        flat = padded.flatten(0, 1)
        if all(length == time for length in lengths):
            return cls(flat, tuple(lengths))
        rows = torch.cat([torch.arange(length) + i * time for i, length in enumerate(lengths)])
        return cls(flat.index_select(0, rows.to(flat.device, non_blocking=True)), tuple(lengths))

    def with_values(self, values: Tensor) -> Frames:
        """Return frames of the same utterances with other values, (total_frames, other_dim)."""
        return Frames(values, self.lengths)

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
            highest = torch.segment_reduce(scores.detach(), "max", lengths=self._lengths, axis=0)
            highest = highest.index_select(0, self._utterance)
        weights = torch.exp(scores - highest)
        return weights / self.spread(self.sum(weights))

    @cached_property
    def _lengths(self) -> Tensor:
        return torch.tensor(self.lengths).to(self.values.device, non_blocking=True)

    @cached_property
    def _utterance(self) -> Tensor:
        """The utterance of every frame, (total_frames,)."""
        index = torch.repeat_interleave(torch.arange(len(self.lengths)), torch.tensor(self.lengths))
        return index.to(self.values.device, non_blocking=True)


class _SumPerUtterance(torch.autograd.Function):
    """The gradient of a sum is a spread, which needs no atomic additions: results repeat bit for bit."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, lengths: Tensor, utterance: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(utterance)
        return torch.segment_reduce(values.contiguous(), "sum", lengths=lengths, axis=0)

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
        return torch.segment_reduce(gradients[0].contiguous(), "sum", lengths=lengths, axis=0), None, None
