"""Runs a whole experiment list: trains or evaluates each run, survives those that fail, and prints the table."""

from __future__ import annotations

import gc
import math
import statistics
import traceback
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from experiment_runner.checkpoints import CheckpointError
from experiment_runner.evaluate import run_evaluate
from experiment_runner.experiment import run_train
from experiment_runner.optimisation import choose_precision
from experiment_runner.preparation import PreparedExperiment
from experiment_runner.run import Run
from experiment_runner.run_folder import LOG, RunError, RunFolder
from experiment_runner.screen import Screen
from utils.config_loading import ConfigurationError
from utils.data import DataError
from utils.upstreams import UpstreamError

EXPECTED_FAILURES = (DataError, UpstreamError, CheckpointError, RunError, FloatingPointError)
TEST_FIGURES = (
    ("macro_f1", "macro-F1"),
    ("uar", "UAR"),
    ("accuracy", "accuracy"),
    ("weighted_f1", "weighted F1"),
    ("ccc_arousal", "CCC arousal"),
    ("ccc_valence", "CCC valence"),
    ("ccc_dominance", "CCC dominance"),
    ("mean_ccc", "mean CCC"),
)


@dataclass(frozen=True)
class Outcome:
    """What became of one run.

    Attributes:
        experiment: Its name.
        seed: Its seed.
        found: `result.json` after training; figures by split after evaluation.
        status: `trained`, `finished before`, `evaluated`, or why it failed.
        failed: Whether it failed.
    """

    experiment: str
    seed: int
    found: dict[str, Any]
    status: str
    failed: bool = False


def check_precision(experiments: Iterable[PreparedExperiment], device: torch.device) -> None:
    """Refuse an `amp` that the device does not have.

    Raises:
        ConfigurationError: With every experiment that asks for it.
    """
    problems = []
    for experiment in experiments:
        try:
            choose_precision(experiment.config.amp, device)
        except ValueError as error:
            problems.append(f"{experiment.config.name}: {error}")
    if problems:
        raise ConfigurationError(problems)


def train_run(run: Run, retrain: bool) -> Outcome:
    """Train a run that is not finished, or any where `retrain` asks for it."""
    if not retrain and run.folder.recover(run.data):
        run.screen.line(f"{run.name}: an interrupted --retrain is dropped, the finished run is back")
    if run.folder.is_finished and not retrain:
        run.folder.check_unchanged(run.data)
        return Outcome(run.config.name, run.seed, run.folder.result(), "finished before")
    return Outcome(run.config.name, run.seed, run_train(run), "trained")


def evaluate_run(run: Run) -> Outcome:
    """Evaluate a trained run on the test splits."""
    return Outcome(run.config.name, run.seed, run_evaluate(run), "evaluated")


def each_run(
    experiments: Iterable[PreparedExperiment],
    output: Path,
    device: torch.device,
    screen: Screen,
    action: Callable[[Run], Outcome],
) -> list[Outcome]:
    """Do the same with every seed of every experiment; one that fails leaves the others alone."""
    outcomes = []
    for experiment in experiments:
        for seed in experiment.config.seeds:
            folder = RunFolder(output, experiment.config, seed)
            run = Run(experiment.config, experiment.data, folder, device, screen)
            try:
                outcomes.append(action(run))
            except Exception as error:  # noqa: BLE001 - whatever breaks one run must not take the others with it
                outcomes.append(_report_failure(run, error))
            finally:
                gc.collect()  # optimiser and scheduler refer to each other and would hold the model
                torch.cuda.empty_cache()
    return outcomes


def _report_failure(run: Run, error: Exception) -> Outcome:
    reason = _explain(error, run.folder.path)
    with run.screen.log_to(run.folder.path / LOG) if run.folder.path.is_dir() else nullcontext():
        run.screen.error(f"{run.name}: {reason}")
    return Outcome(run.config.name, run.seed, {}, f"failed: {reason}", failed=True)


def _explain(error: Exception, folder: Path) -> str:
    """Say why a run failed; what is not expected keeps its traceback in the run's folder."""
    if isinstance(error, EXPECTED_FAILURES):
        return str(error)
    if isinstance(error, torch.OutOfMemoryError):
        return (
            "the GPU's memory is full; lower batch_size (with more accumulation_steps), max_seconds or eval_batch_size"
        )
    text = "".join(traceback.format_exception(error))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "traceback.txt").write_text(text, encoding="utf-8")
    except OSError:
        return f"{type(error).__name__}: {error}"
    return f"{type(error).__name__}: {error} (the traceback is in {folder / 'traceback.txt'})"


def show_training(outcomes: list[Outcome], screen: Screen) -> None:
    """Print one row a run, and the mean and deviation over seeds."""
    figures = [("macro_f1", "dev macro-F1"), ("mean_ccc", "dev mean CCC")]
    used = [(f"development_{key}", title) for key, title in figures if _has(outcomes, f"development_{key}")]
    rows = []
    for name, group in _by_experiment(outcomes).items():
        for outcome in group:
            found = outcome.found
            development = found.get("development", {})
            epochs = f"{found['best_epoch']} of {found['epochs']}" if found else ""
            cells = [_number(development.get(key)) for key, _ in used]
            rows.append([name, str(outcome.seed), *cells, epochs, str(found.get("stop", "")), outcome.status])
        rows += _summary(name, [o.found.get("development", {}) for o in group if not o.failed], used, 3)
    columns = ["experiment", "seed", *(title for _, title in used), "best epoch", "stopped by", "status"]
    screen.table("Training", columns, rows, numeric=range(2, len(columns) - 2))


def show_evaluation(outcomes: list[Outcome], screen: Screen) -> None:
    """Print one row a run and test split, and the mean and deviation over seeds."""
    every = [figures for outcome in outcomes for figures in outcome.found.values()]
    used = [(key, title) for key, title in TEST_FIGURES if any(key in figures for figures in every)]
    rows = []
    for name, group in _by_experiment(outcomes).items():
        for split in dict.fromkeys(split for outcome in group for split in outcome.found):
            evaluated = [outcome for outcome in group if split in outcome.found]
            for outcome in evaluated:
                cells = [_number(outcome.found[split].get(key)) for key, _ in used]
                rows.append([name, split, str(outcome.seed), *cells, outcome.status])
            rows += _summary(name, [outcome.found[split] for outcome in evaluated], used, 1, split)
        rows += [[name, "", str(o.seed), *("" for _ in used), o.status] for o in group if o.failed]
    columns = ["experiment", "split", "seed", *(title for _, title in used), "status"]
    screen.table("Test", columns, rows, numeric=range(3, 3 + len(used)))


def _summary(
    name: str, found: list[dict[str, Any]], used: list[tuple[str, str]], empty: int, split: str | None = None
) -> list[list[str]]:
    """Return the row of means and sample standard deviations, where there are several seeds."""
    if len(found) < 2:
        return []
    cells = []
    for key, _ in used:
        values = [figures[key] for figures in found if _number(figures.get(key))]
        both = f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
        cells.append(both)
    label = [name] if split is None else [name, split]
    return [[*label, f"mean of {len(found)}", *cells, *[""] * empty]]


def _by_experiment(outcomes: list[Outcome]) -> dict[str, list[Outcome]]:
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.experiment, []).append(outcome)
    return groups


def _has(outcomes: list[Outcome], key: str) -> bool:
    return any(key in outcome.found.get("development", {}) for outcome in outcomes)


def _number(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.4f}"
