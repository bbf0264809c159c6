"""MSP-PODCAST's per-rater labels, in every dialect of its releases.

One line of a file is one rating, and each line is read by itself: free text typed by a rater can spoil only its own
line. A line that cannot be read is reported and never counted.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from utils.data.labels.columns import CATEGORICAL
from utils.errors import DataError
from utils.garbage import no_garbage_collection
from utils.io.files import MOST_LABEL_BYTES, bounded

CLASSES: tuple[str, ...] = (*CATEGORICAL["default_classes"]["msp-podcast"], "other")
"""Classes that a rater can choose, in the order of the vote columns."""
OTHER = CLASSES.index("other")
WORKER_COLUMNS = ("Worker", "WorkerID", "Worker_ID", "Workers")
SECONDARY_WORDS = (
    "Angry", "Sad", "Happy", "Amused", "Neutral", "Frustrated", "Depressed", "Surprise", "Concerned", "Disgust",
    "Disappointed", "Excited", "Confused", "Annoyed", "Fear", "Contempt", "Other",
)  # fmt: skip
"""Words that raters can choose as secondary labels; only those that are classes count."""
SEPARATE_COLUMNS = ("FileName", "EmoClass_Major", "EmoClass_Second", "EmoAct", "EmoVal", "EmoDom")
STRING_COLUMNS = ("FileName", "EmoDetail")
ATTRIBUTES = ("arousal", "valence", "dominance")
NUMBER = r"\s*(?:-?[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?|[nN]a[nN])\s*"
FILE = r"MSP-PODCAST[^,;\"]*"
NUMBERS = rf"\s*A:(?P<arousal>{NUMBER});\s*V:(?P<valence>{NUMBER});\s*D:(?P<dominance>{NUMBER});?"
DETAIL = rf"\s*(?P<worker>[^;,\"]+);\s*(?P<primary>[^;]*);(?P<middle>(?:.*;)?){NUMBERS}\s*"
"""`WORKER00000001; Neutral; Neutral,Sad; A:3.000000; V:4.000000; D:3.000000;`, where the free text of an `Other` may
itself contain semicolons."""
FIELD = r'(?:"(?:[^"]|"")*"|[^,"]*)'
SHOWN = 80
ROWS_AT_A_TIME = 100_000


@dataclass(frozen=True)
class Unreadable:
    """A line without a rating: its number, counted from 1, and its beginning."""

    line: int
    text: str


@dataclass(frozen=True)
class Ratings:
    """Ratings, one row each.

    Attributes:
        table: `file`, `worker` (text), `primary` (index into `CLASSES`), `secondary` (bit n for `CLASSES[n]`),
            `arousal`, `valence`, `dominance` (NaN where missing).
        unreadable: Lines that were left out.
        repeated: Further ratings of a recording by the same worker, of which only the first counts.
        joined: Lines that continue the free text of the line before.
    """

    table: pd.DataFrame
    unreadable: tuple[Unreadable, ...]
    repeated: int = 0
    joined: int = 0

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
        DataError: If the file cannot be read, has none of the known layouts, or contains no rating.
    """
    try:
        found = _read_json(source) if source.suffix.lower() == ".json" else _read_lines(source)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{name}: {source} cannot be read as ratings: {error}") from error
    if found.table.empty:
        first = f" (first line: {found.unreadable[0].text})" if found.unreadable else ""
        raise DataError(f"{name}: {source} contains no rating{first}; restore it, or remove it to work without ratings")
    is_repeated = found.table.duplicated(["file", "worker"]).to_numpy()
    table = found.table[~is_repeated].reset_index(drop=True)
    return replace(found, table=table, repeated=int(is_repeated.sum()))


def _text_of(source: Path) -> str:
    return bounded(source, MOST_LABEL_BYTES).read_bytes().decode("utf-8-sig", errors="replace")


def _read_lines(source: Path) -> Ratings:
    lines = pa.array(_text_of(source).replace("\r", "").split("\n"), pa.string())
    if source.suffix.lower() == ".txt":
        return _read_text(lines)
    header = next(csv.reader([lines[0].as_py()]))
    columns = [column.strip() for column in header]
    while columns and not columns[-1]:
        columns.pop()
    if columns == list(STRING_COLUMNS):
        return _read_joined(lines, _read_strings)
    if set(SEPARATE_COLUMNS) <= set(columns) and set(WORKER_COLUMNS) & set(columns):
        return _read_joined(lines, partial(_read_separate, columns=columns))
    raise ValueError(
        f"the columns {', '.join(columns)} match none of the known layouts; expected {', '.join(STRING_COLUMNS)}, or "
        f"{', '.join(SEPARATE_COLUMNS)} and one of {', '.join(WORKER_COLUMNS)}"
    )


