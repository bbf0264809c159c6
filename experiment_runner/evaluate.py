"""Evaluation of trained models: a table of predictions, and every metric computed from that table."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from dataset_module.ser_dataset import SERDataset
from experiment_runner.data.experiment_data import EvaluationSplit, ExperimentData
from experiment_runner.data.preparation import check_test_recordings
from experiment_runner.loading.batch_loader import decoded, make_loader
from experiment_runner.models.loaded_model import LoadedModel
from experiment_runner.results.prediction_table import tabulate_predictions, write_predictions
from experiment_runner.results.split_metrics import class_groups, metrics_from_predictions
from experiment_runner.results.statistics import load_user_statistics
from experiment_runner.run import Run
from experiment_runner.runtime.out_of_memory import names_in
from experiment_runner.storage.run_folder import RunError
from experiment_runner.training.inference import infer
from utils.commands import RUN_OPTIONS, script_command
from utils.data.labels.columns import CATEGORICAL, DIMENSIONAL
from utils.dataset.sampling import EVALUATION, BatchItems, evaluation_batches
from utils.io.files import write_json
from utils.io.user_code import modules_of
from utils.metrics import Metrics


def run_evaluate(run: Run) -> dict[str, Metrics]:
    """Evaluate one trained run on every test split.

    Writes `predictions/<split>.csv` and `evaluation/<split>.json`, or `submissions/*.csv` for an unlabelled split.

    Returns:
        Metrics of each labelled split.

    Raises:
        RunError: If the run was trained with other settings or on other classes.
        CheckpointError: If there is no usable checkpoint.
        DataError: If a test recording is unusable, or has the same samples as a training recording.
    """
    with run.processes.raise_together():
        model = _load_trained(run)
    tables = run.processes.on_main(partial(check_test_recordings, run.config, run.data, run.console))
    groups = class_groups(run.config, model.description.classes, model.description.class_counts)
    statistics, results = load_user_statistics(run.config), {}
    for test, table in zip(run.data.tests, tables, strict=True):
        predictions = _predict_split(run, model, test, table)
        metrics = None
        if not test.is_hidden:
            metrics = metrics_from_predictions(predictions, groups, statistics) | _untested_classes(run.data, test)
        run.processes.on_main(partial(_keep_split, run, test.label, predictions, metrics, model.folder.name))
        if metrics is not None:
            results[test.label] = metrics
    return results


def _load_trained(run: Run) -> LoadedModel:
    """Return the best model of a finished run."""
    data, folder = run.data, run.folder
    if not folder.is_finished:
        training = script_command("main.py", repeat=RUN_OPTIONS)
        raise RunError(f"{folder.path} contains no finished training; train it first: `{training}`")
    folder.check_unchanged(data)
    if not data.tests:
        raise RunError(f"{run.config.corpus} has no test split with labels in use; there is nothing to evaluate")
    model = LoadedModel.from_pretrained(folder.path, run.device, trusted=modules_of(run.config.user_code))
    classes = model.description.classes
    if classes != data.classes or model.description.attributes != data.attributes:
        raise RunError(
            f"{folder.path} was trained on the classes {', '.join(classes)}, but the labels now give "
            f"{', '.join(data.classes)}; restore the labels or train again with --retrain"
        )
    return model


def write_submissions(folder: Path, split: str, predictions: pd.DataFrame) -> list[Path]:
    """Write the files that MSP-PODCAST's leaderboards accept for a split whose labels are withheld.

    Args:
        folder: Folder to write to.
        split: Prefix of the file names.
        predictions: Table that `tabulate_predictions` returned.

    Returns:
        `<split>-categorical.csv` with `FileName,Prediction` (the class's code, such as `A`) if classes were predicted,
        and `<split>-attributes.csv` with `FileName,EmoAct,EmoVal,EmoDom` if attributes were.
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
    """Return the trained classes that a test corpus has and those that it lacks, if it lacks any."""
    untested = [name for name in data.classes if name not in test.classes]
    return {"classes": list(test.classes), "untested_classes": untested} if untested else {}


def _predict_split(run: Run, model: LoadedModel, test: EvaluationSplit, table: pd.DataFrame) -> pd.DataFrame:
    config, device = run.config, run.device
    labels = replace(model.description.labels, attribute_scale=test.attribute_scale)
    dataset = SERDataset(table, labels, model.description.normalisation, config.max_seconds, run.seed)
    batches = evaluation_batches(table["seconds"].to_numpy(np.float64), run.eval_batch_seconds)
    loader = make_loader(dataset, BatchItems(run.processes.shard(batches), EVALUATION), run.workers, device)
    outputs, _ = infer(model.network, decoded(loader), device, run.precision, names_in(table), run.processes)
    return tabulate_predictions(table, outputs, labels, test.classes)


def _keep_split(run: Run, label: str, predictions: pd.DataFrame, metrics: Metrics | None, checkpoint: str) -> None:
    """Write a split's predictions, and its metrics or (if unlabelled) submissions, into the run's folder."""
    folder = run.folder.path
    write_predictions(folder / "predictions" / f"{label}.csv", predictions)
    if metrics is None:
        for path in write_submissions(folder / "submissions", label, predictions):
            run.console.line(f"{run.name}: {label}: {path}, to submit to the leaderboard, which has the labels")
        return
    path = folder / "evaluation" / f"{label}.json"
    path.parent.mkdir(exist_ok=True)
    write_json(path, {"split": label, "checkpoint": checkpoint, **metrics})
    run.console.line(f"{run.name}: {label}: {folder / 'predictions' / label}.csv")
    for remark in metrics["remarks"]:
        run.console.warn(f"{run.name}: {label}: {remark}")
