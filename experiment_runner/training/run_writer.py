"""Writes the results of a training: one line per epoch, checkpoints, and the final result."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from experiment_runner.models.model_config import ModelConfig
from experiment_runner.results.prediction_table import tabulate_predictions
from experiment_runner.results.split_metrics import class_groups, metrics_from_predictions
from experiment_runner.results.statistics import in_epoch_line, load_user_statistics
from experiment_runner.run import Run
from experiment_runner.storage.checkpoints import AFRESH, Checkpoint, CheckpointError, TrainingState
from experiment_runner.training.provenance import describe_provenance
from experiment_runner.training.snapshot import EpochRecord, TrainingSnapshot
from net.ser import Outputs
from utils.hub.model_files import CONFIG, METRICS, PROVENANCE
from utils.io.files import atomic_write
from utils.metrics import Metrics
from utils.word_forms import counted

DEVELOPMENT_PREDICTIONS = "development.csv"
NEEDED = {"epoch", "improved", "stop", "smoothed_score", "development_loss", "development_score", "refused_steps"}
"""Keys of an epoch's record that resuming needs."""


class RunWriter:
    """Writes into a run's folder what its trainer reports.

    Args:
        run: The run.
        description: Description of the model.
        records: Records of earlier epochs.
        seconds: Training time before this start, in seconds.

    Attributes:
        records: One flat record per epoch, as in `metrics.jsonl`.
    """

    def __init__(
        self,
        run: Run,
        description: ModelConfig,
        records: Sequence[dict[str, Any]] = (),
        seconds: float = 0.0,
    ) -> None:
        self.run = run
        self.description = description
        self.records = list(records)
        self._began = time.monotonic() - seconds
        self.groups = class_groups(run.config, description.classes, description.class_counts)
        self.statistics = load_user_statistics(run.config)
        self.provenance = describe_provenance(run)

    def compute_metrics(self, outputs: Outputs) -> tuple[pd.DataFrame, Metrics]:
        """Return development predictions and their metrics."""
        predictions = tabulate_predictions(self.run.data.development, outputs, self.description.labels)
        return predictions, metrics_from_predictions(predictions, self.groups, self.statistics)

    @property
    def seconds(self) -> float:
        """Training time so far, in seconds."""
        return time.monotonic() - self._began

    def save(self, moment: TrainingSnapshot) -> None:
        """Save a checkpoint to resume from; the best model is saved with its development predictions."""
        documents: dict[str, object] = {CONFIG: self.description.to_json(), PROVENANCE: self.provenance}
        texts = {}
        if moment.best is not None:
            development = moment.best.development
            documents[METRICS] = {**flatten(moment.best), "development": development.metrics}
            texts[DEVELOPMENT_PREDICTIONS] = development.predictions.to_csv(index=False)
        known = {"records": self.records, "seconds": self.seconds}
        checkpoint = Checkpoint(
            epoch=moment.epoch,
            step=moment.step,
            weights=moment.weights,
            documents=documents,
            state=replace(moment.state, document={**moment.state.document, **known}),
            is_best=moment.best is not None,
            is_evaluated=moment.is_evaluated,
            texts=texts,
        )
        path = self.run.folder.checkpoints.save(checkpoint, self.run.config.keep_checkpoints)
        if moment.best is not None:
            show_predictions(path, self.run.folder.path)

    def record(self, record: EpochRecord) -> None:
        """Write an epoch's line to `metrics.jsonl` and to the console."""
        refused = record.refused_steps - (self.records[-1]["refused_steps"] if self.records else 0)
        self.records.append(flatten(record))
        self.run.folder.append_metrics(self.records[-1])
        self.run.console.line(epoch_line(record, self.run.config.epoch))
        self.run.tracking.look()
        if refused:
            steps_had = counted(refused, "step of this epoch had", "steps of this epoch had")
            self.run.console.warn(
                f"{steps_had} gradients that are not finite and {'was' if refused == 1 else 'were'} skipped"
            )

    def result(self, stop: str) -> dict[str, Any]:
        """Return the content of `result.json`."""
        best = [record for record in self.records if record["improved"]][-1]
        return {
            "stop": stop,
            "epochs": self.records[-1]["epoch"],
            "best_epoch": best["epoch"],
            "best_score": best["smoothed_score"],
            "development": best,
            "refused_steps": self.records[-1]["refused_steps"],
            "seconds": round(self.seconds, 3),
        }


def recorded_before(state: TrainingState) -> dict[str, Any]:
    """Return the `records` and `seconds` of a resumed training.

    Raises:
        CheckpointError: If they are not what a `RunWriter` has saved.
    """
    records, seconds = state.document.get("records"), state.document.get("seconds")
    is_known = isinstance(records, list) and all(isinstance(r, dict) and r.keys() >= NEEDED for r in records)
    if not is_known or not isinstance(seconds, (int, float)):
        raise CheckpointError(f"the checkpoint does not hold the epochs before it{AFRESH}")
    return {"records": records, "seconds": float(seconds)}


def show_predictions(checkpoint: Path, folder: Path) -> None:
    """Copy the best checkpoint's development predictions to the run's predictions folder."""
    target = folder / "predictions" / DEVELOPMENT_PREDICTIONS
    target.parent.mkdir(exist_ok=True)
    atomic_write(target, (checkpoint / DEVELOPMENT_PREDICTIONS).read_bytes())


def flatten(record: EpochRecord) -> dict[str, Any]:
    """Return an epoch's numbers and decision as one flat record; non-finite numbers are left out."""
    development, decision = record.development, record.decision
    metrics = {name: value for name, value in development.metrics.items() if isinstance(value, float)}
    numbers = {
        **{f"train_{name}": value for name, value in record.train.items()},
        "development_loss": development.loss,
        **{f"development_{name}": value for name, value in development.terms.items()},
        "development_score": development.score,
        **{f"development_{name}": value for name, value in metrics.items()},
        "smoothed_score": decision.smoothed,
        "learning_rate": record.learning_rate,
        "seconds": round(record.seconds, 3),
    }
    return {
        "epoch": record.epoch,
        "step": record.step,
        **{name: value for name, value in numbers.items() if math.isfinite(value)},
        "improved": decision.improved,
        "stop": decision.stop,
        "decision": decision.explanation,
        "refused_steps": record.refused_steps,
    }


def epoch_line(record: EpochRecord, epochs: int) -> str:
    """Return an epoch's line for the console."""
    development = record.development
    scores = "  ".join(f"{title} {value:.4f}" for title, value in in_epoch_line(development.metrics))
    return (
        f"epoch {record.epoch}/{epochs}  train loss {record.train['loss']:.4f}  dev loss {development.loss:.4f}  "
        f"{scores}  smoothed {record.decision.smoothed:.4f}  {record.decision.explanation}  "
        f"({record.seconds:.1f} s, trained {record.trained / record.train_seconds:.0f} utterances/s)"
    )
