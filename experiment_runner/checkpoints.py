"""Checkpoints: folders that appear whole or not at all, with a manifest of hashes."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from utils.files import write_whole

WEIGHTS = "model.safetensors"
MANIFEST = "manifest.json"


class CheckpointError(Exception):
    """A checkpoint is missing or damaged; the text names it and the remedy."""


def write_json(path: Path, document: object) -> None:
    """Write a JSON file that appears whole or not at all; numbers that are not finite become null."""
    write_whole(path, json.dumps(_without_nan(document), indent=2, allow_nan=False) + "\n")


def _without_nan(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return value


class CheckpointStore:
    """The checkpoints of one run: `epoch-E-step-S/` folders, and links to the ones that matter.

    Args:
        folder: `checkpoints/` of the run; made at the first save.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(
        self, epoch: int, step: int, weights: Mapping[str, Tensor], documents: Mapping[str, object], link: str
    ) -> Path:
        """Write a checkpoint, point `link` at it, and remove those that no link points at.

        Args:
            epoch: Counted from 1.
            step: Optimiser steps so far.
            weights: The model's state dict.
            documents: JSON documents by file name.
            link: `best` or `last`.
        """
        target = self.folder / f"epoch-{epoch}-step-{step}"
        partial = target.with_name(target.name + ".tmp")
        for leftover in (partial, target):
            shutil.rmtree(leftover, ignore_errors=True)
        partial.mkdir(parents=True)
        save_file({key: tensor.detach().cpu().contiguous() for key, tensor in weights.items()}, partial / WEIGHTS)
        _flush(partial / WEIGHTS)
        for name, document in documents.items():
            write_json(partial / name, document)
        write_json(partial / MANIFEST, {path.name: _fingerprint(path) for path in sorted(partial.iterdir())})
        _flush(partial)
        partial.rename(target)
        self._point(link, target)
        self._remove_unlinked()
        return target

    def find(self, link: str) -> Path:
        """Return the folder that a link points at.

        Raises:
            CheckpointError: Where there is none.
        """
        path = self.folder / link
        if not (path / MANIFEST).is_file():
            raise CheckpointError(f"there is no checkpoint at {path}; train again with --retrain")
        return path.resolve()

    def _point(self, link: str, target: Path) -> None:
        partial = self.folder / f"{link}.tmp"
        partial.unlink(missing_ok=True)
        partial.symlink_to(target.name)
        os.replace(partial, self.folder / link)
        _flush(self.folder)

    def _remove_unlinked(self) -> None:
        linked = {path.resolve() for path in self.folder.iterdir() if path.is_symlink()}
        for path in self.folder.iterdir():
            if path.is_dir() and not path.is_symlink() and path not in linked and path.resolve() not in linked:
                shutil.rmtree(path)


def read_checkpoint(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return a checkpoint's `config.json` and its weights, after checking every file against the manifest.

    Raises:
        CheckpointError: Where a file is missing or damaged.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        for name, fingerprint in manifest.items():
            if _fingerprint(folder / name) != fingerprint:
                raise CheckpointError(f"{folder / name} differs from its manifest; train again with --retrain")
        return json.loads((folder / "config.json").read_text(encoding="utf-8")), load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"the checkpoint {folder} cannot be read: {error}; train again with --retrain") from error


def _fingerprint(path: Path) -> dict[str, object]:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def _flush(path: Path) -> None:
    """Make a file or folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
