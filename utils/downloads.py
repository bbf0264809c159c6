"""Downloads that go on where they were cut, in the same call or days later.

The hub client of 1.33 begins a file anew in each call, to be safe from others that write to the same place; into
`models/` one program writes at a time.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import httpx

LONGEST_SILENCE = 15.0
"""Seconds to wait for a server's next bytes."""
PAUSES = (1.0, 4.0)
"""Seconds before a server that gave nothing is asked again."""
UNFINISHED = ".unfinished"
PARTIAL_CONTENT, TOO_MANY_REQUESTS, SERVER_ERROR = 206, 429, 500
Advance = Callable[[int], None]
Progress = Callable[[str, int, int], AbstractContextManager[Advance]]
"""From a file's name, its bytes and those of them that are there to what counts further ones."""


@contextmanager
def no_progress(name: str, size: int, done: int) -> Iterator[Advance]:
    """Show nothing."""
    yield lambda number: None


@dataclass(frozen=True)
class RemoteFile:
    """A file on a server.

    Attributes:
        name: Under which it is kept.
        url: Where it is.
        size: In bytes.
        version: Of its content, which changes with it: what is there of another version is not taken up.
    """

    name: str
    url: str
    size: int
    version: str


def download(
    client: httpx.Client, file: RemoteFile, folder: Path, headers: dict[str, str], progress: Progress = no_progress
) -> None:
    """Download a file into a folder, where it appears whole; what an earlier call left of it is kept.

    Args:
        client: Which asks.
        file: What is asked for.
        folder: Where to.
        headers: Of the request, such as a token's; httpx does not pass that on to another host.
        progress: Shows how far it is.

    Raises:
        httpx.HTTPError: Where the server cannot be reached, refuses, or gives nothing again and again.
        OSError: Where it cannot be written.
    """
    path = folder / file.name
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{file.version}{UNFINISHED}")
    with unfinished.open("ab") as target:
        if target.tell() > file.size:
            target.truncate(0)
        with progress(file.name, file.size, target.tell()) as advance:
            _complete(client, file, headers, target, advance)
        target.flush()
        os.fsync(target.fileno())
    os.replace(unfinished, path)


def _complete(
    client: httpx.Client, file: RemoteFile, headers: dict[str, str], target: IO[bytes], advance: Advance
) -> None:
    """Ask for what is missing until nothing is; a server may give nothing three times on end."""
    import httpx

    pauses = list(PAUSES)
    while (done := target.tell()) < file.size:
        try:
            _append(client, file, headers, target, advance)
            problem: httpx.HTTPError = httpx.RemoteProtocolError(f"{file.url} ends before its {file.size:,} bytes")
        except httpx.TransportError as error:
            problem = error
        except httpx.HTTPStatusError as error:
            if not may_pass(error.response.status_code):
                raise
            problem = error
        if target.tell() > done:
            pauses = list(PAUSES)
        elif target.tell() < file.size:
            if not pauses:
                raise problem
            time.sleep(pauses.pop(0))
    if target.tell() > file.size:
        target.truncate(0)
        raise httpx.RemoteProtocolError(f"{file.url} has more than its {file.size:,} bytes")


def _append(
    client: httpx.Client, file: RemoteFile, headers: dict[str, str], target: IO[bytes], advance: Advance
) -> None:
    """Ask once for what is missing, and write what comes of it."""
    done = target.tell()
    asked = {**headers, "Range": f"bytes={done}-", "Accept-Encoding": "identity"}
    with client.stream("GET", file.url, headers=asked, timeout=LONGEST_SILENCE, follow_redirects=True) as answer:
        answer.raise_for_status()
        if answer.status_code != PARTIAL_CONTENT:
            target.truncate(0)
            target.seek(0)
            advance(-done)
        for chunk in answer.iter_raw():
            target.write(chunk)
            advance(len(chunk))


def may_pass(status: int) -> bool:
    """Return whether a server may answer otherwise a moment later."""
    return status >= SERVER_ERROR or status == TOO_MANY_REQUESTS


def check_room(folder: Path, wanted_bytes: int) -> None:
    """Refuse to begin what does not fit on the disk.

    Raises:
        OSError: Says what is missing.
    """
    free = shutil.disk_usage(folder).free
    if free < wanted_bytes:
        raise OSError(f"{wanted_bytes / 1e9:.2f} GB are needed, and {free / 1e9:.2f} are free on the disk of {folder}")
