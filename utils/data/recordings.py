"""What is known of recordings without training on them: their headers and, on request, what their samples are like.

Every file is examined once for every state (path, size, time of change) and the findings are kept on disk between runs.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from utils.data import TEXT
from utils.data.table_cache import UNUSABLE, cache_folder
from utils.files import whole

SHORTEST_SECONDS = 0.025
"""The receptive field of the convolutions of WavLM, HuBERT and wav2vec 2.0: 400 samples at 16 kHz."""
SILENT_PEAK = 0.001
"""-60 dB below full scale: nothing that is never louder can be heard as speech."""
CLIPPED_RUN = 3
"""So many samples in a row at a recording's own maximum or minimum are no peak of a wave."""
LOUD_PEAK = 0.1
"""Only recordings that reach this share of full scale count as clipped: quiet ones have few different values."""
FILES_AT_A_TIME = 100
THREADS = 16
"""Most of the time of reading headers is spent waiting where the disk is a network away."""
EXACT_IN_16_BITS = ("PCM_16", "PCM_S8", "PCM_U8")

Numbers = npt.NDArray[Any]


class Problem(NamedTuple):
    """Why a recording cannot be trained on: one of the kinds of an audit, and a sentence."""

    kind: str
    text: str


class Header(NamedTuple):
    """What a file says of itself."""

    frames: int
    rate_hz: int
    channels: int
    subtype: str


class Sound(NamedTuple):
    """What decoding showed.

    Attributes:
        peak: Largest absolute sample, 1 at full scale.
        swing: Half the distance between the largest and the smallest sample: 0 where all are equal.
        clipped: Share of the samples in flat tops: runs at the recording's own maximum or minimum.
        silent_end: Whether the second half holds nothing but zeros.
        content: Hash of the samples.
    """

    peak: float
    swing: float
    clipped: float
    silent_end: bool
    content: str


NUMBERS = ("frames", "rate_hz", "channels", "peak", "swing", "clipped", "silent_end")
FIELDS = (*Header._fields, *Sound._fields)
KEY = ["path", "size", "modified_ns"]
Examined = tuple[Header | None, Sound | None, Problem | None]


@dataclass(frozen=True)
class Survey:
    """What was found of recordings, in the order asked for.

    Attributes:
        table: One row a recording: `path`, the fields of `Header` and of `Sound` (missing where the file could not be
            read or was not decoded), `seconds`, and `kind` and `problem` where it cannot be trained on.
        opened: How many were opened; the others had been examined before and have not changed.
    """

    table: pd.DataFrame
    opened: int


def survey(
    corpus: str, paths: Sequence[str], advance: Callable[[int], None] = lambda _: None, is_deep: bool = False
) -> Survey:
    """Examine recordings; those that have not changed since they were examined last are not opened again.

    What is found is kept below `~/.cache/200ai`, also where the survey is interrupted.

    Args:
        corpus: What the findings are kept under.
        paths: The recordings.
        advance: Told how many are done.
        is_deep: Whether to decode them too, with one thread a core.
    """
    kept = _recall(corpus)
    table = _states(paths).merge(kept, how="left", on=KEY)
    is_known = table["content" if is_deep else "frames"].notna()
    is_there = table["size"] >= 0
    advance(int((is_known | ~is_there).sum()))
    wanted = np.flatnonzero(~is_known & is_there)
    found: list[Examined] = []
    try:
        arguments = list(zip(table["path"].iloc[wanted], table["size"].iloc[wanted], strict=True))
        threads = (os.cpu_count() or 1) if is_deep else THREADS
        _in_threads(partial(_examine, is_deep=is_deep), arguments, threads, found, advance)
    finally:
        table = _filled(table, wanted[: len(found)], found)
        if found:
            _keep(corpus, kept, table[table["frames"].notna() & table["problem"].isna()])
    return Survey(_judged(table), len(found))


