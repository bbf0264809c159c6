"""Keeps what a training finds: a line an epoch, the best model, and the result."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from experiment_runner.evaluate import class_groups, figures_from_predictions, tabulate_predictions, write_predictions
from experiment_runner.model_description import ModelDescription
from experiment_runner.provenance import describe_provenance
from experiment_runner.run import Run
from experiment_runner.train import EpochRecord
from net.ser import Outputs
from net.ser_model_wrapper import SERModelWrapper
from utils.metrics import Figures


class Recorder:
    """Writes into a run's folder what its trainer reports.

    Args:
        run: The run.
        model: What is saved.
        description: What the model is.
    """

    def __init__(self, run: Run, model: SERModelWrapper, description: ModelDescription) -> None:
        self.run = run
        self.model = model
        self.description = description
        self.groups = class_groups(run.config, description.classes, description.class_counts)
        self.provenance = describe_provenance(run)
        self.best: dict[str, Any] = {}
        self.last: dict[str, Any] = {}

    def judge(self, outputs: Outputs) -> tuple[pd.DataFrame, Figures]:
        """Return development predictions and their figures."""
        predictions = tabulate_predictions(self.run.data.development, outputs, self.description.labels)
        return predictions, figures_from_predictions(predictions, self.groups)

    def save(self, record: EpochRecord) -> None:
        """Keep the best model, with the predictions that made it the best."""
        documents = {
            "config.json": self.description.to_json(),
            "metrics.json": {**flatten(record), "development": record.development.figures},
            "provenance.json": self.provenance,
        }
        folder = self.run.folder
        folder.checkpoints.save(record.epoch, record.step, self.model.state_dict(), documents, link="best")
        write_predictions(folder.path / "predictions" / "development.csv", record.development.predictions)
        self.best = flatten(record)

    def record(self, record: EpochRecord) -> None:
        """Write an epoch's line, to `metrics.jsonl` and to the screen."""
        refused = record.refused_steps - self.last.get("refused_steps", 0)
        self.last = flatten(record)
        self.run.folder.append_metrics(self.last)
        self.run.screen.line(epoch_line(record, self.run.config.epoch, len(self.run.data.train)))
        self.run.tracking.look()
        if refused:
            self.run.screen.warn(f"{refused} steps of this epoch had gradients that are not finite; they were skipped")

    def result(self, stop: str, seconds: float) -> dict[str, Any]:
        """Return what `result.json` holds."""
        return {
            "stop": stop,
            "epochs": self.last["epoch"],
            "best_epoch": self.best["epoch"],
            "best_score": self.best["smoothed_score"],
            "development": self.best,
            "refused_steps": self.last["refused_steps"],
            "seconds": round(seconds, 3),
        }


def flatten(record: EpochRecord) -> dict[str, Any]:
    """Return an epoch's numbers and decision as one flat line; figures that are not finite are left out."""
    development, decision = record.development, record.decision
    figures = {name: value for name, value in development.figures.items() if isinstance(value, float)}
    numbers = {
        **{f"train_{name}": value for name, value in record.train.items()},
        "development_loss": development.loss,
        **{f"development_{name}": value for name, value in development.terms.items()},
        "development_score": development.score,
        **{f"development_{name}": value for name, value in figures.items()},
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


def epoch_line(record: EpochRecord, epochs: int, utterances: int) -> str:
    """Return an epoch's line for the screen."""
    development = record.development
    names = (("macro_f1", "macro-F1"), ("mean_ccc", "mean CCC"), ("gender_accuracy", "gender accuracy"))
    scores = "  ".join(f"{label} {development.figures[key]:.4f}" for key, label in names if key in development.figures)
    return (
        f"epoch {record.epoch}/{epochs}  train loss {record.train['loss']:.4f}  dev loss {development.loss:.4f}  "
        f"{scores}  smoothed {record.decision.smoothed:.4f}  {record.decision.explanation}  "
        f"({record.seconds:.1f} s, trained {utterances / record.train_seconds:.0f} utterances/s)"
    )
