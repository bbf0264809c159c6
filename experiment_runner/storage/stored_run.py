"""A run as read from its folder."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiment_runner.results.prediction_table import read_predictions
from experiment_runner.results.row_counts import find_untested
from experiment_runner.results.split_metrics import class_groups, metrics_from_predictions
from experiment_runner.results.statistics import with_stored
from experiment_runner.runtime.program_version import USER_CODE
from experiment_runner.storage.run_folder import METRICS, RESULT
from experiment_runner.storage.stored_experiment import read_experiment
from utils.config.schema import ExperimentConfig
from utils.metrics import Metrics, Numbers

OWN_SPLIT = re.compile(r"development|test\d*")


@dataclass(frozen=True)
class SplitReport:
    """One split that has predictions.

    Attributes:
        label: Name of its files.
        predictions: `predictions/<label>.csv`.
        metrics: Metrics computed from the predictions, as were those in `evaluation/<label>.json`.
        date: When the predictions were written, as `2026-01-31`.
    """

    label: str
    predictions: pd.DataFrame
    metrics: Metrics
    date: str

    @property
    def is_own_corpus(self) -> bool:
        """Whether it is a split of the training corpus."""
        return OWN_SPLIT.fullmatch(self.label) is not None


@dataclass(frozen=True)
class StoredRun:
    """The content of a run's folder.

    Attributes:
        folder: The folder.
        experiment: The configuration as it was written, with keys that this release may not know.
        resolved: Settings decided outside the configuration.
        config: The configuration, limited to known keys.
        course: Epochs and result.
        description: `config.json` of the best checkpoint; empty before the first.
        provenance: `provenance.json` of the best checkpoint; empty before the first.
        groups: Head, mid and tail classes.
        splits: Splits with predictions: development first, then the test splits.
        problems: Sentences on what could not be read.
    """

    folder: Path
    experiment: dict[str, Any]
    resolved: dict[str, Any]
    config: ExperimentConfig
    course: Course
    description: dict[str, Any]
    provenance: dict[str, Any]
    groups: dict[str, list[str]]
    splits: tuple[SplitReport, ...]
    problems: tuple[str, ...]

    @property
    def title(self) -> str:
        """Experiment and seed, the title of every plot."""
        return f"{self.config.name}, seed {self.resolved.get('seed', '?')}"

    @property
    def user_code(self) -> dict[str, str]:
        """Hashes of the user's own code that it was trained with, by name."""
        stored = self.resolved.get(USER_CODE, {})
        return {str(name): str(digest) for name, digest in stored.items()} if isinstance(stored, dict) else {}

    @property
    def tested(self) -> tuple[SplitReport, ...]:
        """The test splits."""
        return tuple(split for split in self.splits if split.label != "development")


def read_run(folder: Path) -> StoredRun:
    """Read a run's folder, finished or not.

    Raises:
        RunError: If the folder is not a run.
    """
    problems: list[str] = []
    experiment, resolved, config = read_experiment(folder)
    epochs = _read_epochs(folder / METRICS, problems)
    result = _read_json(folder / RESULT, problems)
    best = folder / "checkpoints" / "best"
    description = _read_json(best / "config.json", problems) or {}
    groups = class_groups(config, description.get("classes", ()), description.get("class_counts", ()))
    return StoredRun(
        folder=folder,
        experiment=experiment,
        resolved=resolved,
        config=config,
        course=Course(epochs, result, config.loss_stop_ratio),
        description=description,
        provenance=_read_json(best / "provenance.json", problems) or {},
        groups=groups,
        splits=tuple(_read_splits(folder, groups, problems)),
        problems=tuple(problems),
    )


def _read_json(path: Path, problems: list[str]) -> dict[str, Any] | None:
    """Return a JSON document, or None; a document that cannot be read is added to `problems`."""
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        problems.append(f"{path.name} cannot be read: {error}")
        return None
    return document


