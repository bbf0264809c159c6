"""SpecAugment on the upstream's projected features, drawn from a generator of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SpecAugment:
    """Masks spans of frames and of feature channels.

    Every utterance gets prob · length / span spans (rounded up or down at random), each at a uniformly drawn place
    inside the utterance; spans may overlap, none is forced.

    Source: D. S. Park et al., "SpecAugment: A Simple Data Augmentation Method for Automatic Speech Recognition",
    Interspeech 2019, applied after the feature projection as in A. Baevski et al., "wav2vec 2.0", NeurIPS 2020.
    """

    time_prob: float
    time_length: int
    feature_prob: float
    feature_length: int

    @property
    def is_on(self) -> bool:
        """Whether anything is masked."""
        return self.time_prob > 0 or self.feature_prob > 0

    def __call__(self, hidden: Tensor, lengths: Sequence[int], embedding: Tensor | None) -> Tensor:
        """Mask a padded batch.

        Args:
            hidden: (batch, time, dim).
            lengths: Valid frames of each utterance.
            embedding: (dim,) learned in place of masked frames; zeros where None.

        Returns:
            (batch, time, dim). What is masked is drawn from the global CPU generator, keyed by seed and step.
        """
        batch, time, dim = hidden.shape
        if self.time_prob > 0:
            masked = torch.stack([draw_spans(time, n, self.time_prob, self.time_length) for n in lengths])
            masked = masked.to(hidden.device, non_blocking=True)
            fill = hidden.new_zeros(dim) if embedding is None else embedding.to(hidden.dtype)
            hidden = torch.where(masked.unsqueeze(-1), fill, hidden)
        if self.feature_prob > 0:
            masked = torch.stack([draw_spans(dim, dim, self.feature_prob, self.feature_length) for _ in range(batch)])
            hidden = hidden.masked_fill(masked.to(hidden.device, non_blocking=True).unsqueeze(1), 0.0)
        return hidden


def draw_spans(size: int, length: int, prob: float, span: int) -> Tensor:
    """Return a bool mask (size,) with spans inside the first `length` places.

    A span longer than `length` is cut to it.
    """
    span = min(span, length)
    count = int(prob * length / span + float(torch.rand(())))
    starts = torch.randint(0, length - span + 1, (count,))
    places = (starts.unsqueeze(1) + torch.arange(span)).flatten()
    mask = torch.zeros(size, dtype=torch.bool)
    mask[places] = True
    return mask
