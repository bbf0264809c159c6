"""Recordings that end before their container says: libsndfile reads what is there of them and says nothing."""

from __future__ import annotations

import os
from typing import Literal

STREAMED = (0, 0x7FFFF000, 0xFFFFFFFF)
"""What programs that write into a pipe (SoX, ffmpeg) put where they do not know a size."""
WAVES: dict[bytes, Literal["little", "big"]] = {b"RIFF": "little", b"RF64": "little", b"RIFX": "big"}
MOST_CHUNKS = 1000
WAVE64 = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
"""Sony's identifier; the size that follows it is that of the file."""
SUN: dict[bytes, Literal["little", "big"]] = {b".snd": "big", b"dns.": "little"}
OGG_HEADER_BYTES, LONGEST_OGG_PAGE = 27, 65_307
LAST_PAGE = 4


def is_cut_off(descriptor: int, size: int) -> bool:
    """Say whether a WAV, Wave64, AIFF, CAF, AU or Ogg file ends too early; the others are judged by decoding.

    Args:
        descriptor: Of the open file; its position stays where it is.
        size: Of the file in bytes.
    """
    start = os.pread(descriptor, 24, 0)
    if start[:4] in WAVES and start[8:12] == b"WAVE":
        return _is_wave_cut_off(descriptor, size, start)
    if start[:4] == b"FORM" and start[8:12] in (b"AIFF", b"AIFC"):
        return _is_beyond(int.from_bytes(start[4:8], "big"), size)
    if start[:4] == b"caff":
        return _is_core_audio_cut_off(descriptor, size)
    if start[:16] == WAVE64:
        return size < int.from_bytes(start[16:24], "little")
    if start[:4] in SUN:
        first, length = (int.from_bytes(start[place : place + 4], SUN[start[:4]]) for place in (4, 8))
        return length not in STREAMED and size < first + length
    return start[:4] == b"OggS" and not _has_last_page(descriptor, size)


def _is_beyond(stated: int, size: int) -> bool:
    """Compare the size that a whole container states with its own; the last byte of padding may be left out."""
    return stated not in STREAMED and size < stated + 8 - stated % 2


def _is_wave_cut_off(descriptor: int, size: int, start: bytes) -> bool:
    """Walk the chunks to `data`; what stands after it holds no sample."""
    order, place, long_size = WAVES[start[:4]], 12, 0
    for _ in range(MOST_CHUNKS):
        chunk = os.pread(descriptor, 24, place)
        stated = int.from_bytes(chunk[4:8], order)
        if len(chunk) < 8:
            return _is_beyond(int.from_bytes(start[4:8], order), size)
        if chunk[:4] == b"ds64":  # EBU Tech 3306: sizes of more than 4 GB, the second is that of `data`
            long_size = int.from_bytes(chunk[16:24], order)
        if chunk[:4] == b"data":
            if stated == 0xFFFFFFFF:
                stated = long_size
            return stated not in STREAMED and size < place + 8 + stated
        place += 8 + stated + stated % 2
    return False


def _is_core_audio_cut_off(descriptor: int, size: int) -> bool:
    """Walk the chunks to `data`; its size is -1 where it was written into a pipe."""
    place = 8
    for _ in range(MOST_CHUNKS):
        chunk = os.pread(descriptor, 12, place)
        if len(chunk) < 12:
            return True
        stated = int.from_bytes(chunk[4:12], "big", signed=True)
        if chunk[:4] == b"data" or stated < 0:
            return stated >= 0 and size < place + 12 + stated
        place += 12 + stated
    return False


def _has_last_page(descriptor: int, size: int) -> bool:
    """Look for a whole page with the mark of a stream's end (RFC 3533) at the end of an Ogg file."""
    tail = os.pread(descriptor, LONGEST_OGG_PAGE, max(0, size - LONGEST_OGG_PAGE))
    page = tail[max(0, tail.rfind(b"OggS")) :]
    if page[:4] != b"OggS" or len(page) < OGG_HEADER_BYTES:
        return False
    segments = page[OGG_HEADER_BYTES : OGG_HEADER_BYTES + page[26]]
    is_whole = len(segments) == page[26] and len(page) >= OGG_HEADER_BYTES + len(segments) + sum(segments)
    return is_whole and bool(page[5] & LAST_PAGE)
