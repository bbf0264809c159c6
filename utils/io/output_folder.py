"""Folders that must be writable."""

from __future__ import annotations

import tempfile
from pathlib import Path

from utils.errors import DataError


def find_writing_problem(folder: Path, mode: int = 0o777) -> str | None:
    """Make a folder if it is missing; return why nothing can be written into it, None if something can."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=mode)
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return str(error.strerror)


def try_folder(folder: Path) -> Path:
    """Test that a folder is writable before hours are spent on its contents, and return it; make it if missing.

    Raises:
        DataError: If it cannot be made or written to.
    """
    problem = find_writing_problem(folder)
    if problem is not None:
        raise DataError(f"nothing can be written into {folder} ({problem}); name another folder")
    return folder
