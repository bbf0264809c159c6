"""The layout of a batch, as WavLM on packed utterances needs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from net.packing.attention import AttentionPlan
from net.packing.buckets import Bucket
from net.packing.placement import Placement
from net.packing.positions import PositionalPlan


@dataclass(frozen=True, eq=False)
class TransformerPlan:
    """The layout of a batch, as the transformer needs it."""

    positions: PositionalPlan
    attention: AttentionPlan

    def tables(self) -> list[Tensor]:
        """Return the tables, to be copied to another place."""
        return [*self.positions.tables(), *self.attention.tables()]

    def with_tables(self, tables: Sequence[Tensor]) -> TransformerPlan:
        """Return the plan with its tables in another place."""
        split = len(self.positions.tables())
        return TransformerPlan(self.positions.with_tables(tables[:split]), self.attention.with_tables(tables[split:]))


@dataclass(frozen=True, eq=False)
class PackPlan:
    """The layout of a batch for all parts of the model; built once per batch.

    Attributes:
        placement: Layout for the convolutions.
        transformer: Layout for the transformer, including the filling of the bucket.
        bucket: Bucket of the batch, if steps run as CUDA graphs.
    """

    placement: Placement
    transformer: TransformerPlan
    bucket: Bucket | None

    @property
    def lengths(self) -> tuple[int, ...]:
        """Frames of each utterance."""
        return self.placement.lengths[-1]

    def tables(self) -> list[Tensor]:
        """Return the tables, to be copied to another place."""
        return [*self.placement.tables(), *self.transformer.tables()]

    def with_tables(self, tables: Sequence[Tensor]) -> PackPlan:
        """Return the plan with its tables in another place."""
        split = len(self.placement.tables())
        placement, transformer = (
            self.placement.with_tables(tables[:split]),
            self.transformer.with_tables(tables[split:]),
        )
        return replace(self, placement=placement, transformer=transformer)
