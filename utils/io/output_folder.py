"""The folder for results."""

from __future__ import annotations

import tempfile
from pathlib import Path

from utils.errors import DataError


def try_folder(folder: Path) -> Path:
    """Test that a folder is writable before hours are spent on its contents, and return it; make it if missing.

    Raises:
        DataError: If it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise DataError(f"nothing can be written into {folder} ({error.strerror}); name another folder") from error
