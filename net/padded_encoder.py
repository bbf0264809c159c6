"""HuBERT, wav2vec 2.0 and their like, padded as in transformers; group norms do not see the padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from net.convolutional_encoder import ConvolutionalEncoder
from net.encoder import EncoderSettings
from net.group_norm import LengthAwareGroupNorm
from net.inputs import Waveforms
from net.packing.frames import from_padded


class PaddedEncoder(ConvolutionalEncoder):
    """Runs a model of the wav2vec 2.0 family on a padded batch."""

    def __init__(self, model: Any, settings: EncoderSettings) -> None:  # noqa: ANN401 - not typed
        super().__init__(model, settings)
        self._lengths: tuple[int, ...] = ()
        self._group_norms = _length_aware_group_norms(model.feature_extractor)
        model.feature_projection.register_forward_hook(self._mask_projected)

    def layers(self, waveforms: Waveforms) -> list[Tensor]:
        """See `Encoder`."""
        through, counts = self.through_convolutions(waveforms.counts), waveforms.counts
        self._lengths = through[-1]
        is_padded = len(set(counts)) > 1
        for norm in self._group_norms:
            norm.lengths = through[0] if is_padded else None
        padded, needs_all = waveforms.padded(), self.settings.layer_weights is not None
        mask = _sample_mask(counts, padded) if is_padded else None
        output = self.model(padded, attention_mask=mask, output_hidden_states=needs_all)
        layers = output.hidden_states if needs_all else (output.last_hidden_state,)
        return [from_padded(frames, self._lengths).float() for frames in layers]  # as packed encoders return them

    def _mask_projected(self, module: nn.Module, inputs: Any, output: Any) -> Any:  # noqa: ANN401 - a torch hook
        """Apply SpecAugment to the output of the feature projection, in place of transformers' own masking."""
        if not (self.model.training and self.settings.spec_augment.is_on):
            return output
        hidden = output[0] if isinstance(output, tuple) else output
        parts = [part[:length] for part, length in zip(hidden, self._lengths, strict=True)]
        packed = torch.split(self.mask(torch.cat(parts), self._lengths), list(self._lengths))
        longest = hidden.shape[1]
        masked = torch.stack([F.pad(part, (0, 0, 0, longest - len(part))) for part in packed])
        return (masked, *output[1:]) if isinstance(output, tuple) else masked


def _sample_mask(counts: Sequence[int], padded: Tensor) -> Tensor:
    lengths = torch.tensor(counts).to(padded.device, non_blocking=True)
    mask: Tensor = torch.arange(padded.shape[1], device=padded.device) < lengths.unsqueeze(1)
    return mask.long()


def _length_aware_group_norms(feature_extractor: nn.Module) -> list[LengthAwareGroupNorm]:
    """Make the extractor's group norms length-aware and return them; parameters and their names stay."""
    norms = []
    for module in feature_extractor.modules():
        if type(module) is nn.GroupNorm:
            module.__class__ = LengthAwareGroupNorm
            norms.append(cast(LengthAwareGroupNorm, module))
    return norms
