"""The model that experiments train: upstream, pooling, heads."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from net.inputs import Inputs
from net.pooling import AttentiveStatisticsPooling, Pooling
from net.ser import Outputs, UtteranceHead
from net.upstream import Upstream


@dataclass(frozen=True)
class HeadShape:
    """Sizes of the heads; a size of 0 leaves a head out."""

    classes: int
    attributes: int
    dropout: float
    genders: int = 0


class SERModelWrapper(nn.Module):
    """Utterances → emotion logits, emotional attributes and gender logits.

    Args:
        upstream: The speech encoder.
        heads: Sizes of the heads.
        pooling: Class of the pooling.
    """

    def __init__(
        self, upstream: Upstream, heads: HeadShape, pooling: type[Pooling] = AttentiveStatisticsPooling
    ) -> None:
        super().__init__()
        hidden = upstream.hidden_size
        self.upstream = upstream
        self.pooling = pooling(hidden)

        def make_head(outputs: int) -> UtteranceHead | None:
            return UtteranceHead(self.pooling.output_size, hidden, outputs, heads.dropout) if outputs else None

        self.emotion_head = make_head(heads.classes)
        self.attribute_head = make_head(heads.attributes)
        self.gender_head = make_head(heads.genders)
        if self.attribute_head is not None:
            nn.init.constant_(self.attribute_head.output.bias, 0.5)  # the middle of the training scale

    def forward(self, inputs: Inputs) -> Outputs:
        """Return the outputs of all heads and the embeddings (batch, pooling.output_size), as `Outputs` describes them.

        Heads run on the pooled statistics in the precision that autocast chooses; all outputs are fp32.
        """
        embedding = self.pooling(self.upstream(inputs))
        heads = (self.emotion_head, self.attribute_head, self.gender_head)
        return Outputs(embedding, *(None if head is None else head(embedding).float() for head in heads))

    def head_parameters(self) -> list[nn.Parameter]:
        """Return all parameters but the upstream's."""
        own = {id(p) for p in self.upstream.encoder.parameters()}
        return [p for p in self.parameters() if id(p) not in own]
