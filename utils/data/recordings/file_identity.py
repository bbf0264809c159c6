"""Identity of a recording's state on the disk, without opening it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from utils.data.recordings.audio_source import file_of
from utils.data.recordings.survey import THREADS
from utils.errors import DataError
from utils.seeding import stable_key

Identities = npt.NDArray[np.int64]
"""One number per recording, (recordings,)."""


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


def _state(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError as error:
        raise DataError(f"{path} cannot be looked at: {error.strerror}") from error
    return status.st_size, status.st_mtime_ns
