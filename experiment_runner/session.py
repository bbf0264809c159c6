"""Runs an experiment list: trains or evaluates each run, carries on past failures, and prints the tables."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch

from experiment_runner.data.preparation import (
    PreparedExperiment,
    check_training_recordings,
    show_left_out,
    synthetic_note,
)
from experiment_runner.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from experiment_runner.evaluate import run_evaluate
from experiment_runner.experiment import run_train
from experiment_runner.publishing.publish import publish
from experiment_runner.reporting.report import REPORT, write_report
from experiment_runner.reporting.tables import Outcome, show_evaluation, show_training
from experiment_runner.results.row_counts import count_labelled, show_labelled
from experiment_runner.run import Run
from experiment_runner.runtime.console import Console
from experiment_runner.runtime.device import repeatable
from experiment_runner.runtime.interruption import Interrupted, Interruption
from experiment_runner.runtime.program_version import describe_other_programs
from experiment_runner.storage.checkpoints import CheckpointError
from experiment_runner.storage.run_decisions import decide_finished, decide_unfinished
from experiment_runner.storage.run_folder import LOG, LinkError, RunError, RunFolder
from experiment_runner.tracking.tracker import Tracking
from experiment_runner.train import SMALLER_STEPS
from experiment_runner.training.graphed_step import RecordingError
from utils import Redaction
from utils.commands import python_command
from utils.errors import FAILED, DataError, UserError
from utils.garbage import own_garbage_collected

EXPECTED_FAILURES = (UserError, RecordingError, FloatingPointError)
SAME_COMMAND = "the same command resumes from the last checkpoint"
DISK_REMEDIES = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room within the quota",
    errno.EROFS: "give another folder with --output, or mount it for writing",
    errno.EACCES: "give the permission",
    errno.EPERM: "give the permission",
    errno.EIO: "check the disk",
}


class Session:
    """An experiment list on one device: trains or evaluates every run, and prints the tables.

    Args:
        experiments: The list, with its data.
        output: The output folder of the command.
        device: Device that holds the models.
        console: Where everything is shown.
        processes: Processes that run the list together.
        interruption: Signals that ask the program to stop.
        with_code: Whether uploads may contain the user's own code.
    """

    def __init__(
        self,
        experiments: Sequence[PreparedExperiment],
        output: Path,
        device: torch.device,
        console: Console,
        processes: ProcessGroup = SINGLE_PROCESS,
        interruption: Interruption | None = None,
        with_code: bool = False,
    ) -> None:
        self._experiments = experiments
        self._screen = console
        self._tracking = Tracking(console)
        shared = (device, console, self._tracking, processes, interruption or Interruption(), with_code)
        self._runs = [
            Run(e.config, e.data, RunFolder(output, e.config, seed), *shared)
            for e in experiments
            for seed in e.config.seeds
        ]

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self._tracking.close()

    def train(self, retrain: bool) -> list[Outcome]:
        """Train every run that is not finished, or all of them where `retrain` asks for it."""
        if not retrain:
            self._report_other_programs()
        outcomes = [_contain_failure(run, partial(train_run, retrain=retrain)) for run in self._runs]
        show_training(outcomes, self._screen, synthetic_note(self._experiments))
        return outcomes

    def evaluate(self) -> list[Outcome]:
        """Evaluate every trained run on the test splits."""
        self._report_other_programs()
        outcomes = [_contain_failure(run, evaluate_run) for run in self._runs]
        show_evaluation(outcomes, self._screen, synthetic_note(self._experiments))
        return outcomes

    def _report_other_programs(self) -> None:
        """Warn, in one line, of runs made with other code or package versions."""
        runs = [(run.name, run.folder.path) for run in self._runs if run.folder.holds_training]
        self._screen.warn(describe_other_programs(runs))


def train_run(run: Run, retrain: bool) -> Outcome:
    """Train a run that is not finished, or any where `retrain` asks for it."""
    before = run.processes.on_main(partial(_finished_before, run, retrain))
    if before is not None:
        run.processes.on_main(partial(publish, run))
        return Outcome(run.config.name, run.seed, before, "finished before", _development_rows(run))
    check = partial(check_training_recordings, run.config, run.data, run.console, run.processes.ranks)
    run = run.with_data(run.processes.on_main(check))
    checkpoint = run.processes.on_main(partial(_find_unfinished, run, retrain))
    found = run_train(run, checkpoint)
    run.processes.on_main(partial(_report, run))
    run.processes.on_main(partial(publish, run))
    return Outcome(run.config.name, run.seed, found, "trained", _development_rows(run))


def _development_rows(run: Run) -> str:
    """Return the number of utterances behind the development metrics, as text."""
    return show_labelled(count_labelled(run.data.development, run.data.classes, run.data.attributes))


def _finished_before(run: Run, retrain: bool) -> dict[str, Any] | None:
    decision = decide_finished(run.folder, run.data, retrain)
    if not decision.is_finished:
        return None
    if decision.is_recovered:
        run.folder.recover()
        run.console.line(f"{run.name}: an interrupted --retrain is dropped, the finished run is restored")
    run.folder.clear()
    if not (run.folder.path / REPORT).is_file():
        _report(run)
    return run.folder.result()


def _find_unfinished(run: Run, retrain: bool) -> Path | None:
    """Return the checkpoint from which an interrupted training resumes."""
    try:
        decision = decide_unfinished(run.folder, run.data, run.environment, retrain, run.console)
    except (RunError, CheckpointError):
        show_left_out(run.config, run.data, run.console)  # left-out recordings may be what has changed
        raise
    if decision.warning:
        run.console.warn(f"{run.name}: {decision.warning}")
    return decision.checkpoint


def evaluate_run(run: Run) -> Outcome:
    """Evaluate a trained run on the test splits."""
    found = run_evaluate(run)
    run.processes.on_main(partial(_report, run))
    run.processes.on_main(partial(run.tracking.follow, run.config, run.folder.path))
    run.processes.on_main(partial(publish, run))
    return Outcome(run.config.name, run.seed, found, "evaluated")


def _report(run: Run) -> None:
    """Draw the plots and write the report; a failure here must not fail a finished run."""
    try:
        run.console.line(f"{run.name}: report: {write_report(run.folder.path)}")
    except Exception as error:  # noqa: BLE001 - whatever keeps a picture from being drawn, the run is done
        again = python_command("experiment_runner.reporting.report", [run.folder.path])
        run.console.warn(f"{run.name}: no report ({type(error).__name__}: {error}); to write it later: {again}")


@contextmanager
def _memory_freed() -> Iterator[None]:
    """Free a run's memory at its end: optimiser and scheduler refer to each other and would keep the model."""
    with own_garbage_collected():
        yield
    torch.cuda.empty_cache()


