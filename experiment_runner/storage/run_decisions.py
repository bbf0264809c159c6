"""What becomes of a run: trained, gone on with, skipped or refused; training and `--check` ask the same functions.

Without torch, and nothing on the disk is changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from experiment_runner.data.experiment_data import ExperimentData
from experiment_runner.runtime.console import Console
from experiment_runner.storage.checkpoints import NAME, CheckpointError
from experiment_runner.storage.run_folder import RunError, RunFolder

GONE_ON_WITH = "gone on with"


@dataclass(frozen=True)
class Decision:
    """What becomes of a run.

    Attributes:
        checkpoint: From which its training goes on; None where it begins.
        is_finished: Whether it is skipped, since it is finished.
        is_recovered: Whether it is finished, but lies aside, since its retraining was interrupted before it saved.
        warning: What deserves a warning beside; empty where nothing does.
    """

    checkpoint: Path | None = None
    is_finished: bool = False
    is_recovered: bool = False
    warning: str = ""

    def describe(self, retrain: bool) -> str:
        """Say it in a few words, for a table."""
        if self.is_recovered:
            return "skipped: finished before an interrupted --retrain, which is dropped"
        if self.is_finished:
            return "skipped: finished before"
        if self.checkpoint is not None:
            return f"{GONE_ON_WITH}, {_place_of(self.checkpoint)}"
        return "trained again" if retrain else "trained"


def decide_finished(folder: RunFolder, data: ExperimentData, retrain: bool) -> Decision:
    """Find out whether a run is finished, before its recordings are looked at.

    Raises:
        RunError: Where it was trained with other result-deciding keys or on other data, or cannot be read.
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
    """Find out where a run's training goes on or begins; a retraining goes on with its own alone, if it can.

    Args:
        folder: The run's.
        data: Its data, of which the recordings are checked.
        environment: See `RunFolder.find_unfinished`.
        retrain: Whether a finished run is trained again.
        console: Where damaged checkpoints are told.

    Raises:
        RunError: Where it was begun with other result-deciding keys, on other data or in another setting, or its folder
            cannot be written to.
        CheckpointError: Where checkpoints are there, and none that can be used.
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
