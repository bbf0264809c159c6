"""The data that a trainer hands over: epoch records, and snapshots from which training can be resumed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
from torch import Tensor

from experiment_runner.storage.checkpoints import TrainingState
from experiment_runner.training.early_stopping import Decision
from utils.metrics import Metrics


@dataclass(frozen=True)
class DevelopmentFigures:
    """One development pass.

    Attributes:
        loss: The training criterion, without auxiliary terms, once over the whole split, in fp32, on outputs of the
            training's precision.
        terms: Named terms of the loss, with the auxiliary ones.
        score: Model selection score, see `selection_score`.
        metrics: Metrics of the split, such as `macro_f1` and `mean_ccc`.
        predictions: Predictions that the metrics were computed from.
    """

    loss: float
    terms: dict[str, float]
    score: float
    metrics: Metrics
    predictions: pd.DataFrame


@dataclass(frozen=True)
class EpochRecord:
    """Everything known after an epoch.

    Attributes:
        epoch: Counted from 1.
        step: Optimiser steps so far.
        train: Mean of each loss term.
        development: Development pass after the epoch.
        decision: Decision of early stopping.
        refused_steps: Refused steps so far.
        trained: Utterances trained on in `train_seconds`: fewer than the epoch has if it was interrupted.
        train_seconds: Training time since the epoch's start, or since training resumed in the middle of it.
        seconds: The same, including the development pass.
        learning_rate: Learning rate at the end of the epoch.
    """

    epoch: int
    step: int
    train: dict[str, float]
    development: DevelopmentFigures
    decision: Decision
    refused_steps: int
    trained: int
    train_seconds: float
    seconds: float
    learning_rate: float


@dataclass(frozen=True)
class TrainingSnapshot:
    """A state from which training can be resumed.

    Attributes:
        epoch: Last epoch in which steps were taken.
        step: Optimiser steps so far.
        is_evaluated: False between an epoch's last step and its evaluation.
        best: Record of the epoch that ends here if its model is the best so far, else None.
        weights: State dict of the model.
        state: Everything else needed to resume, except the epochs' records.
    """

    epoch: int
    step: int
    is_evaluated: bool
    best: EpochRecord | None
    weights: Mapping[str, Tensor]
    state: TrainingState
