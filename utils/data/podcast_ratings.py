"""MSP-PODCAST's per-rater labels, in every dialect of its releases.

One line of a file is one rating, and each line is read by itself: whatever a rater typed into a free text can spoil the
line it stands in and no other. A line that cannot be read is reported and never counted.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from utils.data import CATEGORICAL, DataError

CLASSES: tuple[str, ...] = (*CATEGORICAL["default_classes"]["msp-podcast"], "other")
"""What a rater can choose, in the order of the vote columns."""
OTHER = CLASSES.index("other")
WORKER_COLUMNS = ("Worker", "WorkerID", "Workers")
SEPARATE_COLUMNS = ("FileName", "EmoClass_Major", "EmoClass_Second", "EmoAct", "EmoVal", "EmoDom")
STRING_COLUMNS = ("FileName", "EmoDetail")
ATTRIBUTES = ("arousal", "valence", "dominance")
NUMBER = r"\s*-?[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?\s*"
NUMBERS = rf"\s*A:(?P<arousal>{NUMBER});\s*V:(?P<valence>{NUMBER});\s*D:(?P<dominance>{NUMBER});?"
DETAIL = rf"\s*(?P<worker>[^;,\"]+);\s*(?P<primary>[^;]*);(?P<middle>(?:.*;)?){NUMBERS}\s*"
"""`WORKER00000001; Neutral; Neutral,Sad; A:3.000000; V:4.000000; D:3.000000;`, where the free text of an `Other` may
hold semicolons of its own."""
FIELD = r'(?:"(?:[^"]|"")*"|[^,"]*)'
SHOWN = 80


@dataclass(frozen=True)
class Unreadable:
    """A line that holds no rating: its number, counted from 1, and how it begins."""

    line: int
    text: str


@dataclass(frozen=True)
class Ratings:
    """Ratings, one row each.

    Attributes:
        table: `file`, `worker` (text), `primary` (index into `CLASSES`), `secondary` (bit n for `CLASSES[n]`),
            `arousal`, `valence`, `dominance` (NaN where missing).
        unreadable: What was left out.
    """

    table: pd.DataFrame
    unreadable: tuple[Unreadable, ...]

    def votes(self, files: Sequence[str]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Count primary and secondary labels of each file, each (files, classes)."""
        rows = pd.Index(files).get_indexer(pd.Index(self.table["file"]))
        known = rows >= 0
        rows, primary = rows[known], self.table["primary"].to_numpy()[known]
        masks = self.table["secondary"].to_numpy()[known]
        shape = (len(files), len(CLASSES))
        counts = np.bincount(rows * len(CLASSES) + primary, minlength=shape[0] * shape[1])
        secondary = [np.bincount(rows[masks >> n & 1 == 1], minlength=shape[0]) for n in range(len(CLASSES))]
        return counts.reshape(shape).astype(np.int32), np.stack(secondary, axis=1).astype(np.int32)


def read_ratings(name: str, source: Path) -> Ratings:
    """Read `labels_detailed.csv`, `labels_detailed.json` or `labels.txt`.

    Raises:
        DataError: Where the file cannot be read or has none of the known layouts.
    """
    try:
        if source.suffix.lower() == ".json":
            return _read_json(source)
        content = source.read_bytes().decode("utf-8-sig", errors="replace")
    except (OSError, ValueError) as error:
        raise DataError(f"{name}: {source} cannot be read: {error}") from error
    lines = pa.array(content.replace("\r", "").split("\n"), pa.string())
    del content
    if source.suffix.lower() == ".txt":
        return _read_text(lines)
    header = next(csv.reader([lines[0].as_py()]))
    columns = [column.strip() for column in header]
    if set(STRING_COLUMNS) <= set(columns):
        return _read_strings(lines, columns)
    if set(SEPARATE_COLUMNS) <= set(columns) and set(WORKER_COLUMNS) & set(columns):
        return _read_separate(lines, columns)
    raise DataError(
        f"{name}: {source}: the columns {', '.join(columns)} are none of the known layouts; expected "
        f"{', '.join(STRING_COLUMNS)}, or {', '.join(SEPARATE_COLUMNS)} and one of {', '.join(WORKER_COLUMNS)}"
    )


