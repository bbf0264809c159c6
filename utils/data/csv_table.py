"""`FORMAT = "csv"`: a user's own table, with the columns of the utterance table.

Only `file` (relative to `PATH_TO_AUDIO`) is required; `split`, `speaker`, `gender`, `emotion`, `arousal`, `valence`
and `dominance` are read where present, and the columns that `further_columns` lists. The corpus's key `columns` gives
columns with other names. Empty cells are missing values.
"""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from utils.config.corpus import CorpusConfig
from utils.data.corpora.csv_columns import describe_unread, map_columns
from utils.data.corpora.csv_files import resolve_files
from utils.data.corpora.csv_values import read_numbers, read_values, refuse
from utils.data.corpora.text_tables import first_place, read_table
from utils.data.labels.corpus import Reading
from utils.errors import DataError


def read(name: str, config: CorpusConfig) -> Reading:
    """Return one row per line of the table at `PATH_TO_LABEL`."""
    assert config.PATH_TO_LABEL is not None
    table = read_table(name, config.PATH_TO_LABEL)
    columns = map_columns(name, config.PATH_TO_LABEL, table, config.columns, config.further_columns)
    rows = columns.select(table.rows)
    where = f"{name}: {config.PATH_TO_LABEL}"
    files = resolve_files(where, rows["file"], columns.sources["file"], config.PATH_TO_AUDIO)
    values = read_values(rows, columns.sources, columns.votes, table.delimiter)
    refuse(name, config.PATH_TO_LABEL, [*files.problems, *values.problems], files.outside)
    rows = values.rows.assign(file=files.names)
    folder = os.fspath(config.PATH_TO_AUDIO)
    rows["path"] = [os.path.join(folder, file) for file in rows["file"]]
    notes = [*files.notes, *values.notes, *([describe_unread(columns.unread)] if columns.unread else [])]
    return Reading(rows, tuple(notes), unread=columns.unread)


def numbers(name: str, source: Path, column: pd.Series) -> pd.Series:
    """Turn text into numbers; missing cells and words for missing values become NaN.

    Raises:
        DataError: Names the first line that is not a finite number.
    """
    values, wrong = read_numbers(column)
    if wrong.any():
        found = column[wrong].iloc[0]
        raise DataError(f'{name}: {source}: {first_place(wrong)}: {column.name} is "{found}"; give a number')
    return values