def _in_threads(
    action: Callable[[Any], Any], items: Sequence[Any], threads: int, found: list[Any], advance: Callable[[int], None]
) -> None:
    """Append to `found` what an action returns for every item, in order; many items a task, few tasks at a time."""
    parts = [items[start : start + FILES_AT_A_TIME] for start in range(0, len(items), FILES_AT_A_TIME)]
    with ThreadPoolExecutor(max_workers=threads) as pool:
        try:
            for results in pool.map(lambda part: [action(item) for item in part], parts):
                found += results
                advance(len(results))
        finally:
            pool.shutdown(cancel_futures=True)


def _states(paths: Sequence[str]) -> pd.DataFrame:
    """Return size and time of change of every file, -1 with the reason where there is none."""
    states: list[tuple[int, int, str | None]] = []
    _in_threads(_state, paths, THREADS, states, lambda _: None)
    table = pd.DataFrame(states, columns=["size", "modified_ns", "problem"], index=pd.RangeIndex(len(paths)))
    table["path"] = pd.array(list(paths), dtype=TEXT)
    table["problem"] = table["problem"].astype(TEXT)
    return table.assign(kind=pd.Series("missing", index=table.index, dtype=TEXT).where(table["size"] < 0))


def _state(path: str) -> tuple[int, int, str | None]:
    try:
        status = os.stat(path)
    except OSError as error:
        return -1, -1, "is missing" if isinstance(error, FileNotFoundError) else f"cannot be opened: {error.strerror}"
    return status.st_size, status.st_mtime_ns, None


def _examine(source: tuple[str, int], is_deep: bool) -> Examined:
    """Read a file's header and, on request, its samples."""
    path, size = source
    try:
        if size == 0:
            return None, None, Problem("empty", "holds no byte")
        if is_truncated_riff(path, size):
            return None, None, Problem("truncated", f"is truncated: its header promises more than its {size:,} bytes")
        with soundfile.SoundFile(path) as file:
            header = Header(file.frames, file.samplerate, file.channels, file.subtype)
            if not is_deep or not header.frames:
                return header, None, None
            return header, *_listen(file)
    except (OSError, soundfile.SoundFileError) as error:
        return None, None, Problem("unreadable", f"cannot be decoded: {' '.join(str(error).split())}")


