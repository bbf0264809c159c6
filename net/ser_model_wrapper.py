"""The model that experiments train: upstream, attentive statistics pooling, emotion heads."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from net.pooling import AttentiveStatisticsPooling
from net.ser import EmotionHead, Outputs
from net.upstream import Upstream, Waveforms


@dataclass(frozen=True)
class HeadShape:
    """Sizes of the heads; a size of 0 leaves a head out."""

    classes: int
    attributes: int
    dropout: float


class SERModelWrapper(nn.Module):
    """Waveforms → emotion logits and emotional attributes.

    Args:
        upstream: The speech encoder.
        heads: Which heads there are.
    """

    def __init__(self, upstream: Upstream, heads: HeadShape) -> None:
        super().__init__()
        hidden = upstream.hidden_size
        self.upstream = upstream
        self.pooling = AttentiveStatisticsPooling(hidden)
        self.emotion_head = EmotionHead(2 * hidden, hidden, heads.classes, heads.dropout) if heads.classes else None
        self.attribute_head = (
            EmotionHead(2 * hidden, hidden, heads.attributes, heads.dropout) if heads.attributes else None
        )
        if self.attribute_head is not None:
            nn.init.constant_(self.attribute_head.output.bias, 0.5)  # the middle of the training scale

    def forward(self, waveforms: Waveforms) -> Outputs:
        """Return logits (batch, classes), attributes in [0, 1] (batch, attributes) and embeddings (batch, 2 · hidden).

        Heads run on the pooled statistics in the precision that autocast chooses; all outputs are fp32.
        """
        embedding = self.pooling(self.upstream(waveforms))
        emotion = self.emotion_head(embedding).float() if self.emotion_head is not None else None
        attributes = self.attribute_head(embedding).float() if self.attribute_head is not None else None
        return Outputs(emotion, attributes, embedding)

    def head_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that are new in this model: all but the upstream's own."""
        own = {id(p) for p in self.upstream.encoder.parameters()}
        return [p for p in self.parameters() if id(p) not in own]
