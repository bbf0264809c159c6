"""A transformers speech encoder whose output for an utterance does not depend on its neighbours in the batch.

WavLM is computed on utterances laid end to end (`packed_wavlm.py`); its relatives run as transformers has them, padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from net.frames import Frames, from_padded
from net.group_norm import LengthAwareGroupNorm
from net.packed_wavlm import PackedWavLM, mix_layers
from net.spec_augment import SpecAugment


@dataclass(frozen=True)
class Waveforms:
    """Waveforms of several utterances end to end.

    Attributes:
        samples: (total_samples,) float32, 16 kHz mono, normalised.
        counts: Samples of each utterance, known on the host.
    """

    samples: Tensor
    counts: tuple[int, ...]

    def padded(self) -> Tensor:
        """Return (batch, longest), zeros at the end of the shorter utterances."""
        return pad_end(self.split(), max(self.counts))

    def split(self) -> list[Tensor]:
        """Return each utterance's samples, (samples,), as a view."""
        return list(torch.split(self.samples, list(self.counts)))

    def pin_memory(self) -> Waveforms:
        """Move to page-locked memory."""
        return Waveforms(self.samples.pin_memory(), self.counts)

    def to(self, device: torch.device) -> Waveforms:
        """Copy to a device, without waiting where the memory is pinned."""
        return Waveforms(self.samples.to(device, non_blocking=True), self.counts)


def pad_end(pieces: Sequence[Tensor], length: int) -> Tensor:
    """Lay pieces of shape (samples,) below each other, (pieces, length), with zeros at their ends, in one copy."""
    zeros = pieces[0].new_zeros(length)
    return torch.cat([part for piece in pieces for part in (piece, zeros[len(piece) :])]).view(-1, length)


