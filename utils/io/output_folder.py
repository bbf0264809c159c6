"""The folder that results are to be written into."""

from __future__ import annotations

import tempfile
from pathlib import Path

from utils.errors import DataError


def try_folder(folder: Path) -> Path:
    """Write into a folder before hours are spent on what it is for, and return it; it is made where it is not there.

    Raises:
        DataError: Where that cannot be done.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise DataError(f"nothing can be written into {folder} ({error.strerror}); name another folder") from error
