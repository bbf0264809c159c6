"""The statistics of a split: one number each, shown in tables, reports, model cards and the epoch's line.

A new one is a decorated function here, or the user's own, named by the key `statistics`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from experiment_runner.results.prediction_columns import PREDICTION, attributes_of, auxiliary_of, classes_of
from utils.config.heads import head_title
from utils.config.schema import ExperimentConfig
from utils.data.labels.columns import further_labels
from utils.errors import DataError
from utils.metrics import Metrics, Numbers, categorical_metrics, dimensional_metrics, over_present_classes
from utils.metrics import rater_divergence as divergence
from utils.registry import load

RESERVED = (
    *("utterances", "labelled", "classes", "per_class", "absent_classes", "confusion_matrix", "untested_classes"),
    *("groups", "chance", "remarks", "by_gender", "mean_ccc_attributes", "statistics", "split", "checkpoint"),
)
"""Keys of a split's metrics that hold no statistic."""
OWN = "statistics"
"""Key, among a split's metrics, of the titles of the user's own statistics by their names."""
ACCURACY = "_accuracy"
"""Ending of the keys of the accuracies of auxiliary heads, after the name of the head."""


@dataclass(frozen=True)
class SplitPredictions:
    """The predictions of a split, or of a part of it, from which statistics are computed.

    Attributes:
        table: Predictions, see `prediction_table.tabulate_predictions`.
        is_part: Whether they are a part of a split, such as one gender: means over classes then cover only the classes
            that occur in the part.
    """

    table: pd.DataFrame
    is_part: bool = False

    @cached_property
    def classes(self) -> list[str]:
        """Emotion classes in output order; empty if none were predicted."""
        return classes_of(self.table)

    @cached_property
    def labelled(self) -> pd.DataFrame:
        """Rows with a class, with the columns `label`, `prediction` and `prob_<class>`."""
        return self.table[self.table["label"].notna()] if self.classes else self.table[:0]

    @cached_property
    def over_classes(self) -> Metrics:
        """Metrics of the labelled rows, see `utils.metrics.categorical_metrics`."""
        metrics = categorical_metrics(list(self.labelled["label"]), list(self.labelled["prediction"]), self.classes)
        return over_present_classes(metrics) if self.is_part else metrics

    @property
    def has_votes(self) -> bool:
        """Whether shares of the raters' votes are known for some rows."""
        return bool(self.classes) and f"share_{self.classes[0]}" in self.table

    def of_classes(self, kind: str) -> Numbers:
        """Return `prob` (probabilities) or `share` (of the votes) of all rows, (rows, classes)."""
        return self.table[[f"{kind}_{name}" for name in self.classes]].to_numpy(np.float64)

    @cached_property
    def attributes(self) -> dict[str, tuple[Numbers, Numbers]]:
        """True values (NaN where unknown) and predicted values of all rows, each (rows,), by attribute."""
        columns = {name: self.table[[name, f"pred_{name}"]].to_numpy(np.float64) for name in attributes_of(self.table)}
        return {name: (values[:, 0], values[:, 1]) for name, values in columns.items()}

    @cached_property
    def over_attributes(self) -> Metrics:
        """Metrics of all attributes, see `utils.metrics.dimensional_metrics`."""
        truth, prediction = ({name: pair[i] for name, pair in self.attributes.items()} for i in (0, 1))
        return dimensional_metrics(truth, prediction)


@dataclass(frozen=True)
class Statistic:
    """A registered statistic.

    Attributes:
        compute: The function.
        title: Title of its column.
        applies: Whether a split has what it needs; if not, it is left out.
        hub: Name of the metric on the hub, with its arguments, for the metadata of model cards.
        is_score: Whether its mean with the other scores of development selects the model; scores stand in the table of
            trainings and in the epoch's line.
    """

    compute: Callable[[SplitPredictions], float | None]
    title: str
    applies: Callable[[SplitPredictions], bool]
    hub: tuple[str, dict[str, str] | None] | None = None
    is_score: bool = False


STATISTICS: dict[str, Statistic] = {}
"""All statistics by their keys among the metrics of a split, in the order of their columns."""
Function = Callable[[SplitPredictions], float | None]


def statistic(
    title: str,
    applies: Callable[[SplitPredictions], bool],
    key: str | None = None,
    hub: tuple[str, dict[str, str] | None] | None = None,
    is_score: bool = False,
) -> Callable[[Function], Function]:
    """Register a function as a statistic, under its name or under a key; see `Statistic`."""

    def register(function: Function) -> Function:
        STATISTICS[key or function.__name__] = Statistic(function, title, applies, hub, is_score)
        return function

    return register


def _has_classes(split: SplitPredictions) -> bool:
    return bool(split.classes)


def _over_classes(split: SplitPredictions, key: str) -> float | None:
    return None if split.labelled.empty else float(split.over_classes[key])


