"""A lock on a folder, so that two simultaneous commands do not write into each other's files."""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TextIO

from utils.errors import UserError

LOCK = ".lock"
HELD_BY_ANOTHER = (BlockingIOError, PermissionError)
"""Errors of `lockf` for a lock that another process holds."""
SECONDS_BETWEEN_ATTEMPTS = 0.1


class FolderInUseError(UserError):
    """A folder in which another process works, or nothing can be written; the message says which."""


@contextmanager
def locked(folder: Path, otherwise: str, name: str = LOCK, patience: float = 0.0) -> Iterator[None]:
    """Keep other commands out of a folder within the context; the folder is made if it is missing.

    The kernel releases the lock of a process that dies. Its decoding processes, which may outlive it by seconds, do
    not hold it: a POSIX record lock belongs to one process alone.

    Args:
        folder: The folder.
        otherwise: Remedy for the error message, such as `give another folder with --output`.
        name: Name of the lock's file; locks of different names do not exclude each other.
        patience: Seconds to wait for another command.

    Raises:
        FolderInUseError: If another command works in the folder, or it cannot be written to.
    """
    path = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _opened(path)
    except OSError as error:
        if path.is_symlink():
            raise FolderInUseError(f"{path} is a symbolic link, which cannot be a lock; remove it") from error
        raise FolderInUseError(_explain_unwritable(folder, error, otherwise)) from error
    with file:
        try:
            _acquire(file, patience)
        except OSError as error:
            raise FolderInUseError(_explain(folder, path, error, otherwise)) from error
        file.truncate(0)
        started = datetime.now().astimezone().isoformat(timespec="seconds")
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {started}\n")
        file.flush()
        yield


def find_obstacle(folder: Path, otherwise: str) -> str | None:
    """Return what would keep `locked` from locking or making the folder, None if nothing does; the folder is not made.

    Args:
        folder: The folder.
        otherwise: See `locked`.
    """
    try:
        if os.path.lexists(folder / LOCK):
            with locked(folder, otherwise):
                pass
        place = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
        with tempfile.TemporaryFile(dir=place):
            return None
    except FolderInUseError as error:
        return str(error)
    except OSError as error:
        return _explain_unwritable(folder, error, otherwise)


def _opened(path: Path) -> TextIO:
    """Open a lock's file; a symbolic link is not followed."""
    return open(path, "a+", encoding="utf-8", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o666))


def _acquire(file: TextIO, patience: float) -> None:
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if not isinstance(error, HELD_BY_ANOTHER) or time.monotonic() >= deadline:
                raise
        time.sleep(SECONDS_BETWEEN_ATTEMPTS)


def _explain_unwritable(folder: Path, error: OSError, otherwise: str) -> str:
    if isinstance(error, (FileExistsError, NotADirectoryError)):
        return f"{folder} is a file or lies below one, where a folder is needed; {otherwise}"
    return f"{folder} cannot be written to ({error.strerror}); {otherwise}, or give the permission"


def _explain(folder: Path, path: Path, error: OSError, otherwise: str) -> str:
    if isinstance(error, HELD_BY_ANOTHER):
        # Reading through another descriptor would release a lock held by this process; it holds none.
        holder = path.read_text(encoding="utf-8").strip() or "another process"
        return f"{folder} is in use by {holder}; wait until it ends, or {otherwise}"
    return f"{folder} cannot be locked ({error.strerror}), which some file systems do not support; {otherwise}"
