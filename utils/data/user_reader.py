"""Calls the reader of a user's own format, and checks its table for what only a reader can do wrong."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from utils.config.corpus import CorpusConfig
from utils.config.formats import corpus_format
from utils.config.types import SPLIT_NAME
from utils.data.labels.columns import ATTRIBUTES, GENDERS, VOTES
from utils.data.labels.corpus import Reading
from utils.errors import DataError, UserError
from utils.io.user_code import place_of
from utils.text import did_you_mean


def _is_missing(cell: Any) -> bool:  # noqa: ANN401 - whatever a table holds
    return bool(pd.api.types.is_scalar(cell) and pd.isna(cell))


def _is_path(cell: object) -> bool:
    return isinstance(cell, str | os.PathLike) and os.fspath(cell) != ""


def _is_text(cell: object) -> bool:
    return isinstance(cell, str) or _is_missing(cell)


def _is_number(cell: Any) -> bool:  # noqa: ANN401 - whatever a table holds
    is_number = isinstance(cell, int | float | np.number) and not isinstance(cell, bool)
    return _is_missing(cell) or (is_number and bool(np.isfinite(cell)))


class Cells(NamedTuple):
    """The cells that a column can have: a test, and its meaning in words."""

    allow: Callable[[Any], bool]
    meaning: str


COLUMNS: dict[str, Cells] = {
    "file": Cells(_is_path, "a name in every row"),
    "path": Cells(_is_path, "a path in every row"),
    "split": Cells(
        lambda cell: _is_text(cell) and (_is_missing(cell) or SPLIT_NAME.fullmatch(cell) is not None),
        "train, development, test1, test2, …, or None",
    ),
    "speaker": Cells(_is_text, "a text, or None"),
    "gender": Cells(lambda cell: _is_missing(cell) or cell in GENDERS, f"{', '.join(GENDERS)}, or None"),
    "emotion": Cells(_is_text, "a text, or None"),
    **dict.fromkeys(ATTRIBUTES, Cells(_is_number, "a number, or None")),
}
COUNTS = Cells(
    lambda cell: not _is_missing(cell) and _is_number(cell) and cell >= 0 and cell % 1 == 0, "a count of raters"
)


def read_by_user_code(name: str, config: CorpusConfig) -> Reading:
    """Read a corpus by the user's own code.

    Its table needs the column `file`, the name of each recording below `PATH_TO_AUDIO`. A recording lies there, unless
    the table has a column `path`.

    Raises:
        DataError: If the reader fails, or its table cannot be used; names the place and the remedy.
    """
    try:
        result = corpus_format(config.FORMAT).read(name, config)
    except UserError:
        raise
    except Exception as error:
        cause = f"{place_of(error)}{type(error).__name__}: {error}"
        raise DataError(f'{name}: the reader of FORMAT = "{config.FORMAT}" fails: {cause}; correct it') from error
    reading = result if isinstance(result, Reading) else Reading(result)
    problem = next(_problems(reading, config.further_columns), None)
    if problem is not None:
        raise DataError(f'{name}: the reader of FORMAT = "{config.FORMAT}" returns {problem}')
    return replace(reading, rows=_plain_rows(reading.rows, config))


def _problems(reading: Reading, further: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with a reader's result, as the rest of a sentence; later problems follow from the first.

    Args:
        reading: The result.
        further: Further columns of labels.
    """
    rows, known = reading.rows, {**COLUMNS, **dict.fromkeys(further, COLUMNS["emotion"])}
    if not isinstance(rows, pd.DataFrame):
        yield f"a {type(rows).__name__}; it must be a pandas.DataFrame, or a Reading that contains one"
    if reading.hidden:
        yield "hidden splits, which MSP-PODCAST alone has; leave them out, and use predict.py on their recordings"
    for column in rows.columns:
        cells = COUNTS if str(column).startswith(VOTES) else known.get(column)
        if cells is None:
            near = did_you_mean(str(column), list(known))
            yield f'the column "{column}", which no corpus has and further_columns does not list; {near}'
        elif isinstance(rows[column], pd.DataFrame):
            yield f'the column "{column}" twice; leave one out'
        else:
            wrong = [row for row, cell in enumerate(rows[column]) if not cells.allow(cell)]
            for row in wrong[:1]:
                yield f"{column} = {rows[column].iloc[row]!r} in row {row}; allowed: {cells.meaning}"
    if "file" not in rows:
        yield "a table without the column file; it names each recording below PATH_TO_AUDIO"
    for column in [name for name in further if name not in rows]:
        yield f"a table without the column {column}, which further_columns lists"


def _plain_rows(rows: pd.DataFrame, config: CorpusConfig) -> pd.DataFrame:
    """Return a checked table with a path in every row, paths as texts, and NaN for numbers that are missing."""
    values: dict[str, Any] = {"file": list(map(os.fspath, rows["file"]))}
    paths = rows["path"] if "path" in rows else (config.PATH_TO_AUDIO / file for file in values["file"])
    values["path"] = list(map(os.fspath, paths))
    for attribute in set(ATTRIBUTES) & set(rows.columns):
        values[attribute] = [np.nan if _is_missing(cell) else float(cell) for cell in rows[attribute]]
    return rows.assign(**values)
