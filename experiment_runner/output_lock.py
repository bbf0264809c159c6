"""A lock on an output folder, so that two commands at once do not write into each other's runs."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from utils.files import open_in_place

LOCK = ".lock"


class OutputInUseError(Exception):
    """Another process works in the folder, or nothing can be written there; the text says which."""


@contextmanager
def locked(output: Path) -> Iterator[None]:
    """Keep other commands out of an output folder, which is made where it is missing, while the context lasts.

    The kernel lets go of the lock of a process that dies. Its decoding processes, which may outlive it by seconds, do
    not hold it: a POSIX record lock belongs to one process alone.

    Raises:
        OutputInUseError: Where another command works in it, or where it cannot be written to.
    """
    path = output / LOCK
    try:
        output.mkdir(parents=True, exist_ok=True)
        file = open_in_place(path, "a+")
    except OSError as error:
        if path.is_symlink():
            raise OutputInUseError(f"{path} is a symbolic link, which no lock is; remove it") from error
        raise OutputInUseError(
            f"{output} cannot be written to ({error.strerror}); give another folder with --output, or the permission"
        ) from error
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OutputInUseError(_explain(output, path, error)) from error
        file.truncate(0)
        started = datetime.now().astimezone().isoformat(timespec="seconds")
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {started}\n")
        file.flush()
        yield


def _explain(output: Path, path: Path, error: OSError) -> str:
    if isinstance(error, (BlockingIOError, PermissionError)):
        # Reading by another descriptor would let go of a lock that this process had; it has none.
        holder = path.read_text(encoding="utf-8").strip() or "another process"
        return f"{output} is in use by {holder}; wait until it ends, or give another folder with --output"
    return f"{output} cannot be locked ({error.strerror}); give a folder on another file system with --output"
