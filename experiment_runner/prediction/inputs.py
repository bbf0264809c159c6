"""The recordings that a command line names: files, folders and lists."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from utils.data.corpora.text_tables import read_text_table
from utils.data.recordings.file_names import USUAL_SUFFIXES, describe_left_out, look_below
from utils.errors import DataError
from utils.word_forms import counted, fold, some

MOST_ENDINGS = 5


class Named(NamedTuple):
    """The recordings that a command line names.

    Attributes:
        recordings: Paths of the recordings, in order.
        unusable: Messages on folders and lists that contain none.
        left_out: Why possible audio files in folders are not predicted, by path.
        others: Number of other files in the folders, by suffix.
    """

    recordings: list[str]
    unusable: list[str]
    left_out: dict[str, str]
    others: Counter[str]

    def describe_others(self) -> str:
        """Say how many files in the folders are not recordings; empty if all are."""
        if not self.others:
            return ""
        number = counted(self.others.total(), "other file is not a recording", "other files are not recordings")
        return f"{number}: {some((f'{count:,} {ending}' for ending, count in self.others.most_common()), MOST_ENDINGS)}"


def find_recordings(names: Sequence[str]) -> Named:
    """Return the recordings that files, folders and lists name."""
    named = Named([], [], {}, Counter())
    for name in names:
        try:
            if Path(name).is_dir():
                _add_folder(name, named)
            else:
                named.recordings.extend(_listed(name) if name.lower().endswith(".csv") else [name])
        except DataError as error:
            named.unusable.append(str(error))
    return named


def _add_folder(name: str, named: Named) -> None:
    """Add the recordings under a folder.

    Raises:
        DataError: If none of its files can be predicted.
    """
    below = look_below(Path(name))
    if not below.recordings:
        others = "".join(f"; {sentence}" for sentence in describe_left_out(below))
        formats = f"{', '.join(USUAL_SUFFIXES)} and others that libsndfile reads"
        raise DataError(f"the folder {name} contains no recording ({formats}){others}")
    named.recordings.extend(below.recordings)
    named.left_out.update(below.left_out)
    named.others.update(below.others)


def _listed(name: str) -> list[str]:
    """Return the recordings that a list names.

    Raises:
        DataError: If it cannot be read or names none.
    """
    paths = read_list(Path(name))
    if not paths:
        raise DataError(f"the list {name} names no recording")
    return paths


def read_list(path: Path) -> list[str]:
    """Return the paths in a CSV's column `path` or `file` (in upper or lower case).

    Raises:
        DataError: If the list cannot be read, or has neither column.
    """
    table = read_text_table("the list of recordings", path, key=None)
    columns = {fold(name): name for name in reversed([*table.columns])} | {name: name for name in table}
    column = next((columns[name] for name in ("path", "file") if name in columns), None)
    if column is None:
        raise DataError(f"{path} has no column path or file; give the one with the recordings that name")
    return [str(cell) for cell in table[column].dropna()]
