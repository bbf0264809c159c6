"""Group norm over time that sees only an utterance's own samples."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LengthAwareGroupNorm(nn.GroupNorm):
    """`nn.GroupNorm` for padded batches: statistics over each utterance's own frames, state-dict keys unchanged.

    The first convolution of base-size wav2vec 2.0, HuBERT and WavLM normalises every channel over time, so in stock
    transformers the padding of a batch changes the output of its shorter utterances.
    """

    lengths: tuple[int, ...] | None = None
    """Frames of each utterance at this layer, set by the upstream before a padded batch; None without padding."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (batch, channels, time); a padded batch needs as many groups as channels."""
        if self.lengths is None:
            return super().forward(input)
        if self.num_groups != self.num_channels:
            raise ValueError("padded batches need one channel a group")
        counts = torch.tensor(self.lengths).to(input.device, non_blocking=True).view(-1, 1, 1)
        valid = torch.arange(input.shape[-1], device=input.device) < counts
        values = input.float()
        mean = values.masked_fill(~valid, 0.0).sum(-1, keepdim=True) / counts
        centred = (values - mean).masked_fill(~valid, 0.0)
        variance = centred.square().sum(-1, keepdim=True) / counts
        scaled = centred * torch.rsqrt(variance + self.eps)
        return (scaled * self.weight.view(1, -1, 1) + self.bias.view(1, -1, 1)).to(input.dtype)
