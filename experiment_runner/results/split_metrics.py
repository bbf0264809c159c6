"""Every metric of a split, from the table of its predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import pandas as pd

from experiment_runner.results.collapse import chance, remarks
from experiment_runner.results.statistics import (
    SplitPredictions,
    Statistic,
    compute_statistics,
    compute_user_statistics,
)
from utils.config.schema import ExperimentConfig
from utils.metrics import Metrics, group_metrics, split_head_mid_tail

NONE: Mapping[str, Statistic] = MappingProxyType({})


def metrics_from_predictions(
    predictions: pd.DataFrame, groups: Mapping[str, Sequence[str]], user_statistics: Mapping[str, Statistic] = NONE
) -> Metrics:
    """Compute every metric of a split from its predictions.

    Args:
        predictions: Result of `tabulate_predictions`, or the table read back from `predictions/<split>.csv`.
        groups: Head, mid and tail classes.
        user_statistics: The user's own statistics by their names.

    Returns:
        `utterances` (rows); the metrics of `utils.metrics` over labelled rows, with `groups`; the statistics of
        `statistics.py`, and the user's own with `statistics`, their titles by their names, if there are any; `chance`
        (if any row has a class) and `remarks`, see `collapse`; if genders are known, the same metrics `by_gender`, with
        means over the classes that occur in the gender, which `classes` names.
    """
    split = SplitPredictions(predictions)
    metrics = _metrics_of_rows(split, groups, user_statistics)
    if metrics.get("labelled"):
        metrics["chance"] = chance(predictions)
    metrics["remarks"] = remarks(predictions)
    if "gender" in predictions:
        by_gender = predictions[predictions["gender"].notna()].groupby("gender")
        parts = {gender: SplitPredictions(rows, is_part=True) for gender, rows in by_gender}
        metrics["by_gender"] = {
            gender: _metrics_of_rows(part, groups, user_statistics) for gender, part in parts.items()
        }
    return metrics | compute_statistics(split, of_parts=False)


def _metrics_of_rows(
    split: SplitPredictions, groups: Mapping[str, Sequence[str]], user_statistics: Mapping[str, Statistic]
) -> Metrics:
    """Return the metrics of a split, or of a part of it, in the order of the files: those of attributes last."""
    metrics: Metrics = {"utterances": len(split.table)} | split.over_classes
    if not split.labelled.empty:
        counted = metrics.get("classes", split.classes)
        metrics["groups"] = group_metrics({name: metrics["per_class"][name] for name in counted}, groups)
    statistics = compute_statistics(split, of_parts=True)
    metrics |= {key: value for key, value in statistics.items() if key not in split.over_attributes}
    return metrics | split.over_attributes | statistics | compute_user_statistics(split, user_statistics)


def class_groups(config: ExperimentConfig, classes: Sequence[str], counts: Sequence[int]) -> dict[str, list[str]]:
    """Return head, mid and tail classes: as configured, else by share of the training split."""
    if not classes:
        return {}
    if config.class_groups is not None:
        return {name: list(members) for name, members in config.class_groups.model_dump().items()}
    return split_head_mid_tail(dict(zip(classes, map(int, counts), strict=True)))
