"""A copy of the program's sources."""

from __future__ import annotations

import shutil
from pathlib import Path

from utils.io.syntax_hash import PACKAGES, PROGRAM


def copy_program(folder: Path) -> Path:
    for name in PACKAGES:
        shutil.copytree(PROGRAM / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder
