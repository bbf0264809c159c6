"""Checkpoints: folders that are written completely or not at all, with manifests of hashes.

`checkpoints/epoch-E-step-S/` holds a model with its documents, and in `state/` the state to resume training from. A
save takes effect at one moment, when its folder is renamed; the links `best` and `last` are set afterwards, and are
repaired from the newest folder's state if a process died in between. Older folders are removed after that: those kept
for resuming stay complete, the best one loses its `state/`, and all others are deleted.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from utils.errors import WRONG_INPUT, UserError
from utils.hub.model_files import CONFIG, MANIFEST, MODEL_FILES, WEIGHTS
from utils.io.files import atomic_write, find_changed, fingerprints, flush, read_json, write_json

if TYPE_CHECKING:  # code that only inspects checkpoints, as --check does, needs no torch
    from torch import Tensor

STATE = "state"
STATE_TENSORS = "state.safetensors"
STATE_DOCUMENT = "state.json"
FORMAT = 1
"""Format of training states; a state in another format cannot be resumed."""
UNEVALUATED = "-unevaluated"
"""Suffix of a folder that was saved between an epoch's last step and its evaluation."""
NAME = re.compile(rf"epoch-(\d+)-step-(\d+)({UNEVALUATED})?")
LINKS = ("best", "last", "best.link", "last.link")
"""The links beside such folders, and what `_point` leaves if a process dies in it."""
TEMPORARY, REMOVED = ".tmp", ".removed"
AFRESH = "; train again with --retrain"
ON_FROM_LAST = "; once that is repaired, the same command resumes from the last checkpoint"
SPARE_BYTES = 16 << 20
"""Disk space that must stay free in addition to what a save needs."""


class CheckpointError(UserError):
    """A checkpoint is missing, damaged or cannot be written; the message names it and the remedy."""

    exit_status = WRONG_INPUT


