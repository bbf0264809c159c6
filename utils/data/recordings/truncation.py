"""Detection of recordings shorter than their container states: libsndfile reads what is there without an error."""

from __future__ import annotations

import os
from typing import Literal

STREAMED = (0, 0x7FFFF000, 0xFFFFFFFF)
"""Sizes written by programs with output to a pipe (SoX, ffmpeg), where the real size is unknown."""
WAVES: dict[bytes, Literal["little", "big"]] = {b"RIFF": "little", b"RF64": "little", b"RIFX": "big"}
MOST_CHUNKS = 1000
WAVE64 = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
"""Sony's identifier, followed by the size of the file."""
SUN: dict[bytes, Literal["little", "big"]] = {b".snd": "big", b"dns.": "little"}
OGG_HEADER_BYTES, LONGEST_OGG_PAGE = 27, 65_307
LAST_PAGE = 4


def is_cut_off(descriptor: int, size: int) -> bool:
    """Return whether a WAV, Wave64, AIFF, CAF, AU or Ogg file ends too early; other formats are checked by decoding.

    Args:
        descriptor: Descriptor of the open file; its position is unchanged.
        size: Size of the file in bytes.
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
    """Return whether a container's stated size exceeds the file's; the last padding byte may be missing."""
    return stated not in STREAMED and size < stated + 8 - stated % 2


def _is_wave_cut_off(descriptor: int, size: int, start: bytes) -> bool:
    """Walk the chunks to `data`; no later chunk contains samples."""
    order, place, long_size = WAVES[start[:4]], 12, 0
    for _ in range(MOST_CHUNKS):
        chunk = os.pread(descriptor, 24, place)
        stated = int.from_bytes(chunk[4:8], order)
        if len(chunk) < 8:
            return _is_beyond(int.from_bytes(start[4:8], order), size)
        if chunk[:4] == b"ds64":  # EBU Tech 3306: sizes above 4 GB, the second is that of `data`
            long_size = int.from_bytes(chunk[16:24], order)
        if chunk[:4] == b"data":
            if stated == 0xFFFFFFFF:
                stated = long_size
            return stated not in STREAMED and size < place + 8 + stated
        place += 8 + stated + stated % 2
    return False


def _is_core_audio_cut_off(descriptor: int, size: int) -> bool:
    """Walk the chunks to `data`; its size is -1 if it was written to a pipe."""
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
    """Look for a complete page with the end-of-stream flag (RFC 3533) at the end of an Ogg file."""
    tail = os.pread(descriptor, LONGEST_OGG_PAGE, max(0, size - LONGEST_OGG_PAGE))
    page = tail[max(0, tail.rfind(b"OggS")) :]
    if page[:4] != b"OggS" or len(page) < OGG_HEADER_BYTES:
        return False
    segments = page[OGG_HEADER_BYTES : OGG_HEADER_BYTES + page[26]]
    is_whole = len(segments) == page[26] and len(page) >= OGG_HEADER_BYTES + len(segments) + sum(segments)
    return is_whole and bool(page[5] & LAST_PAGE)
