"""The recordings that a command line names: files, folders and lists."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from utils.data import DataError
from utils.data.recording_names import SUFFIXES, recordings_below
from utils.data.text_tables import read_text_table


class Named(NamedTuple):
    """What a command line names.

    Attributes:
        recordings: Their paths, in order.
        unusable: Sentences on folders and lists that give none.
    """

    recordings: list[str]
    unusable: list[str]


def find_recordings(names: Sequence[str]) -> Named:
    """Return the recordings that files, folders and lists name."""
    found = Named([], [])
    for name in names:
        try:
            found.recordings.extend(_below(name))
        except DataError as error:
            found.unusable.append(str(error))
    return found


def _below(name: str) -> list[str]:
    """Return what one argument names.

    Raises:
        DataError: Where a folder holds no recording, or a list cannot be read or names none.
    """
    if Path(name).is_dir():
        found, what = recordings_below(Path(name)), f"the folder {name} holds no recording ({', '.join(SUFFIXES)})"
    elif name.lower().endswith(".csv"):
        found, what = read_list(Path(name)), f"the list {name} names no recording"
    else:
        return [name]
    if not found:
        raise DataError(what)
    return found


def read_list(path: Path) -> list[str]:
    """Return the paths in a CSV's column `file` or `path`.

    Raises:
        DataError: Where the list cannot be read, or has neither.
    """
    table = read_text_table("the list of recordings", path, key=None)
    column = next((name for name in ("path", "file") if name in table), None)
    if column is None:
        raise DataError(f"{path} has no column path or file; give the one with the recordings that name")
    return [str(cell) for cell in table[column].dropna()]
