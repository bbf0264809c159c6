"""Checkpoints: folders that appear whole or not at all, with manifests of hashes.

`checkpoints/epoch-E-step-S/` holds a model with what belongs to it, and in `state/` what its training goes on from. The
renaming of a folder is the one moment at which a save becomes true; the links `best` and `last` follow it, and are set
right from the newest folder's state where a process died in between. Older folders are removed after that: those that
are kept for going on from lose nothing, the best one loses its `state/`, all others go.
"""

from __future__ import annotations

import json
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
from utils.io.files import MOST_JSON_BYTES, atomic_write, fingerprint, read_text, write_json

if TYPE_CHECKING:  # what only looks at checkpoints, as --check does, needs no torch
    from torch import Tensor

STATE = "state"
STATE_TENSORS = "state.safetensors"
STATE_DOCUMENT = "state.json"
FORMAT = 1
"""Of training states. Another one cannot be gone on from."""
UNEVALUATED = "-unevaluated"
"""Ends the name of a folder that was saved between an epoch's last step and its evaluation."""
NAME = re.compile(rf"epoch-(\d+)-step-(\d+)({UNEVALUATED})?")
LINKS = ("best", "last", "best.link", "last.link")
"""Beside such folders, and what `_point` leaves of them where a process dies."""
TEMPORARY, REMOVED = ".tmp", ".removed"
AFRESH = "; train again with --retrain"
SPARE_BYTES = 16 << 20
"""Must stay free beside what a save needs."""


class CheckpointError(UserError):
    """A checkpoint is missing, damaged or cannot be written; the text names it and the remedy."""

    exit_status = WRONG_INPUT


