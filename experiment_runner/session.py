"""Runs a whole experiment list: trains or evaluates each run, survives those that fail, and prints the table."""

from __future__ import annotations

import gc
import math
import statistics
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from experiment_runner.checkpoints import CheckpointError
from experiment_runner.evaluate import FIGURES, run_evaluate
from experiment_runner.experiment import run_train
from experiment_runner.optimisation import choose_precision
from experiment_runner.preparation import PreparedExperiment, synthetic_note
from experiment_runner.report import write_report
from experiment_runner.run import Run
from experiment_runner.run_folder import LOG, RunError, RunFolder
from experiment_runner.screen import Screen
from experiment_runner.tracking import Tracking
from utils import ConfigurationError, Redaction
from utils.data import DataError
from utils.upstreams import UpstreamError

EXPECTED_FAILURES = (DataError, UpstreamError, CheckpointError, RunError, FloatingPointError)


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


class Session:
    """An experiment list on one device: trains or evaluates every run, and prints the tables.

    Args:
        experiments: The list, with its data.
        output: The output folder of the command.
        device: Where models are.
        screen: Where everything is shown.
    """

    def __init__(
        self, experiments: Sequence[PreparedExperiment], output: Path, device: torch.device, screen: Screen
    ) -> None:
        self._experiments = experiments
        self._screen = screen
        self._tracking = Tracking(screen)
        self._runs = [
            Run(e.config, e.data, RunFolder(output, e.config, seed), device, screen, self._tracking)
            for e in experiments
            for seed in e.config.seeds
        ]

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self._tracking.close()

    def train(self, retrain: bool) -> list[Outcome]:
        """Train every run that is not finished, or all of them where `retrain` asks for it."""
        outcomes = [_survive(run, partial(train_run, retrain=retrain)) for run in self._runs]
        show_training(outcomes, self._screen, synthetic_note(self._experiments))
        return outcomes

    def evaluate(self) -> list[Outcome]:
        """Evaluate every trained run on the test splits."""
        outcomes = [_survive(run, evaluate_run) for run in self._runs]
        show_evaluation(outcomes, self._screen, synthetic_note(self._experiments))
        return outcomes


def train_run(run: Run, retrain: bool) -> Outcome:
    """Train a run that is not finished, or any where `retrain` asks for it."""
    if not retrain and run.folder.recover(run.data):
        run.screen.line(f"{run.name}: an interrupted --retrain is dropped, the finished run is back")
    if run.folder.is_finished and not retrain:
        run.folder.check_unchanged(run.data)
        return Outcome(run.config.name, run.seed, run.folder.result(), "finished before")
    found = run_train(run)
    _report(run)
    return Outcome(run.config.name, run.seed, found, "trained")


def evaluate_run(run: Run) -> Outcome:
    """Evaluate a trained run on the test splits."""
    found = run_evaluate(run)
    _report(run)
    run.tracking.follow(run.config, run.folder.path)
    return Outcome(run.config.name, run.seed, found, "evaluated")


def _report(run: Run) -> None:
    """Draw the pictures and write the report, which no finished run may fail for."""
    try:
        run.screen.line(f"{run.name}: report: {write_report(run.folder.path)}")
    except Exception as error:  # noqa: BLE001 - whatever keeps a picture from being drawn, the run is done
        again = f"python -m experiment_runner.report {run.folder.path}"
        run.screen.warn(f"{run.name}: no report ({type(error).__name__}: {error}); to write it later: {again}")


def _survive(run: Run, action: Callable[[Run], Outcome]) -> Outcome:
    try:
        return action(run)
    except Exception as error:  # noqa: BLE001 - whatever breaks one run must not take the others with it
        return _report_failure(run, error)
    finally:
        run.tracking.release(run.folder.path)
        gc.collect()  # optimiser and scheduler refer to each other and would hold the model
        torch.cuda.empty_cache()


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
    text = Redaction()("".join(traceback.format_exception(error)))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "traceback.txt").write_text(text, encoding="utf-8")
    except OSError:
        return f"{type(error).__name__}: {error}"
    return f"{type(error).__name__}: {error} (the traceback is in {folder / 'traceback.txt'})"


def show_training(outcomes: list[Outcome], screen: Screen, note: str) -> None:
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
    screen.table("Training", columns, rows, numeric=range(2, len(columns) - 2), note=note)


def show_evaluation(outcomes: list[Outcome], screen: Screen, note: str) -> None:
    """Print one row a run and test split, and the mean and deviation over seeds."""
    every = [figures for outcome in outcomes for figures in outcome.found.values()]
    used = [(key, title) for key, title in FIGURES if any(key in figures for figures in every)]
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
    screen.table("Test", columns, rows, numeric=range(3, 3 + len(used)), note=note)
    _show_genders(outcomes, [(key, title) for key, title in used if key != "gender_accuracy"], screen, note)


def _show_genders(outcomes: list[Outcome], used: list[tuple[str, str]], screen: Screen, note: str) -> None:
    """Print one row an experiment, test split and gender: the mean over seeds."""
    rows = []
    for name, group in _by_experiment(outcomes).items():
        for split in dict.fromkeys(split for outcome in group for split in outcome.found):
            found = [outcome.found[split].get("by_gender", {}) for outcome in group if split in outcome.found]
            for gender in sorted({gender for by_gender in found for gender in by_gender}):
                figures = [by_gender[gender] for by_gender in found if gender in by_gender]
                rows.append([name, split, gender, f"{figures[0]['utterances']:,}", *_means(figures, used)])
    columns = ["experiment", "split", "gender", "utterances", *(title for _, title in used)]
    if rows:
        screen.table("Test by gender, mean over seeds", columns, rows, numeric=range(3, 4 + len(used)), note=note)


def _summary(
    name: str, found: list[dict[str, Any]], used: list[tuple[str, str]], empty: int, split: str | None = None
) -> list[list[str]]:
    """Return the row of means and sample standard deviations, where there are several seeds."""
    if len(found) < 2:
        return []
    label = [name] if split is None else [name, split]
    return [[*label, f"mean of {len(found)}", *_means(found, used), *[""] * empty]]


def _means(found: list[dict[str, Any]], used: list[tuple[str, str]]) -> list[str]:
    """Return mean and, of several, sample standard deviation of each figure; empty where it is not known."""
    cells = []
    for key, _ in used:
        values = [figures[key] for figures in found if _number(figures.get(key))]
        deviation = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
        cells.append(f"{statistics.mean(values):.4f}{deviation}" if values else "")
    return cells


def _by_experiment(outcomes: list[Outcome]) -> dict[str, list[Outcome]]:
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.experiment, []).append(outcome)
    return groups


def _has(outcomes: list[Outcome], key: str) -> bool:
    return any(key in outcome.found.get("development", {}) for outcome in outcomes)


def _number(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.4f}"
