"""Where a recording lies: in a file of its own, or in a part of a shard."""

from __future__ import annotations

import io
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import soundfile

PART = re.compile(r"(?s)(.+)#(\d+)\+(\d+)\.([0-9a-f]{8})")
"""What stands in the utterance table's `path` for a packed recording: shard, offset, bytes and their CRC-32."""
Source = int | io.BytesIO
"""What libsndfile reads: the descriptor of a file, or a part's content."""


def name_part(shard: object, offset: int, length: int, crc32: int) -> str:
    """Return the path of a packed recording."""
    return f"{shard}#{offset}+{length}.{crc32:08x}"


def file_of(path: str) -> str:
    """Return the file that a recording lies in."""
    part = PART.fullmatch(path)
    return path if part is None or os.path.exists(path) else part[1]


@contextmanager
def opened(path: str) -> Iterator[tuple[int, Source]]:
    """Open a recording; yield the descriptor of its file, and what libsndfile reads.

    By a path it would take some names for raw samples.

    Raises:
        OSError: Where the file cannot be read, or a part of a shard is not what was packed.
    """
    shard = file_of(path)
    with open(shard, "rb", buffering=0) as file:
        yield file.fileno(), file.fileno() if shard == path else _read_part(path, file.fileno())


def _read_part(path: str, descriptor: int) -> io.BytesIO:
    part = PART.fullmatch(path)
    assert part is not None
    shard, offset, length, crc32 = part[1], int(part[2]), int(part[3]), int(part[4], 16)
    content = b""
    while len(content) < length and (more := os.pread(descriptor, length - len(content), offset + len(content))):
        content += more
    if len(content) < length or zlib.crc32(content) != crc32:
        raise OSError(f"{shard} is damaged at {offset:,}; copy it again, or pack the corpus again")
    return io.BytesIO(content)


@contextmanager
def sound_of(path: str) -> Iterator[soundfile.SoundFile]:
    """Open a recording for decoding.

    Raises:
        OSError: See `opened`.
        soundfile.SoundFileError: Where it is no recording.
    """
    with opened(path) as (_, source), soundfile.SoundFile(source, closefd=False) as file:
        yield file
