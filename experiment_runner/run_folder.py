"""The folder of one run: `<output>/<experiment>/seed-<n>/`, and what lies in it."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import tomli_w

from experiment_runner.checkpoints import CheckpointStore, write_json
from experiment_runner.experiment_data import ExperimentData
from utils.config_text import describe_value
from utils.configuration import ExperimentConfig, identity_of, with_defaults

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EXPERIMENT = "experiment.toml"
RESULT = "result.json"
METRICS = "metrics.jsonl"
LOG = "train.log"


class RunError(Exception):
    """A run cannot go on as asked; the text names the remedy."""


class RunFolder:
    """Where one experiment with one seed keeps everything.

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

    @property
    def is_finished(self) -> bool:
        """Whether training ended by its own rules."""
        return (self.path / RESULT).is_file()

    def result(self) -> dict[str, Any]:
        """Return what training found: `stop`, `epochs`, `best_epoch`, `development`, `seconds`."""
        document: dict[str, Any] = json.loads((self.path / RESULT).read_text(encoding="utf-8"))
        return document

    def check_unchanged(self, data: ExperimentData) -> None:
        """Refuse a run that was trained with other result-deciding keys or on other data.

        Raises:
            RunError: Shows every difference.
        """
        changed = self._changes(self.path, data)
        if changed:
            raise RunError(
                f"what {self.path} was trained with has changed since: {'; '.join(changed)}; give the experiment "
                "another name, change it back, or train again with --retrain"
            )

    def recover(self, data: ExperimentData) -> bool:
        """Bring back a finished run whose replacement was interrupted, if it is still what is asked for.

        Returns:
            Whether it was brought back.
        """
        if self.is_finished or not (self._replaced / RESULT).is_file() or self._changes(self._replaced, data):
            return False
        shutil.rmtree(self.path, ignore_errors=True)
        self._replaced.rename(self.path)
        return True

    def _changes(self, folder: Path, data: ExperimentData) -> list[str]:
        try:
            document = tomllib.loads((folder / EXPERIMENT).read_text(encoding="utf-8"))
            stored, fingerprint = document["experiment"], document["resolved"]["data_sha256"]
        except (OSError, KeyError, tomllib.TOMLDecodeError) as error:
            return [f"{folder / EXPERIMENT} cannot be read ({error})"]
        before, now = identity_of(with_defaults(stored)), self.config.run_identity()
        changed = [
            f"{key} {_show(before, key)} -> {_show(now, key)}"
            for key in sorted({*now, *before})
            if now.get(key) != before.get(key)
        ]
        if fingerprint != data.fingerprint():
            changed.append("training or development data (files, splits, speakers, labels or scale)")
        return changed

    def start(self, resolved: dict[str, Any]) -> None:
        """Begin afresh; an earlier run is kept aside until this one has finished.

        Args:
            resolved: What was decided beyond the configuration, for `experiment.toml`.
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
        (self.path / EXPERIMENT).write_text(tomli_w.dumps(document), encoding="utf-8")

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Add one epoch's line to `metrics.jsonl`."""
        with (self.path / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")

    def finish(self, result: dict[str, Any]) -> None:
        """Mark the run as finished, and let go of the run that it replaces."""
        write_json(self.path / RESULT, result)
        shutil.rmtree(self._replaced, ignore_errors=True)


def _show(table: dict[str, Any], key: str) -> str:
    return describe_value(table[key]) if key in table else "(default)"
