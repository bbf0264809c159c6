"""A transformers speech encoder whose output for an utterance does not depend on its neighbours in the batch.

WavLM is computed on utterances laid end to end (`packed_encoder.py`); its relatives run padded, as in transformers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from net.group_norm import LengthAwareGroupNorm
from net.inputs import FrozenFrames, Inputs, Waveforms
from net.packing.batch_layout import PackPlan
from net.packing.device_tables import to_device
from net.packing.frames import Frames, from_padded, starts_of
from net.spec_augment import SpecAugment
from net.wavlm.packed_encoder import PackedWavLM, mix_layers


class Upstream(nn.Module):
    """Wraps WavLM, HuBERT, wav2vec 2.0 and their like, as transformers implements them.

    Args:
        encoder: The transformers model; its parameters keep their names below `encoder.`.
        spec_augment: Masking in training.
        layer_weighting: Whether frames are a learned weighted sum of all layers, as in S. Yang et al., "SUPERB",
            Interspeech 2021, instead of the last layer.
        freeze: `cnn`, `upstream`, `none`, or the number of lowest transformer layers frozen with all below them.
        gradient_checkpointing: Whether the backward recomputes each layer instead of keeping its activations.

    Raises:
        ValueError: If the encoder is of an unsupported kind, or has fewer layers than `freeze` names.
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

    def capture_steps(self, device: torch.device) -> bool:
        """Run training steps as CUDA graphs where possible; `PackedWavLM.capture_steps` states the conditions.

        Returns:
            Whether it is possible: only for a WavLM that is trained, on a GPU.
        """
        if device.type != "cuda" or self.packed is None or self.is_frozen:
            return False
        self.packed.capture_steps()
        return True

    def frame_counts(self, samples: Sequence[int]) -> tuple[int, ...]:
        """Return the number of frames of each utterance, given its samples.

        Raises:
            ValueError: If an utterance is shorter than one frame.
        """
        counts = self._through_convolutions(samples)[-1]
        if min(counts) < 1:
            raise ValueError(f"an utterance of {min(samples)} samples is shorter than one frame of the upstream")
        return counts

    @property
    def frozen_stage(self) -> str | None:
        """The stage whose output `frozen_frames` returns: `upstream` if all is frozen, `cnn` if the convolutions are.

        None if nothing is frozen, or if the encoder cannot start behind its convolutions (padded ones cannot).
        """
        if self.is_frozen:
            return "upstream"
        return "cnn" if self._frozen and self.packed is not None else None

    @property
    def frozen_width(self) -> int:
        """Values per frame of `frozen_frames`."""
        if self.frozen_stage == "cnn":
            return int(self.encoder.config.conv_dim[-1])
        return self.hidden_size * (1 if self.layer_weights is None else len(self.layer_weights))

    def frozen_parameters(self) -> dict[str, Tensor]:
        """Return the weights that determine the output of `frozen_frames`, by name."""
        module = self.encoder if self.is_frozen else self.encoder.feature_extractor
        return dict(module.state_dict())

    def forward(self, inputs: Inputs) -> Frames:
        """Encode utterances to frames of shape (total_frames, hidden)."""
        if self.is_frozen:
            known = self.complete(inputs)
            layers = known.values.view(len(known.values), -1, self.hidden_size).unbind(1)
            return Frames(self._weighted(layers[-1], layers), self.frame_counts(inputs.counts), known.starts)
        if self.packed is None:
            assert isinstance(inputs, Waveforms), "a padded encoder starts from waveforms"
            return Frames(self._weighted(*self._encode_padded(inputs)), self._lengths)
        plan = self._plan(inputs)
        features = self._complete(inputs) if isinstance(inputs, FrozenFrames) else self._features(inputs, plan)
        mask = self._mask if self.encoder.training and self.spec_augment.is_on else None
        return Frames(self.packed.encode(features, plan, _product_dtype(features.device), mask), plan.lengths)

    def frozen_frames(self, waveforms: Waveforms) -> Tensor:
        """Return the output of the frozen part for waveforms, which training never changes.

        Returns:
            (total_frames, frozen_width): the output of the convolutions in the dtype of the products; or, if the
            encoder is frozen, its last frames in float32, with `layer_weighting` the frames of all layers side by side.
        """
        with _without_a_trace():
            if self.packed is None:
                last, layers = self._encode_padded(waveforms)
                return torch.cat(layers, dim=1) if layers else last
            plan, dtype = self._plan(waveforms), _product_dtype(waveforms.samples.device)
            features = self._features(waveforms, plan)
            if not self.is_frozen:
                return features
            if self.layer_weights is None:
                return self.packed.encode(features, plan, dtype, None)
            return torch.cat(self.packed.hidden_states(features, plan, dtype), dim=1)

    def complete(self, inputs: Inputs) -> FrozenFrames:
        """Return a frozen encoder's frames of the whole batch, computing those that are not known."""
        if isinstance(inputs, FrozenFrames) and inputs.starts is not None:
            return inputs
        values, counts = self._complete(inputs), inputs.counts
        starts = to_device(starts_of(self.frame_counts(counts)), values.device)
        return FrozenFrames(values, counts, (True,) * len(counts), None, starts)

    def _plan(self, inputs: Inputs) -> PackPlan:
        assert self.packed is not None
        device = (inputs.samples if isinstance(inputs, Waveforms) else inputs.values).device
        return self.packed.plan(inputs.counts, device, _product_dtype(device))

    def _features(self, waveforms: Waveforms, plan: PackPlan) -> Tensor:
        """Return the convolutions' output for waveforms, (total_frames, conv_dim)."""
        assert self.packed is not None
        return self.packed.features(waveforms.samples, plan, _product_dtype(waveforms.samples.device))

    def _complete(self, inputs: Inputs) -> Tensor:
        """Return the frozen part's frames of the whole batch, computing those that are not known."""
        if isinstance(inputs, Waveforms):
            return self.frozen_frames(inputs)
        if inputs.others is None:
            return inputs.values
        return inputs.joined_with(self.frozen_frames(inputs.others), self.frame_counts(inputs.counts))

    def _encode_padded(self, waveforms: Waveforms) -> tuple[Tensor, list[Tensor]]:
        """Return the last frames (total_frames, hidden), and those of all layers if layers are weighted."""
        self._lengths = self.frame_counts(waveforms.counts)
        is_padded = len(set(waveforms.counts)) > 1
        first = self._through_convolutions(waveforms.counts)[0]
        for norm in self._group_norms:
            norm.lengths = first if is_padded else None
        padded = waveforms.padded()
        mask = _sample_mask(waveforms.counts, padded) if is_padded else None
        output = self.encoder(padded, attention_mask=mask, output_hidden_states=self.layer_weights is not None)
        layers = output.hidden_states if self.layer_weights is not None else ()
        hidden = (output.last_hidden_state, *layers)
        last, *layers = (from_padded(frames, self._lengths).float() for frames in hidden)  # as the packed ones are
        return last, layers

    def _weighted(self, last: Tensor, layers: Sequence[Tensor]) -> Tensor:
        return last if self.layer_weights is None else mix_layers(layers, self.layer_weights)

    def _mask(self, hidden: Tensor, lengths: Sequence[int]) -> Tensor:
        """Apply SpecAugment to projected frames (total_frames, hidden)."""
        return self.spec_augment(hidden, lengths, getattr(self.encoder, "masked_spec_embed", None))

    def _through_convolutions(self, samples: Sequence[int]) -> list[tuple[int, ...]]:
        """Return the length of each utterance after each convolution."""
        lengths, current = [], np.array(samples)
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            current = (current - kernel) // stride + 1
            lengths.append(tuple(current.tolist()))
        return lengths

    def _mask_projected(self, module: nn.Module, inputs: Any, output: Any) -> Any:  # noqa: ANN401 - a torch hook
        """Apply SpecAugment to the output of the feature projection, in place of transformers' own masking."""
        if not (self.encoder.training and self.spec_augment.is_on):
            return output
        hidden = output[0] if isinstance(output, tuple) else output
        parts = [part[:length] for part, length in zip(hidden, self._lengths, strict=True)]
        packed = torch.split(self._mask(torch.cat(parts), self._lengths), list(self._lengths))
        longest = hidden.shape[1]
        masked = torch.stack([F.pad(part, (0, 0, 0, longest - len(part))) for part in packed])
        return (masked, *output[1:]) if isinstance(output, tuple) else masked


@contextmanager
def _without_a_trace() -> Iterator[None]:
    """Build no autograd graph and leave the CPU's generator as it was: transformers' layers draw in evaluation too."""
    with torch.no_grad(), torch.random.fork_rng(devices=()):
        yield


def _product_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype of matrix products under the current autocast."""
    is_mixed = torch.is_autocast_enabled(device.type)
    return torch.get_autocast_dtype(device.type) if is_mixed else torch.float32


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