def _read_strings(lines: pa.Array, columns: list[str]) -> Ratings:
    """Releases 1.7 to 1.11: `FileName,EmoDetail`, the whole rating in one string."""
    if columns != list(STRING_COLUMNS):
        raise DataError(f"the columns {', '.join(columns)} must be {', '.join(STRING_COLUMNS)}")
    found = pc.extract_regex(lines, rf'^\s*"?(?P<file>[^,"]+)"?\s*,\s*"?{DETAIL}"?\s*$')
    return _collect(lines, found, np.arange(1, len(lines)))


def _read_text(lines: pa.Array) -> Ratings:
    """`labels.txt`: a line of the consensus, and below it the ratings of that file."""
    is_file = pc.match_substring_regex(lines, r"(?i)^\s*[^;]+\.wav\s*;").to_numpy(zero_copy_only=False)
    numbers = np.arange(len(lines))
    heading = np.maximum.accumulate(np.where(is_file, numbers, -1))
    headings = pc.extract_regex(lines, r"^\s*(?P<file>[^;]+?)\s*;").field("file")
    rows = numbers[~is_file & (heading >= 0)]
    found = pc.extract_regex(lines, rf"^{DETAIL}$")
    files = headings.take(pa.array(np.maximum(heading, 0)))
    return _collect(lines, found, rows, files)


def _read_separate(lines: pa.Array, columns: list[str]) -> Ratings:
    """Releases 1.6 and 2.0: a column each."""
    names = {"FileName": "file", "EmoClass_Major": "primary", "EmoClass_Second": "middle", "EmoAct": "arousal"}
    names |= {"EmoVal": "valence", "EmoDom": "dominance", **dict.fromkeys(WORKER_COLUMNS, "worker")}
    numbered = [names.get(column, f"unused{index}") for index, column in enumerate(columns)]
    pattern = ",".join(rf"\s*(?P<{column}>{FIELD})\s*" for column in numbered)
    found = pc.extract_regex(lines, f"^{pattern}$")
    missed = np.flatnonzero(found.is_null().to_numpy(zero_copy_only=False)[1:]) + 1
    repaired = {int(row): fields for row in missed if (fields := _repair(lines[int(row)].as_py(), numbered))}
    ratings = _collect(lines, found, np.setdiff1d(np.arange(1, len(lines)), list(repaired)))
    if not repaired:
        return ratings
    rows = pa.array([dict.fromkeys(numbered, "") | fields for fields in repaired.values()])
    further = _collect(lines.take(pa.array(list(repaired))), rows, np.arange(len(repaired)))
    table = pd.concat([ratings.table, further.table], ignore_index=True)
    lines_of = list(repaired)
    unreadable = [Unreadable(lines_of[item.line - 1] + 1, item.text) for item in further.unreadable]
    return Ratings(table, tuple(sorted([*ratings.unreadable, *unreadable], key=lambda item: item.line)))


def _repair(line: str, columns: list[str]) -> dict[str, str] | None:
    """Split a line whose free text holds bare commas or quotes; None where that is not what is wrong.

    File and worker stand before it and the numbers behind it, none of which can hold a comma.
    """
    start, end = columns.index("primary"), len(columns) - columns.index("middle") - 1
    cells = [cell.strip().strip('"').strip() for cell in line.split(",")]
    if start + 1 != columns.index("middle") or len(cells) < start + 2 + end:
        return None
    middle = cells[start : len(cells) - end]
    if not middle[0].lower().startswith("other"):
        return None
    return {
        **dict(zip(columns[:start], cells[:start], strict=True)),
        "primary": "Other",
        "middle": ",".join(_trailing_words(middle[1:])),
        **dict(zip(columns[len(columns) - end :], cells[len(cells) - end :], strict=True)),
    }


def _trailing_words(cells: list[str]) -> list[str]:
    """Return the known words at the end of a list: the secondary labels behind a free text."""
    known = {name for name in CLASSES}
    words: list[str] = []
    for cell in reversed(cells):
        if cell.lower() not in known:
            break
        words.append(cell)
    return words


def _collect(
    lines: pa.Array, found: pa.StructArray, rows: npt.NDArray[np.int64], files: pa.Array | None = None
) -> Ratings:
    """Turn matched lines into ratings, and the others but empty ones into what was left out."""
    chosen = found.take(pa.array(rows))
    primary = _primary(chosen.field("primary"))
    is_read = ~chosen.is_null().to_numpy(zero_copy_only=False) & (primary >= 0)
    values = {name: _number(chosen.field(name)) for name in ATTRIBUTES}
    for numbers in values.values():
        is_read &= ~np.isinf(numbers)
    file = _bare(chosen.field("file") if files is None else files.take(pa.array(rows)))
    is_read &= (pc.utf8_length(file).to_numpy(zero_copy_only=False) > 0) if len(file) else is_read
    table = pd.DataFrame({"file": pd.array(file, dtype=pd.ArrowDtype(pa.string()))})
    table["worker"] = pd.array(_bare(chosen.field("worker")), dtype=pd.ArrowDtype(pa.string()))
    table["primary"] = primary
    table["secondary"] = _secondary(chosen.field("middle"))
    for name, numbers in values.items():
        table[name] = numbers.astype(np.float32)
    left = [(int(row), lines[int(row)].as_py()) for row in rows[~is_read]]
    unreadable = tuple(Unreadable(row + 1, text[:SHOWN]) for row, text in left if text.strip())
    return Ratings(table[is_read].reset_index(drop=True), unreadable)


def _bare(column: pa.Array) -> pa.Array:
    return pc.utf8_trim(column, ' \t"')


def _primary(column: pa.Array) -> npt.NDArray[np.int8]:
    """Return the class of each primary label, -1 where it is none."""
    words = pc.utf8_lower(_bare(column))
    index = pc.index_in(words, pa.array(CLASSES)).fill_null(-1).to_numpy(zero_copy_only=False)
    is_other = pc.match_substring_regex(words, r"^other\s*(-|$)").fill_null(False).to_numpy(zero_copy_only=False)
    return np.where(is_other, OTHER, index).astype(np.int8)


def _secondary(column: pa.Array) -> npt.NDArray[np.int16]:
    """Return the classes among the secondary labels as bits; other words, such as Amused, are no class."""
    last = pc.replace_substring_regex(pc.utf8_trim(column, ' \t";'), r"^.*;", "")
    masks = np.zeros(len(column), dtype=np.int16)
    for index, name in enumerate(CLASSES):
        is_there = pc.match_substring_regex(last, rf'(?i)(?:^|,)\s*"?{name}"?\s*(?:,|$)').fill_null(False)
        masks |= is_there.to_numpy(zero_copy_only=False).astype(np.int16) << index
    return masks


def _number(column: pa.Array) -> npt.NDArray[np.float64]:
    """Return numbers; NaN where a cell is empty, infinity where it is none."""
    text = _bare(column)
    is_number = pc.match_substring_regex(text, rf"^{NUMBER}$")
    values = pc.if_else(is_number, text, None).cast(pa.float64()).to_numpy(zero_copy_only=False)
    is_wrong = pc.and_(pc.invert(is_number), pc.greater(pc.utf8_length(text), 0)).fill_null(False)
    return np.where(is_wrong.to_numpy(zero_copy_only=False), np.inf, values)


def _read_json(source: Path) -> Ratings:
    """`labels_detailed.json`: by file, by worker."""
    document = json.loads(source.read_text(encoding="utf-8"))
    rows = list(_json_rows(document))
    fields = ["file", "worker", "primary", "middle", *ATTRIBUTES]
    found = pa.StructArray.from_arrays([pa.array(c, pa.string()) for c in zip(*rows, strict=True)], names=fields)
    lines = pa.array([f"{row[0]}: {row[1]}: {row[2]}" for row in rows])
    return _collect(lines, found, np.arange(len(rows)))


def _json_rows(document: dict[str, dict[str, dict[str, Any]]]) -> Iterator[tuple[str, ...]]:
    for file, workers in document.items():
        for worker, rating in workers.items():
            second = rating.get("EmoClass_Second", "")
            words = ",".join(map(str, second)) if isinstance(second, list) else str(second)
            numbers = (str(rating.get(column, "")) for column in ("EmoAct", "EmoVal", "EmoDom"))
            yield file, worker, str(rating.get("EmoClass_Major", "")), words, *numbers
