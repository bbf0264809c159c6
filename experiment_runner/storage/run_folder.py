"""The folder of one run, `<output>/<experiment>/seed-<n>/`, and its files."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd
import tomli_w

from experiment_runner.data.experiment_data import ExperimentData
from experiment_runner.runtime.console import Console
from experiment_runner.storage.checkpoints import AFRESH, LINKS, NAME, CheckpointStore
from utils.config.regularisation import PUBLISHED, REGULARISATION
from utils.config.schema import ExperimentConfig, identity_of, with_defaults
from utils.config.wording import describe_value
from utils.dataset.sampling import count_steps_before_joining
from utils.errors import WRONG_INPUT, UserError
from utils.io.files import PARTIAL, atomic_write, read_json, read_note, read_toml, write_json
from utils.io.folder_lock import find_obstacle
from utils.io.secrets import Redaction
from utils.io.user_code import changed_user_code

EXPERIMENT = "experiment.toml"
RESULT = "result.json"
METRICS = "metrics.jsonl"
TRACKING = "tracking"
LOG = "train.log"
SKIPPED = "skipped.csv"
STEPS_PER_EPOCH = "steps_per_epoch"
"""Key of the optimiser steps per epoch. Runs begun before it was stored kept a last step of one utterance separate."""


class RunError(UserError):
    """A run cannot continue as requested; the message names the remedy."""

    exit_status = WRONG_INPUT


class LinkError(RunError):
    """A link leads out of the run's folder, so nothing may be written there."""


