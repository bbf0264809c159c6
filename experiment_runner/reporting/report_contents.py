"""Contents of a report: headline metrics, the worst mistakes, and the changed configuration keys."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from experiment_runner.reporting.pages import number
from experiment_runner.results.collapse import chance
from experiment_runner.results.prediction_columns import attributes_of, classes_of
from experiment_runner.results.row_counts import LABELLED, show_attributes, show_labelled
from utils.commands import evaluation_command, python_command
from utils.config.schema import with_defaults
from utils.metrics import Metrics

MOST_MISTAKES = 20
ABSENT = "(none)"


@dataclass(frozen=True)
class Finding:
    """One group of metrics of a split, with the chance level.

    Attributes:
        metrics: Metrics, such as `macro-F1 0.612, UAR 0.598`.
        basis: Number of utterances that they cover.
        chance: Metrics of a model that has learnt nothing.
    """

    metrics: str
    basis: str
    chance: str


@dataclass(frozen=True)
class Mistake:
    """One utterance that was predicted wrongly.

    Attributes:
        file: Name of the recording in the corpus.
        subject: `class`, or the name of an attribute.
        truth: True class or value.
        prediction: Predicted class or value.
        size: Probability of the prediction, or the error's size on the corpus's scale.
        audio: Address of the recording on this machine; empty if not requested or missing.
    """

    file: str
    subject: str
    truth: str
    prediction: str
    size: float
    audio: str = ""


def findings_of(predictions: pd.DataFrame, metrics: Metrics) -> list[Finding]:
    """Return the headline metrics of one split for the top of a report: classes, then attributes."""
    found = []
    labelled = predictions[predictions["label"].notna()] if "label" in predictions else predictions[:0]
    if len(labelled):
        classes = classes_of(predictions)
        text = f"macro-F1 {number(metrics['macro_f1'])}, UAR {number(metrics['uar'])}"
        basis = f"{len(labelled):,} labelled utterances, {len(classes)} classes"
        found.append(Finding(text, basis, _describe_chance(labelled)))
    attributes = attributes_of(predictions)
    rows = {key: metrics[key] for key in map(f"{LABELLED}_{{}}".format, attributes)}
    if any(rows.values()):
        share = show_attributes(metrics)
        text = f"mean CCC {number(metrics['mean_ccc'])}" + f" over {share} attributes" * bool(share)
        basis = f"{show_labelled(rows)} rated utterances"
        found.append(Finding(text, basis, "the same answer for all of them would have CCC 0"))
    return found


def _describe_chance(labelled: pd.DataFrame) -> str:
    """Describe the metrics of always predicting a split's most frequent class."""
    by_chance = chance(labelled)
    return (
        f'always predicting "{by_chance["class"]}" gives macro-F1 {number(by_chance["macro_f1"])}, '
        f"UAR {number(by_chance['uar'])} and accuracy {number(by_chance['accuracy'])}"
    )


def class_mistakes(predictions: pd.DataFrame, recordings: Mapping[str, str]) -> list[Mistake]:
    """Return the wrong predictions with the highest probability, highest first.

    Args:
        predictions: Predictions of a split.
        recordings: Addresses of recordings by file.
    """
    if "label" not in predictions:
        return []
    wrong = predictions[predictions["label"].notna() & (predictions["label"] != predictions["prediction"])]
    sure = wrong[[f"prob_{name}" for name in classes_of(predictions)]].max(axis=1)
    first = sure.sort_values(ascending=False, kind="stable").head(MOST_MISTAKES)
    rows = wrong.loc[first.index, ["file", "label", "prediction"]].itertuples(index=False, name=None)
    return [
        Mistake(file, "class", label, prediction, float(size), recordings.get(file, ""))
        for (file, label, prediction), size in zip(rows, first, strict=True)
    ]


def attribute_errors(predictions: pd.DataFrame, recordings: Mapping[str, str]) -> list[Mistake]:
    """Return the attribute predictions farthest from the truth, farthest first.

    Args:
        predictions: Predictions of a split.
        recordings: Addresses of recordings by file.
    """
    errors = []
    for name in attributes_of(predictions):
        rows = predictions[["file", name, f"pred_{name}"]].dropna().itertuples(index=False, name=None)
        errors += [
            Mistake(file, name, f"{truth:.2f}", f"{guess:.2f}", abs(truth - guess), recordings.get(file, ""))
            for file, truth, guess in rows
        ]
    return sorted(errors, key=lambda error: -error.size)[:MOST_MISTAKES]


def changed_keys(experiment: Mapping[str, Any], published: Mapping[str, float]) -> dict[str, tuple[Any, Any]]:
    """Return the keys of an experiment that differ from their defaults, each with its value and the default.

    Keys without a default are included, with `(none)` as the default.

    Args:
        experiment: A run's keys, with numeric values resolved.
        published: Numbers of its upstream, by key; runs that store none used the same for every upstream.
    """
    defaults = {**with_defaults({}), **published}
    pairs = {key: (value, defaults.get(key, ABSENT)) for key, value in sorted(experiment.items())}
    return {key: pair for key, pair in pairs.items() if not _is_same(*pair)}


def _is_same(value: object, default: object) -> bool:
    if isinstance(value, (list, tuple)) and isinstance(default, (list, tuple)):
        return list(value) == list(default)
    if isinstance(value, float) and isinstance(default, float):
        return math.isclose(value, default, rel_tol=1e-12)
    return value == default


def commands_of(folder: Path) -> dict[str, str]:
    """Return the commands that a run's report names: `test` evaluates it, `audio` lets the report play recordings."""
    audio = python_command("experiment_runner.reporting.report", ["--with-audio", folder], repeat=["--config"])
    return {"test": evaluation_command(folder), "audio": audio}


def duration(seconds: float | None) -> str:
    """Return a duration in readable words."""
    if seconds is None:
        return "an unknown time"
    minutes = seconds / 60
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
