"""The statistics of a split: one number each, shown in tables, reports, model cards and the epoch line.

A new one is a decorated function here, or the user's own, named by the key `statistics`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd

from experiment_runner.results.prediction_columns import attributes_of, classes_of
from utils.config.schema import ExperimentConfig
from utils.errors import DataError
from utils.metrics import Metrics, Numbers, categorical_metrics, dimensional_metrics, over_present_classes
from utils.metrics import rater_divergence as divergence
from utils.registry import load

RESERVED = re.compile(
    "utterances|labelled|classes|per_class|absent_classes|confusion_matrix|untested_classes|groups|chance|remarks|"
    "by_gender|mean_ccc_attributes|statistics|split|checkpoint|loss|score|(labelled|ccc|pearson|rmse)_.*|.*_loss"
)
"""Other names among the metrics of a split, and in the records of epochs, which a statistic cannot have."""
TITLES = "statistics"
"""Key, among a split's metrics, of the titles of the user's own statistics by their names."""
Function = Callable[["SplitPredictions"], float | None]


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
        """Metrics of the labelled rows, see `utils.metrics.categorical_metrics`.

        Without such rows the means are None. Empty if no classes were predicted.
        """
        if self.labelled.empty:
            means = dict.fromkeys(("macro_f1", "weighted_f1", "accuracy", "uar"))
            return {"labelled": 0, **means} if self.classes else {}
        metrics = categorical_metrics(list(self.labelled["label"]), list(self.labelled["prediction"]), self.classes)
        return over_present_classes(metrics) if self.is_part else metrics

    @property
    def has_votes(self) -> bool:
        """Whether the table has shares of the raters' votes."""
        return bool(self.classes) and f"share_{self.classes[0]}" in self.table

    @property
    def probabilities(self) -> Numbers:
        """Probabilities of the classes, (rows, classes)."""
        return self.table[[f"prob_{name}" for name in self.classes]].to_numpy(np.float64)

    @property
    def shares(self) -> Numbers:
        """Shares of the raters' votes, (rows, classes), NaN where unknown; only if `has_votes`."""
        return self.table[[f"share_{name}" for name in self.classes]].to_numpy(np.float64)

    @cached_property
    def attributes(self) -> dict[str, tuple[Numbers, Numbers]]:
        """True values (NaN where unknown) and predicted values of all rows, each (rows,), by attribute."""
        columns = {name: self.table[[name, f"pred_{name}"]].to_numpy(np.float64) for name in attributes_of(self.table)}
        return {name: (values[:, 0], values[:, 1]) for name, values in columns.items()}

    @cached_property
    def over_attributes(self) -> Metrics:
        """Metrics of all attributes, see `utils.metrics.dimensional_metrics`; empty if none were predicted."""
        truth, prediction = ({name: pair[i] for name, pair in self.attributes.items()} for i in (0, 1))
        return dimensional_metrics(truth, prediction) if self.attributes else {}


def _always(split: SplitPredictions) -> bool:
    return True


@dataclass(frozen=True)
class Statistic:
    """A statistic: a function of a split's predictions, and how its result is shown.

    Attributes:
        compute: The function; it returns None or NaN if the statistic is not defined for these predictions.
        title: Title of its column.
        applies: Whether a split has what it needs; if not, it is left out.
        hub: Name of the metric on the hub, with its arguments, for the metadata of model cards.
        is_score: Whether the score that selects the model is the mean of this and the other scores; scores stand in the
            table of trainings.
        is_in_epoch_line: Whether it stands in the epoch line, as scores and the user's own statistics do.
        is_of_parts: Whether it is also computed for parts of a split, such as one gender.
    """

    compute: Function
    title: str
    applies: Callable[[SplitPredictions], bool] = _always
    hub: tuple[str, dict[str, str] | None] | None = None
    is_score: bool = False
    is_in_epoch_line: bool = False
    is_of_parts: bool = True

    def __call__(self, split: SplitPredictions) -> float | None:
        """Return the statistic of a split."""
        return self.compute(split)


def statistic(
    title: str,
    applies: Callable[[SplitPredictions], bool] = _always,
    **shown: Any,  # noqa: ANN401 - further attributes
) -> Callable[[Function], Statistic]:
    """Make a function a statistic, whose key is the function's name; see `Statistic` for the arguments."""
    return lambda function: Statistic(function, title, applies, **shown)


def _has_classes(split: SplitPredictions) -> bool:
    return bool(split.classes)


def _over_classes(split: SplitPredictions, key: str) -> float | None:
    mean: float | None = split.over_classes[key]
    return mean


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
    return divergence(split.shares, split.probabilities)


def _ccc(attribute: str) -> Statistic:
    """Return the statistic of an attribute's concordance correlation coefficient."""

    @statistic(f"CCC {attribute}", lambda split: attribute in split.attributes, hub=("ccc", None))
    def ccc(split: SplitPredictions) -> float:
        return float(split.over_attributes[f"ccc_{attribute}"])

    return ccc


ccc_arousal, ccc_valence, ccc_dominance = map(_ccc, ("arousal", "valence", "dominance"))


