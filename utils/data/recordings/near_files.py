"""Finds the file that a label probably means when no file has the given name."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from utils.data.labels.columns import OUTSIDE
from utils.data.recordings.file_names import as_utf8, is_recording, walk

DIFFERENCES = {
    "case": "in case",
    "form": "in the encoding of their letters",
    "extension": "in extension",
    "folder": "in folder",
}
"""Ways in which a near file's name can differ, the nearest first."""


class Near(NamedTuple):
    """Files that a label probably means, and how their names differ from it: a key of `DIFFERENCES`."""

    files: Sequence[str]
    difference: str

    def __str__(self) -> str:
        shown = " and ".join(self.files[:2]) + ", …" * (len(self.files) > 2)
        verbs = ("is", "differs") if len(self.files) == 1 else ("are", "differ")
        return f"{shown} {verbs[0]} there, which {verbs[1]} {DIFFERENCES[self.difference]}"


class NearFiles:
    """Finds files by nearly correct names.

    Args:
        names: Files below one folder, relative to it.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._by_key: dict[tuple[str, str], list[str]] = defaultdict(list)
        for name in sorted(names):
            for difference, key in _keys(name):
                self._by_key[difference, key].append(name)

    def find(self, file: str) -> Near | None:
        """Return the files whose names are nearest to that of a missing file, if there are any."""
        for difference, key in _keys(file):
            files = self._by_key.get((difference, key))
            if files:
                return Near(files, difference)
        return None


def _keys(name: str) -> Iterator[tuple[str, str]]:
    """Yield, for each kind of difference, the key that a name shares with names differing in that way."""
    plain = unicodedata.normalize("NFC", name).casefold()
    yield "case", name.casefold()
    yield "form", plain
    yield "extension", without_extension(plain)
    yield "folder", os.path.basename(plain)


def without_extension(name: str) -> str:
    """Return a name without the suffix of a recording, if it has one; other dots are part of the name."""
    return os.path.splitext(name)[0] if is_recording(os.path.basename(name)) else name


def recordings_there(folder: str | Path) -> Iterator[str]:
    """Yield the recordings below a folder, relative to it, including linked ones, with one name for each folder."""
    yield from (os.path.relpath(path, folder) for path in walk(Path(folder)) if is_recording(os.path.basename(path)))


def recordings_beside(folder: str | Path, files: Iterable[str]) -> Iterator[str]:
    """Yield the recordings in the folders of the given files, also under the names of links.

    Args:
        folder: Folder that contains all of them.
        files: Normalised paths relative to it, such as `a/b`, which need not exist. Paths outside it are ignored.
    """
    places = dict.fromkeys(os.path.dirname(file) for file in files if not re.search(OUTSIDE, file))
    for place in places:
        try:
            with os.scandir(os.path.join(folder, place)) as entries:
                yield from (os.path.join(place, entry.name) for entry in entries if is_recording(entry.name))
        except OSError:
            continue


def add_near_files(table: pd.DataFrame, problems: pd.DataFrame) -> tuple[pd.Series, str]:
    """Add near files to the problems of missing recordings.

    Args:
        table: The utterance table, whose `path` ends with `file`.
        problems: `kind` and `problem` of some of its rows.

    Returns:
        The problems followed by the near files, and a sentence that counts these by kind; empty without any.
    """
    rows = table.loc[problems.index[problems["kind"] == "missing"], ["file", "path"]]
    rows = rows[[path.endswith(file) for file, path in zip(rows["file"], rows["path"], strict=True)]]
    if rows.empty:
        return problems["problem"], ""
    folder = rows["path"].iloc[0].removesuffix(rows["file"].iloc[0])
    files = [os.path.normpath(file) for file in rows["file"]]
    names = NearFiles(map(as_utf8, {*recordings_there(folder), *recordings_beside(folder, files)}))
    near = pd.Series([names.find(file) for file in files], index=rows.index, dtype=object)
    near = near.dropna()
    texts = problems["problem"].astype(object)
    texts.loc[near.index] += [f" ({files})" for files in near]
    counts = Counter(files.difference for files in near)
    parts = [f"{counts[kind]:,} {text}" for kind, text in DIFFERENCES.items() if counts[kind]]
    return texts, f"files with similar names exist, which differ: {', '.join(parts)}" if parts else ""