@dataclass(frozen=True)
class TrainingState:
    """The state from which training resumes, apart from the model's weights.

    Attributes:
        tensors: Tensors by name.
        document: JSON; `best` is the name of the best checkpoint's folder, or None.
    """

    tensors: Mapping[str, Tensor]
    document: Mapping[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """The content of one checkpoint.

    Attributes:
        epoch: Counted from 1.
        step: Optimiser steps so far.
        weights: The model's state dict.
        documents: JSON documents by file name.
        state: State to resume training from; the store adds `format` and `best`.
        is_best: Whether it is the best so far.
        is_evaluated: Whether all steps so far have been evaluated or belong to an epoch still in progress.
        texts: Other files by name.
    """

    epoch: int
    step: int
    weights: Mapping[str, Tensor]
    documents: Mapping[str, object]
    state: TrainingState
    is_best: bool
    is_evaluated: bool = True
    texts: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"epoch-{self.epoch}-step-{self.step}{'' if self.is_evaluated else UNEVALUATED}"

    @property
    def size(self) -> int:
        """Bytes of its tensors."""
        tensors = [*self.weights.values(), *self.state.tensors.values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        folder: `checkpoints/` of the run; created at the first save.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, checkpoint: Checkpoint, keep: int = 1) -> Path:
        """Write a checkpoint, point `last` (and `best` if it is the best) at it, and remove older ones.

        Args:
            checkpoint: Checkpoint to save; its name must be new.
            keep: Number of checkpoints that keep their training state, including this one.

        Raises:
            CheckpointError: If it cannot be written; existing checkpoints stay.
        """
        target = self.folder / checkpoint.name
        best = checkpoint.name if checkpoint.is_best else self._best_before()
        document = {"format": FORMAT, "best": best, **checkpoint.state.document}
        with _writing(target, ON_FROM_LAST):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._check_room(checkpoint)
            partial = target.with_name(target.name + TEMPORARY)
            shutil.rmtree(partial, ignore_errors=True)
            try:
                _write(partial / STATE, STATE_TENSORS, checkpoint.state.tensors, {STATE_DOCUMENT: document}, {})
                _write(partial, WEIGHTS, checkpoint.weights, checkpoint.documents, checkpoint.texts)
                partial.rename(target)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
            flush(self.folder)
            self._tidy(target, best, keep)
        return target

    @property
    def has_any(self) -> bool:
        """Whether there are checkpoints to resume from, provided that they are undamaged."""
        return bool(self._resumable())

    def find(self, link: str) -> Path:
        """Return the folder that a link points at.

        Raises:
            CheckpointError: If there is none.
        """
        path = self.folder / link
        if not (path / MANIFEST).is_file():
            raise CheckpointError(f"there is no checkpoint at {path}{AFRESH}")
        return path.resolve()

    def newest(self) -> tuple[Path | None, list[str]]:
        """Return the newest usable checkpoint to resume from, and the problems of newer ones.

        Every file of it, and of the best one, is checked.

        Raises:
            CheckpointError: If there are checkpoints but none is usable.
        """
        problems: list[str] = []
        candidates = self._resumable()
        for path in candidates:
            try:
                best = read_state_document(path)["best"]
                for used in (path, self.folder / (best or path.name)):
                    _check(used)
            except CheckpointError as error:
                problems.append(str(error))
                continue
            return path, problems
        if candidates:
            raise CheckpointError(problems[0])
        return None, problems

    def resume_from(self, path: Path, keep: int) -> None:
        """Set the links back to when a checkpoint was saved, and remove everything newer."""
        best = read_state_document(path)["best"]
        for other in self._folders():
            if _order(other) > _order(path):
                _remove(other)
        self._tidy(path, best, keep)

    def finish(self) -> None:
        """Once training has ended, remove its training states and the leftovers of processes that died."""
        for path in self._resumable():
            _remove(path / STATE)
        self._clear()

    def _folders(self) -> list[Path]:
        found = self.folder.iterdir() if self.folder.is_dir() else iter(())
        return [path for path in found if not path.is_symlink() and NAME.fullmatch(path.name)]

    def _resumable(self) -> list[Path]:
        """Return the folders that have a training state, newest first."""
        return sorted((path for path in self._folders() if (path / STATE).is_dir()), key=_order, reverse=True)

    def _best_before(self) -> str | None:
        link = self.folder / "best"
        return os.readlink(link) if link.is_symlink() else None

    def _check_room(self, checkpoint: Checkpoint) -> None:
        needed, free = checkpoint.size + SPARE_BYTES, shutil.disk_usage(self.folder).free
        if needed > free:
            raise CheckpointError(
                f"{self.folder}: a checkpoint needs {_gib(needed)}, {_gib(free)} are free; make room, and the same "
                "command resumes from the last checkpoint"
            )

    def _tidy(self, last: Path, best: str | None, keep: int) -> None:
        """Set the links and remove leftovers and older folders."""
        self._point("last", last.name)
        if best is not None:
            self._point("best", best)
        flush(self.folder)
        kept = {path.name for path in self._resumable()[:keep]}
        for path in self._folders():
            if path.name not in kept and path.name != best:
                _remove(path)
            elif path.name not in kept and (path / STATE).is_dir():
                _remove(path / STATE)
        self._clear()

    def _clear(self) -> None:
        """Remove the leftovers of processes that died while saving."""
        found = self.folder.iterdir() if self.folder.is_dir() else iter(())
        leftovers = [path for path in found if path.suffix in (TEMPORARY, REMOVED)]
        for leftover in (*leftovers, *(path / (STATE + REMOVED) for path in self._folders())):
            shutil.rmtree(leftover, ignore_errors=True)

    def _point(self, link: str, name: str) -> None:
        partial = self.folder / f"{link}.link"
        partial.unlink(missing_ok=True)
        partial.symlink_to(name)
        os.replace(partial, self.folder / link)


def write_model(folder: Path, weights: Mapping[str, Tensor], documents: Mapping[str, object]) -> None:
    """Write a model, readable by `read_checkpoint`, into a folder, replacing any model there.

    The old model stays until the new one is on the disk; a half-replaced model is read as damaged.

    Raises:
        CheckpointError: If it cannot be written.
    """
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".saving-", dir=folder) as name:
            written = Path(name)
            _write(written, WEIGHTS, weights, documents, {})
            for file in (*(file for file in MODEL_FILES if file != MANIFEST), MANIFEST):
                if (written / file).is_file():
                    os.replace(written / file, folder / file)
                else:
                    (folder / file).unlink(missing_ok=True)
        flush(folder)


