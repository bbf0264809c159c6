"""Evaluation of trained models: predictions as a table, and every figure computed from that table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from dataset_module.ser_dataset import Labels, SERDataset
from experiment_runner.data.experiment_data import EvaluationSplit, ExperimentData
from experiment_runner.data.preparation import check_test_recordings
from experiment_runner.loading.batch_loader import begin_pass, decoded, make_loader
from experiment_runner.models.ser_model import SERModel
from experiment_runner.results.collapse import chance, remarks
from experiment_runner.results.predictions import predicted_attributes, predicted_emotion, predicted_gender
from experiment_runner.run import Run
from experiment_runner.runtime.out_of_memory import names_in
from experiment_runner.storage.run_folder import RunError
from experiment_runner.training.inference import infer
from net.ser import Outputs
from utils.commands import RUN_OPTIONS, script_command
from utils.config.schema import ExperimentConfig
from utils.data import CATEGORICAL, DIMENSIONAL
from utils.data.labels.vote_shares import VoteSettings, has_votes, vote_shares
from utils.dataset.sampling import EVALUATION, BatchItems, evaluation_batches
from utils.io.files import write_json, write_whole
from utils.metrics import (
    Figures,
    categorical_figures,
    dimensional_figures,
    group_figures,
    over_present_classes,
    rater_divergence,
    split_head_mid_tail,
)

FIGURES = (
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
"""The figures of a split that tables show, with their titles."""


def tabulate_predictions(
    table: pd.DataFrame, outputs: Outputs, labels: Labels, shared_classes: Sequence[str] | None = None
) -> pd.DataFrame:
    """Return the predictions of a split, one row an utterance in the table's order.

    Args:
        table: Utterance table of the split.
        outputs: The model's outputs for it.
        labels: The model's classes and attributes; the scale is that of the table's corpus.
        shared_classes: The classes to choose from, where they are fewer than the model's.

    Returns:
        `file`, then `label`, `prediction`, `prob_<class>` and, where the corpus knows its raters' primary votes, their
        `share_<class>`, where classes were trained, then `<attribute>` and
        `pred_<attribute>` on the scale of the table, clipped to it, then `gender` where any is known and
        `gender_prediction` where it was trained.
    """
    columns: dict[str, object] = {"file": table["file"].to_numpy(dtype=object)}
    if outputs.emotion is not None:
        classes = labels.classes if shared_classes is None else tuple(shared_classes)
        columns["label"] = table["emotion"].where(table["emotion"].isin(classes)).to_numpy(dtype=object)
        columns |= predicted_emotion(outputs.emotion, labels.classes, classes)
        if has_votes(table):
            shares = vote_shares(table, classes, VoteSettings())  # whatever was learnt, so that models can be compared
            columns |= {f"share_{name}": shares[:, index] for index, name in enumerate(classes)}
    if outputs.attributes is not None:
        for name, values in predicted_attributes(outputs.attributes, labels).items():
            columns[name] = table[name].to_numpy(dtype=np.float64)
            columns[f"pred_{name}"] = values
    if table["gender"].notna().any():
        columns["gender"] = table["gender"].to_numpy(dtype=object)
    if outputs.gender is not None:
        columns["gender_prediction"] = predicted_gender(outputs.gender, labels)
    return pd.DataFrame(columns)


def figures_from_predictions(predictions: pd.DataFrame, groups: Mapping[str, Sequence[str]]) -> Figures:
    """Compute every figure of a split from its predictions.

    Args:
        predictions: As `tabulate_predictions` returns it, or as read back from `predictions/<split>.csv`.
        groups: Head, mid and tail classes.

    Returns:
        `utterances` (rows), the figures of `utils.metrics` over those that are labelled, with `groups`; `chance`, where
        any row has a class, and `remarks`, see `collapse`; where genders are known, the same figures `by_gender`, the
        means over classes over those that occur in the gender, which `classes` names; where genders were predicted,
        `gender_accuracy`.
    """
    figures = _emotion_figures(predictions, groups)
    if figures.get("labelled"):
        figures["chance"] = chance(predictions)
    figures["remarks"] = remarks(predictions)
    if "gender" in predictions:
        known = predictions[predictions["gender"].notna()]
        by_gender = known.groupby("gender")
        figures["by_gender"] = {gender: _emotion_figures(rows, groups, True) for gender, rows in by_gender}
        if "gender_prediction" in predictions and len(known):
            figures["gender_accuracy"] = float((known["gender"] == known["gender_prediction"]).mean())
    return figures


def _emotion_figures(predictions: pd.DataFrame, groups: Mapping[str, Sequence[str]], is_part: bool = False) -> Figures:
    """Return the figures of a split, or of a part of it, whose means are over the classes that occur there."""
    figures: Figures = {"utterances": len(predictions)}
    classes = [name.removeprefix("prob_") for name in predictions.columns if name.startswith("prob_")]
    if classes:
        labelled = predictions[predictions["label"].notna()]
        if labelled.empty:
            nothing = dict.fromkeys(("macro_f1", "weighted_f1", "accuracy", "uar"))
            figures |= {"labelled": 0, **nothing}  # a split without emotions
        else:
            over_classes = categorical_figures(list(labelled["label"]), list(labelled["prediction"]), classes)
            figures |= over_present_classes(over_classes) if is_part else over_classes
            counted = figures.get("classes", classes)
            figures["groups"] = group_figures({name: figures["per_class"][name] for name in counted}, groups)
    if classes and f"share_{classes[0]}" in predictions:
        shares, probabilities = (predictions[[f"{kind}_{name}" for name in classes]] for kind in ("share", "prob"))
        figures["rater_divergence"] = rater_divergence(shares.to_numpy(np.float64), probabilities.to_numpy(np.float64))
    attributes = [name.removeprefix("pred_") for name in predictions.columns if name.startswith("pred_")]
    if attributes:
        figures |= dimensional_figures(
            {name: predictions[name].to_numpy(dtype=np.float64) for name in attributes},
            {name: predictions[f"pred_{name}"].to_numpy(dtype=np.float64) for name in attributes},
        )
    return figures


def class_groups(config: ExperimentConfig, classes: Sequence[str], counts: Sequence[int]) -> dict[str, list[str]]:
    """Return head, mid and tail classes: as configured, else by share of the training split."""
    if not classes:
        return {}
    if config.class_groups is not None:
        return {name: list(members) for name, members in config.class_groups.model_dump().items()}
    return split_head_mid_tail(dict(zip(classes, map(int, counts), strict=True)))


def run_evaluate(run: Run) -> dict[str, Figures]:
    """Evaluate one trained run on every test split.

    Writes `predictions/<split>.csv` and `evaluation/<split>.json`; for a split without labels `submissions/*.csv`.

    Returns:
        Figures by split that has labels.

    Raises:
        RunError: Where the run was trained with other settings, or on other classes.
        CheckpointError: Where there is no usable checkpoint.
        DataError: Where a test recording cannot be used, or holds the samples of a training recording.
    """
    with run.processes.agreement():
        model = _load_trained(run)
    tables = run.processes.from_main(partial(check_test_recordings, run.config, run.data, run.screen))
    groups = class_groups(run.config, model.description.classes, model.description.class_counts)
    results = {}
    for test, table in zip(run.data.tests, tables, strict=True):
        predictions = _predict_split(run, model, test, table)
        figures = None
        if not test.is_hidden:
            figures = figures_from_predictions(predictions, groups) | _untested_classes(run.data, test)
        run.processes.from_main(partial(_keep_split, run, test.label, predictions, figures, model.folder.name))
        if figures is not None:
            results[test.label] = figures
    return results


def _load_trained(run: Run) -> SERModel:
    """Return the best model of a finished run."""
    data, folder = run.data, run.folder
    if not folder.is_finished:
        training = script_command("main.py", repeat=RUN_OPTIONS)
        raise RunError(f"{folder.path} holds no finished training; train it first: `{training}`")
    folder.check_unchanged(data)
    if not data.tests:
        raise RunError(f"{run.config.corpus} has no test split with labels in use; there is nothing to evaluate")
    model = SERModel.from_pretrained(folder.path, run.device)
    classes = model.description.classes
    if classes != data.classes or model.description.attributes != data.attributes:
        raise RunError(
            f"{folder.path} was trained on the classes {', '.join(classes)}, but the labels now give "
            f"{', '.join(data.classes)}; restore the labels or train again with --retrain"
        )
    return model


def write_submissions(folder: Path, split: str, predictions: pd.DataFrame) -> list[Path]:
    """Write what MSP-PODCAST's leaderboards take for a split whose labels are kept back.

    Args:
        folder: Where to.
        split: Begins the files' names.
        predictions: As `tabulate_predictions` returns them.

    Returns:
        `<split>-categorical.csv` with `FileName,Prediction` (the class's code, such as `A`) where classes were
        predicted, and `<split>-attributes.csv` with `FileName,EmoAct,EmoVal,EmoDom` where attributes were.
    """
    tables = {}
    if "prediction" in predictions:
        codes = {label: code for code, label in CATEGORICAL["msp-podcast"].items()}
        known = {"FileName": predictions["file"], "Prediction": predictions["prediction"].map(codes)}
        tables["categorical"] = pd.DataFrame(known)
    columns = {column: f"pred_{name}" for name, column in DIMENSIONAL["msp-podcast"].items()}
    if set(columns.values()) <= set(predictions.columns):
        values = {column: predictions[predicted] for column, predicted in columns.items()}
        tables["attributes"] = pd.DataFrame({"FileName": predictions["file"], **values})
    paths = {kind: folder / f"{split}-{kind}.csv" for kind in tables}
    for kind, table in tables.items():
        write_predictions(paths[kind], table)
    return list(paths.values())


def _untested_classes(data: ExperimentData, test: EvaluationSplit) -> dict[str, list[str]]:
    """Return which classes a test corpus shares and which it lacks, where it lacks some that were trained."""
    untested = [name for name in data.classes if name not in test.classes]
    return {"classes": list(test.classes), "untested_classes": untested} if untested else {}


def _predict_split(run: Run, model: SERModel, test: EvaluationSplit, table: pd.DataFrame) -> pd.DataFrame:
    config, device = run.config, run.device
    labels = replace(model.description.labels, attribute_scale=test.attribute_scale)
    dataset = SERDataset(table, labels, model.description.normalisation, config.max_seconds, run.seed)
    batches = evaluation_batches(table["seconds"].to_numpy(np.float64), run.eval_batch_seconds)
    loader = make_loader(dataset, BatchItems(run.processes.deal(batches), EVALUATION), run.workers, device)
    outputs, _ = infer(
        model.network, decoded(begin_pass(loader)), device, run.precision, names_in(table), run.processes
    )
    return tabulate_predictions(table, outputs, labels, test.classes)


def _keep_split(run: Run, label: str, predictions: pd.DataFrame, figures: Figures | None, checkpoint: str) -> None:
    """Write a split's predictions, and its figures or, where it has no labels, submissions, into the run's folder."""
    folder = run.folder.path
    write_predictions(folder / "predictions" / f"{label}.csv", predictions)
    if figures is None:
        for path in write_submissions(folder / "submissions", label, predictions):
            run.screen.line(f"{run.name}: {label}: {path}, for the leaderboard that has its labels")
        return
    path = folder / "evaluation" / f"{label}.json"
    path.parent.mkdir(exist_ok=True)
    write_json(path, {"split": label, "checkpoint": checkpoint, **figures})
    run.screen.line(f"{run.name}: {label}: {folder / 'predictions' / label}.csv")
    for remark in figures["remarks"]:
        run.screen.warn(f"{run.name}: {label}: {remark}")


def read_predictions(path: Path) -> pd.DataFrame:
    """Read `predictions/<split>.csv`; only an empty field is a missing value, whatever a class is called."""
    text = dict.fromkeys(("file", "label", "prediction"), str)
    return pd.read_csv(path, dtype=text, keep_default_na=False, na_values=[""])


def write_predictions(path: Path, predictions: pd.DataFrame) -> None:
    """Write predictions, whole or not at all, so that reading them back gives the same numbers."""
    path.parent.mkdir(exist_ok=True)
    write_whole(path, predictions.to_csv(index=False))
