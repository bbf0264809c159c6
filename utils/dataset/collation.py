"""Collation of utterances into a batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from net.augmentation import Augmentation, augment
from net.inputs import Inputs, Waveforms
from net.loss_modules import Targets
from utils.data.wav import Waveform
from utils.dataset.augmentation import DrawnAugmentation
from utils.dataset.normalisation import Normalisation


class LabelLayout(NamedTuple):
    """Layout of a row of labels.

    A row contains the index of the emotion and those of the auxiliary heads' classes, -1 where missing; the attributes
    on [0, 1], NaN where missing; and, if votes are learnt, the raters' shares of the classes, NaN where missing.

    Attributes:
        attributes: Number of attributes.
        auxiliary: Names of the auxiliary heads.
    """

    attributes: int
    auxiliary: tuple[str, ...] = ()


@dataclass(frozen=True)
class Utterance:
    """One decoded utterance with its targets.

    Attributes:
        row: Position in the split's table.
        samples: Waveform, (samples,) float32, 16 kHz mono; normalised, unless it is still to be augmented.
        labels: The utterance's row of a `LabelTable`.
        layout: Layout of that row.
        augmentation: Augmentation still to be applied; None where there is none.
    """

    row: int
    samples: Waveform
    labels: npt.NDArray[np.float32]
    layout: LabelLayout
    augmentation: DrawnAugmentation | None = None


@dataclass(frozen=True)
class LabelTable:
    """Labels of a batch in one small table, which is copied to the device in one transfer.

    Attributes:
        values: A row per utterance, (batch, 1 + auxiliary heads + attributes + classes of the votes) float32.
        layout: Layout of the rows.
    """

    values: Tensor
    layout: LabelLayout

    @staticmethod
    def join(
        emotions: npt.NDArray[np.int64],
        auxiliary: Iterable[npt.NDArray[np.int64]],
        attributes: npt.NDArray[np.float32],
        votes: npt.NDArray[np.float32],
    ) -> npt.NDArray[np.float32]:
        """Return the values of a table, one row per utterance."""
        return np.column_stack([emotions, *auxiliary, attributes, votes]).astype(np.float32)

    def targets(self) -> Targets:
        """Return the targets of a criterion, on the table's device; missing labels are masked."""
        names = self.layout.auxiliary
        attributes, votes = self.values[:, 1 + len(names) :].tensor_split([self.layout.attributes], dim=1)
        emotion = self.values[:, 0]
        has_votes = ~votes.isnan().any(dim=1) if votes.shape[1] else torch.zeros_like(emotion, dtype=torch.bool)
        return Targets(
            emotion=emotion.clamp(min=0).long(),
            emotion_mask=emotion >= 0,
            attributes=attributes.nan_to_num(),
            attribute_mask=~attributes.isnan(),
            votes=votes.nan_to_num(),
            votes_mask=has_votes,
            auxiliary={name: self.values[:, column].long() for column, name in enumerate(names, start=1)},
        )

    def to(self, device: torch.device) -> LabelTable:
        """Copy to a device, without waiting where the memory is pinned."""
        return replace(self, values=self.values.to(device, non_blocking=True))

    def pin_memory(self) -> LabelTable:
        """Copy to page-locked memory."""
        return replace(self, values=self.values.pin_memory())


@dataclass(frozen=True)
class Batch:
    """The model's input utterances, their labels and the rows they come from.

    Where there is an `augmentation`, it has not been applied yet, nor are the waveforms normalised.
    """

    inputs: Inputs
    labels: LabelTable
    rows: Tensor
    augmentation: Augmentation | None = None

    @cached_property
    def targets(self) -> Targets:
        """The targets of a criterion, on the batch's device."""
        return self.labels.targets()

    def to(self, device: torch.device) -> Batch:
        """Copy to a device, without waiting where the memory is pinned; the rows stay on the host."""
        augmentation = None if self.augmentation is None else self.augmentation.to(device)
        return Batch(self.inputs.to(device), self.labels.to(device), self.rows, augmentation)

    def pin_memory(self) -> Batch:
        """Move to page-locked memory; called by the data loader."""
        augmentation = None if self.augmentation is None else self.augmentation.pin_memory()
        return Batch(self.inputs.pin_memory(), self.labels.pin_memory(), self.rows, augmentation)

    def augmented(self, normalisation: Normalisation) -> Batch:
        """Return the batch augmented and then normalised, on its device; unchanged where it has no augmentation.

        Normalisation comes last, so that the upstream gets the input it was trained on: with normalisation by
        utterance, an augmented utterance again has zero mean and unit variance.
        """
        if self.augmentation is None:
            return self
        assert isinstance(self.inputs, Waveforms), "what is augmented is not kept"
        waveforms = normalisation.of_batch(augment(self.inputs, self.augmentation))
        return replace(self, inputs=waveforms, augmentation=None)


def collate(utterances: Sequence[Utterance]) -> Batch:
    """Join utterances end to end; nothing is padded here."""
    labels = torch.from_numpy(np.stack([utterance.labels for utterance in utterances]))
    table = LabelTable(labels, utterances[0].layout)
    rows = torch.tensor([utterance.row for utterance in utterances])
    drawn = [utterance.augmentation for utterance in utterances if utterance.augmentation is not None]
    augmentation = _collate_augmentation(drawn) if drawn else None
    return Batch(_end_to_end([utterance.samples for utterance in utterances]), table, rows, augmentation)


def _collate_augmentation(drawn: Sequence[DrawnAugmentation]) -> Augmentation:
    """Join the augmentation of a batch's utterances."""
    return Augmentation(
        speeds=tuple(one.speed for one in drawn),
        responses=_end_to_end([one.response for one in drawn]),
        noise=_end_to_end([one.noise for one in drawn]),
        snr_db=torch.tensor([one.snr_db for one in drawn if len(one.noise)], dtype=torch.float32),
    )


def _end_to_end(waveforms: Sequence[Waveform]) -> Waveforms:
    return Waveforms(torch.from_numpy(np.concatenate(waveforms)), tuple(map(len, waveforms)))
