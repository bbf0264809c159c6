"""Metrics that look like results but are not: a model that always predicts the same, labels that never vary.

Each gets a sentence next to the chance level, so that .25 on four classes is not taken for a result.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from experiment_runner.results.prediction_columns import attributes_of, classes_of
from utils.metrics import Metrics, Numbers, concordance, is_constant

HARDLY = 0.05
"""Predictions hardly vary if their deviation is at most this share of the labels'; CCC is then at most twice it."""


def chance(predictions: pd.DataFrame) -> Metrics:
    """Return the metrics of always predicting the most frequent class: `class`, `macro_f1`, `uar` and `accuracy`.

    If the class has a share p of the utterances, its F1 is 2p / (1 + p) and its recall 1; for all others both are 0.

    Args:
        predictions: Predictions of a split with classes and at least one labelled row.
    """
    classes, counts = classes_of(predictions), predictions["label"].value_counts()
    name = max(classes, key=lambda name: int(counts.get(name, 0)))
    share = float(counts[name] / counts.sum())
    macro_f1, uar = 2 * share / (1 + share) / len(classes), 1 / len(classes)
    return {"class": name, "macro_f1": macro_f1, "uar": uar, "accuracy": share}


def remarks(predictions: pd.DataFrame) -> list[str]:
    """Return a sentence on each kind of metric that means less than it seems to.

    Args:
        predictions: Predictions of a split, see `prediction_table.tabulate_predictions`.
    """
    found = [*_remarks_on_classes(predictions)] if classes_of(predictions) else []
    for name in attributes_of(predictions):
        known = predictions[predictions[name].notna()]
        values = known[name].to_numpy(np.float64), known[f"pred_{name}"].to_numpy(np.float64)
        found += _remarks_on_attribute(name, *values)
    return found


def _remarks_on_classes(predictions: pd.DataFrame) -> Iterator[str]:
    labelled = predictions[predictions["label"].notna()]
    if labelled.empty:
        return
    classes, present = classes_of(predictions), set(labelled["label"])
    by_chance = chance(labelled)
    gives = f'always predicting "{by_chance["class"]}", the most frequent class, gives {by_chance["macro_f1"]:.3f}'
    absent = [name for name in classes if name not in present]
    if absent:
        names = " or ".join(f'"{name}"' for name in absent)
        most = f"{1 - len(absent) / len(classes):.3f}"
        counts = "which counts" if len(absent) == 1 else "which count"
        yield (
            f"no utterance is labelled {names}, {counts} as 0 in macro-F1 and UAR: neither can exceed {most}; {gives} "
            "macro-F1"
        )
    predicted = set(labelled["prediction"])
    if len(predicted) == 1 and len(labelled) > 1:
        yield (
            f'the model predicts "{predicted.pop()}" for every one of {len(labelled):,} labelled utterances; by '
            f"chance, {gives} macro-F1 and {by_chance['uar']:.3f} UAR"
        )


def _remarks_on_attribute(name: str, truth: Numbers, prediction: Numbers) -> Iterator[str]:
    rows = len(truth)
    if rows < 2:
        yield (
            f"{name} is known for {'no utterance' if rows == 0 else 'one utterance'}, and CCC needs two: mean CCC "
            "leaves it out"
        )
        return
    score = concordance(truth, prediction)
    ccc = f"CCC is {score:.3f}" if np.isfinite(score) else "CCC is not defined, and mean CCC leaves it out"
    if is_constant(truth):
        yield (
            f"{name} is {truth[0]:g} in each of {rows:,} labelled utterances: {ccc}, and no prediction gives more than "
            "chance, 0"
        )
    elif is_constant(prediction) or prediction.std() <= HARDLY * truth.std():
        low, high = prediction.min(), prediction.max()
        is_same = f"{low:.3g}" == f"{high:.3g}"
        says = f"is {low:.3g} for" if is_same else f"hardly varies ({low:.3g} to {high:.3g}) over"
        yield f"the predicted {name} {says} {rows:,} utterances: {ccc}, and any constant gives 0 by chance"