@_memory_freed()
def _contain_failure(run: Run, action: Callable[[Run], Outcome]) -> Outcome:
    try:
        run.interruption.check()
        run.processes.on_main(run.folder.refuse_links)
        with run.interruption.interrupt_wins(), repeatable(run.config.deterministic, run.device):
            return action(run)
    except Interrupted as interrupted:
        if isinstance(interrupted.__context__, EXPECTED_FAILURES):
            run.console.warn(f"{run.name}: {interrupted}, and before that: {interrupted.__context__}")
        raise
    except Exception as error:  # noqa: BLE001 - whatever breaks one run must not take the others with it
        run.processes.end(error, FAILED, partial(_report_failure, run, error))
        return Outcome(run.config.name, run.seed, {}, "failed")
    finally:
        run.tracking.release(run.folder.path)


def _report_failure(run: Run, error: Exception, remark: str) -> None:
    sentences = error.problems if isinstance(error, DataError) else [_explain(error, run.folder.path)]
    problems = [sentence.removeprefix(f"{run.config.name}: ") for sentence in sentences]
    has_log = run.folder.path.is_dir() and not isinstance(error, LinkError)  # the log may itself be that link
    with run.console.log_to(run.folder.path / LOG) if has_log else nullcontext():
        for problem in problems[:-1]:
            run.console.error(f"{run.name}: {problem}")
        run.console.error(f"{run.name}: {problems[-1]}{remark}")


def _explain(error: Exception, folder: Path) -> str:
    """Explain why a run failed; the traceback of an unexpected error is kept in the run's folder."""
    if isinstance(error, EXPECTED_FAILURES):
        return str(error)
    if isinstance(error, torch.OutOfMemoryError):
        return f"the GPU's memory is full; {SMALLER_STEPS}, or lower cache_gib; {SAME_COMMAND}"
    if isinstance(error, RuntimeError) and "DataLoader worker" in str(error):
        return (
            "a decoding process was ended from outside, most likely because the machine's memory was full; lower "
            f"num_workers; {SAME_COMMAND}"
        )
    if isinstance(error, OSError) and error.errno in DISK_REMEDIES:
        place, remedy = error.filename or folder, DISK_REMEDIES[error.errno]
        return f"{place}: {error.strerror}; {remedy}, and {SAME_COMMAND}"
    text = Redaction()("".join(traceback.format_exception(error)))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "traceback.txt").write_text(text, encoding="utf-8")
    except OSError:
        return f"{type(error).__name__}: {error}"
    return f"{type(error).__name__}: {error} (the traceback is in {folder / 'traceback.txt'})"
