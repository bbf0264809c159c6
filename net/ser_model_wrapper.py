"""The model that experiments train: upstream, pooling, heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from net.inputs import Inputs
from net.pooling import AttentiveStatisticsPooling, Pooling
from net.ser import Outputs, UtteranceHead
from net.upstream import Upstream


@dataclass(frozen=True)
class HeadShape:
    """Sizes of the heads; a size of 0 leaves a head out.

    Attributes:
        classes: Emotion classes.
        attributes: Emotional attributes.
        dropout: Dropout of all heads.
        auxiliary: Classes of each auxiliary head, by its name.
    """

    classes: int
    attributes: int
    dropout: float
    auxiliary: Mapping[str, int] = field(default_factory=dict)


class SERModelWrapper(nn.Module):
    """Utterances → emotion logits, emotional attributes and logits of auxiliary heads.

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

        def make_head(outputs: int) -> UtteranceHead:
            return UtteranceHead(self.pooling.output_size, hidden, outputs, heads.dropout)

        self.emotion_head = make_head(heads.classes) if heads.classes else None
        self.attribute_head = make_head(heads.attributes) if heads.attributes else None
        self.auxiliary = tuple(heads.auxiliary)
        for name, classes in heads.auxiliary.items():
            self.add_module(f"{name}_head", make_head(classes))
        if self.attribute_head is not None:
            nn.init.constant_(self.attribute_head.output.bias, 0.5)  # the middle of the training scale

    def forward(self, inputs: Inputs) -> Outputs:
        """Return the outputs of all heads and the embeddings (batch, pooling.output_size), as `Outputs` describes them.

        Heads run on the pooled statistics in the precision that autocast chooses; all outputs are fp32.
        """
        embedding = self.pooling(self.upstream(inputs))
        return Outputs(
            embedding,
            None if self.emotion_head is None else self.emotion_head(embedding).float(),
            None if self.attribute_head is None else self.attribute_head(embedding).float(),
            {name: self.get_submodule(f"{name}_head")(embedding).float() for name in self.auxiliary},
        )

    def head_parameters(self) -> list[nn.Parameter]:
        """Return all parameters but the upstream's."""
        own = {id(p) for p in self.upstream.encoder.parameters()}
        return [p for p in self.parameters() if id(p) not in own]
