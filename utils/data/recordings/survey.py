"""What is known of recordings without training on them: their headers and, on request, what their samples are like.

Every file is examined once for every state (path, size, time of change) and the findings are kept on disk between runs.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import soundfile

from utils.data.labels.columns import TEXT
from utils.data.recordings.audio_source import Source, file_of, opened
from utils.data.recordings.file_names import why_not_read
from utils.data.recordings.inspection_cache import FIELDS, KEY, NUMBERS, Header, keep, recall
from utils.data.recordings.signal_checks import Problem, Sound, listen
from utils.data.recordings.truncation import is_cut_off

SHORTEST_SECONDS = 0.025
"""The receptive field of the convolutions of WavLM, HuBERT and wav2vec 2.0: 400 samples at 16 kHz."""
LOWEST_RATE_HZ, HIGHEST_RATE_HZ = 2_000, 768_000
MOST_FRAMES_A_BYTE = 10_000
"""No codec of libsndfile writes silence in less; a FLAC whose length is not known announces far more."""
THREADS = 16
"""At most, for files that are not decoded: on a network disk nearly all of the time is waiting."""
IDLE = 0.5
"""Where less of the time than this is spent computing, the disk is waited for, and more threads are started; beyond
that they would only wait for each other."""
SECONDS_BETWEEN_LOOKS, SECONDS_BETWEEN_KEEPING = 0.5, 30.0
ATTEMPTS = 3
SYSTEM_ERROR = 2
"""libsndfile's number for what is not the file's fault."""
NOT_PERMITTED = Problem("unreadable", "is not permitted to be read; give read permission")
MISSING = Problem("missing", "is missing")

State = tuple[int, int]
"""Size in bytes and time of change in ns; both -1 where there is no file."""
NOWHERE = (-1, -1)


class Examined(NamedTuple):
    """What a look at one file showed, in which state it was, and whether that holds for as long as it stays so."""

    header: Header | None = None
    sound: Sound | None = None
    problem: Problem | None = None
    state: State = NOWHERE
    is_lasting: bool = True


@dataclass(frozen=True)
class Survey:
    """What was found of recordings, in the order asked for.

    Attributes:
        table: One row a recording: `path`, the fields of `Header` and of `Sound` (missing where the file could not be
            read or was not decoded), `seconds`, `kind` and `problem` where it cannot be trained on, and `is_lasting`:
            whether what was found holds for as long as the file stays as it is.
        opened: How many were opened; the others had been examined before and have not changed.
    """

    table: pd.DataFrame
    opened: int


def survey(
    corpus: str, paths: Sequence[str], advance: Callable[[int], None] = lambda _: None, is_deep: bool = False
) -> Survey:
    """Examine recordings; those that have not changed since they were examined last are not opened again.

    What is found is kept below `~/.cache/200ai`, twice a minute and also where the survey is interrupted.

    Args:
        corpus: What the findings are kept under.
        paths: The recordings.
        advance: Told how many are done.
        is_deep: Whether to decode them too, with one thread a core.
    """
    kept, unique = recall(corpus), list(dict.fromkeys(paths))
    table = _known(unique, kept)
    is_known = table["problem"].notna() | table["content" if is_deep else "frames"].notna()
    wanted = np.flatnonzero(~is_known)
    advance(len(paths) - len(wanted))
    found: dict[int, Examined] = {}

    def keep_found() -> None:
        if found:
            filled = _filled(table, wanted, dict(found))
            keep(corpus, kept, filled, filled["is_lasting"])

    try:
        threads = (os.cpu_count() or 1) if is_deep else THREADS
        paths_wanted = table["path"].iloc[wanted].tolist()
        _in_threads(partial(examine, is_deep=is_deep), paths_wanted, threads, found, advance, keep_found)
    finally:
        keep_found()
    judged = _judged(_filled(table, wanted, found))
    rows = pd.Index(unique).get_indexer(pd.Index(paths))
    return Survey(judged.iloc[rows].reset_index(drop=True), len(found))


def _in_threads(
    action: Callable[[str], Any],
    items: Sequence[str],
    threads: int,
    found: dict[int, Any],
    advance: Callable[[int], None] = lambda _: None,
    keep_found: Callable[[], None] = lambda: None,
) -> None:
    """Enter into `found` what an action returns for every item, by its place; what is done is there at any time."""
    places, is_stopped = iter(range(len(items))), threading.Event()

    def work() -> None:
        while not is_stopped.is_set() and (place := next(places, None)) is not None:
            found[place] = action(items[place])

    told, kept_at = 0, time.monotonic()
    with ThreadPoolExecutor(max_workers=threads) as pool:
        try:
            pending = {pool.submit(work) for _ in range(min(threads, os.cpu_count() or 1, len(items)))}
            while pending:
                looked, used = time.monotonic(), time.process_time()
                done, pending = wait(pending, SECONDS_BETWEEN_LOOKS, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
                if time.process_time() - used < IDLE * (time.monotonic() - looked):
                    pending |= {pool.submit(work) for _ in range(min(len(pending), threads - len(pending)))}
                told, news = len(found), len(found) - told
                advance(news)
                if pending and time.monotonic() - kept_at >= SECONDS_BETWEEN_KEEPING:
                    keep_found()
                    kept_at = time.monotonic()
        finally:
            is_stopped.set()


def _known(paths: Sequence[str], kept: pd.DataFrame) -> pd.DataFrame:
    """Return the state of every file now, and what is kept of it in that state."""
    states: dict[int, tuple[State, Problem | None]] = {}
    _in_threads(_state, paths, THREADS, states)
    found = [states[place] for place in range(len(paths))]
    now = pd.DataFrame([state for state, _ in found], columns=["size", "modified_ns"], dtype=np.int64)
    now["path"] = pd.array(list(paths), dtype=TEXT)
    table = now.merge(kept, how="left", on=KEY, validate="many_to_one")
    for column, field in (("kind", "kind"), ("problem", "text")):
        absent = [getattr(problem, field) if problem else None for _, problem in found]
        table[column] = table[column].fillna(pd.Series(absent, dtype=TEXT))
    return table.assign(is_lasting=(table["size"] >= 0) & (table["frames"].notna() | table["problem"].notna()))


def _state(path: str) -> tuple[State, Problem | None]:
    try:
        status = os.stat(file_of(path))
    except (OSError, ValueError) as error:
        return NOWHERE, excuse(error)
    if not stat.S_ISREG(status.st_mode):
        return NOWHERE, Problem("unreadable", "is no file")
    return _state_of(status), None


def _state_of(status: os.stat_result) -> State:
    return status.st_size, status.st_mtime_ns


def excuse(error: Exception) -> Problem:
    """Say why a file cannot be looked at."""
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        target = error.filename if isinstance(error.filename, str) and os.path.islink(error.filename) else None
        return (
            MISSING if target is None else Problem("missing", f"is a link to {os.readlink(target)}, which is missing")
        )
    if isinstance(error, PermissionError):
        return NOT_PERMITTED
    if isinstance(error, MemoryError):
        return Problem("unreadable", "cannot be decoded: there is not enough memory")
    return Problem("unreadable", f"cannot be opened: {getattr(error, 'strerror', None) or error}")


def examine(path: str, is_deep: bool) -> Examined:
    """Read a recording's header and, on request, its samples; one that changes meanwhile is read again."""
    try:
        for _ in range(ATTEMPTS):
            with opened(path) as (descriptor, source):
                state = _state_of(os.fstat(descriptor))
                found = _with_remedy(path, _with_length(_look(source, state[0], is_deep)))
                now = os.stat(file_of(path)) if found.problem else os.fstat(descriptor)
                if _state_of(now) == state:
                    return found._replace(state=state)
    except (OSError, MemoryError, ValueError, TypeError, RuntimeError) as error:
        return Examined(problem=excuse(error), is_lasting=False)
    text = "changes while it is looked at; look again once it is written"
    return Examined(problem=Problem("unreadable", text), is_lasting=False)