def _listen(file: soundfile.SoundFile) -> tuple[Sound | None, Problem | None]:
    """Decode a file and look at its samples."""
    exact = file.subtype in EXACT_IN_16_BITS
    room = _room(file.frames * file.channels, exact).reshape(file.frames, file.channels)
    samples = file.read(out=room)
    if len(samples) < file.frames:
        return None, Problem("truncated", f"is truncated: it ends after {len(samples):,} of {file.frames:,} samples")
    if not exact and not np.isfinite(samples).all():
        return None, Problem("not-finite", "holds samples that are not finite numbers")
    full = 32768.0 if exact else 1.0
    low, high = float(samples.min()) / full, float(samples.max()) / full
    peak = max(-low, high)
    clipped = max(map(flat_share, samples.T)) if peak >= LOUD_PEAK else 0.0
    silent_end = not samples[len(samples) // 2 :].any()
    content = hashlib.sha256(samples).hexdigest()[:32]
    return Sound(peak, (high - low) / 2, clipped, silent_end, content), None


_rooms = threading.local()


def _room(values: int, exact: bool) -> Numbers:
    """Return memory to decode into, the same for every file of a thread: new memory costs more than decoding."""
    kind = np.int16 if exact else np.float32
    room: Numbers | None = getattr(_rooms, kind.__name__, None)
    if room is None or len(room) < values:
        room = np.empty(max(values, 1 << 20), dtype=kind)
        setattr(_rooms, kind.__name__, room)
    return room[:values]


def flat_share(samples: Numbers) -> float:
    """Return the share of samples, shape (samples,), in runs of three or more at their own maximum or minimum."""
    at_ends = (samples == samples.max()), (samples == samples.min())
    return sum(_in_runs(at_end) for at_end in at_ends) / len(samples)


def _in_runs(marked: npt.NDArray[np.bool_]) -> int:
    """Count what lies in runs of at least `CLIPPED_RUN`."""
    places = np.flatnonzero(marked)
    if len(places) < CLIPPED_RUN:
        return 0
    starts = np.flatnonzero(np.diff(places, prepend=-2) > 1)
    lengths = np.diff(starts, append=len(places))
    return int(lengths[lengths >= CLIPPED_RUN].sum())


def is_truncated_riff(path: str, size: int) -> bool:
    """Compare a WAV's stated size with its own: libsndfile reads what is there and says nothing."""
    with open(path, "rb") as file:
        header = file.read(12)
    stated = int.from_bytes(header[4:8], "little")
    is_streamed = stated in (0, 0xFFFFFFFF)
    return header[:4] == b"RIFF" and header[8:] == b"WAVE" and not is_streamed and size < stated + 8 - stated % 2


def _filled(table: pd.DataFrame, places: npt.NDArray[np.intp], found: Sequence[Examined]) -> pd.DataFrame:
    """Enter what was examined into the rows at `places`."""
    nothing = (None,) * len(FIELDS)
    rows = [
        (
            *(header or nothing[: len(Header._fields)]),
            *(sound or nothing[: len(Sound._fields)]),
            *(problem or (None, None)),
        )
        for header, sound, problem in found
    ]
    fresh = pd.DataFrame(rows, columns=[*FIELDS, "kind", "problem"], index=table.index[places])
    filled = table.copy()
    for column in fresh:
        values = fresh[column].astype(np.float64 if column in NUMBERS else TEXT)
        filled.loc[fresh.index, column] = values
    return filled


def _judged(table: pd.DataFrame) -> pd.DataFrame:
    """Add `seconds`, and name what is too short to be trained on."""
    seconds = table["frames"] / table["rate_hz"]
    is_empty, is_short = seconds == 0, (seconds > 0) & (seconds < SHORTEST_SECONDS)
    kind = table["kind"].mask(is_empty, "empty").mask(is_short, "short")
    problem = table["problem"].mask(is_empty, "holds no sample")
    problem[is_short] = [f"lasts {s:g} s, less than {SHORTEST_SECONDS:g} s" for s in seconds[is_short]]
    return table.assign(seconds=seconds, kind=kind, problem=problem)


def _place(corpus: str) -> Path:
    return cache_folder("recordings") / f"{corpus}.parquet"


@cache
def _version() -> bytes:
    """Return a hash of this module and of the decoder: what another one found is found again."""
    source = Path(__file__).read_bytes() + soundfile.__libsndfile_version__.encode()
    return hashlib.sha256(source).hexdigest().encode()


def _recall(corpus: str) -> pd.DataFrame:
    """Return what is kept of a corpus's recordings; nothing where it cannot be read."""
    try:
        table = pq.read_table(_place(corpus))
        if table.schema.metadata[b"version"] == _version():
            return _typed(table.to_pandas())
    except UNUSABLE:
        pass
    return _typed(pd.DataFrame(columns=[*KEY, *FIELDS]))


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    kinds: dict[str, Any] = {name: np.float64 if name in NUMBERS else TEXT for name in ("path", *FIELDS)}
    return table[[*KEY, *FIELDS]].astype({**kinds, "size": np.int64, "modified_ns": np.int64})


def _keep(corpus: str, kept: pd.DataFrame, table: pd.DataFrame) -> None:
    """Keep what is known for the next time; a folder that cannot be written to only costs that time."""
    older = kept[~kept["path"].isin(table["path"])]
    together = pa.Table.from_pandas(pd.concat([older, table[[*KEY, *FIELDS]]]), preserve_index=False)
    try:
        target = _place(corpus)
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with whole(target, is_flushed=False) as place:
            pq.write_table(together.replace_schema_metadata({b"version": _version()}), place)
    except UNUSABLE:
        return