def _read_joined(lines: pa.Array, read: Callable[[pa.Array], Ratings]) -> Ratings:
    """Read lines after joining those with open quotes to the following ones: free text can contain newlines.

    Joined lines that do not form a rating are read one by one.
    """
    is_start = pc.match_substring_regex(lines, rf'^\s*"?{FILE}').to_numpy(zero_copy_only=False)
    is_filled = pc.greater(pc.utf8_length(lines), 0).to_numpy(zero_copy_only=False)
    further = np.flatnonzero(~is_start & is_filled)[1:]  # the first is the header
    if not len(further):
        return read(lines)
    starts = np.maximum.accumulate(np.where(is_start, np.arange(len(lines)), 0))
    texts, given_up = lines.to_pylist(), set[int]()
    while True:
        joined, started = list(texts), set[int]()
        for row in further:
            start = int(starts[row])
            before = joined[start]
            if start and start not in given_up and before.count('"') % 2 and "other" in before.lower():
                joined[start], joined[row] = f"{before} {texts[row]}", ""
                started.add(start)
        ratings = read(pa.array(joined, pa.string()))
        failed = started & {item.line - 1 for item in ratings.unreadable}
        if not failed:
            return replace(
                ratings, joined=sum(not line and bool(text) for line, text in zip(joined, texts, strict=True))
            )
        given_up |= failed


def _read_strings(lines: pa.Array) -> Ratings:
    """Read releases 1.7 to 1.11: `FileName,EmoDetail`, the complete rating in one string."""
    found = pc.extract_regex(lines, rf'^\s*"?(?P<file>{FILE})"?\s*,\s*"?{DETAIL}"?[\s,]*$')
    return _collect(lines, found, np.arange(1, len(lines)))


def _read_text(lines: pa.Array) -> Ratings:
    """Read `labels.txt`: a line of the consensus, followed by the ratings of that file."""
    is_file = pc.match_substring_regex(lines, rf"^\s*{FILE};").to_numpy(zero_copy_only=False)
    numbers = np.arange(len(lines))
    heading = np.maximum.accumulate(np.where(is_file, numbers, -1))
    headings = pc.extract_regex(lines, r"^\s*(?P<file>[^;]+?)\s*;").field("file")
    rows = numbers[~is_file & (heading >= 0)]
    found = pc.extract_regex(lines, rf"^{DETAIL}$")
    files = headings.take(pa.array(np.maximum(heading, 0)))
    return _collect(lines, found, rows, files)


def _read_separate(lines: pa.Array, columns: list[str]) -> Ratings:
    """Read releases 1.6 and 2.0: one column per value."""
    names = {"FileName": "file", "EmoClass_Major": "primary", "EmoClass_Second": "middle", "EmoAct": "arousal"}
    names |= {"EmoVal": "valence", "EmoDom": "dominance"}
    names[next(column for column in WORKER_COLUMNS if column in columns)] = "worker"
    numbered = [names.get(column, f"unused{index}") for index, column in enumerate(columns)]
    pattern = ",".join(rf"\s*(?P<{column}>{FIELD})\s*" for column in numbered)
    found = pc.extract_regex(lines, rf"^{pattern}[\s,]*$")
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
    """Split a line with unquoted commas or quotes in its free text; None if something else is wrong.

    File and worker come before the free text and the numbers after it, and none of them can contain a comma.
    """
    start, after = columns.index("primary"), columns[columns.index("middle") + 1 :]
    before = line.strip().rstrip(",").split(",", start)
    if start + 1 != columns.index("middle") or len(before) <= start or not set(ATTRIBUTES) <= set(after):
        return None
    text, *ends = before[start].rsplit(",", len(after))
    cells = dict(zip([*columns[:start], *after], [c.strip(' "') for c in [*before[:start], *ends]], strict=False))
    has_numbers = all(re.fullmatch(NUMBER, cells.get(name, "")) for name in ATTRIBUTES)
    if len(ends) != len(after) or not has_numbers or not text.strip(' "').lower().startswith("other"):
        return None
    return {**cells, "primary": "Other", "middle": _secondary_list(text)}


def _secondary_list(text: str) -> str:
    """Return the secondary labels after a free text: the last quoted part, else the known words at the end."""
    quoted = re.search(r'[^"],\s*"([^"]*)"\s*$', text)
    if quoted:
        return quoted[1]
    words: list[str] = []
    for cell in reversed(text.rstrip(' "').split(",")[1:]):
        if cell not in SECONDARY_WORDS:
            break
        words.append(cell)
    return ",".join(words)