@statistic("macro-F1", _has_classes, hub=("f1", {"average": "macro"}), is_score=True)
def macro_f1(split: SplitPredictions) -> float | None:
    """Return the mean of the classes' F1."""
    return _over_classes(split, "macro_f1")


@statistic("UAR", _has_classes, hub=("recall", {"average": "macro"}))
def uar(split: SplitPredictions) -> float | None:
    """Return the unweighted average recall, the mean of the classes' recalls."""
    return _over_classes(split, "uar")


@statistic("accuracy", _has_classes, hub=("accuracy", None))
def accuracy(split: SplitPredictions) -> float | None:
    """Return the share of correct predictions."""
    return _over_classes(split, "accuracy")


@statistic("weighted F1", _has_classes)
def weighted_f1(split: SplitPredictions) -> float | None:
    """Return the mean of the classes' F1, weighted by their utterances."""
    return _over_classes(split, "weighted_f1")


@statistic("rater divergence", lambda split: split.has_votes)
def rater_divergence(split: SplitPredictions) -> float:
    """Return the divergence of the probabilities from the raters' votes, see `utils.metrics.rater_divergence`."""
    return divergence(split.of_classes("share"), split.of_classes("prob"))


def _register_ccc(attribute: str) -> None:
    """Register the concordance correlation coefficient of an attribute."""
    key = f"ccc_{attribute}"
    register = statistic(f"CCC {attribute}", lambda split: attribute in split.attributes, key, ("ccc", None))
    register(lambda split: float(split.over_attributes[key]))


for _attribute in ("arousal", "valence", "dominance"):
    _register_ccc(_attribute)


@statistic("mean CCC", lambda split: bool(split.attributes), is_score=True)
def mean_ccc(split: SplitPredictions) -> float:
    """Return the mean over the attributes whose CCC is defined."""
    return float(split.over_attributes["mean_ccc"])


def _auxiliary_accuracies(split: SplitPredictions) -> Metrics:
    """Return `<head>_accuracy` of each auxiliary head: the share of correct predictions among the known classes.

    Parts of a split have none.
    """
    metrics: Metrics = {}
    for name in () if split.is_part else auxiliary_of(split.table):
        known = split.table[further_labels(split.table, name).notna()]
        if len(known):
            metrics[name + ACCURACY] = float((known[name] == known[f"{name}{PREDICTION}"]).mean())
    return metrics


def compute_statistics(split: SplitPredictions, own: Mapping[str, Function]) -> Metrics:
    """Return the statistics of a split by their keys; under the key `OWN` the titles of the user's own, if any."""
    metrics: Metrics = {key: item.compute(split) for key, item in STATISTICS.items() if item.applies(split)}
    metrics |= _auxiliary_accuracies(split)
    for name, function in own.items():
        metrics[name] = _call(name, function, split)
    return metrics | ({OWN: {name: name.replace("_", " ") for name in own}} if own else {})


def _call(name: str, function: Function, split: SplitPredictions) -> float | None:
    """Return what a statistic of the user's own gives; None if it does not apply.

    Raises:
        DataError: If it fails, or returns no number.
    """
    try:
        value = function(split)
        number = None if value is None else float(value)
    except Exception as error:  # noqa: BLE001 - the user's code can fail in any way
        raise DataError(f"your statistic {name} failed: {type(error).__name__}: {error}; correct it") from error
    return None if number is None or math.isnan(number) else number


def own_statistics(config: ExperimentConfig) -> dict[str, Function]:
    """Return the user's own statistics of an experiment, which have been imported, by their names.

    Raises:
        DataError: If a name is that of another metric.
    """
    functions: dict[str, Function] = {}
    for place in config.statistics:
        name = place.partition(":")[2]
        if name in {*STATISTICS, *RESERVED, *functions, *(head.name + ACCURACY for head in config.heads)}:
            raise DataError(f'{config.name}: statistics: "{name}" is the name of another metric; rename the function')
        functions[name] = load(place)
    return functions


def titles_in(splits: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return the keys and titles of the statistics that the metrics of some splits have, the user's own last.

    Those of auxiliary heads come before them.
    """
    every = list(splits)
    own = {name: title for metrics in every for name, title in metrics.get(OWN, {}).items()}
    registered = {key: item.title for key, item in STATISTICS.items() if any(key in metrics for metrics in every)}
    further = [key for metrics in every for key in metrics if key.endswith(ACCURACY) and key not in own]
    auxiliary = {key: head_title(key) for key in further}
    return [*registered.items(), *auxiliary.items(), *own.items()]


def titles_by_gender(splits: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return the keys and titles of the statistics that the metrics of some splits have by gender."""
    return titles_in(part for metrics in splits for part in metrics.get("by_gender", {}).values())


def stored_own(metrics: Mapping[str, Any]) -> Metrics:
    """Return the user's own statistics among stored metrics, with their titles; no code is run to read a run."""
    titles = metrics.get(OWN)
    return {OWN: titles, **{name: metrics.get(name) for name in titles}} if isinstance(titles, Mapping) else {}