def _look(source: Source, size: int, is_deep: bool) -> Examined:
    if size == 0:
        return Examined(problem=Problem("empty", "holds no byte"))
    if isinstance(source, int) and is_cut_off(source, size):
        return Examined(problem=Problem("truncated", f"is truncated: its header promises more than {size:,} bytes"))
    header: Header | None = None
    try:
        with soundfile.SoundFile(source, closefd=False) as file:
            if file.frames > MOST_FRAMES_A_BYTE * size:
                return Examined(problem=Problem("unreadable", "announces no usable length"))
            header = Header(file.frames, file.samplerate, file.channels, file.subtype)
            if not LOWEST_RATE_HZ <= header.rate_hz <= HIGHEST_RATE_HZ:
                problem = Problem("unreadable", f"announces {header.rate_hz:,} Hz, which is no rate of recordings")
                return Examined(header, None, problem)
            if not header.frames:
                return Examined(header, None, Problem("empty", "holds no sample"))
            return Examined(header, *(listen(file) if is_deep else (None, None)))
    except soundfile.LibsndfileError as error:
        problem = Problem("unreadable", f"cannot be decoded: {' '.join(error.error_string.split())}")
        return Examined(header, None, problem, is_lasting=error.code != SYSTEM_ERROR)


def _with_length(found: Examined) -> Examined:
    """Name what is too short to be trained on."""
    if found.problem is not None or found.header is None:
        return found
    seconds = found.header.frames / found.header.rate_hz
    if seconds >= SHORTEST_SECONDS:
        return found
    return found._replace(problem=Problem("short", f"lasts {seconds:g} s, less than {SHORTEST_SECONDS:g} s"))


def _with_remedy(path: str, found: Examined) -> Examined:
    """Say of a film, and of sound that libsndfile does not know, how to convert it."""
    reason = why_not_read(path) if found.problem is not None and found.problem.kind == "unreadable" else None
    return found._replace(problem=Problem("unreadable", reason)) if reason else found


def _filled(table: pd.DataFrame, wanted: npt.NDArray[np.intp], found: Mapping[int, Examined]) -> pd.DataFrame:
    """Enter what was examined, by its place in `wanted`."""
    absent_header, absent_sound = (None,) * len(Header._fields), (None,) * len(Sound._fields)
    rows = [
        (*one.state, *(one.header or absent_header), *(one.sound or absent_sound), *(one.problem or (None, None)))
        for one in found.values()
    ]
    index = table.index[wanted[np.fromiter(found, dtype=np.intp)]]
    fresh = pd.DataFrame(rows, columns=["size", "modified_ns", *FIELDS], index=index)
    filled = table.copy()
    for column in fresh:
        kind: Any = np.int64 if column in KEY else np.float64 if column in NUMBERS else TEXT
        filled.loc[index, column] = fresh[column].astype(kind)
    filled.loc[index, "is_lasting"] = [one.is_lasting for one in found.values()]
    return filled


def _judged(table: pd.DataFrame) -> pd.DataFrame:
    """Add `seconds`."""
    return table.assign(seconds=table["frames"] / table["rate_hz"], is_lasting=table["is_lasting"].astype(bool))