class RunFolder:
    """The folder that holds everything of one experiment with one seed.

    Args:
        output: The output folder of the command.
        config: The experiment.
        seed: One of its seeds.
    """

    def __init__(self, output: Path, config: ExperimentConfig, seed: int) -> None:
        self.path = output / config.name / f"seed-{seed}"
        self.config = config
        self.seed = seed
        self.checkpoints = CheckpointStore(self.path / "checkpoints")
        self._replaced = self.path.with_name(self.path.name + ".replaced")

    def refuse_links(self) -> None:
        """Refuse symbolic links that a run does not make itself; the folder itself may be behind one.

        Raises:
            LinkError: If there is such a link; it names the first.
        """
        for folder in (self.path, self._replaced):
            for path in sorted(folder.rglob("*")):
                if path.is_symlink() and not _is_own_link(path, folder):
                    raise LinkError(
                        f"{path} is a symbolic link, so files written to it would land elsewhere; remove it, or "
                        "replace it with its target"
                    )

    def refuse_obstacles(self) -> None:
        """Refuse to train into a path that is not a folder or is not writable.

        Raises:
            RunError: If the path cannot be used; it names the folder.
        """
        for folder in (self.path.parent, self.path):
            obstacle = find_obstacle(folder, "give the experiment another name") if os.path.lexists(folder) else None
            if obstacle is not None:
                raise RunError(obstacle)

    @property
    def is_finished(self) -> bool:
        """Whether training ended by its own stopping rules."""
        return (self.path / RESULT).is_file()

    @property
    def holds_training(self) -> bool:
        """Whether it holds a finished training, or an unfinished one that can be resumed."""
        return self.is_finished or self.checkpoints.has_any

    @property
    def begun_processes(self) -> int | None:
        """Processes that an unfinished training began with; None if there is none, or if that was not stored."""
        if self.is_finished or not self.checkpoints.has_any:
            return None
        resolved = read_note(self.path / EXPERIMENT).get("resolved")
        count = resolved.get("processes") if isinstance(resolved, dict) else None
        return count if type(count) is int and count > 0 else None

    def result(self) -> dict[str, Any]:
        """Return the training's result: `stop`, `epochs`, `best_epoch`, `development`, `seconds`.

        Raises:
            RunError: If it cannot be read.
        """
        path = self.path / RESULT
        try:
            document: dict[str, Any] = read_json(path)
            missing = [name for name in ("stop", "epochs", "best_epoch", "development") if name not in document]
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise RunError(f"{path} cannot be read ({error}){AFRESH}") from error
        if missing:
            raise RunError(f"{path} lacks {', '.join(missing)}{AFRESH}")
        return document

    def check_unchanged(self, data: ExperimentData, environment: Mapping[str, object] | None = None) -> None:
        """Refuse a run that was trained with other result-deciding keys, on other data or in another setting.

        Raises:
            RunError: If there are differences; it shows them all.
        """
        changed = self._changes(self.path, data, environment or {})
        if changed:
            raise RunError(
                f"what {self.path} was trained with has changed since: {'; '.join(changed)}; give the experiment "
                "another name, change it back, or train again with --retrain"
            )

    @property
    def is_being_replaced(self) -> bool:
        """Whether a finished run is set aside until this one has finished."""
        return not self.is_finished and (self._replaced / RESULT).is_file()

    def find_unfinished(self, data: ExperimentData, environment: Mapping[str, object], console: Console) -> Path | None:
        """Return the checkpoint from which an interrupted training resumes; None if nothing was saved yet.

        Args:
            data: Data of the run.
            environment: Settings outside the configuration, which must be unchanged; texts up to their first colon.
            console: Where damaged checkpoints are reported.

        Raises:
            RunError: If it was begun with other result-deciding keys, on other data or in another setting; shows every
                difference.
            CheckpointError: If there are checkpoints but none is usable.
        """
        if self.is_finished:
            return None
        found, problems = self.checkpoints.newest()
        if found is not None:
            self.check_unchanged(data, environment)
        for problem in problems:
            console.warn(f"{problem.removesuffix(AFRESH)}; an older checkpoint is used")
        return found

    def can_recover(self, data: ExperimentData) -> bool:
        """Whether there is a finished run whose replacement was interrupted before it saved anything.

        Only if that run still matches the configuration and data.
        """
        if not self.is_being_replaced or self._changes(self._replaced, data):
            return False
        return not self.checkpoints.has_any or bool(self._changes(self.path, data))

    def recover(self) -> None:
        """Restore the run that `can_recover` finds."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._replaced.rename(self.path)

    def _changes(
        self, folder: Path, data: ExperimentData, environment: Mapping[str, object] = MappingProxyType({})
    ) -> list[str]:
        try:
            document = read_toml(folder / EXPERIMENT)
            stored, resolved = document["experiment"], document["resolved"]
            fingerprint = resolved["data_sha256"]
        except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
            return [f"{folder / EXPERIMENT} cannot be read ({error})"]
        before, now = identity_of(with_defaults(stored)), self.config.run_identity()
        changed = [
            f"{key} {_show(before, key)} -> {_show(now, key)}"
            for key in sorted({*now, *before})
            if now.get(key) != before.get(key) and not _is_unread(now, key)
        ]
        for key, value in environment.items():
            then, today = (str(text).partition(":")[0] for text in (resolved.get(key, value), value))
            if then != today and key != STEPS_PER_EPOCH:
                changed.append(f"{key} {then} -> {today}")
        if environment:
            changed += [f"the code {name}" for name in changed_user_code(resolved.get("user_code", {}))]
        if fingerprint != data.fingerprint():
            changed.append("training or development data (files, splits, speakers, labels or scale)")
        if not changed and STEPS_PER_EPOCH in environment:
            changed += self._changed_steps(resolved, data, environment[STEPS_PER_EPOCH])
        return changed

    def _changed_steps(self, resolved: Mapping[str, Any], data: ExperimentData, today: object) -> list[str]:
        """Name a changed number of optimiser steps, which only a change in the program can have caused."""
        ranks = resolved.get("processes", 1)
        effective = self.config.batch_size * self.config.accumulation_steps * ranks
        then = resolved.get(STEPS_PER_EPOCH, count_steps_before_joining(len(data.train), effective, ranks))
        if then == today:
            return []
        return [
            f"optimiser steps an epoch {then} -> {today} (a last step of a single utterance now joins the one before; "
            "the release that began this run took it by itself, and can still finish it)"
        ]

    def start(self, resolved: dict[str, Any], left_out: pd.DataFrame) -> None:
        """Start from the beginning; an earlier run is set aside until this one has finished.

        Args:
            resolved: Settings decided outside the configuration, for `experiment.toml`.
            left_out: Unusable training recordings, for `skipped.csv`, which is not written if there are none.
        """
        if self.path.exists():
            if self.is_finished or not self._replaced.exists():
                shutil.rmtree(self._replaced, ignore_errors=True)
                self.path.rename(self._replaced)
            else:
                shutil.rmtree(self.path)
        self.path.mkdir(parents=True)
        experiment = self.config.model_dump(mode="json", exclude_none=True)
        document = {"experiment": experiment, "resolved": {"seed": self.seed, **resolved}}
        atomic_write(self.path / EXPERIMENT, Redaction()(tomli_w.dumps(document)))
        if len(left_out):
            atomic_write(self.path / SKIPPED, left_out.to_csv(index=False))

    def resume_from(self, checkpoint: Path, records: Sequence[dict[str, Any]]) -> None:
        """Set checkpoints and `metrics.jsonl` back to the state when a checkpoint was saved."""
        self._remove_leftovers()
        self.checkpoints.resume_from(checkpoint, self.config.keep_checkpoints)
        atomic_write(self.path / METRICS, "".join(map(_as_line, records)))

    def _remove_leftovers(self) -> None:
        """Remove files left by a process that died while writing, but not the tracker's, which may still be writing."""
        for path in self.path.rglob("*.tmp"):
            if PARTIAL.fullmatch(path.name) and not path.name.startswith(TRACKING):
                path.unlink(missing_ok=True)

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Add one epoch's line to `metrics.jsonl`."""
        with (self.path / METRICS).open("a", encoding="utf-8") as file:
            file.write(_as_line(record))

    def finish(self, result: dict[str, Any]) -> None:
        """Mark the run as finished, and remove what it no longer needs."""
        write_json(self.path / RESULT, result)
        self.clear()

    def clear(self) -> None:
        """Remove what a finished run does not need: its training states, and the run that it replaces."""
        self.checkpoints.finish()
        shutil.rmtree(self._replaced, ignore_errors=True)
        self._remove_leftovers()


def _is_own_link(link: Path, folder: Path) -> bool:
    """Whether it is a run's own link: to a checkpoint, or made by the tracker's client, which follows no links."""
    place = link.relative_to(folder)
    if place.parts[0] == "wandb" and len(place.parts) > 1:
        return link.name == "latest-run" or link.suffix == ".log"
    is_of_checkpoints = place.parent == Path("checkpoints") and link.name in LINKS
    return is_of_checkpoints and NAME.fullmatch(os.readlink(link)) is not None


def _as_line(record: dict[str, Any]) -> str:
    return json.dumps(record, allow_nan=False) + "\n"


def _is_unread(experiment: Mapping[str, Any], key: str) -> bool:
    """Whether a number is left to an upstream that is not on this machine, as may happen where nothing is trained.

    The stored number is then right: it was read from that upstream, or the checkpoint was trained with it.
    """
    return key in REGULARISATION and experiment.get(key) == PUBLISHED


def _show(table: dict[str, Any], key: str) -> str:
    return describe_value(table[key]) if key in table else "(default)"
