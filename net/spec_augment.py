"""SpecAugment on the upstream's projected features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SpecAugment:
    """Masks spans of frames and of feature channels.

    Every utterance gets prob · length / span spans (rounded up or down at random), each at a uniformly drawn place
    inside the utterance; spans may overlap, and there is no minimum number.

    Source: D. S. Park et al., "SpecAugment: A Simple Data Augmentation Method for Automatic Speech Recognition",
    Interspeech 2019, applied after the feature projection as in A. Baevski et al., "wav2vec 2.0", NeurIPS 2020.
    """

    time_prob: float
    time_length: int
    feature_prob: float
    feature_length: int

    @property
    def is_on(self) -> bool:
        """Whether frames or channels are masked."""
        return self.time_prob > 0 or self.feature_prob > 0

    def __call__(self, hidden: Tensor, lengths: Sequence[int], embedding: Tensor | None) -> Tensor:
        """Mask the frames of utterances end to end, by draws from the global CPU generator, keyed by seed and step.

        Args:
            hidden: Projected features, (total_frames, dim).
            lengths: Frames of each utterance.
            embedding: Learned replacement of masked frames, (dim,); zeros if None.

        Returns:
            Masked features, (total_frames, dim).
        """
        dim = hidden.shape[1]
        if self.time_prob > 0:
            spans = draw_spans(lengths, self.time_prob, self.time_length)
            fill = hidden.new_zeros(dim) if embedding is None else embedding.to(hidden.dtype)
            hidden = torch.where(_on(spans, hidden).unsqueeze(1), fill, hidden)
        if self.feature_prob > 0:
            masks = draw_spans([dim] * len(lengths), self.feature_prob, self.feature_length).view(-1, dim)
            utterance = torch.repeat_interleave(torch.tensor(lengths))
            hidden = hidden.masked_fill(_on(masks, hidden).index_select(0, _on(utterance, hidden)), 0.0)
        return hidden


def _on(values: Tensor, like: Tensor) -> Tensor:
    """Copy to another tensor's device without waiting for it."""
    return (values.pin_memory() if like.is_cuda else values).to(like.device, non_blocking=True)


def draw_spans(lengths: Sequence[int], prob: float, span: int) -> Tensor:
    """Return a bool mask with spans in each of several sequences, end to end: (sum of lengths,).

    A span longer than its sequence is shortened to it.
    """
    sizes = torch.tensor(lengths)
    spans = sizes.clamp(max=span)
    counts = (prob * sizes / spans + torch.rand(len(sizes))).long()
    sequence = torch.repeat_interleave(counts)
    room = (sizes - spans + 1)[sequence]
    starts = (sizes.cumsum(0) - sizes)[sequence] + (torch.rand(len(sequence), dtype=torch.float64) * room).long()
    within = torch.arange(span)
    places = (starts.unsqueeze(1) + within)[within < spans[sequence].unsqueeze(1)]
    mask = torch.zeros(int(sizes.sum()), dtype=torch.bool)
    mask[places] = True
    return mask
