"""Examination of recordings: their headers and, on request, their samples.

Every file is examined once per state (path, size, modification time); the findings are kept on disk between runs.
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
from utils.data.recordings.file_identity import THREADS, State, state_of
from utils.data.recordings.file_names import why_not_read
from utils.data.recordings.inspection_cache import DTYPES, FIELDS, KEY, Header, keep, recall
from utils.data.recordings.signal_checks import Problem, Sound, listen
from utils.data.recordings.truncation import is_cut_off

SHORTEST_SECONDS = 0.025
"""The receptive field of the convolutions of WavLM, HuBERT and wav2vec 2.0: 400 samples at 16 kHz."""
LOWEST_RATE_HZ, HIGHEST_RATE_HZ = 2_000, 768_000
MOST_FRAMES_A_BYTE = 10_000
"""No codec of libsndfile packs even silence more densely; a FLAC of unknown length announces far more."""
IDLE = 0.5
"""If a smaller share of the time is spent computing, threads wait for the disk, and more are started; above it, they
would only wait for each other."""
SECONDS_BETWEEN_LOOKS, SECONDS_BETWEEN_KEEPING = 0.5, 30.0
ATTEMPTS = 3
SYSTEM_ERROR = 2
"""libsndfile's number for errors that are not the file's fault."""
NOT_PERMITTED = Problem("unreadable", "is not permitted to be read; give read permission")
MISSING = Problem("missing", "is missing")

NOWHERE = (-1, -1)
"""State of a file that does not exist."""


class Examined(NamedTuple):
    """Findings on one file, its state, and whether the findings hold as long as the state does."""

    header: Header | None = None
    sound: Sound | None = None
    problem: Problem | None = None
    state: State = NOWHERE
    is_lasting: bool = True


@dataclass(frozen=True)
class Survey:
    """Findings on recordings, in the requested order.

    Attributes:
        table: One row per recording: `path`, the fields of `Header` and of `Sound` (missing if the file could not be
            read or was not decoded), `seconds`, `kind` and `problem` if it cannot be trained on, and `is_lasting`:
            whether the findings hold as long as the file is unchanged.
        opened: Number of recordings opened; the others were examined before and have not changed.
    """

    table: pd.DataFrame
    opened: int


def survey(
    corpus: str, paths: Sequence[str], advance: Callable[[int], None] = lambda _: None, is_deep: bool = False
) -> Survey:
    """Examine recordings; those unchanged since their last examination are not opened again.

    The findings are saved below `~/.cache/200ai`, twice a minute and also if the survey is interrupted.

    Args:
        corpus: Name under which the findings are kept.
        paths: Paths of the recordings.
        advance: Progress callback, called with the number of newly examined recordings.
        is_deep: Whether to decode them too, with one thread per core.
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
    filled = _filled(table, wanted, found)
    seconds = filled["frames"] / filled["rate_hz"]
    judged = filled.assign(seconds=seconds, is_lasting=filled["is_lasting"].astype(bool))
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
    """Run an action on every item; each result is entered into `found` by the item's index as soon as it is done."""
    places, is_stopped = iter(range(len(items))), threading.Event()

    def work() -> None:
        while not is_stopped.is_set() and (place := next(places, None)) is not None:
            found[place] = action(items[place])

    reported, kept_at = 0, time.monotonic()
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
                reported, news = len(found), len(found) - reported
                advance(news)
                if pending and time.monotonic() - kept_at >= SECONDS_BETWEEN_KEEPING:
                    keep_found()
                    kept_at = time.monotonic()
        finally:
            is_stopped.set()


def _known(paths: Sequence[str], kept: pd.DataFrame) -> pd.DataFrame:
    """Return the current state of every file, and the findings kept for that state."""
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
        return NOWHERE, Problem("unreadable", "is not a file")
    return state_of(status), None


def excuse(error: Exception) -> Problem:
    """Explain why a file cannot be examined."""
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
    """Read a recording's header and, on request, its samples; a file that changes meanwhile is read again."""
    try:
        for _ in range(ATTEMPTS):
            with opened(path) as (descriptor, source):
                state = state_of(os.fstat(descriptor))
                found = _with_remedy(path, _with_length(_look(source, state[0], is_deep)))
                now = os.stat(file_of(path)) if found.problem else os.fstat(descriptor)
                if state_of(now) == state:
                    return found._replace(state=state)
    except (OSError, MemoryError, ValueError, TypeError, RuntimeError) as error:
        return Examined(problem=excuse(error), is_lasting=False)
    text = "changes while it is being read; try again once it is complete"
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
                return Examined(problem=Problem("unreadable", "has no usable length in its header"))
            header = Header(file.frames, file.samplerate, file.channels, file.subtype)
            if not LOWEST_RATE_HZ <= header.rate_hz <= HIGHEST_RATE_HZ:
                problem = Problem(
                    "unreadable", f"has a rate of {header.rate_hz:,} Hz in its header, as no recording has"
                )
                return Examined(header, None, problem)
            if not header.frames:
                return Examined(header, None, Problem("empty", "holds no sample"))
            return Examined(header, *(listen(file) if is_deep else (None, None)))
    except soundfile.LibsndfileError as error:
        problem = Problem("unreadable", f"cannot be decoded: {' '.join(error.error_string.split())}")
        return Examined(header, None, problem, is_lasting=error.code != SYSTEM_ERROR)


def _with_length(found: Examined) -> Examined:
    """Add the problem of a recording that is too short to be trained on."""
    if found.problem is not None or found.header is None:
        return found
    seconds = found.header.frames / found.header.rate_hz
    if seconds >= SHORTEST_SECONDS:
        return found
    return found._replace(problem=Problem("short", f"lasts {seconds:g} s, less than {SHORTEST_SECONDS:g} s"))


def _with_remedy(path: str, found: Examined) -> Examined:
    """Add how to convert a film, or sound in a format unknown to libsndfile."""
    reason = why_not_read(path) if found.problem is not None and found.problem.kind == "unreadable" else None
    return found._replace(problem=Problem("unreadable", reason)) if reason else found


def _filled(table: pd.DataFrame, wanted: npt.NDArray[np.intp], found: Mapping[int, Examined]) -> pd.DataFrame:
    """Enter the findings, given by their index in `wanted`, into the table."""
    absent_header, absent_sound = (None,) * len(Header._fields), (None,) * len(Sound._fields)
    rows = [
        (*one.state, *(one.header or absent_header), *(one.sound or absent_sound), *(one.problem or (None, None)))
        for one in found.values()
    ]
    index = table.index[wanted[np.fromiter(found, dtype=np.intp)]]
    columns = ["size", "modified_ns", *FIELDS]
    fresh = pd.DataFrame(rows, columns=columns, index=index)
    filled = table.copy()
    for column in columns:
        filled.loc[index, column] = fresh[column].astype(DTYPES[column])
    filled.loc[index, "is_lasting"] = [one.is_lasting for one in found.values()]
    return filled
