"""The table of a split's predictions, and the file that stores it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from dataset_module.ser_dataset import Labels
from experiment_runner.results.prediction_columns import PREDICTION, auxiliary_of
from experiment_runner.results.predictions import predicted_attributes, predicted_auxiliary, predicted_emotion
from net.ser import Outputs
from utils.data.labels.columns import further_labels
from utils.data.labels.vote_shares import VoteSettings, has_votes, vote_shares
from utils.io.files import atomic_write


def tabulate_predictions(
    table: pd.DataFrame, outputs: Outputs, labels: Labels, shared_classes: Sequence[str] | None = None
) -> pd.DataFrame:
    """Return the predictions of a split, one row per utterance in the table's order.

    Args:
        table: Utterance table of the split.
        outputs: The model's outputs for it.
        labels: The model's classes and attributes, with the scale of the table's corpus.
        shared_classes: Classes to choose from if they are fewer than the model's.

    Returns:
        `file`; if classes were trained, `label`, `prediction`, `prob_<class>` and (if the corpus has its raters'
        primary votes) their `share_<class>`; `<attribute>` and `pred_<attribute>` on the scale of the table, clipped to
        it; `gender` if any is known; of each auxiliary head, `<head>` if any is known, and `<head>_prediction`.
    """
    columns: dict[str, object] = {"file": table["file"].to_numpy(dtype=object)}
    if outputs.emotion is not None:
        classes = labels.classes if shared_classes is None else tuple(shared_classes)
        columns["label"] = table["emotion"].where(table["emotion"].isin(classes)).to_numpy(dtype=object)
        columns |= predicted_emotion(outputs.emotion, labels.classes, classes)
        if has_votes(table):
            shares = vote_shares(table, classes, VoteSettings())  # the same settings for every model, to compare them
            columns |= {f"share_{name}": shares[:, index] for index, name in enumerate(classes)}
    if outputs.attributes is not None:
        for name, values in predicted_attributes(outputs.attributes, labels).items():
            columns[name] = table[name].to_numpy(dtype=np.float64)
            columns[f"pred_{name}"] = values
    predicted = predicted_auxiliary(outputs, labels)
    for name in dict.fromkeys(["gender", *labels.auxiliary]):
        known = further_labels(table, name)
        if name in labels.auxiliary:
            known = known.where(known.isin(labels.auxiliary[name]))
        if known.notna().any():
            columns[name] = known.to_numpy(dtype=object)
        if (column := f"{name}{PREDICTION}") in predicted:
            columns[column] = predicted[column]
    return pd.DataFrame(columns)


def read_predictions(path: Path) -> pd.DataFrame:
    """Read `predictions/<split>.csv`; only an empty field is a missing value, so a class may be called "NA"."""
    auxiliary = auxiliary_of(pd.read_csv(path, nrows=0))
    predicted = [f"{name}{PREDICTION}" for name in auxiliary]
    text = dict.fromkeys(("file", "label", "prediction", *auxiliary, *predicted), str)
    return pd.read_csv(path, dtype=text, keep_default_na=False, na_values=[""])


def write_predictions(path: Path, predictions: pd.DataFrame) -> None:
    """Write predictions, completely or not at all, so that reading them back gives the same numbers."""
    path.parent.mkdir(exist_ok=True)
    atomic_write(path, predictions.to_csv(index=False))
