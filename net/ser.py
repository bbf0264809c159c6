"""Heads, and the outputs of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

EMOTION_HEADS = ("emotion", "attributes")
"""The outputs of the heads for emotions, in a fixed order."""


@dataclass(frozen=True)
class Outputs:
    """The model's outputs for a batch of utterances.

    Attributes:
        embedding: Pooled frames of the upstream, (batch, output size of the pooling).
        emotion: Logits, (batch, classes); None if no classes are trained.
        attributes: Emotional attributes on the training scale [0, 1], (batch, attributes); None if none are trained.
        auxiliary: Logits by auxiliary head, each (batch, its classes).
    """

    embedding: Tensor
    emotion: Tensor | None = None
    attributes: Tensor | None = None
    auxiliary: Mapping[str, Tensor] = field(default_factory=dict)

    def tensors(self) -> list[Tensor]:
        """Return the outputs of the heads that exist: those for emotions, then the auxiliary ones."""
        return [*(getattr(self, name) for name in self._emotion_heads), *self.auxiliary.values()]

    def with_tensors(self, tensors: Sequence[Tensor]) -> Outputs:
        """Return the same outputs with other tensors, in the order of `tensors`."""
        names = self._emotion_heads
        auxiliary = dict(zip(self.auxiliary, tensors[len(names) :], strict=True))
        return replace(self, auxiliary=auxiliary, **dict(zip(names, tensors, strict=False)))

    @property
    def _emotion_heads(self) -> list[str]:
        return [name for name in EMOTION_HEADS if getattr(self, name) is not None]

    def without_embedding(self) -> Outputs:
        """Return the same outputs with an empty embedding, (batch, 0): those of a whole split would fill the memory."""
        return replace(self, embedding=self.embedding[:, :0])

    def select(self, rows: Tensor) -> Outputs:
        """Return the outputs of the given rows, in the order given."""
        selected = replace(self, embedding=self.embedding[rows])
        return selected.with_tensors([tensor[rows] for tensor in self.tensors()])

    @staticmethod
    def concatenate(parts: Sequence[Outputs]) -> Outputs:
        """Join the outputs of several batches."""
        tensors = [torch.cat(column) for column in zip(*(part.tensors() for part in parts), strict=True)]
        joined = replace(parts[0], embedding=torch.cat([part.embedding for part in parts]))
        return joined.with_tensors(tensors)


class UtteranceHead(nn.Sequential):
    """Pooled statistics → logits or attributes, with the layers of the Odyssey 2024 challenge baseline's head.

    Source: L. Goncalves et al., "Odyssey 2024 - Speech Emotion Recognition Challenge", Odyssey 2024: dropout, linear,
    layer norm, ReLU, dropout, linear.
    """

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int, dropout: float) -> None:
        super().__init__(
            nn.Dropout(dropout),
            nn.Linear(input_dim, hidden_dim),
            nn.LayerNorm(hidden_dim),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_dim, output_dim),
        )

    @property
    def output(self) -> nn.Linear:
        """The last layer."""
        last = self[-1]
        assert isinstance(last, nn.Linear)
        return last
