"""`FORMAT = "csv"`: anyone's own table, with the columns of the utterance table.

Only `file` (relative to `PATH_TO_AUDIO`) is required; `split`, `speaker`, `gender`, `emotion`, `arousal`, `valence`
and `dominance` are read where they stand. Empty cells are missing values.
"""

from __future__ import annotations

import os
import warnings
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from utils.configuration import CorpusConfig
from utils.configuration_types import SPLIT_NAME
from utils.data import ATTRIBUTES, DataError, Reading
from utils.data.spellings import is_nothing, nothing_notes
from utils.files import MOST_LABEL_BYTES, bounded

CSV_DIALECT: dict[str, Any] = {
    "dtype": str,
    "keep_default_na": False,
    "encoding": "utf-8-sig",
    "skipinitialspace": True,
    "index_col": False,  # else a comma at the end of every row shifts all columns
    "skip_blank_lines": False,  # so that a row's position is its line
}
COLUMNS = ("file", "split", "speaker", "gender", "emotion", *ATTRIBUTES)


def read(name: str, config: CorpusConfig) -> Reading:
    """Return one row a line of the table at `PATH_TO_LABEL`."""
    assert config.PATH_TO_LABEL is not None
    rows = read_text_table(name, config.PATH_TO_LABEL)
    further = [column for column in rows.columns if column not in COLUMNS]
    misspelt = [(column, near) for column in further for near in get_close_matches(column.lower(), COLUMNS, 1, 0.75)]
    if misspelt:
        column, near = misspelt[0]
        raise DataError(f'{name}: {config.PATH_TO_LABEL}: column "{column}"; did you mean "{near}"?')
    if "file" not in rows.columns:
        raise DataError(f'{name}: {config.PATH_TO_LABEL}: no column "file"; columns read: {", ".join(COLUMNS)}')
    if rows["file"].isna().any():
        raise DataError(f"{name}: {config.PATH_TO_LABEL}: {first_place(rows['file'].isna())}: the file is missing")
    notes = nothing_notes(rows, ("gender", *ATTRIBUTES))
    for column in ("split", "gender"):
        if column in rows:
            rows[column] = rows[column].str.lower()
    _check_values(name, config.PATH_TO_LABEL, rows)
    if "gender" in rows:
        rows["gender"] = rows["gender"].where(rows["gender"] != "unknown")
    for attribute in ATTRIBUTES:
        if attribute in rows:
            rows[attribute] = numbers(name, config.PATH_TO_LABEL, rows[attribute])
    rows["path"] = [os.path.join(config.PATH_TO_AUDIO, file) for file in rows["file"]]
    return Reading(rows, notes)


def _check_values(name: str, source: Path, rows: pd.DataFrame) -> None:
    patterns = {
        "gender": ("female|male|unknown", "female, male, unknown or empty"),
        "split": (SPLIT_NAME.pattern, "train, development, test1, …"),
    }
    for column, (pattern, allowed) in patterns.items():
        if column not in rows:
            continue
        wrong = rows[column].notna() & ~rows[column].fillna("").str.fullmatch(pattern)
        if wrong.any():
            found, place = rows.loc[wrong, column].iloc[0], first_place(wrong)
            raise DataError(f'{name}: {source}: {place}: {column} is "{found}"; allowed: {allowed}')


def read_text_table(name: str, source: Path, key: str | None = "PATH_TO_LABEL") -> pd.DataFrame:
    """Read a CSV as text, cells stripped, empty cells missing.

    Args:
        name: Of the corpus, or of what else the table is.
        source: The CSV.
        key: Under which the configuration names it; None where it does not.

    Raises:
        DataError: Where the file is missing or not a CSV.
    """
    place = name if key is None else f"{name}: {key}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            rows = pd.read_csv(bounded(source, MOST_LABEL_BYTES), **CSV_DIALECT)
    except FileNotFoundError:
        raise DataError(f"{place}: there is no file {source}; correct the path") from None
    except OSError as error:
        raise DataError(f"{place}: {source}: {error.strerror}; correct the path") from None
    except pd.errors.ParserWarning:
        raise DataError(f"{name}: {source}: a row has more cells than the header; correct the row") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DataError(f"{name}: {source} is not a CSV in UTF-8: {error}") from None
    rows.columns = rows.columns.str.strip()
    for column in rows:
        stripped = rows[column].str.strip()
        rows[column] = stripped.where(stripped != "")
    filled: pd.DataFrame = rows.dropna(how="all")
    return filled


def first_place(wrong: pd.Series) -> str:
    """Say where the first row marked stands: its line, counted from 1 with the header, or the name it is indexed by."""
    place = wrong.index[int(np.argmax(wrong.to_numpy()))]
    return place if isinstance(place, str) else f"line {place + 2}"


def numbers(name: str, source: Path, column: pd.Series) -> pd.Series:
    """Turn text into numbers, missing cells and words for nothing into NaN.

    Raises:
        DataError: Names the first line that is no finite number.
    """
    values = pd.to_numeric(column, errors="coerce").astype(np.float64)
    wrong = column.notna() & ~np.isfinite(values) & ~is_nothing(column.where(~np.isfinite(values)))
    if wrong.any():
        found = column[wrong].iloc[0]
        raise DataError(f'{name}: {source}: {first_place(wrong)}: {column.name} is "{found}"; give a number')
    return values
