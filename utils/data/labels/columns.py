"""The columns of the utterance table and their contents."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from utils.config.heads import HEADS

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
CATEGORICAL: dict[str, Any] = json.loads((CONFIGS / "config_cat.json").read_text(encoding="utf-8"))
DIMENSIONAL: dict[str, Any] = json.loads((CONFIGS / "config_dim.json").read_text(encoding="utf-8"))
CANONICAL_CLASSES: tuple[str, ...] = tuple(CATEGORICAL["classes"])
ATTRIBUTES: tuple[str, ...] = tuple(DIMENSIONAL["attributes"])
GENDERS = HEADS["gender"].classes
VOTES = ("votes_", "secondary_")
"""Prefixes of the columns that count raters by class."""
TEXT_COLUMNS = ("corpus", "file", "path", "split", "speaker", "gender", "emotion")
OUTSIDE = r"^[/\\]|^[A-Za-z]:|(?:^|[/\\])\.\.(?:[/\\]|$)"
"""Matches file names that lead out of the folder in which they start."""
TEXT = pd.StringDtype("pyarrow", na_value=np.nan)


def as_utterance_table(name: str, rows: pd.DataFrame, further: Sequence[str] = ()) -> pd.DataFrame:
    """Convert a reader's rows to the columns and types of the utterance table; absent columns are missing values.

    Args:
        name: Name of the corpus.
        rows: Rows of its reader.
        further: Further columns of labels, which hold texts.
    """
    table = pd.DataFrame(index=pd.RangeIndex(len(rows)))
    for column in (*TEXT_COLUMNS, *further):
        values = rows[column].to_numpy(dtype=object) if column in rows else np.full(len(rows), np.nan, dtype=object)
        table[column] = pd.array(values, dtype=TEXT)
    table["corpus"] = pd.array([name] * len(rows), dtype=TEXT)
    for column in ATTRIBUTES:
        table[column] = rows[column].to_numpy(dtype=np.float64) if column in rows else np.nan
    counts = [column for column in rows.columns if column.startswith(VOTES)]
    votes = {column: rows[column].to_numpy(dtype=np.int32) for column in counts}
    return pd.concat([table, pd.DataFrame(votes, index=table.index)], axis=1)


def further_labels(table: pd.DataFrame, name: str) -> pd.Series:
    """Return a further column of labels, (rows,); all missing if the corpus lacks it."""
    return table[name] if name in table else pd.Series(np.nan, index=table.index, dtype=TEXT)


def plain_paths(table: pd.DataFrame) -> pd.Series:
    """Return the normalised paths of an utterance table, in which `./a` and `a` are equal."""
    return pd.Series([os.path.normpath(path) for path in table["path"]], index=table.index, dtype=TEXT)
