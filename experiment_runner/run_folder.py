"""The folder of one run: `<output>/<experiment>/seed-<n>/`, and what lies in it."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import tomli_w

from experiment_runner.checkpoints import CheckpointStore, write_json
from utils.config_text import describe_value
from utils.configuration import ExperimentConfig, identity_of

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

    def check_unchanged(self) -> None:
        """Refuse a run whose result-deciding keys have changed since it was trained.

        Raises:
            RunError: Shows every difference.
        """
        try:
            stored = tomllib.loads((self.path / EXPERIMENT).read_text(encoding="utf-8"))["experiment"]
        except (OSError, KeyError, tomllib.TOMLDecodeError) as error:
            raise RunError(f"{self.path / EXPERIMENT} cannot be read ({error}); train again with --retrain") from error
        before, now = identity_of(stored), self.config.run_identity()
        changed = [
            f"{key} {_show(before, key)} -> {_show(now, key)}"
            for key in sorted({*now, *before})
            if now.get(key) != before.get(key)
        ]
        if changed:
            raise RunError(
                f"the configuration has changed since {self.path} was trained: {'; '.join(changed)}; give the "
                "experiment another name, change it back, or train again with --retrain"
            )

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
