"""Training and prediction where neither torchaudio nor Triton is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from tests.conftest import ROOT
from tests.support.experiment_files import BASE, write_files
from tests.support.synthetic_podcast import SyntheticPodcast

MISSING = ("torchaudio", "triton")
AUGMENTED = """
augment_speed = [0.9, 1.0, 1.1]
augment_reverb = "{rooms}"
augment_reverb_prob = 0.5
augment_noise = "white"
augment_noise_prob = 0.5

[[experiments]]
name = "one"
"""


@pytest.mark.slow
def test_training_with_every_augmentation_and_prediction_need_neither(
    podcast: SyntheticPodcast, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({MISSING}))\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}

    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)

    assert [call("-c", f"import {name}").returncode for name in MISSING] == [1, 1]
    (tmp_path / "rooms").mkdir()
    soundfile.write(tmp_path / "rooms" / "room.wav", 0.9 ** np.arange(400), 16_000)
    trained = call("main.py", *write_files(tmp_path, podcast, AUGMENTED.format(rooms=tmp_path / "rooms"), BASE))
    assert trained.returncode == 0, trained.stdout + trained.stderr
    run, table = tmp_path / "runs" / "one" / "seed-42", tmp_path / "table.csv"
    predicted = call("predict.py", "--model", run, "--device", "cpu", "--output", table, podcast.audio)
    assert predicted.returncode == 0, predicted.stdout + predicted.stderr
    assert len(pd.read_csv(table)) == len(list(podcast.audio.glob("*.wav")))
