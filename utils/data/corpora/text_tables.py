"""Reads text tables in common forms: commas, semicolons or tabs, Excel's `sep=` line, UTF-8 or UTF-16."""

from __future__ import annotations

import codecs
import csv
import io
import re
import warnings
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from utils.errors import DataError
from utils.io.files import MOST_LABEL_BYTES, bounded
from utils.text import printable

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
DIALECT: dict[str, Any] = {
    "dtype": str,
    "keep_default_na": False,
    "encoding": "utf-8",
    "skipinitialspace": True,
    "index_col": False,  # otherwise a comma at the end of every row shifts all columns
    "skip_blank_lines": False,  # so that a row's position gives its line
}
HEAD_BYTES, HEAD_RECORDS = 1 << 16, 50
"""Size of the part of a table in which the column separator is detected."""
WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
"""The first bytes of .xlsx, .ods and .xls."""
WIDE_MARKS = {  # in this order: the mark of UTF-32 begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
AS_UTF8 = "save it as CSV in UTF-8 (in Excel: CSV UTF-8)"
SEPARATOR_LINE = re.compile(r'"?sep=(.)"?[ ,;\t]*(?:\r\n|\r|\n)', re.IGNORECASE)
BLANK_LINES = re.compile(r"(?:[ ]*(?:\r\n|\r|\n))*")
LINE_END = re.compile(r"\r\n|\r|\n")


class TextTable(NamedTuple):
    """A table of text.

    Attributes:
        rows: Stripped cells, empty ones missing; row index `i` is in line `i + 2` of the file.
        header: Stripped name of each column, as written in the file.
        delimiter: Separator of the columns.
    """

    rows: pd.DataFrame
    header: tuple[str, ...]
    delimiter: str


class _Layout(NamedTuple):
    delimiter: str
    header: tuple[str, ...]
    skipped: int


def read_text_table(name: str, source: Path, key: str | None = "PATH_TO_LABEL") -> pd.DataFrame:
    """Return the rows of a CSV as text; see `read_table`."""
    return read_table(name, source, key).rows


def read_table(name: str, source: Path, key: str | None = "PATH_TO_LABEL") -> TextTable:
    """Read a table as text.

    Args:
        name: Name of the corpus, or of another kind of table.
        source: Path of the CSV.
        key: Configuration key that names the file; None if there is none.

    Raises:
        DataError: If the file is missing or not a CSV; gives the line and the remedy.
    """
    place = name if key is None else f"{name}: {key}"
    try:
        content = bounded(source, MOST_LABEL_BYTES).read_bytes()
    except FileNotFoundError:
        raise DataError(f"{place}: there is no file {source}; correct the path") from None
    except OSError as error:
        raise DataError(f"{place}: {source}: {error.strerror}; correct the path") from None
    where = f"{name}: {source}"
    content = _as_utf8(where, content)
    layout = _find_layout(where, content)
    rows = _parse(where, content, layout)
    rows.index += layout.skipped
    if b'"' in content:
        _refuse_swallowed_lines(where, rows, layout.delimiter)
    rows.columns = rows.columns.str.strip()
    for column in rows:
        stripped = rows[column].str.strip()
        rows[column] = stripped.where(stripped != "")
    return TextTable(rows.dropna(how="all"), layout.header, layout.delimiter)


def first_place(wrong: pd.Series) -> str:
    """Return the position of the first marked row: its line, counted from 1 with the header, or its index name."""
    place = wrong.index[int(np.argmax(wrong.to_numpy()))]
    return place if isinstance(place, str) else f"line {place + 2}"


def _as_utf8(where: str, content: bytes) -> bytes:
    """Return the bytes of a table in UTF-8 without a byte order mark."""
    if content.startswith(codecs.BOM_UTF8):
        content = content.removeprefix(codecs.BOM_UTF8)
    for mark, encoding in WIDE_MARKS.items():
        if content.startswith(mark):
            try:
                return content.decode(encoding).encode()
            except UnicodeError:
                raise DataError(f"{where} begins as {encoding.upper()} and is damaged further on; {AS_UTF8}") from None
    if content.startswith(WORKBOOKS):
        raise DataError(f"{where} is a workbook or an archive, not a CSV; {AS_UTF8}")
    if b"\0" in content[:HEAD_BYTES].split(b"\n", 1)[0]:
        raise DataError(f"{where} is not a CSV in UTF-8: its first line contains zero bytes; {AS_UTF8}")
    return content


def _find_layout(where: str, content: bytes) -> _Layout:
    """Determine the column separator and the line of the header from the first lines."""
    head = content[:HEAD_BYTES].decode(errors="replace")
    start = _end_of(BLANK_LINES, head, 0)
    separator = SEPARATOR_LINE.match(head, start)
    if separator is not None:
        if separator[1] not in DELIMITERS:
            raise DataError(f"{where}: its first line says sep={separator[1]}; separate the columns with {_allowed()}")
        start = _end_of(BLANK_LINES, head, separator.end())
    candidates = [separator[1]] if separator is not None else list(DELIMITERS)
    records = {delimiter: _records(head[start:], delimiter) for delimiter in candidates}
    delimiter = _choose(where, records)
    header = tuple(cell.strip() for cell in records[delimiter][0]) if records[delimiter] else ()
    return _Layout(delimiter, header, len(LINE_END.findall(head[:start])))


def _end_of(pattern: re.Pattern[str], text: str, start: int) -> int:
    match = pattern.match(text, start)
    return start if match is None else match.end()


def _records(text: str, delimiter: str) -> list[list[str]]:
    """Return the first records as split by a delimiter; quoted cells may contain other delimiters."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        records = list(islice(reader, HEAD_RECORDS))
    except csv.Error:  # an oversized cell or a zero byte: pandas reports where
        return []
    return records[:-1] if len(records) > 1 and len(text) >= HEAD_BYTES // 4 else records


def _choose(where: str, records: dict[str, list[list[str]]]) -> str:
    """Return the delimiter in the header, else the one that splits the rows as it splits the header."""
    widths = {delimiter: [len(record) for record in cut] for delimiter, cut in records.items()}
    several = {delimiter: cut for delimiter, cut in widths.items() if cut and cut[0] > 1}
    if len(several) == 1 or len(records) == 1:
        return next(iter(several or records))
    if not several:
        first = next((cut[0][0] for cut in records.values() if cut and cut[0]), "")
        if "|" in first:
            raise DataError(f'{where}: its columns are separated by "|"; separate them with {_allowed()}')
        return ","
    shares = {delimiter: np.mean([width == cut[0] for width in cut[1:] or [0]]) for delimiter, cut in several.items()}
    best = [delimiter for delimiter, share in shares.items() if share == max(shares.values())]
    if len(best) > 1:
        names = " or ".join(DELIMITERS[delimiter] for delimiter in best)
        raise DataError(
            f"{where}: it is unclear whether {names} separate its columns; put sep={best[0]} or sep={best[1]} into a "
            "line above the header"
        )
    return best[0]


def _allowed() -> str:
    *others, last = DELIMITERS.values()
    return f"{', '.join(others)} or {last}"


def _parse(where: str, content: bytes, layout: _Layout) -> pd.DataFrame:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            rows: pd.DataFrame = pd.read_csv(
                io.BytesIO(content), sep=layout.delimiter, skiprows=layout.skipped, **DIALECT
            )
            return rows
    except pd.errors.ParserWarning:
        raise DataError(f"{where}: a row has more cells than the header; correct the row") from None
    except pd.errors.EmptyDataError:
        raise DataError(f"{where} is empty; write the names of the columns, and one line per recording") from None
    except UnicodeDecodeError:
        raise DataError(f"{where}: {_first_foreign_byte(content)}; {AS_UTF8}") from None
    except pd.errors.ParserError as error:
        text = " ".join(str(error).split())
        is_open = re.search(r"EOF inside string starting at row (\d+)", text)
        if is_open is not None:
            line = int(is_open[1]) + layout.skipped + 1
            raise DataError(f"{where}: line {line}: a quotation mark is never closed; close it, or remove it") from None
        raise DataError(f"{where} is not a CSV: {printable(text)}; correct it") from None


def _refuse_swallowed_lines(where: str, rows: pd.DataFrame, delimiter: str) -> None:
    """Refuse a cell with a line break and the delimiter: a stray quotation mark merges several rows into one cell."""
    lines = np.zeros(len(rows), dtype=np.int64)
    is_swallowed = np.zeros(len(rows), dtype=bool)
    for column in range(rows.shape[1]):
        cells = rows.iloc[:, column].fillna("")
        breaks = cells.str.count("\n").to_numpy(np.int64)
        lines += breaks
        is_swallowed |= (breaks > 0) & cells.str.contains(delimiter, regex=False).to_numpy(bool)
    if is_swallowed.any():
        first = int(is_swallowed.argmax())
        line = int(rows.index[first]) + 2 + int(lines[:first].sum())
        raise DataError(
            f"{where}: line {line}: a quotation mark begins a cell that runs over the end of the line and takes in "
            f"{DELIMITERS[delimiter]}, so that rows would be lost; close it in its line, or write it twice"
        )


def _first_foreign_byte(content: bytes) -> str:
    """Return the position of the first byte that is not UTF-8."""
    try:
        content.decode()
    except UnicodeDecodeError as error:
        before = content[: error.start].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return f"line {before.count(10) + 1} holds the byte 0x{content[error.start]:02X}, which is not UTF-8"
    return "it is not UTF-8"
