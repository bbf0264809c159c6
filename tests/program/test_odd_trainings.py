"""Trainings whose sizes or figures are odd: each ends with a model or with a sentence, and no library warns aloud."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

import main as program
from tests.support.tiny_corpus import tiny_rows, write_tiny_corpus

ONE = '[[experiments]]\nname = "one"'
CCC = {"task": "dimensional", "loss_type": "CCCLoss"}


def train(rows: pd.DataFrame, folder: Path, capfd: pytest.CaptureFixture[str], **keys: object) -> tuple[int, str]:
    """Return the status of a training, and what it prints."""
    status = program.main(write_tiny_corpus(folder, rows, ONE, **keys))
    said = capfd.readouterr()
    assert not [line for line in said.err.splitlines() if "Warning" in line]
    return status, " ".join(said.out.split())


@pytest.mark.parametrize(
    ("left_out", "keys", "steps"),
    [
        (0, {"batch_size": 500, "epoch": 1, "min_epochs": 1}, "in 1 step an epoch, 1 epoch at most; "),
        (1, {"batch_size": 5}, "11 training utterances (0.00 h) in 3 steps an epoch"),
        (3, {"batch_size": 4, **CCC}, "9 training utterances (0.00 h) in 3 steps an epoch"),
        (3, {"batch_size": 2, **CCC}, "9 training utterances (0.00 h) in 4 steps an epoch"),
    ],
    ids=["larger than the corpus", "last of one", "last of one, attributes", "joined with the one before"],
)
def test_batches_that_do_not_divide_the_corpus(
    left_out: int, keys: dict[str, object], steps: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    status, said = train(tiny_rows().iloc[left_out:], tmp_path, capfd, **keys)
    assert status == 0
    assert steps in said
    record = json.loads((tmp_path / "runs" / "one" / "seed-42" / "metrics.jsonl").read_text().splitlines()[-1])
    assert record["train_loss"] > 0


def test_losses_that_stay_infinite_end_a_run_in_a_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    keys = {"learning_rate": 1e30, "max_grad_norm": 1e30, "epoch": 3, "min_epochs": 3}
    status, said = train(tiny_rows(), tmp_path, capfd, **keys)
    assert status == 1
    assert "ERROR: one seed 42: " in said
    assert "traceback" not in said
