"""Every metric of a split, from the table of its predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from experiment_runner.results.collapse import chance, remarks
from utils.config.schema import ExperimentConfig
from utils.metrics import (
    Metrics,
    categorical_metrics,
    dimensional_metrics,
    group_metrics,
    over_present_classes,
    rater_divergence,
    split_head_mid_tail,
)

METRICS = (
    ("macro_f1", "macro-F1"),
    ("uar", "UAR"),
    ("accuracy", "accuracy"),
    ("weighted_f1", "weighted F1"),
    ("rater_divergence", "rater divergence"),
    ("ccc_arousal", "CCC arousal"),
    ("ccc_valence", "CCC valence"),
    ("ccc_dominance", "CCC dominance"),
    ("mean_ccc", "mean CCC"),
    ("gender_accuracy", "gender accuracy"),
)
"""The metrics of a split that tables show, with their titles."""


def metrics_from_predictions(predictions: pd.DataFrame, groups: Mapping[str, Sequence[str]]) -> Metrics:
    """Compute every metric of a split from its predictions.

    Args:
        predictions: Result of `tabulate_predictions`, or the table read back from `predictions/<split>.csv`.
        groups: Head, mid and tail classes.

    Returns:
        `utterances` (rows); the metrics of `utils.metrics` over labelled rows, with `groups`; `chance` (if any row has
        a class) and `remarks`, see `collapse`; if genders are known, the same metrics `by_gender`, with means over the
        classes that occur in the gender, which `classes` names; if genders were predicted, `gender_accuracy`.
    """
    metrics = _emotion_metrics(predictions, groups)
    if metrics.get("labelled"):
        metrics["chance"] = chance(predictions)
    metrics["remarks"] = remarks(predictions)
    if "gender" in predictions:
        known = predictions[predictions["gender"].notna()]
        by_gender = known.groupby("gender")
        metrics["by_gender"] = {gender: _emotion_metrics(rows, groups, True) for gender, rows in by_gender}
        if "gender_prediction" in predictions and len(known):
            metrics["gender_accuracy"] = float((known["gender"] == known["gender_prediction"]).mean())
    return metrics


def _emotion_metrics(predictions: pd.DataFrame, groups: Mapping[str, Sequence[str]], is_part: bool = False) -> Metrics:
    """Return the metrics of a split, or of a part of it, with means over the classes that occur in the part."""
    metrics: Metrics = {"utterances": len(predictions)}
    classes = [name.removeprefix("prob_") for name in predictions.columns if name.startswith("prob_")]
    if classes:
        labelled = predictions[predictions["label"].notna()]
        if labelled.empty:
            nothing = dict.fromkeys(("macro_f1", "weighted_f1", "accuracy", "uar"))
            metrics |= {"labelled": 0, **nothing}  # a split without emotions
        else:
            over_classes = categorical_metrics(list(labelled["label"]), list(labelled["prediction"]), classes)
            metrics |= over_present_classes(over_classes) if is_part else over_classes
            counted = metrics.get("classes", classes)
            metrics["groups"] = group_metrics({name: metrics["per_class"][name] for name in counted}, groups)
    if classes and f"share_{classes[0]}" in predictions:
        shares, probabilities = (predictions[[f"{kind}_{name}" for name in classes]] for kind in ("share", "prob"))
        metrics["rater_divergence"] = rater_divergence(shares.to_numpy(np.float64), probabilities.to_numpy(np.float64))
    attributes = [name.removeprefix("pred_") for name in predictions.columns if name.startswith("pred_")]
    if attributes:
        metrics |= dimensional_metrics(
            {name: predictions[name].to_numpy(dtype=np.float64) for name in attributes},
            {name: predictions[f"pred_{name}"].to_numpy(dtype=np.float64) for name in attributes},
        )
    return metrics


def class_groups(config: ExperimentConfig, classes: Sequence[str], counts: Sequence[int]) -> dict[str, list[str]]:
    """Return head, mid and tail classes: as configured, else by share of the training split."""
    if not classes:
        return {}
    if config.class_groups is not None:
        return {name: list(members) for name, members in config.class_groups.model_dump().items()}
    return split_head_mid_tail(dict(zip(classes, map(int, counts), strict=True)))
