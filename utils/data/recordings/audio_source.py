"""Location of a recording: a file of its own, or a part of a shard."""

from __future__ import annotations

import io
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import soundfile

PART = re.compile(r"(?s)(.+)#(\d+)\+(\d+)\.([0-9a-f]{8})")
"""Form of the utterance table's `path` for a packed recording: shard, offset, length in bytes, and CRC-32."""
Source = int | io.BytesIO
"""Input of libsndfile: the descriptor of a file, or the content of a part."""


def name_part(shard: object, offset: int, length: int, crc32: int) -> str:
    """Return the path of a packed recording."""
    return f"{shard}#{offset}+{length}.{crc32:08x}"


def file_of(path: str) -> str:
    """Return the file that contains a recording."""
    part = PART.fullmatch(path)
    return path if part is None or os.path.exists(path) else part[1]


@contextmanager
def opened(path: str) -> Iterator[tuple[int, Source]]:
    """Open a recording; yield the descriptor of its file, and the input for libsndfile.

    Given a path instead, libsndfile would treat files with some names as raw samples.

    Raises:
        OSError: If the file cannot be read, or a part of a shard is not as it was packed.
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
        soundfile.SoundFileError: If it is not a recording.
    """
    with opened(path) as (_, source), soundfile.SoundFile(source, closefd=False) as file:
        yield file