def read_checkpoint(folder: Path, linked: Path | None = None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return a checkpoint's `config.json` and its weights, after checking every file against the manifest.

    Args:
        folder: The checkpoint.
        linked: Folder into which links may lead, as in the hub client's cache; None to allow no links.

    Raises:
        CheckpointError: If a file is missing or damaged.
    """
    from safetensors.torch import load_file

    _check(folder, linked)
    with _read(folder):
        return read_json(folder / CONFIG), load_file(folder / WEIGHTS)


def read_state(folder: Path) -> TrainingState:
    """Return the state to resume from, after checking its files.

    Raises:
        CheckpointError: If a file is missing or damaged, or was written by another version of the program.
    """
    from safetensors.torch import load_file

    document = read_state_document(folder)
    with _read(folder):
        return TrainingState(load_file(folder / STATE / STATE_TENSORS), document)


def read_state_document(folder: Path) -> dict[str, Any]:
    """Return the state to resume from without its tensors, after checking its files.

    Raises:
        CheckpointError: As `read_state`.
    """
    _check(folder / STATE)
    with _read(folder):
        document: dict[str, Any] = read_json(folder / STATE / STATE_DOCUMENT)
        if document["format"] != FORMAT:
            raise CheckpointError(
                f"{folder} was saved by another version of the program, in format {document['format']} instead of "
                f"{FORMAT}; resume with that version, or train again with --retrain"
            )
        if document["best"] is not None and not NAME.fullmatch(document["best"]):
            raise CheckpointError(f"{folder / STATE / STATE_DOCUMENT} does not name the best checkpoint{AFRESH}")
        return document


def _check(folder: Path, linked: Path | None = None) -> None:
    """Compare a folder's files with its manifest, which must name at least the files that are read."""
    with _read(folder):
        manifest = read_json(folder / MANIFEST)
        needed = {STATE_TENSORS, STATE_DOCUMENT} if folder.name == STATE else {WEIGHTS, CONFIG}
        unnamed = ", ".join(sorted(needed - set(manifest)))
        if unnamed:
            raise CheckpointError(f"{folder / MANIFEST} does not name {unnamed}{AFRESH}")
        for name in manifest:
            if Path(name).name != name or not _is_own(folder / name, linked):
                raise CheckpointError(f"{folder / MANIFEST} names {name}, which is not a file of its folder{AFRESH}")
        changed = find_changed(folder, manifest)
        if changed is not None:
            raise CheckpointError(f"{folder / changed} differs from its manifest{AFRESH}")


def _is_own(path: Path, linked: Path | None) -> bool:
    """Return whether a path is a file, or leads to a file directly in the folder `linked`."""
    return stat.S_ISREG(os.lstat(path).st_mode) or path.resolve().parent == linked


@contextmanager
def _read(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise CheckpointError(f"the checkpoint {folder} cannot be read: {error}{AFRESH}") from error


@contextmanager
def _writing(target: Path, remedy: str = "") -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{target} cannot be written ({reason}){remedy}") from error


def _write(
    folder: Path, name: str, tensors: Mapping[str, Tensor], documents: Mapping[str, object], texts: Mapping[str, str]
) -> None:
    """Write a folder's files and a manifest of them, and wait until they are on the disk."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, folder / name)
    flush(folder / name)
    for file, document in documents.items():
        write_json(folder / file, document)
    for file, text in texts.items():
        atomic_write(folder / file, text)
    write_json(folder / MANIFEST, fingerprints(folder))
    flush(folder)


def _order(path: Path) -> tuple[int, int, bool]:
    """Return a sort key that grows with every checkpoint of a training."""
    match = NAME.fullmatch(path.name)
    assert match is not None
    return int(match[2]), int(match[1]), match[3] is None


def _remove(path: Path) -> None:
    """Remove a folder after renaming it, so that it is never seen half removed."""
    renamed = path.with_name(path.name + REMOVED)
    path.rename(renamed)
    shutil.rmtree(renamed)


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
