"""Where files are cached between runs."""

from __future__ import annotations

import os
from pathlib import Path

UNUSABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError)
"""Errors of an unusable kept table or cache folder (a missing home folder is a RuntimeError)."""


def cache_folder(kind: str = "tables") -> Path:
    """Return the cache folder of one kind of file: below `$XDG_CACHE_HOME`, else below `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "200ai" / kind