@dataclass(frozen=True)
class TrainingState:
    """What a training goes on from, beside its model's weights.

    Attributes:
        tensors: By name.
        document: JSON; `best` is the name of the best checkpoint's folder, or None.
    """

    tensors: Mapping[str, Tensor]
    document: Mapping[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """What is saved.

    Attributes:
        epoch: Counted from 1.
        step: Optimiser steps so far.
        weights: The model's state dict.
        documents: JSON documents by file name.
        state: What training goes on from; the store adds `format` and `best`.
        is_best: Whether it is the best so far.
        is_evaluated: Whether all of the steps so far are evaluated, or lie in an epoch that still goes on.
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
        """Of its folder."""
        return f"epoch-{self.epoch}-step-{self.step}{'' if self.is_evaluated else UNEVALUATED}"

    @property
    def size(self) -> int:
        """Bytes of its tensors."""
        tensors = [*self.weights.values(), *self.state.tensors.values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        folder: `checkpoints/` of the run; made at the first save.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, checkpoint: Checkpoint, keep: int = 1) -> Path:
        """Write a checkpoint, let `last`, and `best` where it is, point at it, and remove what is older.

        Args:
            checkpoint: What is saved; its name must be new.
            keep: Checkpoints that keep what training goes on from, this one included.

        Raises:
            CheckpointError: Where it cannot be written; those that were there stay.
        """
        target = self.folder / checkpoint.name
        best = checkpoint.name if checkpoint.is_best else self._best_before()
        document = {"format": FORMAT, "best": best, **checkpoint.state.document}
        with _explained(target):
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
            _flush(self.folder)
            self._tidy(target, best, keep)
        return target

    @property
    def has_any(self) -> bool:
        """Whether there are some that a training can go on from, if they are not damaged."""
        return bool(self._resumable())

    def find(self, link: str) -> Path:
        """Return the folder that a link points at.

        Raises:
            CheckpointError: Where there is none.
        """
        path = self.folder / link
        if not (path / MANIFEST).is_file():
            raise CheckpointError(f"there is no checkpoint at {path}{AFRESH}")
        return path.resolve()

    def newest(self) -> tuple[Path | None, list[str]]:
        """Return the newest checkpoint that a training can go on from, and what is wrong with newer ones.

        Every file of it, and of the best one, is checked.

        Raises:
            CheckpointError: Where there are some, and none that can be used.
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
        """Set the links as they were when a checkpoint was saved, and remove what does not belong to it."""
        best = read_state_document(path)["best"]
        for other in self._folders():
            if _order(other) > _order(path):
                _remove(other)
        self._tidy(path, best, keep)

    def finish(self) -> None:
        """Remove what training goes on from, once it has ended, and what processes that died have left."""
        for path in self._resumable():
            _remove(path / STATE)
        self._clear()

    def _folders(self) -> list[Path]:
        found = self.folder.iterdir() if self.folder.is_dir() else iter(())
        return [path for path in found if not path.is_symlink() and NAME.fullmatch(path.name)]

    def _resumable(self) -> list[Path]:
        """Return those with a training state, the newest first."""
        return sorted((path for path in self._folders() if (path / STATE).is_dir()), key=_order, reverse=True)

    def _best_before(self) -> str | None:
        link = self.folder / "best"
        return os.readlink(link) if link.is_symlink() else None

    def _check_room(self, checkpoint: Checkpoint) -> None:
        needed, free = checkpoint.size + SPARE_BYTES, shutil.disk_usage(self.folder).free
        if needed > free:
            raise CheckpointError(
                f"{self.folder}: a checkpoint needs {_gib(needed)}, {_gib(free)} are free; make room, and the same "
                "command goes on from the last checkpoint"
            )

    def _tidy(self, last: Path, best: str | None, keep: int) -> None:
        """Point the links and remove leftovers and older folders."""
        self._point("last", last.name)
        if best is not None:
            self._point("best", best)
        _flush(self.folder)
        kept = {path.name for path in self._resumable()[:keep]}
        for path in self._folders():
            if path.name not in kept and path.name != best:
                _remove(path)
            elif path.name not in kept and (path / STATE).is_dir():
                _remove(path / STATE)
        self._clear()

    def _clear(self) -> None:
        """Remove what processes that died in the middle have left."""
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
    """Write a model that `read_checkpoint` reads into a folder, in place of one that is there.

    The one that is there stays until the new one is on the disk; one that was half replaced is read as damaged.

    Raises:
        CheckpointError: Where it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".saving-", dir=folder) as name:
            written = Path(name)
            _write(written, WEIGHTS, weights, documents, {})
            for file in (*(file for file in MODEL_FILES if file != MANIFEST), MANIFEST):
                if (written / file).is_file():
                    os.replace(written / file, folder / file)
                else:
                    (folder / file).unlink(missing_ok=True)
        _flush(folder)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder} cannot be written ({getattr(error, 'strerror', None) or error})") from error


def read_checkpoint(folder: Path, linked: Path | None = None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return a checkpoint's `config.json` and its weights, after checking every file against the manifest.

    Args:
        folder: The checkpoint.
        linked: Where links may lead, as those of the hub client's cache do; nowhere where None.

    Raises:
        CheckpointError: Where a file is missing or damaged.
    """
    from safetensors.torch import load_file

    _check(folder, linked)
    with _read(folder):
        return _read_json(folder / CONFIG), load_file(folder / WEIGHTS)


def read_state(folder: Path) -> TrainingState:
    """Return what a training goes on from, after checking its files.

    Raises:
        CheckpointError: Where a file is missing or damaged, or another version of the program has written it.
    """
    from safetensors.torch import load_file

    document = read_state_document(folder)
    with _read(folder):
        return TrainingState(load_file(folder / STATE / STATE_TENSORS), document)


def read_state_document(folder: Path) -> dict[str, Any]:
    """Return what a training goes on from but for its tensors, after checking its files.

    Raises:
        CheckpointError: As `read_state`.
    """
    _check(folder / STATE)
    with _read(folder):
        document = _read_json(folder / STATE / STATE_DOCUMENT)
        if document["format"] != FORMAT:
            raise CheckpointError(
                f"{folder} was saved by another version of the program, in format {document['format']} instead of "
                f"{FORMAT}; go on with that version, or train again with --retrain"
            )
        if document["best"] is not None and not NAME.fullmatch(document["best"]):
            raise CheckpointError(f"{folder / STATE / STATE_DOCUMENT} names no checkpoint as the best{AFRESH}")
        return document


def _read_json(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(read_text(path, MOST_JSON_BYTES))
    return document


def _check(folder: Path, linked: Path | None = None) -> None:
    """Compare the files of a folder with its manifest, which names at least those that are read."""
    with _read(folder):
        manifest = _read_json(folder / MANIFEST)
        needed = {STATE_TENSORS, STATE_DOCUMENT} if folder.name == STATE else {WEIGHTS, CONFIG}
        unnamed = ", ".join(sorted(needed - set(manifest)))
        if unnamed:
            raise CheckpointError(f"{folder / MANIFEST} does not name {unnamed}{AFRESH}")
        for name, known in manifest.items():
            if Path(name).name != name or not _is_own(folder / name, linked):
                raise CheckpointError(f"{folder / MANIFEST} names {name}, which is no file of its folder{AFRESH}")
            if fingerprint(folder / name) != known:
                raise CheckpointError(f"{folder / name} differs from its manifest{AFRESH}")


def _is_own(path: Path, linked: Path | None) -> bool:
    """Return whether a path is a file, or a link to one of `linked`."""
    return stat.S_ISREG(os.lstat(path).st_mode) or path.resolve().parent == linked


@contextmanager
def _read(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise CheckpointError(f"the checkpoint {folder} cannot be read: {error}{AFRESH}") from error


@contextmanager
def _explained(target: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(
            f"{target} cannot be written ({reason}); when that is mended, the same command goes on from the last "
            "checkpoint"
        ) from error


def _write(
    folder: Path, name: str, tensors: Mapping[str, Tensor], documents: Mapping[str, object], texts: Mapping[str, str]
) -> None:
    """Write a folder's files and a manifest of them, and wait until they are on the disk."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, folder / name)
    _flush(folder / name)
    for file, document in documents.items():
        write_json(folder / file, document)
    for file, text in texts.items():
        atomic_write(folder / file, text)
    names = sorted((name, *documents, *texts))
    write_json(folder / MANIFEST, {file: fingerprint(folder / file) for file in names})
    _flush(folder)


def _order(path: Path) -> tuple[int, int, bool]:
    """Return what grows with every checkpoint of a training."""
    match = NAME.fullmatch(path.name)
    assert match is not None
    return int(match[2]), int(match[1]), match[3] is None


def _remove(path: Path) -> None:
    """Remove a folder that is whole until, in one moment, it has another name."""
    renamed = path.with_name(path.name + REMOVED)
    path.rename(renamed)
    shutil.rmtree(renamed)


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def _flush(path: Path) -> None:
    """Make a file or folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
