"""Predictions like those of a model."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import torch

from dataset_module.ser_dataset import Labels
from experiment_runner.results.prediction_table import tabulate_predictions
from net.ser import Outputs

FOUR = ("angry", "sad", "happy", "neutral")
ATTRIBUTES = ("arousal", "valence", "dominance")


def predict(classes: tuple[str, ...], utterances: int, seed: int = 0) -> pd.DataFrame:
    """Predictions, right half of the time, through the function that writes those of a run."""
    generator = np.random.default_rng(seed)
    truth = generator.choice(
        len(classes), utterances, p=np.arange(1, len(classes) + 1) / math.comb(len(classes) + 1, 2)
    )
    table = pd.DataFrame({"file": [f"{n}.wav" for n in range(utterances)]})
    table["emotion"] = np.array(classes, dtype=object)[truth]
    table.loc[0, "emotion"] = np.nan
    table["gender"] = "female"
    for name in ATTRIBUTES:
        table[name] = 1 + 6 * generator.random(utterances)
    table.loc[1, "valence"] = np.nan
    logits = torch.from_numpy(generator.normal(size=(utterances, len(classes))))
    logits[torch.arange(utterances // 2), truth[: utterances // 2]] += 5
    attributes = torch.from_numpy((table[list(ATTRIBUTES)].fillna(4).to_numpy() - 1) / 6)
    attributes = 0.7 * attributes + 0.2 * torch.from_numpy(generator.random(attributes.shape))
    outputs = Outputs(torch.zeros(utterances, 0), emotion=logits, attributes=attributes)
    return tabulate_predictions(table, outputs, Labels(classes, ATTRIBUTES, (1.0, 7.0)))
