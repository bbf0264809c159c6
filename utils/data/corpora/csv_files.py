"""The recordings named in a user's own table, as paths below the folder of the recordings."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from utils.data.corpora.csv_values import CellProblem, list_cells
from utils.data.corpora.text_tables import first_place
from utils.data.labels.columns import OUTSIDE
from utils.data.recordings.file_names import SUFFIXES
from utils.data.recordings.near_files import recordings_beside, without_extension
from utils.word_forms import counted

DRIVE = re.compile("[A-Za-z]:")
"""Prefix of Windows paths, none of which lies below a folder here."""


class Files(NamedTuple):
    """The recordings of a table.

    Attributes:
        names: Paths relative to the folder of the recordings, if they lie below it.
        notes: Sentences on names that were completed.
        problems: Cells that match no recording, or several.
        outside: A sentence on files elsewhere; empty if there are none.
    """

    names: pd.Series
    notes: tuple[str, ...]
    problems: list[CellProblem]
    outside: tuple[str, ...]


def resolve_files(where: str, cells: pd.Series, column: str, folder: Path) -> Files:
    r"""Read `\` as `/`, make paths into the folder relative to it, and complete names without an extension.

    The disk is searched only for names without the extension of a recording.

    Args:
        where: The corpus and its table, for messages.
        cells: Cells as text; row `i` is in line `i + 2`.
        column: Name of their column in the file.
        folder: Folder of the recordings.
    """
    problems = list(list_cells(column, cells[cells.isna()], lambda _: "name the recording, or remove the row"))
    written = cells[cells.notna()]
    names = written.str.replace("\\", "/", regex=False)
    leaving = names[names.str.contains(OUTSIDE)]
    below = pd.Series(_relative(leaving, folder), index=leaving.index, dtype=names.dtype)
    if len(below):
        names = names.copy()
        names.loc[below.index] = below.fillna(leaving)
    outside = _describe_outside(where, written[below.index[below.isna()]], folder)
    names, notes, ambiguous = _complete(names, column, folder)
    return Files(names.reindex(cells.index), notes, [*problems, *ambiguous], outside)


def _relative(paths: Iterable[str], folder: Path) -> Iterator[str | None]:
    """Yield paths relative to the folder, None for paths that lead out of it."""
    start = os.path.abspath(folder)
    starts = [place.rstrip("/") + "/" for place in dict.fromkeys((start, os.path.realpath(folder)))]
    for path in paths:
        plain = os.path.normpath(os.path.join(start, path))
        below = [plain.removeprefix(place) for place in starts if plain.startswith(place) and not DRIVE.match(path)]
        yield next(iter(below), None)


def _describe_outside(where: str, cells: pd.Series, folder: Path) -> tuple[str, ...]:
    if cells.empty:
        return ()
    place = first_place(pd.Series(True, index=cells.index))
    rows = f"({len(cells):,} such rows)"
    return (
        f"{where}: {place}: {cells.iloc[0]} leads out of PATH_TO_AUDIO {rows}; name files below it, or set it to a "
        f"folder above all of them in place of {folder}",
    )


def _complete(names: pd.Series, column: str, folder: Path) -> tuple[pd.Series, tuple[str, ...], list[CellProblem]]:
    """Add the extension to names without one, if exactly one recording matches."""
    bare = names[~names.str.lower().str.endswith(SUFFIXES)]
    if bare.empty:
        return names, (), []
    by_stem: dict[str, list[str]] = defaultdict(list)
    plain = {name: os.path.normpath(name) for name in bare.unique()}
    for file in sorted(recordings_beside(folder, plain.values())):
        by_stem[without_extension(file)].append(file)
    candidates = {name: by_stem.get(stem, []) for name, stem in plain.items()}
    single = {name: files[0] for name, files in candidates.items() if len(files) == 1}
    several = bare[[len(candidates[name]) > 1 for name in bare]]
    problems = list_cells(column, several, lambda name: f"{' and '.join(candidates[name])} exist; write which one")
    completed = bare[[name in single for name in bare]]
    notes: tuple[str, ...] = ()
    if len(completed):
        names = names.copy()
        names.loc[completed.index] = [single[name] for name in completed]
        first = completed.iloc[0]
        names_were = counted(len(completed), "name without an extension was", "names without an extension were")
        notes = (f"{names_were} completed, such as {first} to {single[first]}",)
    return names, notes, list(problems)
