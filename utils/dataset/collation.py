"""Collation of utterances into a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

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


@dataclass(frozen=True)
class Utterance:
    """One decoded utterance with its targets.

    Attributes:
        row: Position in the split's table.
        samples: Waveform, (samples,) float32, 16 kHz mono; normalised, unless it is still to be augmented.
        labels: The utterance's row of a `LabelTable`.
        attribute_count: See `LabelTable`.
        augmentation: Augmentation still to be applied; None where there is none.
    """

    row: int
    samples: Waveform
    labels: npt.NDArray[np.float32]
    attribute_count: int
    augmentation: DrawnAugmentation | None = None


@dataclass(frozen=True)
class LabelTable:
    """Labels of a batch in one small table, which is copied to the device in one transfer.

    Attributes:
        values: (batch, 2 + attributes + classes) float32: the indices of emotion and gender, -1 where missing;
            attributes on [0, 1], NaN where missing; shares of the raters' votes, NaN where missing, without columns
            where votes are not learnt.
        attribute_count: Number of attribute columns.
    """

    values: Tensor
    attribute_count: int

    @staticmethod
    def join(
        emotions: npt.NDArray[np.int64],
        genders: npt.NDArray[np.int64],
        attributes: npt.NDArray[np.float32],
        votes: npt.NDArray[np.float32],
    ) -> npt.NDArray[np.float32]:
        """Return the values of a table, one row per utterance."""
        return np.column_stack([emotions, genders, attributes, votes]).astype(np.float32)

    def targets(self) -> Targets:
        """Return the targets of a criterion, on the table's device; missing labels are masked."""
        emotion, gender = self.values[:, 0], self.values[:, 1]
        attributes, votes = self.values[:, 2:].tensor_split([self.attribute_count], dim=1)
        has_votes = ~votes.isnan().any(dim=1) if votes.shape[1] else torch.zeros_like(emotion, dtype=torch.bool)
        return Targets(
            emotion=emotion.clamp(min=0).long(),
            emotion_mask=emotion >= 0,
            attributes=attributes.nan_to_num(),
            attribute_mask=~attributes.isnan(),
            gender=gender.clamp(min=0).long(),
            gender_mask=gender >= 0,
            votes=votes.nan_to_num(),
            votes_mask=has_votes,
        )

    def to(self, device: torch.device) -> LabelTable:
        """Copy to a device, without waiting where the memory is pinned."""
        return LabelTable(self.values.to(device, non_blocking=True), self.attribute_count)

    def pin_memory(self) -> LabelTable:
        """Copy to page-locked memory."""
        return LabelTable(self.values.pin_memory(), self.attribute_count)


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
    table = LabelTable(labels, utterances[0].attribute_count)
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
