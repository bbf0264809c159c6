"""What goes wrong in a training that is under way is told in a sentence, and the same command goes on from there."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from experiment_runner import session
from experiment_runner.interruption import Interruption
from experiment_runner.run import Run
from experiment_runner.tables import Outcome
from tests.experiment_runner.test_train import make_run
from tests.synthetic_podcast import SyntheticPodcast

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
    return session._survive(disturbed, lambda run: session.train_run(run, retrain))


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
    assert "No space left on device; make room, and the same command goes on from the last checkpoint" in text
    assert not (run.folder.path / "traceback.txt").exists()
    assert not train(run, lambda: None).failed
    assert "goes on after step" in told(capsys)
    assert len(metrics.read_text().splitlines()) == 3
    assert not metrics.is_symlink()


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
    for weights in run.folder.checkpoints.folder.glob("epoch-*/model.safetensors"):
        weights.write_bytes(b"")
    assert train(run, lambda: None, retrain=True).status == "trained"
    assert "the interrupted retraining starts over" in told(capsys)


def test_a_log_that_cannot_be_written_ends_no_run(
    podcast: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(podcast, tmp_path, KEYS)
    assert not train(run, lambda: replace_by_full_disk(run.folder.path / "train.log")).failed
    assert "train.log cannot be written (No space left on device); the run goes on without it" in told(capsys)


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
