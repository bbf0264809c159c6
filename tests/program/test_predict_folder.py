"""`predict.py FOLDER` on recordings of every make, and what it says of the model and of what it leaves out."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import soundfile
import soxr

import predict as predict_program
from tests.support.recordings import RATE_HZ, save
from tests.support.voices import voice

SPEECH = voice(1.0)
RANDOM = "RANDOM weights: the upstream has the shape of wavlm-tiny-random, and was not pre-trained."
SYNTHETIC = "SYNTHETIC data: nobody spoke DEMO. Its predictions on speech mean nothing."
EXACT: dict[str, dict[str, str]] = {
    "a.wav": {},
    "=1+1.wav": {},
    "-dash.wav": {},
    "@x.wav": {},
    "line\nbreak.wav": {},
    'na,me "q" ü 😀.wav': {},
    "one folder/same.wav": {},
    "UP.WAV": {"format": "WAV"},
    "p24.wav": {"subtype": "PCM_24"},
    "f32.wav": {"subtype": "FLOAT"},
    "rf64.wav": {"format": "RF64"},
    "a.flac": {},
    "a.w64": {"format": "W64"},
    "a.aiff": {},
    "a.caf": {"format": "CAF", "subtype": "PCM_16"},
    "a.au": {"format": "AU"},
    "a.sph": {"format": "NIST"},
    "flac_called.wav": {"format": "FLAC"},
    "wav_called.mp3": {"format": "WAV"},
    "wav_called.m4a": {"format": "WAV"},
}
CHANNELS: dict[str, npt.NDArray[np.float64]] = {
    "stereo_same.wav": np.stack([SPEECH, SPEECH], axis=1),
    "stereo_left.wav": np.stack([SPEECH, 0 * SPEECH], axis=1),
    "six.wav": np.stack([SPEECH] * 6, axis=1),
}
LOSSY: dict[str, dict[str, str]] = {
    "a.mp3": {},
    "a.opus": {"format": "OGG", "subtype": "OPUS"},
    "ulaw.wav": {"subtype": "ULAW"},
}
PROBLEMS = {
    "stereo_opposite.wav": "has channels that cancel: their mix is silence",
    "real.m4a": "is in an unsupported format; convert it with `ffmpeg -i ",
    "real.webm": "is in an unsupported format; convert it with `ffmpeg -i ",
    "dangling.wav": "gone.wav, which is missing",
    "short.wav": "lasts 0.01 s, less than 0.025 s",
    "broken.wav": "cannot be decoded",
}
"""What is said of files that cannot be predicted."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("model"), synthetic=("DEMO",))


def call(model: Path, *arguments: object) -> int:
    return predict_program.main(["--model", str(model), "--device", "cpu", *map(str, arguments)])


def write_recordings(folder: Path) -> None:
    for name, keys in {**EXACT, **LOSSY}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, SPEECH, RATE_HZ, **keys)
    for name, samples in CHANNELS.items():
        soundfile.write(folder / name, samples, RATE_HZ, subtype="FLOAT")
    for rate_hz in (8_000, 44_100):
        soundfile.write(folder / f"r{rate_hz}.wav", soxr.resample(SPEECH, RATE_HZ, rate_hz), rate_hz)
    soundfile.write(folder / "stereo_opposite.wav", np.stack([SPEECH, -SPEECH], axis=1), RATE_HZ)
    soundfile.write(folder / "short.wav", SPEECH[:160], RATE_HZ)
    (folder / "real.m4a").write_bytes(b"\0\0\0\x20ftypM4A \0\0\0\0M4A mp42isom" + bytes(4000))
    (folder / "real.webm").write_bytes(b"\x1a\x45\xdf\xa3" + bytes(4000))
    (folder / "broken.wav").write_bytes(b"RIFF, but no more")
    for name, target in {"linked": "one folder", "link.wav": "a.wav", "dangling.wav": "gone.wav", "loop": "."}.items():
        (folder / name).symlink_to(folder / target)
    for name in ("._a.wav", ".DS_Store", "notes.txt"):
        (folder / name).write_bytes(b"no sound")


