"""Frames of recordings kept on disk between runs: rows of one size in one file, found by recording.

Three files share a key below `~/.cache/200ai/frozen`:

- `<key>.frames`: rows of one recording after another. Rows are only ever appended. They are read by position, not
  memory-mapped, so that a file shortened by someone else is an error and does not kill the process.
- `<key>.parquet`: the position of each recording's rows, with a checksum. This index is replaced atomically, and only
  once its rows are on the disk. Rows that a killed process wrote after that are cut off by the next process.
- `<key>.lock`: held by the only process that may append. Readers lock the file of rows itself, so that rows in use are
  never removed. The kernel releases the locks of a process that dies.
"""

from __future__ import annotations

import fcntl
import os
import time
import weakref
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from utils.data.recordings.file_identity import Identities
from utils.errors import DataError
from utils.io.cache_folder import UNUSABLE, cache_folder
from utils.io.files import atomic_file

COLUMNS = ("first", "samples", "frames", "checksum")
"""A recording's first row, samples at 16 kHz, number of rows, and CRC-32 of the rows, started with the samples."""
SECONDS_BETWEEN_COMMITS = 5.0
THREADS = min(8, os.cpu_count() or 1)
Rows = npt.NDArray[np.uint8]
"""Frames as bytes, (frames, row_bytes)."""


class StoreError(DataError):
    """Kept frames that cannot be written or read; the message says why."""


@contextmanager
def _disk(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"{place}: {error.strerror or error}") from error


def store_folder() -> Path:
    """Return where frames are kept.

    Raises:
        StoreError: If the folder cannot be made.
    """
    try:
        folder = cache_folder("frozen")
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except UNUSABLE as error:
        raise StoreError(f"its folder cannot be created: {error}") from error
    return folder


@contextmanager
def open_store(key: str, row_bytes: int, on_wait: Callable[[], None]) -> Iterator[FeatureStore]:
    """Open the frames of a key; within the context, no other process opens or fills them.

    The store stays readable afterwards.

    Args:
        key: Identifies everything that the frames depend on apart from the recording.
        row_bytes: Bytes per frame.
        on_wait: Called before waiting for another process.

    Raises:
        StoreError: If the files cannot be opened.
    """
    place = store_folder() / key
    with _disk(place):
        lock = open(place.with_suffix(".lock"), "a")  # noqa: SIM115 - closed below
    with lock:
        with _disk(place):
            if not _try_lock(lock.fileno()):
                on_wait()
                fcntl.flock(lock, fcntl.LOCK_EX)
            os.utime(lock.fileno())  # the least recently used is removed first
        try:
            yield FeatureStore(place, row_bytes)
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)  # worker processes hold the same open file


