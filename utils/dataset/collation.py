"""Utterances → a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from net.loss_modules import Targets
from net.upstream import Inputs, Waveforms
from utils.data.wav import Waveform


@dataclass(frozen=True)
class Utterance:
    """One decoded utterance with its targets.

    Attributes:
        row: Its position in the split's table.
        samples: (samples,) float32, 16 kHz mono, normalised.
        emotion: Class index, -1 where missing.
        attributes: (attributes,) on [0, 1], NaN where missing.
        gender: Gender index, -1 where missing.
        votes: Shares of the raters' votes, (classes,), NaN where missing; (0,) where they are not learnt.
    """

    row: int
    samples: Waveform
    emotion: int
    attributes: npt.NDArray[np.float32]
    gender: int
    votes: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Batch:
    """Utterances as the model takes them, targets and the rows they come from."""

    inputs: Inputs
    targets: Targets
    rows: Tensor

    def to(self, device: torch.device) -> Batch:
        """Copy to a device, without waiting where the memory is pinned; the rows stay on the host."""
        return Batch(self.inputs.to(device), self.targets.to(device), self.rows)

    def pin_memory(self) -> Batch:
        """Move to page-locked memory; called by the data loader."""
        return Batch(self.inputs.pin_memory(), self.targets.pin_memory(), self.rows)


def collate(utterances: Sequence[Utterance]) -> Batch:
    """Join utterances end to end; nothing is padded here."""
    samples = torch.from_numpy(np.concatenate([utterance.samples for utterance in utterances]))
    targets = make_targets(
        torch.tensor([utterance.emotion for utterance in utterances]),
        torch.from_numpy(np.stack([utterance.attributes for utterance in utterances])),
        torch.tensor([utterance.gender for utterance in utterances]),
        torch.from_numpy(np.stack([utterance.votes for utterance in utterances])),
    )
    counts = tuple(len(utterance.samples) for utterance in utterances)
    return Batch(Waveforms(samples, counts), targets, torch.tensor([utterance.row for utterance in utterances]))


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
