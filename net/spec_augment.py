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
        """Mask the frames of several utterances end to end.

        Args:
            hidden: (total_frames, dim).
            lengths: Frames of each utterance.
            embedding: (dim,) learned in place of masked frames; zeros where None.

        Returns:
            (total_frames, dim). What is masked is drawn from the global CPU generator, keyed by seed and step.
        """
        dim = hidden.shape[1]
        if self.time_prob > 0:
            spans = torch.cat([draw_spans(length, self.time_prob, self.time_length) for length in lengths])
            fill = hidden.new_zeros(dim) if embedding is None else embedding.to(hidden.dtype)
            hidden = torch.where(_on(spans, hidden).unsqueeze(1), fill, hidden)
        if self.feature_prob > 0:
            masks = torch.stack([draw_spans(dim, self.feature_prob, self.feature_length) for _ in lengths])
            utterance = torch.repeat_interleave(torch.tensor(lengths))
            hidden = hidden.masked_fill(_on(masks, hidden).index_select(0, _on(utterance, hidden)), 0.0)
        return hidden


def _on(values: Tensor, like: Tensor) -> Tensor:
    """Copy to another tensor's device without waiting for it."""
    return (values.pin_memory() if like.is_cuda else values).to(like.device, non_blocking=True)


def draw_spans(length: int, prob: float, span: int) -> Tensor:
    """Return a bool mask (length,) with spans.

    A span longer than `length` is cut to it.
    """
    span = min(span, length)
    count = int(prob * length / span + float(torch.rand(())))
    starts = torch.randint(0, length - span + 1, (count,))
    places = (starts.unsqueeze(1) + torch.arange(span)).flatten()
    mask = torch.zeros(length, dtype=torch.bool)
    mask[places] = True
    return mask