class Upstream(nn.Module):
    """Wraps WavLM, HuBERT, wav2vec 2.0 and their like, as transformers implements them.

    Args:
        encoder: The transformers model; its parameters keep their names below `encoder.`.
        spec_augment: What is masked in training.
        layer_weighting: Whether frames are a learned weighted sum of all layers, as in S. Yang et al., "SUPERB",
            Interspeech 2021; the last layer otherwise.
        freeze: `cnn`, `upstream`, `none`, or the number of lowest transformer layers frozen with all below them.
        gradient_checkpointing: Whether the backward computes each layer again instead of keeping what it needs of it.

    Raises:
        ValueError: Where the encoder is of no supported kind, or has fewer layers than `freeze` names.
    """

    def __init__(
        self,
        encoder: Any,  # noqa: ANN401 - transformers' models are not typed
        spec_augment: SpecAugment,
        layer_weighting: bool,
        freeze: str | int,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        config = encoder.config
        if not hasattr(config, "conv_kernel") or not hasattr(encoder, "feature_extractor"):
            raise ValueError(f'"{config.model_type}" is no waveform encoder of the wav2vec 2.0 family, such as WavLM')
        self.encoder = encoder
        self.kernels: tuple[int, ...] = tuple(config.conv_kernel)
        self.strides: tuple[int, ...] = tuple(config.conv_stride)
        self.hidden_size = int(config.hidden_size)
        self.spec_augment = spec_augment
        self._lengths: tuple[int, ...] = ()
        config.apply_spec_augment = False
        layers = int(config.num_hidden_layers)
        self.layer_weights = nn.Parameter(torch.zeros(layers + 1)) if layer_weighting else None
        self.packed = None
        if config.model_type == "wavlm":
            self.packed = PackedWavLM(encoder, self.layer_weights, gradient_checkpointing)
        self._group_norms: list[LengthAwareGroupNorm] = []
        if self.packed is None:
            if gradient_checkpointing:
                encoder.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            encoder.feature_projection.register_forward_hook(self._mask_projected)
            self._group_norms = _length_aware_group_norms(encoder.feature_extractor)
        self._frozen = _frozen_modules(encoder, freeze)
        for module in self._frozen:
            module.requires_grad_(False)
        if isinstance(freeze, int) and hasattr(encoder, "masked_spec_embed"):
            encoder.masked_spec_embed.requires_grad_(False)  # it lies below the frozen layers

    @property
    def is_frozen(self) -> bool:
        """Whether no parameter of the encoder is trained."""
        return any(module is self.encoder for module in self._frozen)

    def train(self, mode: bool = True) -> Upstream:
        """Set training mode; frozen parts stay in evaluation mode."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def frame_counts(self, samples: Sequence[int]) -> tuple[int, ...]:
        """Return the frames that the convolutions make of so many samples.

        Raises:
            ValueError: Where an utterance is shorter than one frame.
        """
        counts = tuple(self._through_convolutions(count)[-1] for count in samples)
        if min(counts) < 1:
            raise ValueError(f"an utterance of {min(samples)} samples is shorter than one frame of the upstream")
        return counts

    def forward(self, waveforms: Waveforms) -> Frames:
        """Encode waveforms to frames of shape (total_frames, hidden)."""
        encode = self._encode_padded if self.packed is None else partial(self._encode_packed, self.packed)
        return encode(waveforms)

    def _encode_packed(self, packed: PackedWavLM, waveforms: Waveforms) -> Frames:
        device = waveforms.samples.device
        dtype = _product_dtype(device)
        plan = packed.plan(waveforms.counts, device, dtype)
        features = packed.features(waveforms.samples, plan, dtype)
        mask = self._mask if self.encoder.training and self.spec_augment.is_on else None
        return Frames(packed.encode(features, plan, dtype, mask), plan.lengths)

    def _encode_padded(self, waveforms: Waveforms) -> Frames:
        self._lengths = self.frame_counts(waveforms.counts)
        is_padded = len(set(waveforms.counts)) > 1
        first = tuple(self._through_convolutions(count)[0] for count in waveforms.counts)
        for norm in self._group_norms:
            norm.lengths = first if is_padded else None
        padded = waveforms.padded()
        mask = _sample_mask(waveforms.counts, padded) if is_padded else None
        with torch.no_grad() if self.is_frozen else nullcontext():
            output = self.encoder(padded, attention_mask=mask, output_hidden_states=self.layer_weights is not None)
        if self.layer_weights is None:
            return Frames(from_padded(output.last_hidden_state, self._lengths), self._lengths)
        layers = [from_padded(hidden, self._lengths) for hidden in output.hidden_states]
        return Frames(mix_layers(layers, self.layer_weights), self._lengths)

    def _mask(self, hidden: Tensor, lengths: Sequence[int]) -> Tensor:
        """Apply SpecAugment to projected frames (total_frames, hidden)."""
        return self.spec_augment(hidden, lengths, getattr(self.encoder, "masked_spec_embed", None))

    def _through_convolutions(self, samples: int) -> list[int]:
        """Return the length after each convolution."""
        lengths = []
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            samples = (samples - kernel) // stride + 1
            lengths.append(samples)
        return lengths

    def _mask_projected(self, module: nn.Module, inputs: Any, output: Any) -> Any:  # noqa: ANN401 - a torch hook
        """Apply SpecAugment behind the feature projection, whose output transformers would mask itself."""
        if not (self.encoder.training and self.spec_augment.is_on):
            return output
        hidden = output[0] if isinstance(output, tuple) else output
        parts = [part[:length] for part, length in zip(hidden, self._lengths, strict=True)]
        packed = torch.split(self._mask(torch.cat(parts), self._lengths), list(self._lengths))
        longest = hidden.shape[1]
        masked = torch.stack([F.pad(part, (0, 0, 0, longest - len(part))) for part in packed])
        return (masked, *output[1:]) if isinstance(output, tuple) else masked


def _product_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype that autocast asks products to have."""
    is_mixed = torch.is_autocast_enabled(device.type)
    return torch.get_autocast_dtype(device.type) if is_mixed else torch.float32


def _sample_mask(counts: Sequence[int], padded: Tensor) -> Tensor:
    lengths = torch.tensor(counts).to(padded.device, non_blocking=True)
    mask: Tensor = torch.arange(padded.shape[1], device=padded.device) < lengths.unsqueeze(1)
    return mask.long()


def _length_aware_group_norms(feature_extractor: nn.Module) -> list[LengthAwareGroupNorm]:
    """Give the extractor's group norms the lengths of the batch; parameters and their names stay."""
    norms = []
    for module in feature_extractor.modules():
        if type(module) is nn.GroupNorm:
            module.__class__ = LengthAwareGroupNorm
            norms.append(cast(LengthAwareGroupNorm, module))
    return norms


def _frozen_modules(encoder: Any, freeze: str | int) -> list[nn.Module]:  # noqa: ANN401
    if freeze == "none":
        return []
    if freeze == "upstream":
        return [encoder]
    if freeze == "cnn":
        return [encoder.feature_extractor]
    layers = list(encoder.encoder.layers)
    if int(freeze) > len(layers):
        raise ValueError(f"freeze = {freeze}, but the upstream has {len(layers)} layers; name fewer")
    below = [encoder.feature_extractor, encoder.feature_projection, encoder.encoder.pos_conv_embed]
    if not getattr(encoder.config, "do_stable_layer_norm", False):
        below.append(encoder.encoder.layer_norm)
    return below + layers[: int(freeze)]
