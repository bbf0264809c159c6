"""Utterances → a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
        row: Its position in the split's table.
        samples: (samples,) float32, 16 kHz mono; normalised, but where augmentation is to come before it.
        emotion: Class index, -1 where missing.
        attributes: (attributes,) on [0, 1], NaN where missing.
        gender: Gender index, -1 where missing.
        votes: Shares of the raters' votes, (classes,), NaN where missing; (0,) where they are not learnt.
        augmentation: What is to be done to it; None where nothing is.
    """

    row: int
    samples: Waveform
    emotion: int
    attributes: npt.NDArray[np.float32]
    gender: int
    votes: npt.NDArray[np.float32]
    augmentation: DrawnAugmentation | None = None


@dataclass(frozen=True)
class Batch:
    """Utterances as the model takes them, targets and the rows they come from.

    Where there is an `augmentation`, it is still to be done, and the waveforms are not normalised yet.
    """

    inputs: Inputs
    targets: Targets
    rows: Tensor
    augmentation: Augmentation | None = None

    def to(self, device: torch.device) -> Batch:
        """Copy to a device, without waiting where the memory is pinned; the rows stay on the host."""
        augmentation = None if self.augmentation is None else self.augmentation.to(device)
        return Batch(self.inputs.to(device), self.targets.to(device), self.rows, augmentation)

    def pin_memory(self) -> Batch:
        """Move to page-locked memory; called by the data loader."""
        augmentation = None if self.augmentation is None else self.augmentation.pin_memory()
        return Batch(self.inputs.pin_memory(), self.targets.pin_memory(), self.rows, augmentation)

    def augmented(self, normalisation: Normalisation) -> Batch:
        """Return the batch augmented and then normalised, on its device; as it is where it has no augmentation.

        Normalisation comes last, so that the upstream sees what it was trained on: an augmented utterance has again
        zero mean and unit variance where utterances are normalised each.
        """
        if self.augmentation is None:
            return self
        assert isinstance(self.inputs, Waveforms), "what is augmented is not kept"
        waveforms = normalisation.of_batch(augment(self.inputs, self.augmentation))
        return replace(self, inputs=waveforms, augmentation=None)


def collate(utterances: Sequence[Utterance]) -> Batch:
    """Join utterances end to end; nothing is padded here."""
    targets = make_targets(
        torch.tensor([utterance.emotion for utterance in utterances]),
        torch.from_numpy(np.stack([utterance.attributes for utterance in utterances])),
        torch.tensor([utterance.gender for utterance in utterances]),
        torch.from_numpy(np.stack([utterance.votes for utterance in utterances])),
    )
    rows = torch.tensor([utterance.row for utterance in utterances])
    drawn = [utterance.augmentation for utterance in utterances if utterance.augmentation is not None]
    augmentation = _collate_augmentation(drawn) if drawn else None
    return Batch(_end_to_end([utterance.samples for utterance in utterances]), targets, rows, augmentation)


def make_targets(emotion: Tensor, attributes: Tensor, gender: Tensor, votes: Tensor) -> Targets:
    """Mask what is missing; the arguments are those of `Utterance`, one row an utterance."""
    return Targets(
        emotion=emotion.clamp(min=0),
        emotion_mask=emotion >= 0,
        attributes=attributes.nan_to_num(),
        attribute_mask=~attributes.isnan(),
        gender=gender.clamp(min=0),
        gender_mask=gender >= 0,
        votes=votes.nan_to_num(),
        votes_mask=~votes.isnan().any(dim=1) if votes.shape[1] else torch.zeros(len(votes), dtype=torch.bool),
    )


def _collate_augmentation(drawn: Sequence[DrawnAugmentation]) -> Augmentation:
    """Join what is to be done to the utterances of a batch."""
    return Augmentation(
        speeds=tuple(one.speed for one in drawn),
        responses=_end_to_end([one.response for one in drawn]),
        noise=_end_to_end([one.noise for one in drawn]),
        snr_db=torch.tensor([one.snr_db for one in drawn if len(one.noise)], dtype=torch.float32),
    )


def _end_to_end(waveforms: Sequence[Waveform]) -> Waveforms:
    return Waveforms(torch.from_numpy(np.concatenate(waveforms)), tuple(map(len, waveforms)))