def test_every_file_of_a_folder_is_predicted_or_named(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, output = tmp_path / "folder", tmp_path / "out.csv"
    write_recordings(folder)
    assert call(model, folder, "--output", output) == 1
    said = capsys.readouterr().out
    table, problems = pd.read_csv(output), pd.read_csv(tmp_path / "out.problems.csv")
    rows = {os.path.relpath(row["file"], folder): row for row in table.to_dict("records")}
    reasons = {
        os.path.relpath(path, folder): why for path, why in zip(problems["file"], problems["problem"], strict=True)
    }
    exact = {*EXACT, *CHANNELS, "link.wav"}
    assert set(rows) == {*exact, *LOSSY, "r8000.wav", "r44100.wav"}
    assert set(reasons) == set(PROBLEMS)
    assert all(PROBLEMS[name] in why for name, why in reasons.items())
    columns = [name for name in map(str, table) if name.startswith(("prob_", "pred_"))]
    for name in exact:
        found = [rows[name][column] for column in columns]
        assert found == pytest.approx([rows["a.wav"][column] for column in columns], abs=2e-3), name
    assert f"6 of {len(rows) + 6} recordings were not predicted" in said
    assert "1 other file is not a recording: 1 .txt" in said


def test_windows_of_channels_that_cancel_are_a_problem_too(model: Path, tmp_path: Path) -> None:
    folder, output = tmp_path / "folder", tmp_path / "out.csv"
    folder.mkdir()
    soundfile.write(folder / "a.wav", voice(25.0), RATE_HZ)
    soundfile.write(folder / "b.wav", np.stack([voice(25.0), -voice(25.0)], axis=1), RATE_HZ)
    assert call(model, folder, "--segment-seconds", 3, "--output", output) == 1
    assert set(pd.read_csv(output)["file"]) == {str(folder / "a.wav")}
    assert "cancel" in pd.read_csv(tmp_path / "out.problems.csv")["problem"].item()


def test_a_folder_of_films_alone_is_one_sentence(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.mp4").write_bytes(bytes(100))
    (tmp_path / "._b.wav").write_bytes(bytes(100))
    assert call(model, tmp_path) == 2
    said = capsys.readouterr().err
    assert f"the folder {tmp_path} contains no recording (.wav, .flac, " in said
    assert f"; 1 file is not used: {tmp_path}/a.mp4 is in an unsupported format; convert it with `ffmpeg" in said


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_rows_carry_what_must_be_known_of_the_model(
    model: Path, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "a.wav", SPEECH, RATE_HZ)
    plain = save(tmp_path / "plain", upstream="hubert, group norm")
    for folder, sentences in ((model, [SYNTHETIC, RANDOM]), (plain, [])):
        output = tmp_path / f"out{suffix}"
        assert call(folder, tmp_path / "a.wav", "--output", output) == 0
        said = capsys.readouterr().out
        assert [line.removeprefix("WARNING: ") for line in said.splitlines() if "WARNING" in line] == sentences
        table = pd.read_csv(output) if suffix == ".csv" else pd.read_json(output, lines=True)
        assert list(table.get("model_warning", [])) == [" ".join(sentences)] * bool(sentences)
        assert list(table)[-1] == ("model_warning" if sentences else "gender_prediction")


def test_csv_on_standard_output_carries_it_alone(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "a.wav", SPEECH, RATE_HZ)
    assert call(model, tmp_path / "a.wav", "--output", "-") == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[0].endswith(",model_warning")
    assert f"WARNING: {RANDOM}" in said.err


@pytest.mark.parametrize(
    ("seconds", "options", "sentence"),
    [
        (4.9, (), ""),
        (5.5, (), "1 of 2 recordings are long (the longest: "),
        (5.5, ("--segment-seconds", 2), ""),
        (5.5, ("--segment-seconds", 5.5), "segments of 5.5 s are long: in training the model heard at most 2 s"),
    ],
)
def test_recordings_far_longer_than_those_of_training_are_warned_of(
    model: Path,
    seconds: float,
    options: tuple[object, ...],
    sentence: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, length in (("a.wav", seconds), ("b.wav", 1.0)):
        soundfile.write(tmp_path / name, voice(length), RATE_HZ)
    assert call(model, tmp_path, *options, "--output", tmp_path / "out.csv") == 0
    said = capsys.readouterr().out
    assert ("in training the model heard at most 2 s at a time" in said) == bool(sentence)
    assert sentence in said
    assert ("--segment-seconds 2 predicts them piece by piece" in said) == sentence.startswith("1 of 2")


@pytest.mark.parametrize("segments", [(), ("--segment-seconds", 0.5)], ids=["whole", "segments"])
def test_silence_is_told(
    segments: tuple[object, ...], model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half = np.zeros(16_000)
    half[12_000:] = np.random.default_rng(0).normal(0, 0.1, 4_000)
    sounds = {"zeros": np.zeros(16_000), "offset": np.full(16_000, 0.25), "half": half, "faint": half * 1e-4}
    for name, samples in sounds.items():
        soundfile.write(tmp_path / f"{name}.wav", samples, 16_000, subtype="FLOAT")
    quiet = [tmp_path / f"{name}.wav" for name in ("zeros", "offset", "faint")]
    assert call(model, tmp_path / "half.wav", *segments) == 0
    assert "silent" not in capsys.readouterr().out
    assert call(model, *quiet, tmp_path / "half.wav", *segments, "--output", tmp_path / "out.csv") == 0
    said = capsys.readouterr().out
    assert "WARNING: 3 recordings are silent, never louder than -60 dB, so their prediction means nothing" in said
    assert f"so their prediction means nothing: {', '.join(map(str, quiet))}\n" in said
    assert call(model, quiet[0], *segments) == 0
    assert "1 recording is silent, never louder than -60 dB, so its prediction means nothing" in " ".join(
        capsys.readouterr().out.split()
    )
