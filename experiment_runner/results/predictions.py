"""A model's outputs as columns of a table of predictions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from dataset_module.ser_dataset import Labels
from experiment_runner.results.prediction_columns import PREDICTION
from net.ser import Outputs

Column = npt.NDArray[np.float64] | npt.NDArray[np.object_]


def predicted_columns(outputs: Outputs, labels: Labels) -> dict[str, Column]:
    """Return all predictions by their column names in `predictions/<split>.csv`."""
    columns: dict[str, Column] = {}
    if outputs.emotion is not None:
        columns |= predicted_emotion(outputs.emotion, labels.classes, labels.classes)
    if outputs.attributes is not None:
        values = predicted_attributes(outputs.attributes, labels)
        columns |= {f"pred_{name}": column for name, column in values.items()}
    return columns | predicted_auxiliary(outputs, labels)


def predicted_emotion(logits: Tensor, known: Sequence[str], classes: Sequence[str]) -> dict[str, Column]:
    """Return `prediction` and `prob_<class>`.

    Args:
        logits: Logits of the classes, (rows, known).
        known: The model's classes.
        classes: Classes to choose from.
    """
    chosen = logits[:, [known.index(name) for name in classes]]
    probabilities = chosen.double().softmax(-1).cpu().numpy()
    columns: dict[str, Column] = {"prediction": np.array(classes, dtype=object)[probabilities.argmax(-1)]}
    return columns | {f"prob_{name}": probabilities[:, index] for index, name in enumerate(classes)}


def predicted_attributes(outputs: Tensor, labels: Labels) -> dict[str, npt.NDArray[np.float64]]:
    """Return each attribute on the scale of the labels, clipped to it, from outputs (rows, attributes) on [0, 1]."""
    low, high = labels.attribute_scale
    values = (low + outputs.double() * (high - low)).clamp(low, high).cpu().numpy()
    return {name: values[:, index] for index, name in enumerate(labels.attributes)}


def predicted_auxiliary(outputs: Outputs, labels: Labels) -> dict[str, Column]:
    """Return `<head>_prediction` of each auxiliary head, its likeliest class in each row."""
    return {
        f"{name}{PREDICTION}": np.array(labels.auxiliary[name], dtype=object)[logits.argmax(-1).cpu().numpy()]
        for name, logits in outputs.auxiliary.items()
    }
