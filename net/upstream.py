"""A transformers speech encoder whose output for an utterance does not depend on its neighbours in the batch.

WavLM is computed on utterances laid end to end (`packed_wavlm.py`); its relatives run as transformers has them, padded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from net.frames import Frames, from_padded
from net.group_norm import LengthAwareGroupNorm
from net.packed_wavlm import PackedWavLM, PackPlan
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
        return nn.utils.rnn.pad_sequence(list(torch.split(self.samples, list(self.counts))), batch_first=True)

    def to(self, device: torch.device) -> Waveforms:
        """Copy to a device, without waiting where the memory is pinned."""
        return Waveforms(self.samples.to(device, non_blocking=True), self.counts)

    def pin_memory(self) -> Waveforms:
        """Copy to page-locked memory."""
        return Waveforms(self.samples.pin_memory(), self.counts)


@dataclass(frozen=True)
class FrozenFrames:
    """What an upstream's frozen part made of utterances before, in place of their waveforms.

    Attributes:
        values: What `Upstream.frozen_frames` returned, of the utterances that are known, end to end.
        counts: Samples of every utterance of the batch, in its order.
        is_known: For each, whether `values` holds it.
        others: Waveforms of those that are not known, in the batch's order; None where all are.
    """

    values: Tensor
    counts: tuple[int, ...]
    is_known: tuple[bool, ...]
    others: Waveforms | None

    def to(self, device: torch.device) -> FrozenFrames:
        """Copy to a device, without waiting where the memory is pinned."""
        others = None if self.others is None else self.others.to(device)
        return replace(self, values=self.values.to(device, non_blocking=True), others=others)

    def pin_memory(self) -> FrozenFrames:
        """Copy to page-locked memory what does not lie there."""
        others = None if self.others is None else self.others.pin_memory()
        return replace(self, values=self.values.pin_memory(), others=others)

    def joined_with(self, computed: Tensor, lengths: Sequence[int]) -> Tensor:
        """Put what was computed of the others between what is known, each utterance in its place.

        Args:
            computed: Of `others`, end to end, as `values` is of the known.
            lengths: Frames of every utterance of the batch.
        """
        pairs = list(zip(lengths, self.is_known, strict=True))
        known = iter(torch.split(self.values, [length for length, is_known in pairs if is_known]))
        new = iter(torch.split(computed, [length for length, is_known in pairs if not is_known]))
        return torch.cat([next(known if is_known else new) for is_known in self.is_known])


Inputs = Waveforms | FrozenFrames
"""A batch of utterances, as an upstream takes it."""


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
        self.packed = PackedWavLM(encoder, gradient_checkpointing) if config.model_type == "wavlm" else None
        self._group_norms: list[LengthAwareGroupNorm] = []
        if self.packed is None:
            if gradient_checkpointing:
                encoder.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            encoder.feature_projection.register_forward_hook(self._mask_projected)
            self._group_norms = _length_aware_group_norms(encoder.feature_extractor)
        layers = int(config.num_hidden_layers)
        self.layer_weights = nn.Parameter(torch.zeros(layers + 1)) if layer_weighting else None
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
        counts = self._through_convolutions(samples)[-1]
        if min(counts) < 1:
            raise ValueError(f"an utterance of {min(samples)} samples is shorter than one frame of the upstream")
        return counts

    @property
    def frozen_stage(self) -> str | None:
        """What `frozen_frames` returns: `upstream` where nothing is trained, else `cnn` where convolutions are frozen.

        None where nothing is frozen, or where the encoder cannot start behind its convolutions, as padded ones cannot.
        """
        if self.is_frozen:
            return "upstream"
        return "cnn" if self._frozen and self.packed is not None else None

    @property
    def frozen_width(self) -> int:
        """Numbers a frame of `frozen_frames`."""
        if self.frozen_stage == "cnn":
            return int(self.encoder.config.conv_dim[-1])
        return self.hidden_size * (1 if self.layer_weights is None else len(self.layer_weights))

    def frozen_parameters(self) -> dict[str, Tensor]:
        """Return the weights that decide what `frozen_frames` returns, by name."""
        module = self.encoder if self.is_frozen else self.encoder.feature_extractor
        return dict(module.state_dict())

    def frozen_frames(self, waveforms: Waveforms) -> Tensor:
        """Return what the frozen part makes of waveforms, which training never changes.

        Returns:
            (total_frames, frozen_width): the output of the convolutions in the dtype of the products; or, of a frozen
            encoder, its last frames in float32, with `layer_weighting` the frames of all layers side by side.
        """
        with torch.no_grad():
            if not self.is_frozen:
                return self._features(waveforms, self._plan(waveforms))
            last, layers, _ = self._encode(waveforms)
            return torch.cat(list(layers), dim=1) if layers else last

    def forward(self, inputs: Inputs) -> Frames:
        """Encode utterances to frames of shape (total_frames, hidden)."""
        with _without_a_trace() if self.is_frozen else nullcontext():
            last, layers, lengths = self._encode(inputs)
        return Frames(self._combine_layers(last, layers), lengths)

    def _encode(self, inputs: Inputs) -> tuple[Tensor, Sequence[Tensor], tuple[int, ...]]:
        """Return the last frames (total_frames, hidden), those of all layers where they are wanted, and lengths."""
        if isinstance(inputs, FrozenFrames) and self.is_frozen:
            known = self._complete(inputs)
            by_layer = known.view(len(known), -1, self.hidden_size).unbind(1)
            return by_layer[-1], by_layer, self.frame_counts(inputs.counts)
        if self.packed is None:
            assert isinstance(inputs, Waveforms), "a padded encoder starts from waveforms"
            return self._encode_padded(inputs)
        plan = self._plan(inputs)
        features = self._complete(inputs) if isinstance(inputs, FrozenFrames) else self._features(inputs, plan)
        mask = self._mask if self.encoder.training and self.spec_augment.is_on else None
        keeps_layers = self.layer_weights is not None
        last, layers = self.packed.encode(features, plan, _product_dtype(features.device), mask, keeps_layers)
        return last, layers, plan.lengths

    def _plan(self, inputs: Inputs) -> PackPlan:
        assert self.packed is not None
        values = inputs.samples if isinstance(inputs, Waveforms) else inputs.values
        return self.packed.plan(inputs.counts, values.device)

    def _features(self, waveforms: Waveforms, plan: PackPlan) -> Tensor:
        """Return what the convolutions make of waveforms, (total_frames, conv_dim)."""
        assert self.packed is not None
        return self.packed.features(waveforms.samples, plan, _product_dtype(waveforms.samples.device))

    def _complete(self, inputs: FrozenFrames) -> Tensor:
        """Return the frozen part's frames of the whole batch; those that are not known are computed."""
        if inputs.others is None:
            return inputs.values
        return inputs.joined_with(self.frozen_frames(inputs.others), self.frame_counts(inputs.counts))

    def _encode_padded(self, waveforms: Waveforms) -> tuple[Tensor, list[Tensor], tuple[int, ...]]:
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
        return last, layers, self._lengths

    def _combine_layers(self, last: Tensor, layers: Sequence[Tensor]) -> Tensor:
        if self.layer_weights is None:
            return last
        weights = self.layer_weights.softmax(0)
        combined: Tensor = weights[0] * layers[0]
        for weight, hidden in zip(weights[1:], layers[1:], strict=True):
            combined = combined + weight * hidden
        return combined

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
        """Apply SpecAugment behind the feature projection, whose output transformers would mask itself."""
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
    """Keep no graph, and draw nothing that others would have drawn: transformers' layers draw in evaluation, too."""
    with torch.no_grad(), torch.random.fork_rng(devices=()):
        yield


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
