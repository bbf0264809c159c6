"""Tampered checkpoints."""

from __future__ import annotations

from pathlib import Path

from utils.hub.model_files import MANIFEST
from utils.io.files import fingerprint, write_json


def resign(folder: Path) -> None:
    """Let a manifest tell what is there, as a stranger would."""
    files = [path for path in folder.iterdir() if path.is_file() and path.name != MANIFEST]
    write_json(folder / MANIFEST, {path.name: fingerprint(path) for path in files})