def _collect(
    lines: pa.Array, found: pa.StructArray, rows: npt.NDArray[np.int64], files: pa.Array | None = None
) -> Ratings:
    """Turn matched lines into ratings, and all others except empty ones into `Unreadable` lines."""
    chosen = found.take(pa.array(rows))
    primary = _primary(chosen.field("primary"))
    is_read = ~chosen.is_null().to_numpy(zero_copy_only=False) & (primary >= 0)
    values = {name: _number(chosen.field(name)) for name in ATTRIBUTES}
    for numbers in values.values():
        is_read &= ~np.isinf(numbers)
    file = _with_suffix(_bare(chosen.field("file") if files is None else files.take(pa.array(rows))))
    is_read &= pc.match_substring_regex(file, f"^{FILE}$").fill_null(False).to_numpy(zero_copy_only=False)
    table = pd.DataFrame({"file": pd.array(file, dtype=pd.ArrowDtype(pa.string()))})
    table["worker"] = pd.array(_bare(chosen.field("worker")), dtype=pd.ArrowDtype(pa.string()))
    table["primary"] = primary
    table["secondary"] = _secondary(chosen.field("middle"))
    for name, numbers in values.items():
        table[name] = numbers.astype(np.float32)
    left = [(int(row), lines[int(row)].as_py()) for row in rows[~is_read]]
    unreadable = tuple(Unreadable(row + 1, text[:SHOWN]) for row, text in left if text.strip())
    return Ratings(table[is_read].reset_index(drop=True), unreadable)


def _with_suffix(files: pa.Array) -> pa.Array:
    """Return file names with `.wav`, which some tools leave out."""
    return pc.if_else(
        pc.match_substring_regex(files, r"(?i)\.wav$"), files, pc.binary_join_element_wise(files, ".wav", "")
    )


def _bare(column: pa.Array) -> pa.Array:
    return pc.utf8_trim(column, ' \t"')


def _primary(column: pa.Array) -> npt.NDArray[np.int8]:
    """Return the class of each primary label, -1 if it is not a class."""
    words = pc.utf8_lower(_bare(column))
    index = pc.index_in(words, pa.array(CLASSES)).fill_null(-1).to_numpy(zero_copy_only=False)
    is_other = pc.match_substring_regex(words, r"^other\b").fill_null(False).to_numpy(zero_copy_only=False)
    return np.where(is_other, OTHER, index).astype(np.int8)


def _secondary(column: pa.Array) -> npt.NDArray[np.int16]:
    """Return the classes among the secondary labels as bits; other words, such as Amused, are not classes."""
    last = pc.replace_substring_regex(pc.utf8_trim(column, ' \t";'), r"^.*;", "")
    masks = np.zeros(len(column), dtype=np.int16)
    for index, name in enumerate(CLASSES):
        is_there = pc.match_substring_regex(last, rf'(?i)(?:^|,)\s*"?{name}"?\s*(?:,|$)').fill_null(False)
        masks |= is_there.to_numpy(zero_copy_only=False).astype(np.int16) << index
    return masks


def _number(column: pa.Array) -> npt.NDArray[np.float64]:
    """Return numbers; NaN for empty cells, infinity for cells that are not numbers."""
    text = _bare(column)
    is_number = pc.match_substring_regex(text, rf"^{NUMBER}$")
    values = pc.if_else(is_number, text, None).cast(pa.float64()).to_numpy(zero_copy_only=False)
    is_wrong = pc.and_(pc.invert(is_number), pc.greater(pc.utf8_length(text), 0)).fill_null(False)
    return np.where(is_wrong.to_numpy(zero_copy_only=False), np.inf, values)


def _read_json(source: Path) -> Ratings:
    """Read `labels_detailed.json`: ratings by file and worker.

    Rows become columns in batches, and what has been read is freed: Python's objects take most of the memory.
    """
    fields = ["file", "worker", "primary", "middle", *ATTRIBUTES]
    parts: list[pa.StructArray] = [pa.array([], pa.struct([(name, pa.string()) for name in fields]))]
    with no_garbage_collection():  # JSON has no cycles; scanning its millions of objects takes seconds
        rows = _json_rows(json.loads(_text_of(source)))
        while part := list(islice(rows, ROWS_AT_A_TIME)):
            columns = [pa.array(column, pa.string()) for column in zip(*part, strict=True)]
            parts.append(pa.StructArray.from_arrays(columns, fields))
    found = pa.concat_arrays(parts)
    lines = pc.binary_join_element_wise(*(found.field(name) for name in fields[:3]), ": ")
    return _collect(lines, found, np.arange(len(found)))


def _json_rows(document: Any) -> Iterator[tuple[str, ...]]:  # noqa: ANN401 - whatever the file holds
    """Yield the ratings of a document, which is emptied meanwhile."""
    for file in [file for file, _ in _items(document)]:
        for worker, rating in _items(document.pop(file)):
            fields = dict(_items(rating))
            second = fields.get("EmoClass_Second", "")
            words = ",".join(map(str, second)) if isinstance(second, list) else str(second)
            numbers = (str("" if fields.get(c) is None else fields[c]) for c in ("EmoAct", "EmoVal", "EmoDom"))
            yield file, worker, str(fields.get("EmoClass_Major", "")), words, *numbers


def _items(value: Any) -> list[tuple[str, Any]]:  # noqa: ANN401
    if not isinstance(value, dict):
        raise ValueError(
            f'found {str(value)[:40]!r} where {{"file": {{"worker": {{"EmoClass_Major": …}}}}}} is expected'
        )
    return list(value.items())
