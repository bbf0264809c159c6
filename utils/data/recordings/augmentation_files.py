"""An experiment's folders of noise and impulse responses, checked before training."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from utils.config.schema import ExperimentConfig
from utils.data.recordings.file_names import USUAL_SUFFIXES, describe_left_out, list_problems, look_below
from utils.data.recordings.preflight import Advance
from utils.data.recordings.survey import survey
from utils.errors import DataError

KEPT_UNDER = "_augmentation"
"""Name under which findings are kept; no corpus can have it."""


def find_augmentation(config: ExperimentConfig) -> dict[str, tuple[str, ...]]:
    """Return the recordings below each folder used by augmentation, by key, sorted.

    Raises:
        DataError: If a folder does not exist or contains no recording.
    """
    return {key: _recordings(config.name, key, folder) for key, folder in config.augmentation_folders.items()}


def left_out_of_augmentation(config: ExperimentConfig) -> tuple[str, ...]:
    """Return a sentence on each folder with files that may contain sound but are not read."""
    return tuple(
        f"{config.name}: {key}: {sentence}"
        for key, folder in config.augmentation_folders.items()
        for sentence in describe_left_out(look_below(folder))
    )


def identify_augmentation(config: ExperimentConfig) -> str:
    """Return a text that changes whenever augmentation's recordings are added, removed or changed in size."""
    found = find_augmentation(config)
    if not found:
        return "none"
    digest = hashlib.sha256()
    for key, paths in found.items():
        folder = config.augmentation_folders[key]
        for path in paths:
            digest.update(
                f"{key} {os.path.relpath(path, folder)} {os.path.getsize(path)}\n".encode(errors="surrogateescape")
            )
    return f"{sum(map(len, found.values()))} ({digest.hexdigest()[:8]})"


def check_augmentation(config: ExperimentConfig, advance: Advance = lambda _: None, is_deep: bool = False) -> None:
    """Read the header of every recording that augmentation may use; decode it too if `is_deep`.

    Raises:
        DataError: Names the unusable folder, or the unusable recordings in it.
    """
    for key, paths in find_augmentation(config).items():
        found = survey(KEPT_UNDER, paths, advance, is_deep).table
        unusable = found[found["problem"].notna() & (found["kind"] != "short")]
        if len(unusable):
            raise DataError(
                f"{config.name}: {key}: {len(unusable)} of {len(paths)} recordings cannot be used: "
                f"{list_problems(zip(unusable['path'], unusable['problem'], strict=True))}; repair them or remove them"
            )


def _recordings(experiment: str, key: str, folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        other = ', or set "white" or "pink"' if key == "augment_noise" else ""
        raise DataError(f"{experiment}: {key}: there is no folder {folder}; correct the path{other}")
    below = look_below(folder)
    if not below.recordings:
        left_out = "".join(f"; {path} {reason}" for path, reason in list(below.left_out.items())[:1])
        raise DataError(
            f"{experiment}: {key}: the folder {folder} contains no recording ({', '.join(USUAL_SUFFIXES)} and "
            "others that "
            f"libsndfile reads){left_out}; correct the path"
        )
    return tuple(below.recordings)
