"""Finds recordings on both sides of an evaluation: same file, same published name, same speaker, or same samples.

Nothing here opens a recording, since training keeps those of test splits closed. Files are compared by their resolved
links and file system data, names by the labels, and samples by the hashes that a survey has kept.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from utils.config.corpus import CorpusConfig
from utils.config.formats import corpus_format
from utils.data.labels.corpus import Corpus
from utils.data.recordings.audio_source import PART
from utils.data.recordings.file_identity import THREADS, RealNames, state_of
from utils.word_forms import some

SILENT_PEAK = 0.001
"""60 dB below full scale: a recording that is never louder cannot be heard as speech."""
PATHS_A_TASK = 1_000
"""On a local disk, smaller tasks would cost more than threads save."""
State = tuple[int, int, int, int, str]
"""Device, inode number, size in bytes and modification time in ns of a file, and the part of it."""
Key = Hashable | None
LOOSE_PATH = "loose_path"
"""Column of a packed corpus's table: path of each recording outside the shards."""


def audible_content(recordings: pd.DataFrame) -> pd.Series:
    """Return the hash of each recording's samples; missing if it was not decoded, and for silence.

    Silent recordings have the same samples without being the same utterance.

    Args:
        recordings: Table with the columns of `Survey.table`.
    """
    return recordings["content"].where(recordings["swing"] >= SILENT_PEAK)


class Whereabouts(NamedTuple):
    """Identities of recordings, independent of names and links, in a table's order.

    Attributes:
        places: Paths with their links resolved.
        states: Identity shared by hard links: device, inode number, size and modification time of the file, and the
            part of a shard; None where there is no file.
    """

    places: list[str]
    states: list[State | None]


