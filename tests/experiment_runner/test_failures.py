"""What goes wrong in a training that is under way is told in a sentence, and the same command resumes there."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dataset_module.ser_dataset import Labels, SERDataset
from experiment_runner import session
from experiment_runner.data.preparation import check_training_recordings
from experiment_runner.experiment import training_batches
from experiment_runner.loading import batch_loader
from experiment_runner.reporting.tables import Outcome
from experiment_runner.run import Run
from experiment_runner.runtime.console import Console
from experiment_runner.runtime.interruption import Interrupted, Interruption
from experiment_runner.storage.checkpoints import CheckpointError, CheckpointStore
from experiment_runner.training.training_steps import TrainingSteps
from net.ser_model_wrapper import SERModelWrapper
from tests.conftest import ROOT
from tests.support.experiment_files import ONE, write_files
from tests.support.synthetic_podcast import SyntheticPodcast
from tests.support.trainings import make_run
from utils.dataset.normalisation import Normalisation
from utils.dataset.sampling import BatchItems

KEYS = {"batch_size": 4, "epoch": 3, "min_epochs": 3, "checkpoint_minutes": 0, "tracking": "none"}


class AtCheck(Interruption):
    """Does something at one check, in the middle of training."""

    def __init__(self, number: int, action: Callable[[], object]) -> None:
        super().__init__()
        self.left, self.action = number, action

    def check(self) -> None:
        if self.left == 0:
            self.action()
        self.left -= 1


def train(run: Run, action: Callable[[], object], retrain: bool = False) -> Outcome:
    disturbed = replace(run, interruption=AtCheck(9, action))
    return session._contain_failure(disturbed, lambda run: session.train_run(run, retrain))


def replace_by_full_disk(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/full")


def told(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


def test_a_full_disk_is_told_and_the_run_goes_on_later(
    podcast: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(podcast, tmp_path, KEYS)
    metrics = run.folder.path / "metrics.jsonl"
    assert train(run, lambda: replace_by_full_disk(metrics)).failed
    text = told(capsys)
    assert "No space left on device; make room, and the same command resumes from the last checkpoint" in text
    assert not (run.folder.path / "traceback.txt").exists()
    metrics.unlink()
    assert not train(run, lambda: None).failed
    assert "resumes after step" in told(capsys)
    assert len(metrics.read_text().splitlines()) == 3


def test_a_report_that_was_not_reached_is_written_later(podcast: SyntheticPodcast, tmp_path: Path) -> None:
    run = make_run(podcast, tmp_path, KEYS)
    assert not train(run, lambda: None).failed
    report = run.folder.path / "report.html"
    report.unlink()
    assert train(run, lambda: None).status == "finished before"
    assert report.is_file()


def test_a_retraining_that_cannot_go_on_starts_over(
    podcast: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(podcast, tmp_path, KEYS)
    assert not train(run, lambda: None).failed
    metrics = run.folder.path / "metrics.jsonl"
    assert train(run, lambda: replace_by_full_disk(metrics), retrain=True).failed
    metrics.unlink()
    for weights in run.folder.checkpoints.folder.glob("epoch-*/model.safetensors"):
        weights.write_bytes(b"")
    assert train(run, lambda: None, retrain=True).status == "trained"
    assert "the interrupted retraining starts over" in told(capsys)


def test_a_log_that_cannot_be_written_ends_no_run(
    podcast: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(podcast, tmp_path, KEYS)
    assert not train(run, lambda: replace_by_full_disk(run.folder.path / "train.log")).failed
    assert "train.log cannot be written (No space left on device); the run continues without it" in told(capsys)


def test_a_worker_that_is_killed_is_told_and_the_run_goes_on_later(
    podcast: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(podcast, tmp_path, {**KEYS, "num_workers": 1})

    def kill_workers() -> None:
        for child in multiprocessing.active_children():
            assert child.pid is not None
            os.kill(child.pid, signal.SIGKILL)

    assert train(run, kill_workers).failed
    text = told(capsys)
    assert "a decoding process was ended from outside, most likely because the machine's memory was full; lower" in text
    assert not (run.folder.path / "traceback.txt").exists()
    assert not train(run, lambda: None).failed


def test_a_disk_that_does_not_answer_is_told(
    podcast: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(podcast, tmp_path, {**KEYS, "num_workers": 1, "freeze": "none"})
    os.mkfifo(tmp_path / "never")
    table = run.data.train.astype({"path": object})
    table.loc[5, "path"] = str(tmp_path / "never")  # whoever opens it waits for a writer
    waiting = replace(run, data=replace(run.data, train=table))
    monkeypatch.setattr(batch_loader, "LONGEST_WAIT", 3.0)
    monkeypatch.setattr(session, "check_training_recordings", lambda config, data, *_: data)  # it has answered then
    assert train(waiting, lambda: None).failed
    assert "check the disk that holds the recordings; the same command resumes" in told(capsys)
    assert not (run.folder.path / "traceback.txt").exists()


def test_a_worker_that_is_slow_to_begin_anew_is_waited_for(podcast: SyntheticPodcast, tmp_path: Path) -> None:
    run = make_run(podcast, tmp_path, {**KEYS, "num_workers": 1})
    dataset = SERDataset(run.data.train, Labels(run.data.classes, (), (1, 7)), Normalisation("none"), 1.0, 1)
    items = BatchItems()
    feed = batch_loader.BatchLoader(
        items, batch_loader.make_loader(dataset, items, 1, torch.device("cpu")), lambda: None
    )
    rows = [np.array([0, 1]), np.array([2])]
    assert len(list(feed.serve(rows, 1))) == 2
    passes = feed.loader._iterator
    assert passes is not None
    (worker,) = passes._workers  # type: ignore[attr-defined] # torch has no other way to name it
    os.kill(worker.pid, signal.SIGSTOP)
    later = threading.Timer(2.5 * batch_loader.SECONDS_BETWEEN_LOOKS, os.kill, (worker.pid, signal.SIGCONT))
    later.start()
    assert len(list(feed.serve(rows, 2))) == 2
    feed.close()
    later.join()


class AfterSeconds(Interruption):
    """A signal so long after the first step."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.first = seconds, 0.0

    def check(self) -> None:
        self.first = self.first or time.monotonic()
        if time.monotonic() - self.first > self.seconds:
            raise Interrupted("SIGTERM")


