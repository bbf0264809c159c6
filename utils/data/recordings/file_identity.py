"""Identity of recordings on the disk, without opening them: their states, and their names behind links."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from utils.data.recordings.audio_source import file_of
from utils.errors import DataError
from utils.seeding import stable_key

Identities = npt.NDArray[np.int64]
"""One number per recording, (recordings,)."""
State = tuple[int, int]
"""Size in bytes and modification time in ns of a file."""
THREADS = 16
"""Maximum for files that are not decoded: on a network disk nearly all of the time is waiting."""


def state_of(status: os.stat_result) -> State:
    """Return the state of a file, which reveals most changes."""
    return status.st_size, status.st_mtime_ns


class RealNames:
    """Returns paths with the links of their folders resolved, once per folder."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}

    def __call__(self, path: str) -> str:
        """Return the real name of a path; a link in its last part is kept."""
        folder, name = os.path.split(path)
        if folder not in self._folders:
            self._folders[folder] = folder if "\0" in folder else os.path.realpath(folder)
        return os.path.join(self._folders[folder], name)


def identify(paths: Iterable[str]) -> Identities:
    """Return a number for each recording that changes with its path, size and modification time.

    A packed recording has the size and time of its shard, and a path that contains its position there.

    Raises:
        DataError: If a file does not exist.
    """
    wanted = [os.path.abspath(path) for path in paths]
    files = [file_of(path) for path in wanted]
    unique = list(dict.fromkeys(files))
    with ThreadPoolExecutor(THREADS) as pool:
        states = dict(zip(unique, pool.map(_state, unique), strict=True))
    keys = [stable_key("recording", path, *states[file]) for path, file in zip(wanted, files, strict=True)]
    return np.array(keys, dtype=np.int64)


def _state(path: str) -> State:
    try:
        return state_of(os.stat(path))
    except OSError as error:
        raise DataError(f"{path} cannot be inspected: {error.strerror}") from error