@statistic("mean CCC", lambda split: bool(split.attributes), is_score=True)
def mean_ccc(split: SplitPredictions) -> float:
    """Return the mean over the attributes whose CCC is defined."""
    return float(split.over_attributes["mean_ccc"])


def _predicts_known_genders(split: SplitPredictions) -> bool:
    is_predicted = {"gender", "gender_prediction"} <= set(split.table)
    return is_predicted and bool(split.table["gender"].notna().any())


@statistic("gender accuracy", _predicts_known_genders, is_in_epoch_line=True, is_of_parts=False)
def gender_accuracy(split: SplitPredictions) -> float:
    """Return the share of correctly predicted genders among those that are known."""
    known = split.table[split.table["gender"].notna()]
    return float((known["gender"] == known["gender_prediction"]).mean())


STATISTICS: dict[str, Statistic] = {name: item for name, item in vars().items() if isinstance(item, Statistic)}
"""All statistics of this module by their names, which are their keys among the metrics, in the order of columns."""


def compute_statistics(split: SplitPredictions, of_parts: bool) -> Metrics:
    """Return, by their keys, the statistics that parts of a split have as well, or the others."""
    chosen = {key: item for key, item in STATISTICS.items() if item.is_of_parts == of_parts}
    return {key: item(split) for key, item in chosen.items() if item.applies(split)}


def compute_user_statistics(split: SplitPredictions, statistics: Mapping[str, Statistic]) -> Metrics:
    """Return the user's own statistics by their names, and their titles under the key `TITLES`, if there are any.

    They get a copy of the predictions, so that they cannot change what is stored.
    """
    copy = SplitPredictions(split.table.copy(), split.is_part)
    chosen = {name: item for name, item in statistics.items() if item.is_of_parts or not split.is_part}
    metrics: Metrics = {name: item(copy) for name, item in chosen.items() if item.applies(copy)}
    return metrics | ({TITLES: {name: chosen[name].title for name in metrics}} if metrics else {})


def load_user_statistics(config: ExperimentConfig) -> dict[str, Statistic]:
    """Return the user's own statistics of an experiment, which have been imported, by their names.

    Raises:
        DataError: If a name is that of another metric.
    """
    statistics: dict[str, Statistic] = {}
    for place in config.statistics:
        name = place.partition(":")[2]
        if name in {*STATISTICS, *statistics} or RESERVED.fullmatch(name):
            raise DataError(
                f'{config.name}: statistics: "{place}": "{name}" is the name of another metric; rename the function'
            )
        code = load(place)
        item = code if isinstance(code, Statistic) else Statistic(code, name.replace("_", " "))
        statistics[name] = replace(item, compute=_checked(place, item), applies=_always)
    return statistics


def _checked(place: str, item: Statistic) -> Function:
    """Return the function of a user's own statistic, with its errors in one sentence each."""

    def compute(split: SplitPredictions) -> float | None:
        try:
            value = item(split) if item.applies(split) else None
        except Exception as error:  # noqa: BLE001 - the user's code can fail in any way
            raise DataError(f'statistics: "{place}" failed: {type(error).__name__}: {error}; correct it') from error
        if value is not None and (isinstance(value, bool) or not isinstance(value, Real)):
            raise DataError(
                f'statistics: "{place}" returned a value of type {type(value).__name__}; return a float, or None where '
                "it does not apply"
            )
        return None if value is None or not math.isfinite(value) else float(value)

    return compute


def titles_in(splits: Iterable[Mapping[str, Any]], of_parts: bool = False) -> list[tuple[str, str]]:
    """Return the keys and titles of the statistics that any of these metrics have, the user's own last.

    Args:
        splits: Metrics of splits.
        of_parts: Whether to leave out those that parts of a split do not have.
    """
    every = list(splits)
    shown = {key: item.title for key, item in STATISTICS.items() if item.is_of_parts or not of_parts}
    titles = {key: title for key, title in shown.items() if any(key in metrics for metrics in every)}
    for metrics in every:
        titles |= metrics.get(TITLES, {})
    return list(titles.items())


def in_epoch_line(metrics: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Return the titles and values of the statistics that stand in the epoch line, as far as they are defined."""
    hidden = {key for key, item in STATISTICS.items() if not (item.is_score or item.is_in_epoch_line)}
    shown = [(key, title) for key, title in titles_in([metrics]) if key not in hidden]
    return [(title, metrics[key]) for key, title in shown if metrics[key] is not None]


def with_stored(computed: Metrics, stored: object) -> Metrics:
    """Return recomputed metrics with the user's own statistics among the stored ones, for which no code is run."""
    if not isinstance(stored, Mapping) or not isinstance(stored.get(TITLES), Mapping):
        return computed
    names = {name: title for name, title in stored[TITLES].items() if name not in computed}
    metrics = computed | {name: stored.get(name) for name in names} | {TITLES: names}
    parts, stored_parts = computed.get("by_gender", {}), stored.get("by_gender", {})
    genders = {gender: with_stored(part, stored_parts.get(gender)) for gender, part in parts.items()}
    return metrics | ({"by_gender": genders} if genders else {})
