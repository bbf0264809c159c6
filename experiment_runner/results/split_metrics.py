"""Every metric of a split, from the table of its predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import pandas as pd

from experiment_runner.results.collapse import chance, remarks
from experiment_runner.results.statistics import Function, SplitPredictions, compute_statistics
from utils.config.schema import ExperimentConfig
from utils.metrics import Metrics, group_metrics, split_head_mid_tail

NO_OWN: Mapping[str, Function] = MappingProxyType({})


def metrics_from_predictions(
    predictions: pd.DataFrame, groups: Mapping[str, Sequence[str]], own: Mapping[str, Function] = NO_OWN
) -> Metrics:
    """Compute every metric of a split from its predictions.

    Args:
        predictions: Result of `tabulate_predictions`, or the table read back from `predictions/<split>.csv`.
        groups: Head, mid and tail classes.
        own: The user's own statistics by their names.

    Returns:
        `utterances` (rows); the metrics of `utils.metrics` over labelled rows, with `groups`; the statistics of
        `statistics.py`; `chance` (if any row has a class) and `remarks`, see `collapse`; if genders are known, the same
        metrics `by_gender`, with means over the classes that occur in the gender, which `classes` names.
    """
    metrics = _metrics_of_rows(SplitPredictions(predictions), groups, own)
    if metrics.get("labelled"):
        metrics["chance"] = chance(predictions)
    metrics["remarks"] = remarks(predictions)
    if "gender" in predictions:
        by_gender = predictions[predictions["gender"].notna()].groupby("gender")
        metrics["by_gender"] = {
            gender: _metrics_of_rows(SplitPredictions(rows, is_part=True), groups, own) for gender, rows in by_gender
        }
    return metrics


def _metrics_of_rows(
    split: SplitPredictions, groups: Mapping[str, Sequence[str]], own: Mapping[str, Function]
) -> Metrics:
    """Return the metrics of a split, or of a part of it."""
    metrics: Metrics = {"utterances": len(split.table)}
    if split.classes and split.labelled.empty:
        metrics["labelled"] = 0  # a split without emotions
    elif split.classes:
        metrics |= split.over_classes
        counted = metrics.get("classes", split.classes)
        metrics["groups"] = group_metrics({name: metrics["per_class"][name] for name in counted}, groups)
    if split.attributes:
        metrics |= split.over_attributes
    return metrics | compute_statistics(split, own)


def class_groups(config: ExperimentConfig, classes: Sequence[str], counts: Sequence[int]) -> dict[str, list[str]]:
    """Return head, mid and tail classes: as configured, else by share of the training split."""
    if not classes:
        return {}
    if config.class_groups is not None:
        return {name: list(members) for name, members in config.class_groups.model_dump().items()}
    return split_head_mid_tail(dict(zip(classes, map(int, counts), strict=True)))