class FeatureStore:
    """The frames of one key.

    Args:
        place: Path of the key's files, without suffix.
        row_bytes: Bytes per frame.

    Attributes:
        was_damaged: Whether kept frames were discarded because their files do not match.

    Raises:
        StoreError: If the files cannot be opened.
    """

    def __init__(self, place: Path, row_bytes: int) -> None:
        self.path = place.with_suffix(".frames")
        self.row_bytes = row_bytes
        self.was_damaged = False
        self._index_path = place.with_suffix(".parquet")
        self._pending: list[tuple[int, int, int, int, int]] = []
        self._committed_at = time.monotonic()
        index = _read_index(self._index_path)
        with _disk(self.path):
            for leftover in place.parent.glob(f"{self._index_path.name}.*"):  # left by a process killed during a commit
                leftover.unlink()
            self._open()
            self._index = _no_entries() if index is None else index
            if index is None or self._end * row_bytes > self.size:
                self.was_damaged = self._index_path.exists()  # no index means that the first commit was never reached
                self.renew()
            os.ftruncate(self._descriptor, self._end * row_bytes)

    @property
    def size(self) -> int:
        """Size of the file of rows in bytes."""
        return os.fstat(self._descriptor).st_size

    def find(self, recordings: Identities) -> pd.DataFrame:
        """Return `first`, `samples` and `frames` of recordings, (recordings,) each; all -1 where they are not kept."""
        return self._index.reindex(recordings, fill_value=-1)[["first", "samples", "frames"]].reset_index(drop=True)

    def check(self, recordings: Identities, advance: Callable[[int], None]) -> bool:
        """Read those recordings that are kept; return whether all match their checksums."""
        entries = self._index[self._index.index.isin(recordings)].sort_values("first")

        def is_whole(entry: tuple[int, int, int, int]) -> bool:
            first, samples, frames, checksum = entry
            rows = np.empty((frames, self.row_bytes), dtype=np.uint8)
            try:
                self.read(first, rows)
            except StoreError:
                return False
            return _checksum(rows, samples) == checksum

        with ThreadPoolExecutor(THREADS) as pool:
            for found in pool.map(is_whole, zip(*(entries[name].tolist() for name in COLUMNS), strict=True)):
                if not found:
                    return False
                advance(1)
        return True

    def renew(self) -> None:
        """Discard everything; processes that have the old files open can still read them.

        Raises:
            StoreError: If files cannot be removed or made.
        """
        with _disk(self.path):
            self._index_path.unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)
            self._close()
            self._open()
        self._index = _no_entries()

    def append(self, recordings: Identities, samples: Sequence[int], frames: Sequence[int], rows: Rows) -> None:
        """Add the rows of several recordings, which are kept from the next commit on; commits happen every few seconds.

        Raises:
            StoreError: For example, where the disk is full.
        """
        first = self._end + sum(entry[3] for entry in self._pending)
        with _disk(self.path):
            view, position = _flat(rows), first * self.row_bytes
            while len(view):
                count = os.pwrite(self._descriptor, view, position)
                view, position = view[count:], position + count
        stop = 0
        for recording, count, length in zip(recordings.tolist(), samples, frames, strict=True):
            start, stop = stop, stop + length
            self._pending.append((recording, first + start, count, length, _checksum(rows[start:stop], count)))
        if time.monotonic() - self._committed_at >= SECONDS_BETWEEN_COMMITS:
            self.commit()

    def commit(self) -> None:
        """Make the appended rows permanent: first the rows, then the index that points to them.

        Raises:
            StoreError: For example, where the disk is full.
        """
        fresh = pd.DataFrame(self._pending, columns=["recording", *COLUMNS]).set_index("recording")
        index = pd.concat([self._index, fresh.astype(np.int64)])
        with _disk(self.path):
            os.fsync(self._descriptor)
            with atomic_file(self._index_path) as partial:
                index.reset_index().to_parquet(partial, index=False)
        self._index, self._pending, self._committed_at = index, [], time.monotonic()

    def read(self, first: int, rows: Rows) -> None:
        """Fill `rows` from row `first` on; several threads may read at once.

        Raises:
            StoreError: If the file cannot be read, or has been shortened.
        """
        view, position = _flat(rows), first * self.row_bytes
        with _disk(self.path):
            while len(view):
                count = os.preadv(self._descriptor, [view], position)
                if count == 0:
                    raise StoreError(f"{self.path} was truncated; train again to recompute it")
                view, position = view[count:], position + count

    @property
    def _end(self) -> int:
        """The row after the last committed one."""
        return int((self._index["first"] + self._index["frames"]).max()) if len(self._index) else 0

    def _open(self) -> None:
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        self._close = weakref.finalize(self, os.close, self._descriptor)
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)


def make_room(wanted: int, limit: int, key: str) -> list[tuple[str, int]] | None:
    """Remove the least recently used frames of other keys until all keys together stay within a limit.

    Args:
        wanted: Bytes that the frames of `key` will take.
        limit: Maximum bytes of all keys together.
        key: Key whose frames are never removed.

    Returns:
        Name and bytes of each removed file; None where the limit cannot be kept because the other keys are in use.
        Nothing is removed where the frames of `key` alone would exceed the limit.

    Raises:
        StoreError: If a file cannot be removed.
    """
    folder = store_folder()
    removed: list[tuple[str, int]] = []
    with _disk(folder):
        others = [path for path in folder.glob("*.frames") if path.stem != key]
        others.sort(key=lambda path: path.with_suffix(".lock").stat().st_mtime_ns)
        sizes = {path: path.stat().st_size for path in others}
        excess = wanted + sum(sizes.values()) - limit
        for path in others if wanted <= limit else []:
            if excess > 0 and _remove(path):
                removed.append((path.name, sizes[path]))
                excess -= sizes[path]
    return removed if excess <= 0 else None


def kept_bytes() -> int:
    """Return the bytes of all kept frames.

    Raises:
        StoreError: If their folder cannot be made.
    """
    folder = store_folder()
    with _disk(folder):
        return sum(path.stat().st_size for path in folder.glob("*.frames"))


def _remove(path: Path) -> bool:
    """Remove the frames of a key unless a process uses them; return whether they were removed."""
    with open(path.with_suffix(".lock"), "a") as lock, open(path, "rb") as frames:
        if not (_try_lock(lock.fileno()) and _try_lock(frames.fileno())):
            return False
        path.with_suffix(".parquet").unlink(missing_ok=True)
        path.unlink()
    return True


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _checksum(rows: Rows, samples: int) -> int:
    return zlib.crc32(_flat(rows), samples)


def _flat(rows: Rows) -> memoryview:
    """Return the bytes of contiguous rows, without copying them."""
    return rows.reshape(-1).data


def _no_entries() -> pd.DataFrame:
    return pd.DataFrame(columns=list(COLUMNS), index=pd.Index([], name="recording", dtype=np.int64), dtype=np.int64)


def _read_index(path: Path) -> pd.DataFrame | None:
    """Return the index by recording; None where it cannot be read or its contents are impossible."""
    try:
        index = pd.read_parquet(path).set_index("recording")[list(COLUMNS)].astype(np.int64)
    except UNUSABLE:
        return None
    is_possible = index.index.is_unique and (index >= 0).all().all() and (index["frames"] > 0).all()
    return index if is_possible else None
