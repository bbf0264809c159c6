"""Channels that partly cancel are told wherever their mix is used: by check, training, evaluation and prediction."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

import main as program
import predict as predict_program
from tests.support.recordings import RATE_HZ, save
from tests.support.tiny_corpus import tiny_rows, write_tiny_corpus
from tests.support.voices import voice
from utils.data.recordings.faint_mixes import warn_of_faint_mixes
from utils.data.recordings.preflight import leave_out_unusable, require_all

ONE = '[[experiments]]\nname = "one"\n'


def weaken(folder: Path, names: Iterable[str], gain: float = -0.9) -> None:
    """Give recordings a second channel that takes most of the first away: -0.9 leaves 23 dB less."""
    for name in names:
        samples = 0.5 * voice(0.4, seed=sum(name.encode()) % 997 + 100)
        soundfile.write(folder / name, np.stack([samples, gain * samples], axis=1), RATE_HZ)


def warnings_of(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith("WARNING: ") and "are mixed" in line]


def test_check_training_and_evaluation_name_them_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tiny_rows()
    arguments = write_tiny_corpus(tmp_path, rows, ONE)
    weaken(tmp_path / "wav", rows["file"][[2, 3, 5, 6, 7, 13]])
    weaken(tmp_path / "wav", ["06-sad-0.wav"])
    assert program.main([*arguments, "--check"]) == 0
    (told,) = warnings_of(capsys.readouterr().out)
    assert told.startswith("WARNING: TINY: 7 of 24 recordings of train, development, test1 lose 10 dB or more where")
    assert told.endswith("; and 2 more")
    assert told.count("(23 dB)") == 5
    assert program.main(arguments) == 0
    (told,) = warnings_of(capsys.readouterr().out)
    assert told.startswith("WARNING: TINY: 6 of 20 recordings of train, development lose")
    assert "01-neutral-0.wav (23 dB)" in told
    assert program.main([*arguments, "--test"]) == 0
    (told,) = warnings_of(capsys.readouterr().out)
    assert told.startswith("WARNING: TINY: 1 of 4 recordings of test1 lose")


@pytest.mark.parametrize("measure", [require_all, lambda table: leave_out_unusable(table).usable])
def test_ordinary_channels_are_not_told(measure: object, tmp_path: Path) -> None:
    assert callable(measure)
    weaken(tmp_path, ["a.wav"], gain=0.5)
    weaken(tmp_path, ["b.wav"], gain=-0.2)
    soundfile.write(tmp_path / "c.wav", voice(0.4), RATE_HZ)
    table = pd.DataFrame({"file": ["a.wav", "b.wav", "c.wav"]}).assign(corpus="P", split="train")
    table["path"] = [str(tmp_path / name) for name in table["file"]]
    assert warn_of_faint_mixes([measure(table)]) == []
    weaken(tmp_path, ["b.wav"], gain=-0.95)
    (told,) = warn_of_faint_mixes([measure(table)])
    assert told.startswith("P: 1 of 3 recordings of train lose")


@pytest.mark.parametrize("segments", [(), ("--segment-seconds", "0.2")])
def test_predictions_of_them_are_warned_of(
    segments: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, folder = save(tmp_path / "model"), tmp_path / "folder"
    folder.mkdir()
    soundfile.write(folder / "a.wav", voice(0.4), RATE_HZ)
    weaken(folder, ["b.wav"])
    arguments = ["--model", str(model), "--device", "cpu", *segments]
    assert predict_program.main([*arguments, str(folder)]) == 0
    (told,) = warnings_of(capsys.readouterr().out)
    assert told.startswith("WARNING: 1 of 2 recordings lose 10 dB or more where their channels are mixed")
    assert told.endswith(f": {folder / 'b.wav'} (23 dB)")
    assert predict_program.main([*arguments, str(folder / "a.wav")]) == 0
    assert not warnings_of(capsys.readouterr().out)