class RealFiles:
    """Real locations of recordings; every path is looked up once, however many experiments use it."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, State | None]] = {}
        self._real_name = RealNames()

    def look_up(self, table: pd.DataFrame) -> Whereabouts:
        """Return the locations of the recordings in an utterance table.

        A packed recording has its path outside the shards, and the state of its part.
        """
        paths: list[str] = table["path"].tolist()
        if LOOSE_PATH not in table:
            self._examine(paths)
            places, states = zip(*map(self._known.__getitem__, paths), strict=True) if paths else ((), ())
            return Whereabouts(list(places), list(states))
        loose: list[str] = table[LOOSE_PATH].tolist()
        files = [_shard_of(path) if path != other else path for path, other in zip(paths, loose, strict=True)]
        self._examine(files)
        return Whereabouts(
            [self._real_name(other) for other in loose],
            [self._state_of_part(file, path[len(file) :]) for file, path in zip(files, paths, strict=True)],
        )

    def _state_of_part(self, file: str, part: str) -> State | None:
        state = self._known[file][1]
        return None if state is None else (*state[:-1], part)

    def _examine(self, files: Sequence[str]) -> None:
        wanted = list({file for file in files if file not in self._known})
        tasks = [wanted[start : start + PATHS_A_TASK] for start in range(0, len(wanted), PATHS_A_TASK)]
        with ThreadPoolExecutor(THREADS) as pool:
            for task, found in zip(tasks, pool.map(self._examine_some, tasks), strict=True):
                self._known.update(zip(task, found, strict=True))

    def _examine_some(self, files: Sequence[str]) -> list[tuple[str, State | None]]:
        return [self._examine_one(file) for file in files]

    def _examine_one(self, file: str) -> tuple[str, State | None]:
        try:
            status = os.lstat(file)
            if stat.S_ISLNK(status.st_mode):
                return os.path.realpath(file), _state(os.stat(file))
            return self._real_name(file), _state(status)
        except (OSError, ValueError):  # missing or an impossible name; reported when it is opened
            return self._real_name(file), None


def _shard_of(path: str) -> str:
    part = PART.fullmatch(path)
    return path if part is None else part[1]


def _state(status: os.stat_result) -> State:
    """Return the state that two names of one file share; size and time, since disks reuse inode numbers."""
    return status.st_dev, status.st_ino, *state_of(status), ""


def same_keys(
    evaluated: pd.DataFrame, trained: pd.DataFrame, here: Sequence[Key], elsewhere: Sequence[Key]
) -> pd.DataFrame:
    """Pair rows that have the same key.

    Args:
        evaluated: Utterance table of a split.
        trained: Utterance table of the rows with which it must not share recordings.
        here: Key of each row of `evaluated`; None where there is none.
        elsewhere: Key of each row of `trained`.

    Returns:
        One row per row of `evaluated` that has a partner, under the same index: its `file`, and the partner's file as
        `partner` and `split`.
    """
    partners = {key: place for place, key in reversed(list(enumerate(elsewhere))) if key is not None}
    rows = [row for row, key in enumerate(here) if key in partners]
    shared = trained.iloc[[partners[here[row]] for row in rows]]
    columns = {
        "file": evaluated["file"].iloc[rows].to_numpy(dtype=object),
        "partner": shared["file"].to_numpy(dtype=object),
        "split": shared["split"].to_numpy(dtype=object),
    }
    return pd.DataFrame(columns, index=evaluated.index[rows])


def same_files(evaluated: pd.DataFrame, trained: pd.DataFrame, files: RealFiles) -> pd.DataFrame:
    """Pair rows whose recordings are one file, through links or inside and outside shards; see `same_keys`."""
    here, elsewhere = files.look_up(evaluated), files.look_up(trained)
    by_place = same_keys(evaluated, trained, here.places, elsewhere.places)
    by_state = same_keys(evaluated, trained, here.states, elsewhere.states)
    pairs = pd.concat([by_place, by_state])
    return pairs[~pairs.index.duplicated()].sort_index()


def same_samples(evaluated: pd.DataFrame, trained: pd.DataFrame) -> pd.DataFrame:
    """Pair rows whose recordings hold the same samples, by their column `content`; see `same_keys`."""
    return same_keys(evaluated, trained, _contents(evaluated), _contents(trained))


def _contents(table: pd.DataFrame) -> list[str | None]:
    return [content if isinstance(content, str) else None for content in table["content"].tolist()]


def share_names(one: Corpus, other: Corpus) -> bool:
    """Whether equal names of speakers and files in two sections mean the same speakers and files.

    They do in two sections of one published corpus, such as two releases of MSP-PODCAST, which keep both names. In
    different corpora they do not: "03" of EMO-DB and "03" of RAVDESS are two people. Nor do they in two tables of a
    user's own, unless both sections read the same table.
    """
    first, second = one.section, other.section
    if first is None or second is None or first.FORMAT != second.FORMAT:
        return False
    return corpus_format(first.FORMAT).is_one_corpus or _is_one_table(first, second)


def _is_one_table(one: CorpusConfig, other: CorpusConfig) -> bool:
    first, second = one.PATH_TO_LABEL, other.PATH_TO_LABEL
    return first is not None and second is not None and Path(first).resolve() == Path(second).resolve()


def same_names(evaluated: pd.DataFrame, trained: pd.DataFrame) -> pd.DataFrame:
    """Pair rows whose files have the same name, whatever their folder and format; see `same_keys`."""
    return same_keys(evaluated, trained, _stems(evaluated), _stems(trained))


def _stems(table: pd.DataFrame) -> list[str]:
    """Return the names of files without folder and suffix; a name found in several folders keeps its folder."""
    plain = [os.path.splitext(file)[0] for file in table["file"].tolist()]
    names = [os.path.basename(file) for file in plain]
    counts = Counter(names)
    return [name if counts[name] == 1 else file for name, file in zip(names, plain, strict=True)]


def heard_speakers(
    evaluated: pd.DataFrame, trained: pd.DataFrame, allowed: Sequence[bool | tuple[str, ...]]
) -> list[str]:
    """Return the speakers of a split who are in training or development too, sorted.

    Args:
        evaluated: Utterance table of the split.
        trained: Utterance table of training and development.
        allowed: `allow_speaker_overlap` of both corpora.
    """
    if any(names is True for names in allowed):
        return []
    named = {name for names in allowed if not isinstance(names, bool) for name in names}
    return sorted(set(evaluated["speaker"].dropna()) & set(trained["speaker"].dropna()) - named)


def list_pairs(pairs: pd.DataFrame) -> str:
    """Name recordings with their partners; of many, only the first few."""
    return some((f"{row.file} (as {row.partner} in {row.split})" for row in pairs.itertuples()), separator="; ")
