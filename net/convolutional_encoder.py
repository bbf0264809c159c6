"""Encoders of the wav2vec 2.0 family, which begin with convolutions over the waveform."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence

import numpy as np
from torch import nn

from net.encoder import Encoder


class ConvolutionalEncoder(Encoder, ABC):
    """The common part of these encoders: lengths and frozen parts."""

    def frame_counts(self, samples: Sequence[int]) -> tuple[int, ...]:
        """See `Encoder`."""
        return self.through_convolutions(samples)[-1]

    def through_convolutions(self, samples: Sequence[int]) -> list[tuple[int, ...]]:
        """Return the length of each utterance after each convolution.

        Raises:
            ValueError: If an utterance is shorter than one frame.
        """
        lengths, current, config = [], np.array(samples), self.model.config
        for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
            current = (current - kernel) // stride + 1
            lengths.append(tuple(current.tolist()))
        if min(lengths[-1]) < 1:
            raise ValueError(f"an utterance of {min(samples)} samples is shorter than one frame of the upstream")
        return lengths

    def frozen_parts(self, freeze: str | int) -> list[nn.Module]:
        """See `Encoder`; `cnn` names the convolutions, a number that many layers and all below them."""
        model = self.model
        if freeze in ("none", "upstream"):
            return super().frozen_parts(freeze)
        if freeze == "cnn":
            return [model.feature_extractor]
        layers = list(model.encoder.layers)
        if int(freeze) > len(layers):
            raise ValueError(f"freeze = {freeze}, but the upstream has {len(layers)} layers; name fewer")
        below = [model.feature_extractor, model.feature_projection, model.encoder.pos_conv_embed]
        if not getattr(model.config, "do_stable_layer_norm", False):
            below.append(model.encoder.layer_norm)
        return below + layers[: int(freeze)]
