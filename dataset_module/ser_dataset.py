"""The dataset of one split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd
from torch.utils.data import Dataset

from utils.data.labels.columns import further_labels
from utils.data.labels.vote_shares import VoteSettings, vote_shares
from utils.data.wav import Crop, read_waveform
from utils.dataset.augmentation import Augmenter
from utils.dataset.collation import LabelLayout, LabelTable, Utterance
from utils.dataset.normalisation import Normalisation
from utils.dataset.sampling import EVALUATION, Item
from utils.seeding import utterance_generator


@dataclass(frozen=True)
class Labels:
    """The columns of the utterance table that are targets, and their encoding.

    Attributes:
        classes: Emotion classes in output order; empty where none are trained.
        attributes: Attribute columns in output order; empty where none are trained.
        attribute_scale: Lowest and highest value in the table, mapped to 0 and 1.
        auxiliary: Classes in output order, by auxiliary head and column.
        votes: Settings for counting raters' votes, where classes are learnt from votes.
    """

    classes: tuple[str, ...]
    attributes: tuple[str, ...]
    attribute_scale: tuple[float, float]
    auxiliary: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    votes: VoteSettings | None = None


class SERDataset(Dataset[Utterance]):
    """Utterances of a split, decoded on request.

    Columns are kept as arrays, not as one Python object per row, so that worker processes share their memory.

    Args:
        table: Utterance table of the split.
        labels: Targets of the training.
        normalisation: Applied here to waveforms that are not augmented; augmented ones are normalised on the device.
        max_seconds: Maximum duration of training utterances; the crop is drawn for (seed, epoch, utterance).
        seed: The run's seed.
        augmenter: Draws the augmentation of training utterances after cropping; None for no augmentation.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        labels: Labels,
        normalisation: Normalisation,
        max_seconds: float,
        seed: int,
        augmenter: Augmenter | None = None,
    ) -> None:
        self.paths = table["path"].array
        self.names = (table["corpus"] + "/" + table["file"]).array
        auxiliary = [_indices(further_labels(table, name), classes) for name, classes in labels.auxiliary.items()]
        shares = np.empty((len(table), 0)) if labels.votes is None else vote_shares(table, labels.classes, labels.votes)
        low, high = labels.attribute_scale
        values = table[list(labels.attributes)].to_numpy(dtype=np.float64)
        attributes = ((values - low) / (high - low)).astype(np.float32)
        emotions = _indices(table["emotion"], labels.classes)
        self.labels = LabelTable.join(emotions, auxiliary, attributes, shares.astype(np.float32))
        self.layout = LabelLayout(len(labels.attributes), tuple(labels.auxiliary))
        self.normalisation = normalisation
        self.max_seconds = max_seconds
        self.seed = seed
        self.augmenter = augmenter

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, item: Item) -> Utterance:
        """Decode one utterance.

        Args:
            item: (epoch, row); with the epoch `EVALUATION` the whole recording is read.

        Raises:
            DataError: If the recording cannot be used.
        """
        epoch, row = item
        crop, augmentation = None, None
        if epoch != EVALUATION:
            draw = utterance_generator(self.seed, epoch, self.names[row])
            crop = Crop(self.max_seconds, float(draw.random()))
        samples = read_waveform(self.paths[row], crop)
        if self.augmenter is not None and epoch != EVALUATION:
            samples = self.augmenter.apply_effects(epoch, self.names[row], samples)
            augmentation = self.augmenter.draw(epoch, self.names[row], len(samples))
        else:
            samples = self.normalisation(samples)
        return Utterance(row, samples, self.labels[row], self.layout, augmentation)


def _indices(column: pd.Series, names: tuple[str, ...]) -> npt.NDArray[np.int64]:
    """Return the index of each cell in `names`, (rows,), -1 where it is missing or not among them."""
    position = {name: index for index, name in enumerate(names)}
    return np.asarray(column.map(position).fillna(-1), dtype=np.int64)
