"""Recognition of recordings: all files that libsndfile reads, by name or, where the name is ambiguous, by content."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from pathlib import Path
from typing import NamedTuple

import soundfile

from utils.data.recordings.audio_source import sound_of
from utils.errors import DataError
from utils.word_forms import MOST, some

SUFFIXES = (
    *(".wav", ".wave", ".bwf", ".rf64", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".mp2", ".mp1"),
    *(".aiff", ".aif", ".aifc", ".au", ".snd", ".caf", ".sph", ".nist", ".voc", ".avr", ".ircam", ".sf", ".paf"),
    *(".pvf", ".sds", ".svx", ".8svx", ".wve"),
)
"""Suffixes of the formats that libsndfile reads, except raw samples without a header, whose rate is unknown."""
USUAL_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".au", ".caf", ".w64", ".sph")
"""Suffixes named in messages."""
OTHER_MEDIA = (
    *(".m4a", ".m4b", ".mp4", ".m4v", ".aac", ".3gp", ".3g2", ".mov", ".webm", ".weba", ".mkv", ".mka", ".avi"),
    *(".wma", ".wmv", ".asf", ".amr", ".awb", ".ac3", ".eac3", ".dts", ".ape", ".wv", ".mpc", ".spx", ".ra", ".rm"),
    *(".tta", ".dsf", ".mpg", ".mpeg", ".flv", ".ogv", ".ts"),
)
"""Suffixes of sound formats that libsndfile does not read; a file may have such a suffix by mistake."""
AMBIGUOUS = (".mat", ".htk", ".xi", ".iff", ".sd2")
"""libsndfile reads sound from files with these suffixes, but most such files contain none."""
OTHER_SYSTEMS = "._"
"""Prefix of the files that macOS leaves beside others on foreign disks."""
LITTER = (".ds_store", "thumbs.db", "desktop.ini")
"""Files that operating systems leave in every folder."""
CONVERT = "is in an unsupported format; convert it with `ffmpeg -i {name} {wav}`"


@dataclass(frozen=True)
class Below:
    """The files below a folder.

    Attributes:
        recordings: Sorted paths, including broken links to recordings.
        left_out: Reasons why other files that may contain sound are not recordings, by path, sorted.
        others: Number of other files by suffix in lower case.
    """

    recordings: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)


def is_recording(name: str) -> bool:
    """Return whether a file with this name is a recording."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(OTHER_SYSTEMS)


def as_utf8(name: str) -> str:
    r"""Return a file's name as text that can be encoded; bytes that are not UTF-8 become `\x…`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def describe_left_out(below: Below) -> tuple[str, ...]:
    """Return at most one sentence, on files that may contain sound but are not read."""
    if not below.left_out:
        return ()
    files = "1 file is" if len(below.left_out) == 1 else f"{len(below.left_out):,} files are"
    return (f"{files} not used: {list_problems(below.left_out.items())}",)


def list_problems(problems: Iterable[tuple[str, str]], most: int = MOST) -> str:
    """Name recordings with their problems; of many, only the first few.

    Args:
        problems: Name and problem of each, such as `a.wav` and `is missing`.
        most: Maximum number that are named.
    """
    return some((f"{name} {problem}" for name, problem in problems), most, "; ")


def by_wav_name(folder: Path) -> dict[str, str]:
    """Return the sorted names of a folder's recordings by the names in the labels of a corpus of `.wav` files.

    A recording converted to another format is found under its former name; a `.wav` file takes precedence.
    """
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if is_recording(entry.name))
    is_wav = [name.lower().endswith(".wav") for name in names]
    original = {name: name for name, is_one in zip(names, is_wav, strict=True) if is_one}
    converted = {
        os.path.splitext(name)[0] + ".wav": name for name, is_one in zip(names, is_wav, strict=True) if not is_one
    }
    return {**converted, **original}


def why_not_read(path: str) -> str | None:
    """Return the remedy for a file that, by its name, may contain sound in a format that libsndfile does not read."""
    if not path.lower().endswith(OTHER_MEDIA):
        return None
    plain = f"./{path}" if path.startswith("-") else path  # ffmpeg would take it for an option
    return CONVERT.format(name=shlex.quote(plain), wav=shlex.quote(f"{os.path.splitext(plain)[0]}.wav"))


def look_below(folder: Path) -> Below:
    """Sort the files below a folder into recordings, possible recordings, and others.

    Links are followed, and files in a linked folder have the path by which they were reached; see `walk`.
    """
    below = Below()
    for path in sorted(walk(folder)):
        name = os.path.basename(path)
        if name.startswith(OTHER_SYSTEMS) or name.lower() in LITTER:
            continue
        if is_recording(name):
            below.recordings.append(path)
        elif os.path.isdir(path):
            below.left_out[path] = "is a folder that cannot be listed; give read permission"
        elif os.path.islink(path) and not os.path.exists(path):
            below.left_out[path] = f"is a link to {os.readlink(path)}, which is missing"
        elif name.lower().endswith((*OTHER_MEDIA, *AMBIGUOUS)) and _holds_sound(path):
            below.recordings.append(path)
        elif reason := why_not_read(path):
            below.left_out[path] = reason
        else:
            below.others[os.path.splitext(name)[1].lower() or "without an ending"] += 1
    return below


def walk(folder: Path) -> Iterator[str]:
    """Yield all files below a folder, including linked files, broken links, and unreadable folders.

    Every folder is entered once, however many links lead to it: under its own name if it is below `folder`, else under
    the alphabetically first link.
    """
    entered: set[str] = set()
    links = [str(folder)]
    while links:
        yield from _walk(heappop(links), entered, links)


def _walk(top: str, entered: set[str], links: list[str]) -> Iterator[str]:
    """Yield the files below a folder not entered before; links to folders are added to a heap."""
    pending = [top]
    while pending:
        folder = pending.pop()
        real = os.path.realpath(folder)
        if real in entered:
            continue
        entered.add(real)
        try:
            with os.scandir(folder) as entries:
                below = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            yield folder
            continue
        for entry in below:
            if not _is_folder(entry):
                yield entry.path
            elif entry.is_symlink():
                heappush(links, entry.path)
            else:
                pending.append(entry.path)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _holds_sound(path: str) -> bool:
    """Return whether libsndfile recognises a file by its content."""
    if not os.path.isfile(path):  # opening a pipe would wait for a writer
        return False
    try:
        with sound_of(path):
            return True
    except (OSError, ValueError, soundfile.SoundFileError):
        return False


class Recordings(NamedTuple):
    """The recordings of a corpus with labels in its file names.

    Attributes:
        by_stem: Paths by name without suffix, in the order of the paths.
        warnings: Sentences on files that may contain sound but are not read.
    """

    by_stem: dict[str, Path]
    warnings: tuple[str, ...]


def find_recordings(folder: Path) -> Recordings:
    """Return the recordings below a folder; of several links to one recording, the first.

    Raises:
        DataError: If two files have the same stem.
    """
    below, by_stem = look_below(folder), dict[str, Path]()
    for path in sorted(map(Path, below.recordings)):
        other = by_stem.setdefault(path.stem, path)
        if other != path and other.resolve() != path.resolve():
            raise DataError(f"{path} and {other} have the same name; keep one of them")
    return Recordings(by_stem, describe_left_out(below))
