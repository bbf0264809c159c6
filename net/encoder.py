"""What a speech encoder must provide to be an upstream.

A family of encoders is a class derived from `Encoder`, in a file of its own, and a row in `net/encoders.py`.
Shapes: N frames of all utterances of a batch, D values per frame.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from net.inputs import Waveforms
from net.packing.frames import Frames
from net.spec_augment import SpecAugment
from net.wavlm.packed_encoder import mix_layers


@dataclass(frozen=True)
class EncoderSettings:
    """How an upstream runs its encoder.

    Attributes:
        spec_augment: Masking in training.
        layer_weights: Weights, (layers + 1,), whose softmax weighs the layers; None for frames of the last layer alone.
        gradient_checkpointing: Whether the backward recomputes each layer instead of keeping its activations.
    """

    spec_augment: SpecAugment
    layer_weights: nn.Parameter | None = None
    gradient_checkpointing: bool = False


class Encoder(ABC):
    """Runs a transformers model on waveforms that lie end to end, so that no utterance depends on its neighbours.

    It is no module. Parameters and training mode are those of `model`, which the upstream registers.

    Args:
        model: What transformers has loaded.
        settings: How it is run.

    Attributes:
        model: The module whose parameters are trained and stored, and whose `config` is transformers'.
        settings: How it is run.
    """

    def __init__(self, model: Any, settings: EncoderSettings) -> None:  # noqa: ANN401 - not typed
        self.model = model
        self.settings = settings
        if settings.gradient_checkpointing:
            self.recompute_layers()

    @property
    def width(self) -> int:
        """Values per frame, D."""
        return int(self.model.config.hidden_size)

    @abstractmethod
    def frame_counts(self, samples: Sequence[int]) -> tuple[int, ...]:
        """Return the number of frames of each utterance, given its samples.

        Raises:
            ValueError: If an utterance is shorter than one frame.
        """

    @abstractmethod
    def layers(self, waveforms: Waveforms) -> Sequence[Tensor]:
        """Return frames of each utterance, end to end, as tensors (N, D) in float32.

        With `settings.layer_weights` they are one tensor for each weight, otherwise that of the last layer alone.
        """

    def encode(self, waveforms: Waveforms) -> Frames:
        """Return the frames of the last layer, or the weighted sum of all layers."""
        return Frames(self.mix(self.layers(waveforms)), self.frame_counts(waveforms.counts))

    def mix(self, layers: Sequence[Tensor]) -> Tensor:
        """Return what `encode` makes of `layers`, (N, D)."""
        weights = self.settings.layer_weights
        return layers[-1] if weights is None else mix_layers(layers, weights)

    def mask(self, hidden: Tensor, lengths: Sequence[int]) -> Tensor:
        """Apply SpecAugment in training; an encoder calls it on what enters its transformer, (N, D).

        Args:
            hidden: Frames of all utterances, end to end.
            lengths: Frames of each utterance.
        """
        spec_augment = self.settings.spec_augment
        if not (self.model.training and spec_augment.is_on):
            return hidden
        return spec_augment(hidden, lengths, getattr(self.model, "masked_spec_embed", None))

    def frozen_parts(self, freeze: str | int) -> list[nn.Module]:
        """Return the modules that the key `freeze` keeps from being trained.

        Raises:
            ValueError: If the encoder does not have these parts.
        """
        if freeze not in ("none", "upstream"):
            raise ValueError(f'freeze = {freeze}, but {type(self).__name__} freezes "upstream" or "none"; name one')
        return [self.model] if freeze == "upstream" else []

    def recompute_layers(self) -> None:
        """Let the backward recompute each layer."""
        self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    def capture_steps(self, device: torch.device) -> bool:
        """Run training steps as CUDA graphs from now on, if that is possible; return whether it is."""
        return False


class TwoStageEncoder(Encoder):
    """An encoder that can start from the output of its first part, which is kept while that part is frozen.

    Attributes:
        first_stage_keys: Beginnings of the keys of the model's `config` that determine the first part.
    """

    first_stage_keys: tuple[str, ...] = ("",)

    @property
    @abstractmethod
    def first_stage(self) -> nn.Module:
        """The first part."""

    @property
    @abstractmethod
    def feature_width(self) -> int:
        """Values per frame of `features`."""

    @abstractmethod
    def features(self, waveforms: Waveforms) -> Tensor:
        """Return the output of the first part, (N, feature_width), in the dtype of the products."""

    @abstractmethod
    def encode_features(self, features: Tensor, counts: Sequence[int]) -> Frames:
        """Return what `encode` does.

        Args:
            features: Output of the first part, (N, feature_width).
            counts: Samples of each utterance.
        """
