"""WavLM on utterances laid end to end (`net/wavlm/packed_encoder.py`), without padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from net.convolutional_encoder import ConvolutionalEncoder
from net.encoder import EncoderSettings, TwoStageEncoder
from net.inputs import Waveforms
from net.packing.batch_layout import PackPlan
from net.packing.frames import Frames
from net.wavlm.packed_encoder import PackedWavLM


class PackedWavLMEncoder(ConvolutionalEncoder, TwoStageEncoder):
    """Runs a WavLMModel on packs; training can start behind its convolutions.

    Attributes:
        packed: What runs it.
    """

    first_stage_keys = ("conv_", "feat_extract")

    def __init__(self, model: Any, settings: EncoderSettings) -> None:  # noqa: ANN401 - not typed
        self.packed = PackedWavLM(model, settings.layer_weights)
        super().__init__(model, settings)

    @property
    def first_stage(self) -> nn.Module:
        """See `TwoStageEncoder`: the convolutions."""
        convolutions: nn.Module = self.model.feature_extractor
        return convolutions

    @property
    def feature_width(self) -> int:
        """See `TwoStageEncoder`."""
        return int(self.model.config.conv_dim[-1])

    def recompute_layers(self) -> None:
        """See `Encoder`."""
        self.packed.is_checkpointed = True

    def capture_steps(self, device: torch.device) -> bool:
        """See `Encoder`; `PackedWavLM.capture_steps` states the conditions."""
        if device.type == "cuda":
            self.packed.capture_steps()
        return device.type == "cuda"

    def encode(self, waveforms: Waveforms) -> Frames:
        """See `Encoder`."""
        plan = self._plan(waveforms.counts, waveforms.samples.device)
        return self._encode(self._features(waveforms, plan), plan)

    def layers(self, waveforms: Waveforms) -> list[Tensor]:
        """See `Encoder`; in evaluation mode."""
        plan = self._plan(waveforms.counts, waveforms.samples.device)
        features, dtype = self._features(waveforms, plan), _product_dtype(waveforms.samples.device)
        if self.settings.layer_weights is None:
            return [self.packed.encode(features, plan, dtype, None)]
        return self.packed.hidden_states(features, plan, dtype)

    def features(self, waveforms: Waveforms) -> Tensor:
        """See `TwoStageEncoder`."""
        return self._features(waveforms, self._plan(waveforms.counts, waveforms.samples.device))

    def encode_features(self, features: Tensor, counts: Sequence[int]) -> Frames:
        """See `TwoStageEncoder`."""
        return self._encode(features, self._plan(counts, features.device))

    def _plan(self, counts: Sequence[int], device: torch.device) -> PackPlan:
        return self.packed.plan(counts, device, _product_dtype(device))

    def _features(self, waveforms: Waveforms, plan: PackPlan) -> Tensor:
        return self.packed.features(waveforms.samples, plan, _product_dtype(waveforms.samples.device))

    def _encode(self, features: Tensor, plan: PackPlan) -> Frames:
        return Frames(self.packed.encode(features, plan, _product_dtype(features.device), self.mask), plan.lengths)


def _product_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype of matrix products under the current autocast."""
    is_mixed = torch.is_autocast_enabled(device.type)
    return torch.get_autocast_dtype(device.type) if is_mixed else torch.float32
