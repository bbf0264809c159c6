"""Finds the label files of an MSP-PODCAST release, and infers the release from them.

Releases differ in the spelling of folders and files, and people unpack archives into folders of the same name.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.data.recordings.file_names import by_wav_name, is_recording
from utils.errors import DataError

LABEL_FOLDERS = ("Labels", "labels", "label", "Label")
AUDIO_FOLDERS = ("Audios", "audios", "Audio", "audio")
CONSENSUS = ("labels_consensus.csv", "labels_concensus.csv", "labels_consensus.json", "labels_concensus.json")
DETAILED = ("labels_detailed.csv", "labels_detailed.json")
BOTH = "labels.txt"
PARTITIONS = ("Partitions.txt", "Partition.txt", "partitions.txt", "partition.txt")
HIDDEN_PREFIX = "msp-podcast_test3_"
"""Prefix of the recordings whose labels are withheld, in lower case."""


@dataclass(frozen=True)
class Release:
    """The files of a release.

    Attributes:
        consensus: File with one label per recording.
        ratings: File with one line per rating; None if the release has none.
        partitions: File with the splits of all recordings, including unlabelled ones; None if the release has none.
        audio: Folder of the recordings.
    """

    consensus: Path
    ratings: Path | None
    partitions: Path | None
    audio: Path

    @property
    def sources(self) -> tuple[Path, ...]:
        """Every file that is read."""
        return tuple(dict.fromkeys(path for path in (self.consensus, self.ratings, self.partitions) if path))

    def describe(self) -> str:
        """Describe the files that were found, and the releases with such files."""
        names = ", ".join(path.name for path in self.sources)
        return f"{names} in {self.consensus.parent}, as in release {self.version}"

    @property
    def version(self) -> str:
        """The release, or several that look alike."""
        folder, spelling = self.consensus.parent.name, self.consensus.name
        if folder.lower() == "label":
            return "1.6"
        if spelling.startswith("labels_concensus"):
            return "1.9" if folder == "labels" else "1.7 or 1.8"
        if spelling == BOTH:
            return "1.6 to 1.11"
        if self.ratings is None or self.ratings.suffix != ".csv":
            return "1.10 or later"
        return "1.10 to 1.12" if _holds_strings(self.ratings) else "2.0"


def find_release(name: str, labels: Path, audio: Path) -> Release:
    """Find the files of a release.

    Args:
        name: The corpus, for messages.
        labels: The label folder, the folder above it, or the consensus file itself.
        audio: The folder of the recordings, or the folder above it.

    Raises:
        DataError: If no consensus is found, or two that differ in spelling.
    """
    consensus = labels if labels.is_file() else _find_consensus(name, labels)
    folder = consensus.parent
    ratings = _first(folder, DETAILED) or _first(folder, [BOTH])
    audio = _unpacked(audio, AUDIO_FOLDERS)
    around = [folder, folder.parent, folder.parent.parent, audio.parent, audio.parent.parent]
    partitions = next((found for place in around if (found := _first(place, PARTITIONS))), None)
    return Release(consensus, ratings, partitions, audio)


def find_recordings(release: Release) -> dict[str, str]:
    """Return the file names of all existing recordings by their names in the labels, which end in `.wav`."""
    return by_wav_name(release.audio)


def _find_consensus(name: str, labels: Path) -> Path:
    for folder in _below(labels, LABEL_FOLDERS):
        found = [folder / file for file in CONSENSUS if (folder / file).is_file()]
        tables = [path for path in found if path.suffix == ".csv"]
        if len(tables) > 1:
            raise DataError(f"{name}: {folder} holds {tables[0].name} and {tables[1].name}; name one as PATH_TO_LABEL")
        if found:
            return found[0]
    for folder in _below(labels, LABEL_FOLDERS):
        if (folder / BOTH).is_file():
            return folder / BOTH
    raise DataError(f"{name}: PATH_TO_LABEL: {labels} is not a file and contains no {CONSENSUS[0]}; correct the path")


def _below(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """Yield a folder, its subfolders with the given names, and theirs: unpacked archives may be nested."""
    yield folder
    for inner in (folder / name for name in names):
        if inner.is_dir():
            yield inner
            yield from (inner / name for name in names if (inner / name).is_dir())


def _unpacked(folder: Path, names: Sequence[str]) -> Path:
    """Return the folder that holds recordings: the given one, else a subfolder with one of the names."""
    if not folder.is_dir():
        return folder
    return next((inner for inner in _below(folder, names) if _holds_recordings(inner)), folder)


def _holds_recordings(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(is_recording(entry.name) for entry in entries)


def _first(folder: Path, names: Iterable[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _holds_strings(path: Path) -> bool:
    """Whether a table has one string per rating, as in releases before 2.0."""
    with path.open(encoding="utf-8", errors="replace") as file:
        return "EmoDetail" in file.readline(1000)
