"""The folders of noise and of impulse responses that an experiment names, found and checked before training."""

from __future__ import annotations

import os
from pathlib import Path

from utils.configuration import ExperimentConfig
from utils.data import DataError
from utils.data.audit_recordings import OTHER_SYSTEMS, SUFFIXES
from utils.data.recordings import survey

KEPT_UNDER = "_augmentation"
"""No corpus can have this name."""
MOST_NAMED = 5


def find_augmentation(config: ExperimentConfig) -> dict[str, tuple[str, ...]]:
    """Return the recordings below each folder that augmentation takes some from, by key, sorted.

    Raises:
        DataError: Where there is no such folder, or no recording in it.
    """
    return {key: _recordings(config.name, key, folder) for key, folder in config.augmentation_folders.items()}


def check_augmentation(config: ExperimentConfig) -> None:
    """Read the header of every recording that augmentation may take.

    Raises:
        DataError: Names the folder that cannot be used, or the recordings in it.
    """
    for key, paths in find_augmentation(config).items():
        found = survey(KEPT_UNDER, paths).table
        unusable = found[found["problem"].notna() & (found["kind"] != "short")]
        if len(unusable):
            named = "; ".join((unusable["path"] + " " + unusable["problem"]).head(MOST_NAMED))
            more = f"; {len(unusable) - MOST_NAMED} more" if len(unusable) > MOST_NAMED else ""
            raise DataError(
                f"{config.name}: {key}: {len(unusable)} of {len(paths)} recordings cannot be used: {named}{more}; "
                "repair them or remove them"
            )


def _recordings(experiment: str, key: str, folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        other = ', or set "white" or "pink"' if key == "augment_noise" else ""
        raise DataError(f"{experiment}: {key}: there is no folder {folder}; correct the path{other}")
    found = [
        os.path.join(place, name)
        for place, _, names in os.walk(folder)
        for name in names
        if name.lower().endswith(SUFFIXES) and not name.startswith(OTHER_SYSTEMS)
    ]
    if not found:
        raise DataError(
            f"{experiment}: {key}: the folder {folder} holds no recording ({', '.join(SUFFIXES)}); correct the path"
        )
    return tuple(sorted(found))