def _read_epochs(path: Path, problems: list[str]) -> list[dict[str, Any]]:
    """Return the epochs of `metrics.jsonl`; a line that is still being written is left out."""
    epochs = []
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for line_number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            epochs.append({**record, "epoch": int(record["epoch"])})
        except (ValueError, KeyError, TypeError):
            problems.append(f"line {line_number} of {path.name} cannot be read and is left out")
    return epochs


def _read_splits(folder: Path, groups: dict[str, list[str]], problems: list[str]) -> Iterator[SplitReport]:
    trained: list[str] = []
    for path in sorted((folder / "predictions").glob("*.csv"), key=_split_order):
        try:
            predictions = read_predictions(path)
            computed = metrics_from_predictions(predictions, groups)
        except (OSError, ValueError, KeyError) as error:
            problems.append(f"predictions/{path.name} cannot be used: {error}")
            continue
        trained = trained or list(computed.get("per_class", ()))
        date = datetime.fromtimestamp(path.stat().st_mtime).astimezone().date().isoformat()
        computed = _with_user_statistics(computed, folder, path.stem) | find_untested(trained, computed)
        yield SplitReport(path.stem, predictions, computed, date)


def _with_user_statistics(computed: Metrics, folder: Path, split: str) -> Metrics:
    """Return a split's metrics with those of its stored metrics that only the user's own code can compute."""
    is_development = split == "development"
    path = folder / ("checkpoints/best/metrics.json" if is_development else f"evaluation/{split}.json")
    stored = _read_json(path, [])
    return with_stored(computed, stored.get("development") if is_development and isinstance(stored, dict) else stored)


def _split_order(path: Path) -> tuple[bool, bool, int, str]:
    """Put development first, then the corpus's own tests in order, then those of other corpora."""
    return path.stem != "development", OWN_SPLIT.fullmatch(path.stem) is None, len(path.stem), path.stem


@dataclass(frozen=True)
class Course:
    """How a training went: the lines of `metrics.jsonl`, `result.json` if it has finished, and the loss's limit."""

    epochs: Sequence[Mapping[str, Any]]
    result: Mapping[str, Any] | None
    loss_stop_ratio: float | None = None

    @property
    def numbers(self) -> list[int]:
        """The epochs, counted from 1."""
        return [int(line["epoch"]) for line in self.epochs]

    @property
    def best_epoch(self) -> int | None:
        """The epoch whose model is kept."""
        improved = [int(line["epoch"]) for line in self.epochs if line.get("improved")]
        known = (self.result or {}).get("best_epoch")
        return int(known) if known is not None else improved[-1] if improved else None

    @property
    def ending(self) -> str:
        """Why training ended, in one line."""
        last = self.numbers[-1] if self.epochs else (self.result or {}).get("epochs", 0)
        if self.result is None:
            return f"after epoch {last}: still training, or interrupted" if last else "no epoch has ended yet"
        stop = str(self.result.get("stop"))
        if stop == "epochs":
            return f"all {last} epochs used" if last != 1 else "the only epoch used"
        factor = "its limit" if self.loss_stop_ratio is None else f"{self.loss_stop_ratio:g} × smallest"
        reasons = {"sma_f1": "no new best smoothed score", "loss": f"development loss > {factor}"}
        return f"stopped at epoch {last}: {reasons.get(stop, stop)}"

    def values(self, key: str) -> Numbers:
        """Return a metric for every epoch, NaN where a line lacks it."""
        return np.array([math.nan if line.get(key) is None else line[key] for line in self.epochs], dtype=np.float64)

    def loss_limits(self) -> Numbers:
        """Return the limit of each epoch's development loss: a factor on the smallest loss of earlier epochs."""
        before = np.concatenate([[math.nan], self.values("development_loss")[:-1]])
        return (self.loss_stop_ratio or math.nan) * np.fmin.accumulate(before)
