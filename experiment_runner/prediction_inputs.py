"""The recordings that a command line names: files, folders and lists."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from utils.data import DataError
from utils.data.csv_table import read_text_table
from utils.data.recording_names import SUFFIXES, recordings_below


def find_recordings(names: Sequence[str]) -> list[str]:
    """Return the recordings that files, folders and lists name.

    Raises:
        DataError: Where a folder holds none, or a list cannot be read.
    """
    found: list[str] = []
    for name in names:
        if Path(name).is_dir():
            below = recordings_below(Path(name))
            if not below:
                raise DataError(f"the folder {name} holds no recording ({', '.join(SUFFIXES)})")
            found += below
        elif name.lower().endswith(".csv"):
            found += read_list(Path(name))
        else:
            found.append(name)
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
