"""Words that people use for splits and genders, with the same meaning for all readers of free text."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from utils.config.types import SPLIT_NAME
from utils.data.labels.columns import TEXT

SPLITS: Mapping[str, str] = {
    **dict.fromkeys(("train", "training", "trn", "trainset", "trainingset"), "train"),
    **dict.fromkeys(("development", "dev", "devel", "devset", "developmentset"), "development"),
    **dict.fromkeys(("validation", "val", "valid", "validate", "valset", "validset", "validationset"), "development"),
    **dict.fromkeys(("test", "testing", "tst", "testset", "testingset"), "test"),
}
GENDERS: Mapping[str, str] = {
    **dict.fromkeys(("female", "f", "fem", "woman", "women", "girl"), "female"),
    **dict.fromkeys(("male", "m", "man", "men", "boy"), "male"),
}
ALLOWED_SPLITS = "train, development (dev, val, valid, validation), test, test1, test2, …"
ALLOWED_GENDERS = "female (f, woman), male (m, man), unknown or empty"
EITHER_SPLIT = ("eval", "evaluation", "evaluate")
"""Words that mean development to some people and test to others."""


def read_split(text: str) -> str | None:
    """Return the split that a word means, if any; `Test 1`, `test_1` and `test01` mean `test1`."""
    word = "".join(c for c in text.casefold() if c not in " _-")
    word = re.sub(r"^(test)0+(?=\d)", r"\1", word)
    split = SPLITS.get(word, word)
    return split if SPLIT_NAME.fullmatch(split) and split.isascii() else None


def read_gender(text: str) -> str | None:
    """Return the gender that a word means, if any."""
    return GENDERS.get(text.casefold())


def read_words(column: pd.Series, meaning: Callable[[str], str | None]) -> pd.Series:
    """Return the meanings of a column's words; missing where a cell is missing or its meaning is unknown."""
    codes, texts = pd.factorize(column)
    meanings = np.array([*(meaning(str(text)) for text in texts), None], dtype=object)  # -1 is a missing cell
    return pd.Series(pd.array(meanings[codes], dtype=TEXT), index=column.index)


def describe_readings(column: str, cells: pd.Series, meaning: Callable[[str], str | None]) -> str | None:
    """Describe which words of a column are read as others, and how often; None if only case differs.

    Args:
        column: Name of the column.
        cells: Cells as they are written, (rows,).
        meaning: Maps each word to its meaning.
    """
    words: dict[str, list[str]] = defaultdict(list)
    for cell, rows in cells.value_counts().items():
        value = meaning(str(cell))
        if value is not None and str(cell).casefold() != value:
            words[value].append(f'"{cell}" {rows:,}')
    parts = [f"{', '.join(texts)} read as {value}" for value, texts in words.items()]
    return f"{column}: {'; '.join(parts)}" if parts else None
