"""What a trainer hands over: an epoch's record, and the moments from which training can be gone on."""

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
        terms: Its named parts.
        score: What selects the model, see `selection_score`.
        figures: Figures of the split, such as `macro_f1` and `mean_ccc`.
        predictions: What they were computed from.
    """

    loss: float
    terms: dict[str, float]
    score: float
    figures: Metrics
    predictions: pd.DataFrame


@dataclass(frozen=True)
class EpochRecord:
    """Everything known after an epoch.

    Attributes:
        epoch: Counted from 1.
        step: Optimiser steps so far.
        train: Mean of each loss term.
        development: The pass after it.
        decision: Of early stopping.
        refused_steps: So far.
        trained: Utterances that were trained on in `train_seconds`: fewer than the epoch's where it was interrupted.
        train_seconds: Since the start, or since training was gone on with in the middle of it.
        seconds: Likewise, with the development pass.
        learning_rate: At its end.
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
    """Where a training can be gone on from.

    Attributes:
        epoch: The last one of which steps were taken.
        step: Optimiser steps so far.
        is_evaluated: False between an epoch's last step and its evaluation.
        best: The record of the epoch that ends here, if its model is the best so far.
        weights: Of the model.
        state: All else, but for what was recorded.
    """

    epoch: int
    step: int
    is_evaluated: bool
    best: EpochRecord | None
    weights: Mapping[str, Tensor]
    state: TrainingState
