"""A transformers speech encoder whose output for an utterance does not depend on its neighbours in the batch.

Its family runs it on a batch (`net/encoders.py`). Here is what all families share: frozen parts and their outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from net.encoder import Encoder, EncoderSettings, TwoStageEncoder
from net.encoders import encoder_for
from net.inputs import FrozenFrames, Inputs, Waveforms
from net.packing.device_tables import to_device
from net.packing.frames import Frames, starts_of
from net.spec_augment import SpecAugment


class Upstream(nn.Module):
    """Wraps a speech encoder of transformers.

    Args:
        model: The transformers model; its parameters keep their names below `encoder.`.
        spec_augment: Masking in training.
        layer_weighting: Whether frames are a learned weighted sum of all layers, as in S. Yang et al., "SUPERB",
            Interspeech 2021, instead of the last layer.
        freeze: `cnn`, `upstream`, `none`, or the number of lowest transformer layers frozen with all below them.
        gradient_checkpointing: Whether the backward recomputes each layer instead of keeping its activations.
        family: Class that runs the model; None for that of its `model_type`.

    Raises:
        ValueError: If the model is of an unsupported type, or has fewer layers than `freeze` names.
    """

    def __init__(
        self,
        model: Any,  # noqa: ANN401 - transformers' models are not typed
        spec_augment: SpecAugment,
        layer_weighting: bool,
        freeze: str | int,
        gradient_checkpointing: bool = False,
        family: type[Encoder] | None = None,
    ) -> None:
        super().__init__()
        config = model.config
        family = family or encoder_for(config.model_type)
        layers = int(config.num_hidden_layers)
        self.layer_weights = nn.Parameter(torch.zeros(layers + 1)) if layer_weighting else None
        self.runner = family(model, EncoderSettings(spec_augment, self.layer_weights, gradient_checkpointing))
        self.encoder = self.runner.model
        self.hidden_size = self.runner.width
        config.apply_spec_augment = False
        self._frozen = self.runner.frozen_parts(freeze)
        for module in self._frozen:
            module.requires_grad_(False)
        if isinstance(freeze, int) and hasattr(self.encoder, "masked_spec_embed"):
            self.encoder.masked_spec_embed.requires_grad_(False)  # it lies below the frozen layers

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
        """Run training steps as CUDA graphs where possible; return whether it is.

        It is for a WavLM that is trained, on a GPU.
        """
        return not self.is_frozen and self.runner.capture_steps(device)

    def frame_counts(self, samples: Sequence[int]) -> tuple[int, ...]:
        """Return the number of frames of each utterance, given its samples.

        Raises:
            ValueError: If an utterance is shorter than one frame.
        """
        return self.runner.frame_counts(samples)

    @property
    def frozen_stage(self) -> str | None:
        """The stage whose output `frozen_frames` returns: `upstream` if all is frozen, `cnn` if the first part is.

        None if nothing is frozen, or if the encoder cannot start behind its first part.
        """
        if self.is_frozen:
            return "upstream"
        return "cnn" if self._frozen and isinstance(self.runner, TwoStageEncoder) else None

    @property
    def frozen_width(self) -> int:
        """Values per frame of `frozen_frames`."""
        if self.frozen_stage == "cnn":
            return self._stages.feature_width
        return self.hidden_size * (1 if self.layer_weights is None else len(self.layer_weights))

    def frozen_parameters(self) -> dict[str, Tensor]:
        """Return the weights that determine the output of `frozen_frames`, by name."""
        return dict((self.encoder if self.is_frozen else self._stages.first_stage).state_dict())

    def frozen_config(self) -> dict[str, Any]:
        """Return the keys of the encoder's config that may determine the output of `frozen_frames`."""
        config: dict[str, Any] = self.encoder.config.to_dict()
        if self.is_frozen:  # in evaluation mode
            return {key: config[key] for key in config if not any(word in key for word in ("drop", "mask", "path"))}
        return {key: config[key] for key in config if key.startswith(self._stages.first_stage_keys)}

    def forward(self, inputs: Inputs) -> Frames:
        """Encode utterances to frames of shape (total_frames, hidden)."""
        if self.is_frozen:
            known = self.complete(inputs)
            layers = known.values.view(len(known.values), -1, self.hidden_size).unbind(1)
            return Frames(self.runner.mix(layers), self.frame_counts(inputs.counts), known.starts)
        if isinstance(inputs, Waveforms):
            return self.runner.encode(inputs)
        return self._stages.encode_features(self._complete(inputs), inputs.counts)

    def frozen_frames(self, waveforms: Waveforms) -> Tensor:
        """Return the output of the frozen part for waveforms, which training never changes.

        Returns:
            (total_frames, frozen_width): the output of the first part in the dtype of the products; or, if the encoder
            is frozen, its last frames in float32, with `layer_weighting` the frames of all layers side by side.
        """
        with _without_a_trace():
            if not self.is_frozen:
                return self._stages.features(waveforms)
            layers = self.runner.layers(waveforms)
            return layers[0] if len(layers) == 1 else torch.cat(list(layers), dim=1)

    def complete(self, inputs: Inputs) -> FrozenFrames:
        """Return a frozen encoder's frames of the whole batch, computing those that are not known."""
        if isinstance(inputs, FrozenFrames) and inputs.starts is not None:
            return inputs
        values, counts = self._complete(inputs), inputs.counts
        starts = to_device(starts_of(self.frame_counts(counts)), values.device)
        return FrozenFrames(values, counts, (True,) * len(counts), None, starts)

    @property
    def _stages(self) -> TwoStageEncoder:
        assert isinstance(self.runner, TwoStageEncoder), "only such an encoder has a first part of its own"
        return self.runner

    def _complete(self, inputs: Inputs) -> Tensor:
        """Return the frozen part's frames of the whole batch, computing those that are not known."""
        if isinstance(inputs, Waveforms):
            return self.frozen_frames(inputs)
        if inputs.others is None:
            return inputs.values
        return inputs.joined_with(self.frozen_frames(inputs.others), self.frame_counts(inputs.counts))


@contextmanager
def _without_a_trace() -> Iterator[None]:
    """Build no autograd graph and leave the CPU's generator as it was: transformers' layers draw in evaluation too."""
    with torch.no_grad(), torch.random.fork_rng(devices=()):
        yield
