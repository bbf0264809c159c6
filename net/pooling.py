"""Pooling: from the frames of an utterance to one vector."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from net.kernels.triton_support import runs_triton
from net.packing.frames import Frames

SMALLEST_VARIANCE = 1e-5


class Pooling(nn.Module, ABC):
    """Base of all poolings.

    Args:
        dim: Size of a frame.

    Attributes:
        output_size: Size of a pooled vector, which the heads start from; the constructor sets it.
    """

    output_size: int

    def __init__(self, dim: int) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, frames: Frames) -> Tensor:
        """Pool frames (total_frames, dim) to (batch, output_size), in fp32.

        The operations of `Frames` keep the utterances apart. Rows behind the last utterance, which only a pooling that
        is recorded into CUDA graphs is given, must not change anything.
        """


class AttentiveStatisticsPooling(Pooling):
    """Computes the attention-weighted mean and standard deviation of each utterance's frames.

    For frames h_t of one utterance, with e_t = vᵀ tanh(W h_t + b) and α = softmax(e) over its frames:
    μ = Σ α_t h_t and σ = sqrt(max(Σ α_t (h_t − μ)², 1e-5)), concatenated.

    Source: K. Okabe, T. Koshinaka, K. Shinoda, "Attentive Statistics Pooling for Deep Speaker Embedding",
    Interspeech 2018, equations 3 to 6 (the deviation here is the root of the weighted second central moment: equal in
    exact arithmetic, without their difference of large numbers).
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.output_size = 2 * dim
        self.projection = nn.Linear(dim, dim)
        self.attention = nn.Linear(dim, 1, bias=False)

    def begin_as_baseline(self) -> None:
        """Draw the attention vector from N(0, 1), as the Odyssey 2024 challenge's baseline does.

        PyTorch's linear layers start uniformly within ± 1 / sqrt(dim), a deviation of 0.018 for dim = 1024.

        Source: `net/pooling.py` of github.com/msplabresearch/MSP-Podcast_Challenge, commit 76464e2.
        """
        nn.init.normal_(self.attention.weight)

    def forward(self, frames: Frames) -> Tensor:
        """Pool (total_frames, dim) to (batch, 2 · dim), in fp32 whatever the frames' precision."""
        scores = self.attention(torch.tanh(self.projection(frames.values)))
        with torch.autocast(frames.values.device.type, enabled=False):
            values, scores = frames.values.float(), scores.float()
            if runs_triton(values.device):
                from net.attentive_statistics import pool_statistics

                return pool_statistics(values.contiguous(), scores, frames.starts, SMALLEST_VARIANCE)
            weights = frames.softmax(scores)
            mean = frames.sum(weights * values)
            variance = frames.sum(weights * (values - frames.spread(mean)).square())
            deviation = variance.clamp(min=SMALLEST_VARIANCE).sqrt()
            return torch.cat([mean, deviation], dim=-1)
