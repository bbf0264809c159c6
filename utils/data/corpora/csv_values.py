"""Reads the cells of a user's own table, and collects all unreadable ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from utils.data.labels.columns import ATTRIBUTES
from utils.data.labels.label_words import (
    ALLOWED_GENDERS,
    ALLOWED_SPLITS,
    EITHER_SPLIT,
    describe_readings,
    read_gender,
    read_split,
    read_words,
)
from utils.data.labels.spellings import is_nothing, nothing_notes
from utils.errors import DataError
from utils.io.files import atomic_write

DECIMAL_COMMA = r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?"
NOTHING = ("split", "gender", *ATTRIBUTES)
"""Columns in which words for missing values are counted here; for the others it is done for all readers together."""
MOST_SHOWN = 5
LISTED_BELOW, LISTED = Path("audits"), "label_problems.csv"
"""File with all problems of a corpus's labels, in the corpus's folder, like an audit's findings."""


class CellProblem(NamedTuple):
    """A cell that cannot be read: its position, its text, and the rest of the sentence."""

    line: int
    column: str
    value: str
    problem: str


class Values(NamedTuple):
    """Values of a table.

    Attributes:
        rows: Rows with normalised splits and genders, and with numbers.
        notes: Sentences on words that were read as others.
        problems: Cells that cannot be read.
    """

    rows: pd.DataFrame
    notes: tuple[str, ...]
    problems: list[CellProblem]


def read_values(rows: pd.DataFrame, sources: Mapping[str, str], votes: Mapping[str, str], delimiter: str) -> Values:
    """Read splits, genders, numbers and votes.

    Args:
        rows: Cells as text, under the names of the utterance table; row `i` is in line `i + 2`.
        sources: Name of each column in the file.
        votes: Name of each column that counts raters in the file.
        delimiter: Separator of the columns; decimal commas are allowed only with semicolons.
    """
    labels = [_read_labels(rows[column], column, sources[column]) for column in ("split", "gender") if column in rows]
    values = {str(read.name): read for read, _, _ in labels}
    words = nothing_notes(rows.rename(columns=sources), [sources[name] for name in NOTHING if name in sources])
    notes = (*words, *(note for _, note, _ in labels if note))
    problems = [problem for *_, wrong in labels for problem in wrong]
    for attribute in [attribute for attribute in ATTRIBUTES if attribute in rows]:
        values[attribute], wrong = read_numbers(rows[attribute], delimiter)
        problems += list_cells(sources[attribute], rows.loc[wrong, attribute], _explain_number)
    for column, name in votes.items():
        values[column], wrong = read_numbers(rows[column], delimiter)
        wrong |= values[column].isna() | (values[column] < 0) | (values[column] % 1 != 0)
        problems += list_cells(name, rows.loc[wrong, column], lambda _: "give a count of votes, or ignore the column")
    return Values(rows.assign(**values), notes, problems)


def _read_labels(cells: pd.Series, column: str, name: str) -> tuple[pd.Series, str | None, list[CellProblem]]:
    """Read a column of words: their meanings, a sentence on those read as others, and words without meaning."""
    cells = cells.where(~is_nothing(cells))
    meaning, explain = (read_split, _explain_split) if column == "split" else (read_gender, _explain_gender)
    values = read_words(cells, meaning).rename(column)
    problems = list(list_cells(name, cells[cells.notna() & values.isna()], explain))
    return values, describe_readings(name, cells, meaning), problems


def read_numbers(column: pd.Series, delimiter: str = ",") -> tuple[pd.Series, pd.Series]:
    """Return a column's numbers, NaN for missing cells and missing-value words, and which cells are not numbers."""
    values = pd.to_numeric(decimal_points(column, delimiter), errors="coerce").astype(np.float64)
    wrong = column.notna() & ~np.isfinite(values)
    wrong &= ~is_nothing(column.where(wrong))
    return values, wrong


def decimal_points(column: pd.Series, delimiter: str) -> pd.Series:
    """Replace decimal commas by points, unless commas separate columns."""
    if delimiter != ";":
        return column
    has_comma = column.str.fullmatch(DECIMAL_COMMA).fillna(False).astype(bool)
    return column.where(~has_comma, column.str.replace(",", ".")) if has_comma.any() else column


def are_readable(target: str, column: pd.Series) -> bool:
    """Return whether every cell of a column is valid in the given column of an utterance table."""
    if target in ATTRIBUTES:
        return not read_numbers(column, ";")[1].any()
    cells = column[column.notna() & ~is_nothing(column)]
    if target in ("split", "gender"):
        return bool(read_words(cells, read_split if target == "split" else read_gender).notna().all())
    return True


def refuse(name: str, source: Path, problems: Iterable[CellProblem], sentences: Iterable[str] = ()) -> None:
    """Raise an error that shows the first few unreadable cells; if there are more, all are listed in a file.

    Args:
        name: Name of the corpus.
        source: Path of its table.
        problems: Unreadable cells.
        sentences: Other problems.

    Raises:
        DataError: If there is any problem.
    """
    cells = sorted(problems)
    messages = [f"{name}: {source}: {_describe(cell)}" for cell in cells[:MOST_SHOWN]]
    if len(cells) > MOST_SHOWN:
        messages.append(f"{name}: {source}: {len(cells):,} cells cannot be read; {_write_all(name, cells)}")
    messages += sentences
    if messages:
        raise DataError(*messages)


def _describe(cell: CellProblem) -> str:
    found = f'{cell.column} is "{cell.value}"' if cell.value else f"{cell.column} is empty"
    return f"line {cell.line}: {found}; {cell.problem}"


def _write_all(name: str, cells: list[CellProblem]) -> str:
    path = LISTED_BELOW / name / LISTED
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, pd.DataFrame(cells, columns=CellProblem._fields).to_csv(index=False))
    except OSError as error:
        return f"all would be listed in {path}, which cannot be written: {error.strerror}"
    return f"all are listed in {path}"


def list_cells(column: str, cells: pd.Series, explain: Callable[[str], str]) -> Iterator[CellProblem]:
    """Yield a problem for each cell; the sentence depends on the cell's text, which is empty for a missing cell."""
    texts = ["" if pd.isna(cell) else str(cell) for cell in cells]
    explanations = {text: explain(text) for text in dict.fromkeys(texts)}
    return (
        CellProblem(int(line) + 2, column, text, explanations[text])
        for line, text in zip(cells.index, texts, strict=True)
    )


def _explain_split(text: str) -> str:
    if text.casefold() in EITHER_SPLIT:
        return "it means development to some and test to others; write which one"
    return f"allowed: {ALLOWED_SPLITS}"


def _explain_gender(_: str) -> str:
    return f"allowed: {ALLOWED_GENDERS}"


def _explain_number(text: str) -> str:
    if re.fullmatch(DECIMAL_COMMA, text):
        return f"write {text.replace(',', '.')}; decimal commas are read where semicolons separate the columns"
    return "give a number"
