"""Where files are cached between runs."""

from __future__ import annotations

import os
from pathlib import Path

UNUSABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError)
"""What can be wrong with a kept table, or with the place for it (no home folder is a RuntimeError)."""


def cache_folder(kind: str = "tables") -> Path:
    """Return where a kind of thing is kept: below `$XDG_CACHE_HOME`, else below `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "200ai" / kind
