"""The program as torchrun starts it, in two processes on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

import main as program
from tests.conftest import ROOT
from tests.support.experiment_files import write_files
from tests.support.kill_harness import found_by
from tests.support.synthetic_podcast import SAMPLE_RATE_HZ, SyntheticPodcast, write_podcast
from tests.support.tiny_corpus import tiny_rows, write_tiny_corpus

EXPERIMENTS = """
[[experiments]]
name = "damaged"
config_update = { corpus = "Damaged", batch_size = 2 }
[[experiments]]
name = "whole"
config_update = { eval_batch_seconds = 5, task = "multitask", loss_type = "BalancedSoftmax" }
"""


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "main.py"]
POPEN: dict[str, Any] = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
POPEN["env"] = {**os.environ, "OMP_NUM_THREADS": "1"}


def torchrun(*arguments: str) -> tuple[int, str]:
    """Return the exit status and what was said on both outputs."""
    done = subprocess.run([*TORCHRUN, *arguments], timeout=240, **POPEN)
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def arguments(podcast: SyntheticPodcast, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("torchrun")
    damaged = write_podcast(folder / "damaged", per_class=1)
    recording = damaged.audio / str(damaged.rows["FileName"][3])
    soundfile.write(recording, np.full(SAMPLE_RATE_HZ, np.nan), SAMPLE_RATE_HZ, subtype="FLOAT")
    found = write_files(folder, podcast, EXPERIMENTS)
    with (folder / "config.toml").open("a") as file:
        file.write(f"[Damaged]\nPATH_TO_LABEL = '{damaged.labels}'\nPATH_TO_AUDIO = '{damaged.audio}'\n")
    return found


LONGER = """
[[experiments]]
name = "straight"
config_update = { epoch = 5, min_epochs = 5, patience = 9 }
[[experiments]]
name = "interrupted"
config_update = { epoch = 5, min_epochs = 5, patience = 9 }
"""


@pytest.mark.slow
def test_two_processes_save_on_a_signal_and_go_on(podcast: SyntheticPodcast, tmp_path: Path) -> None:
    arguments = write_files(tmp_path, podcast, LONGER)
    assert torchrun(*arguments, "--only", "straight")[0] == 0
    run = tmp_path / "runs" / "interrupted" / "seed-42"
    with subprocess.Popen([*TORCHRUN, *arguments, "--only", "interrupted"], **POPEN) as process:
        while not (run / "metrics.jsonl").exists() and process.poll() is None:
            time.sleep(0.01)
        process.terminate()
        said, _ = process.communicate(timeout=120)
    assert said.count("SIGTERM: everything is saved, after ") == 1, said
    assert said.count("interrupted (SIGTERM); the same command resumes from here") == 1, said
    assert not (run / "result.json").exists()
    status, said = torchrun(*arguments, "--only", "interrupted")
    assert status == 0, said
    assert said.count("resumes after ") == 1
    found, straight = (found_by(folder) for folder in (run, tmp_path / "runs" / "straight" / "seed-42"))
    assert found == straight


@pytest.mark.slow
def test_a_list_with_a_damaged_recording_and_the_same_list_without(arguments: list[str], tmp_path: Path) -> None:
    runs = Path(arguments[arguments.index("--output") + 1])
    status, said = torchrun(*arguments)
    assert status == 1
    assert said.count("contains samples that are not finite numbers of any scale of audio; repair them") == 1
    assert said.count("ERROR:") == 1
    assert said.count("Plan\n") == said.count("whole seed 42: finished") == 1, said
    assert not (runs / "damaged" / "seed-42" / "result.json").exists()

    status, said = torchrun(*arguments, "--only", "whole")
    assert status == 0
    assert said.count("finished before") == said.count("training classes") == 1

    status, said = torchrun(*arguments, "--only", "whole", "--test")
    assert status == 0, said
    assert said.count("predictions/test1.csv") == 1
    check_run_folder(runs / "whole" / "seed-42", arguments, tmp_path)


def check_run_folder(run: Path, arguments: list[str], other: Path) -> None:
    """There is one set of files, those of a run by one process, and one process predicts the same."""
    by_two = {split: pd.read_csv(run / "predictions" / f"{split}.csv") for split in ("test1", "test2")}
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
    assert len((run / "train.log").read_text().splitlines()) == len(set((run / "train.log").read_text().splitlines()))
    assert "processes = 2" in (run / "experiment.toml").read_text()
    assert '"processes": 2' in (run / "checkpoints" / "best" / "provenance.json").read_text()
    assert program.main([*arguments, "--only", "whole", "--test"]) == 0
    for split, predictions in by_two.items():
        pd.testing.assert_frame_equal(predictions, pd.read_csv(run / "predictions" / f"{split}.csv"), atol=1e-6)
    alone = [*arguments, "--only", "whole", "--output", str(other)]
    assert program.main(alone) == program.main([*alone, "--test"]) == 0
    assert files_of(run) == files_of(other / "whole" / "seed-42")


def files_of(run: Path) -> set[str]:
    """Return what lies in a run's folder; how many epochs the best model took may differ."""
    paths = {path.relative_to(run) for path in run.rglob("*") if path.is_file()}
    return {str(Path("checkpoints", "best", path.name) if "checkpoints" in path.parts else path) for path in paths}


@pytest.mark.slow
def test_what_takes_one_process_is_refused_in_one_sentence(arguments: list[str]) -> None:
    status, said = torchrun("--demo", *arguments[4:])
    assert status == 1
    assert said.count("--demo takes one process; start it with python, not torchrun") == 1


@pytest.mark.slow
def test_a_check_counts_the_processes_that_it_is_started_with(tmp_path: Path) -> None:
    single = '[[experiments]]\nname = "one"\n'
    listed = write_tiny_corpus(tmp_path, tiny_rows(), single, loss_type="WeightedCrossEntropy", batch_size=1)
    assert program.main([*listed, "--check"]) == 2
    status, said = torchrun(*listed, "--check")
    assert status == 0, said
    assert said.count("all is well; nothing was trained") == 1
