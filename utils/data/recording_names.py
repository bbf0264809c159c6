"""Which files are recordings, by their names."""

from __future__ import annotations

import os
from pathlib import Path

SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif")
OTHER_SYSTEMS = "._"
"""Begins the names of what macOS leaves beside files on foreign disks."""


def is_recording(name: str) -> bool:
    """Return whether a file of this name is a recording."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(OTHER_SYSTEMS)


def recordings_below(folder: Path) -> list[str]:
    """Return the recordings below a folder, sorted."""
    walk = os.walk(folder)
    return sorted(os.path.join(place, name) for place, _, names in walk for name in names if is_recording(name))


def as_utf8(name: str) -> str:
    r"""Return a file's name as text that every encoding has; bytes that are no UTF-8 become `\x…`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
