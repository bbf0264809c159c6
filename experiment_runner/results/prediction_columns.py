"""Names and formats of the columns of predictions."""

from __future__ import annotations

import pandas as pd

START, END = "start_seconds", "end_seconds"
"""Columns with the start and end of a segment of a recording."""
PREDICTION = "_prediction"
"""Ending of the columns with the classes that auxiliary heads predict, after the name of the head."""
MODEL_WARNING = "model_warning"
"""Last column, written only if the model's predictions about speech are meaningless."""


def attributes_of(predictions: pd.DataFrame) -> list[str]:
    """Return the attributes that a table of predictions has."""
    return [name.removeprefix("pred_") for name in predictions.columns if name.startswith("pred_")]


def classes_of(predictions: pd.DataFrame) -> list[str]:
    """Return the classes that a table of predictions has, in output order."""
    return [name.removeprefix("prob_") for name in predictions.columns if name.startswith("prob_")]


def auxiliary_of(predictions: pd.DataFrame) -> list[str]:
    """Return the names of the auxiliary heads whose predictions a table has."""
    names = [name for name in predictions.columns if name.endswith(PREDICTION) and not name.startswith("prob_")]
    return [name.removesuffix(PREDICTION) for name in names]


def as_clock(seconds: float) -> str:
    """Return a time as `0:05` or `1:02:03`, with a decimal if it is not a whole second."""
    whole, rest = divmod(round(10 * seconds), 10)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    text = f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
    return f"{text}.{rest}" if rest else text