@pytest.mark.parametrize("keys", [{"freeze": "none"}, {"freeze": "cnn", "cache_gib": 1}], ids=["decoded", "kept"])
def test_a_signal_is_obeyed_while_the_disk_does_not_answer(
    keys: dict[str, object],
    podcast: SyntheticPodcast,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = make_run(podcast, tmp_path, {**KEYS, "num_workers": 1, "max_seconds": 50, **keys})
    data = check_training_recordings(run.config, run.data, run.console)
    os.mkfifo(tmp_path / "never")
    table = data.train.astype({"path": object})
    table.loc[5, ["path", "seconds"]] = str(tmp_path / "never"), 99.0  # it is cropped, so that it is never kept
    waiting = replace(run, data=replace(data, train=table), interruption=AfterSeconds(3.0))
    monkeypatch.setattr(session, "check_training_recordings", lambda config, data, *_: data)
    started = time.monotonic()
    with pytest.raises(Interrupted):
        session._contain_failure(waiting, lambda run: session.train_run(run, retrain=False))
    assert 3.0 < time.monotonic() - started < 30.0
    assert "SIGTERM: everything is saved, " in told(capsys)


def test_a_signal_after_which_nothing_can_be_saved_says_so(
    podcast: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(podcast, tmp_path, {**KEYS, "checkpoint_minutes": 99})

    def refuse(*_: object) -> None:
        raise CheckpointError("the disk is full")

    def interrupt() -> None:
        raise Interrupted("SIGTERM")

    monkeypatch.setattr(CheckpointStore, "save", refuse)
    with pytest.raises(Interrupted):
        session._contain_failure(
            replace(run, interruption=AtCheck(4, interrupt)), lambda run: session.train_run(run, False)
        )
    assert "WARNING: SIGTERM: work after the last checkpoint is not saved: the disk is full" in told(capsys)


def test_full_memory_names_the_utterances_and_the_remedy(
    podcast: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(podcast, tmp_path, KEYS)
    with monkeypatch.context() as patch:
        patch.setattr(TrainingSteps, "take", full_memory)
        assert train(run, lambda: None).failed
    text = told(capsys)
    first = run.data.train["file"].iloc[training_batches(run).steps(1)[0][0]]
    assert f"the GPU's memory is full with 4 utterances: {', '.join(first)}; set max_batch_seconds" in text
    with monkeypatch.context() as patch:
        patch.setattr(SERModelWrapper, "forward", full_memory)
        assert train(run, lambda: None).failed
    assert "lower eval_batch_seconds" in told(capsys), "the rehearsal begins with the longest development batch"
    assert not (run.folder.path / "traceback.txt").exists()


def full_memory(*_: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 80.00 GiB.")


@contextmanager
def memory_limited(device: torch.device, size: int) -> Iterator[None]:
    """Leave so many bytes of a GPU's memory to this process, whatever earlier tests have reserved and freed."""
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.empty_cache()
    reserved, held = torch.cuda.memory_reserved(device), []
    try:
        torch.cuda.set_per_process_memory_fraction(reserved / total)
        for piece in (256 << 20, 16 << 20, 2 << 20):
            with suppress(torch.OutOfMemoryError):
                while True:
                    held.append(torch.empty(piece, dtype=torch.uint8, device=device))
        torch.cuda.set_per_process_memory_fraction((reserved + size) / total)
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.gpu
def test_full_memory_of_a_gpu_names_the_utterances_and_the_others_go_on(
    podcast: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str], cuda: torch.device
) -> None:
    run = make_run(podcast, tmp_path, {**KEYS, "upstream_model": "wavlm-demo-random", "batch_size": 24}, cuda)
    with memory_limited(cuda, 24 << 20):
        assert train(run, lambda: None).failed
    assert re.search(r"the GPU's memory is full with \d+ utterances: MSP-PODCAST_", told(capsys))
    assert not (run.folder.path / "traceback.txt").exists()
    assert not train(run, lambda: None).failed


@pytest.mark.slow
@pytest.mark.parametrize("output", ["/dev/full", "a pipe that is closed"])
def test_an_output_that_is_gone_ends_no_run(output: str, podcast: SyntheticPodcast, tmp_path: Path) -> None:
    listed = ONE.replace("seeds = [1, 2]", "seeds = [1, 2], epoch = 1, min_epochs = 1")
    command = [sys.executable, str(ROOT / "main.py"), *write_files(tmp_path, podcast, listed)]
    if output.startswith("/"):
        with open(output, "wb") as gone:
            done = subprocess.run(command, cwd=tmp_path, stdout=gone, stderr=subprocess.PIPE, text=True)
    else:
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(command, cwd=tmp_path, stdout=writing, stderr=subprocess.PIPE, text=True)
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")
    for seed in (1, 2):
        run = tmp_path / "runs" / "one" / f"seed-{seed}"
        assert (run / "result.json").is_file()
        assert "finished" in (run / "train.log").read_text()


@pytest.mark.parametrize("shows_bar", [Console.epoch_progress, Console.count])
@pytest.mark.parametrize("is_forced", [True, False])
def test_a_terminal_that_is_gone_ends_no_bar(
    is_forced: bool, shows_bar: Callable[..., AbstractContextManager[object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forced, it still counts as one while the bar is taken away."""
    monkeypatch.setenv("TERM", "xterm")
    if is_forced:
        monkeypatch.setenv("FORCE_COLOR", "1")
    reading, writing = os.openpty()
    with open(writing, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        console = Console()
        first, second = (1, 10) if shows_bar is Console.epoch_progress else (10, "things")
        with shows_bar(console, first, second):
            os.close(reading)
            time.sleep(0.3)  # its thread draws it in between
        console.line("goes on")
        assert console.rich.quiet


def test_names_do_nothing_to_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Console().warn("\x1b[2J\x1b]0;title\x07.wav holds no byte")
    assert capsys.readouterr().out == "WARNING: \\x1b[2J\\x1b]0;title\\x07.wav holds no byte\n"
