"""Decides whether a run is trained, resumed, skipped or refused; training and `--check` call the same functions.

Does not import torch, and changes nothing on the disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from experiment_runner.data.experiment_data import ExperimentData
from experiment_runner.runtime.console import Console
from experiment_runner.storage.checkpoints import NAME, CheckpointError
from experiment_runner.storage.run_folder import RunError, RunFolder

RESUMED = "resumed"


@dataclass(frozen=True)
class Decision:
    """What will happen to a run.

    Attributes:
        checkpoint: Checkpoint from which training resumes; None if it starts from the beginning.
        is_finished: Whether it is skipped because it is finished.
        is_recovered: Whether it is finished but was set aside by a retraining that was interrupted before saving.
        warning: Text of a warning; empty if there is none.
    """

    checkpoint: Path | None = None
    is_finished: bool = False
    is_recovered: bool = False
    warning: str = ""

    def describe(self, retrain: bool) -> str:
        """Describe the decision in a few words, for a table."""
        if self.is_recovered:
            return "skipped: finished before an interrupted --retrain, which is dropped"
        if self.is_finished:
            return "skipped: finished before"
        if self.checkpoint is not None:
            return f"{RESUMED} {_place_of(self.checkpoint)}"
        return "trained again" if retrain else "trained"


def decide_finished(folder: RunFolder, data: ExperimentData, retrain: bool) -> Decision:
    """Find out whether a run is finished, before its recordings are checked.

    Raises:
        RunError: If it was trained with other result-deciding keys or on other data, or cannot be read.
    """
    if retrain:
        return Decision()
    if folder.can_recover(data):
        return Decision(is_finished=True, is_recovered=True)
    if not folder.is_finished:
        return Decision()
    folder.check_unchanged(data)
    folder.result()
    return Decision(is_finished=True)


def decide_unfinished(
    folder: RunFolder, data: ExperimentData, environment: Mapping[str, object], retrain: bool, console: Console
) -> Decision:
    """Find out where a run's training resumes or starts; a retraining resumes only its own, if it can.

    Args:
        folder: Folder of the run.
        data: Its data, with checked recordings.
        environment: See `RunFolder.find_unfinished`.
        retrain: Whether a finished run is trained again.
        console: Where damaged checkpoints are reported.

    Raises:
        RunError: If it was begun with other result-deciding keys, on other data or in another setting, or its folder
            cannot be written to.
        CheckpointError: If there are checkpoints but none is usable.
    """
    folder.refuse_obstacles()
    if retrain and not folder.is_being_replaced:
        return Decision()
    try:
        return Decision(folder.find_unfinished(data, environment, console))
    except (RunError, CheckpointError) as error:
        if not retrain:
            raise
        return Decision(warning=f"the interrupted retraining starts over: {error}")


def _place_of(checkpoint: Path) -> str:
    match = NAME.fullmatch(checkpoint.name)
    assert match is not None
    return f"from epoch {match[1]}, step {int(match[2]):,}"
