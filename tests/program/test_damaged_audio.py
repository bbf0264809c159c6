"""Damaged recordings: formats times faults, each refused in a sentence or read as what it is."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

import main as program
from experiment_runner.runtime.interruption import Interrupted, Interruption
from tests.support.voices import voice
from utils.data.recordings.preflight import leave_out_unusable, require_all
from utils.data.recordings.survey import survey
from utils.data.wav import SAMPLE_RATE_HZ, Crop, read_waveform
from utils.errors import DataError

FORMATS: dict[str, dict[str, str]] = {
    "16-bit.wav": {},
    "24-bit.wav": {"subtype": "PCM_24"},
    "float.wav": {"subtype": "FLOAT"},
    "mu-law.wav": {"subtype": "ULAW"},
    "adpcm.wav": {"subtype": "MS_ADPCM"},
    "big-endian.wav": {"endian": "BIG"},
    "rf64.wav": {"format": "RF64"},
    "extensible-float.wav": {"format": "WAVEX", "subtype": "FLOAT"},
    "16-bit.aiff": {},
    "float.aifc": {"format": "AIFF", "subtype": "FLOAT"},
    "16-bit.flac": {},
    "24-bit.flac": {"subtype": "PCM_24"},
    "vorbis.ogg": {},
    "opus.ogg": {"format": "OGG", "subtype": "OPUS"},
    "layer-3.mp3": {},
    "core-audio.caf": {"format": "CAF"},
    "sony.w64": {"format": "W64"},
    "sun.au": {"format": "AU"},
}
FLOATS = [name for name in FORMATS if "float" in name]
PADDED = ("adpcm.wav",)
"""Its blocks are longer than what a speech encoder needs."""
FAULTS: dict[str, tuple[Callable[[bytes], bytes], set[str]]] = {
    "no byte": (lambda _: b"", {"empty"}),
    "its beginning alone": (lambda whole: whole[:64], {"truncated", "unreadable"}),
    "its first half": (lambda whole: whole[: len(whole) // 2], {"truncated", "unreadable"}),
    "without its end": (lambda whole: whole[: -len(whole) // 20], {"truncated", "unreadable"}),
    "zeros": (lambda whole: bytes(len(whole)), {"unreadable"}),
    "text": (lambda _: b"<html>the file was not found</html>" * 50, {"unreadable"}),
}
"""What is made of a whole file, and the kinds of an audit that it may be taken for."""
UNREAL: dict[str, float] = {"not a number": np.nan, "infinite": -np.inf, "louder than any audio": 1e30}
HARMLESS: dict[str, Callable[[bytes], bytes]] = {"with something behind it": lambda whole: whole + b"\0" * 40}


def kinds_of(paths: list[Path], is_deep: bool = True) -> dict[str, str]:
    table = survey("DAMAGED", [str(path) for path in paths], is_deep=is_deep).table
    assert table["problem"].dropna().str.len().gt(0).all()
    return dict(zip((path.name for path in paths), table["kind"].fillna(""), strict=True))


@pytest.mark.parametrize("name", FORMATS)
def test_every_fault_of_every_format_is_noticed(name: str, tmp_path: Path) -> None:
    soundfile.write(tmp_path / name, voice(3.0), SAMPLE_RATE_HZ, **FORMATS[name])
    whole = (tmp_path / name).read_bytes()
    expected = {name: {""}}
    for fault, (damage, kinds) in FAULTS.items():
        (tmp_path / fault).write_bytes(damage(whole))
        expected[fault] = kinds
    for fault, change in HARMLESS.items():
        (tmp_path / fault).write_bytes(change(whole))
        expected[fault] = {""}
    for fault, count in {"no sample": 0, "too short": 200}.items():
        soundfile.write(tmp_path / fault, voice()[:count], SAMPLE_RATE_HZ, **{"format": "WAV", **format_of(name)})
        expected[fault] = {"empty", "short", "unreadable", "truncated"}
    if name in PADDED:
        expected["too short"] = {""}
    if name in FLOATS:
        for fault, value in UNREAL.items():
            samples = voice()
            samples[9000] = value
            soundfile.write(tmp_path / fault, samples, SAMPLE_RATE_HZ, **{"format": "WAV", **format_of(name)})
            expected[fault] = {"not-finite"}
    found = kinds_of([tmp_path / fault for fault in expected])
    assert not {fault: kind for fault, kind in found.items() if kind not in expected[fault]}


def format_of(name: str) -> dict[str, str]:
    suffix = name.rpartition(".")[2]
    return {"format": {"aifc": "AIFF", "aiff": "AIFF"}.get(suffix, suffix.upper()), **FORMATS[name]}


def test_what_is_no_file_is_noticed_and_never_waited_for(tmp_path: Path) -> None:
    (tmp_path / "folder.wav").mkdir()
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    (tmp_path / "dangling.wav").symlink_to(tmp_path / "nowhere.wav")
    (tmp_path / "endless.wav").symlink_to("/dev/zero")
    names = ("folder", "pipe", "loop", "dangling", "endless", "gone", "a" * 300)
    found = kinds_of([tmp_path / f"{name}.wav" for name in names])
    assert list(found.values()) == ["unreadable"] * 3 + ["missing", "unreadable", "missing", "unreadable"]


@pytest.mark.parametrize(("rate_hz", "channels"), [(8_000, 1), (44_100, 2), (48_000, 6)])
def test_other_rates_and_channels_are_no_damage(rate_hz: int, channels: int, tmp_path: Path) -> None:
    samples = np.repeat(voice(1.0, rate_hz)[:, None], channels, axis=1)
    paths = [tmp_path / name for name in ("a.wav", "a.flac", "a.ogg")]
    for path in paths:
        soundfile.write(path, samples, rate_hz)
    assert set(kinds_of(paths).values()) == {""}
    assert [len(read_waveform(str(path))) for path in paths] == [SAMPLE_RATE_HZ] * 3


@pytest.mark.parametrize("name", ["a.raw", "a.RAW", "a", "a.mp3", "a#1+2.00000000"])
def test_a_name_says_nothing_of_what_is_in_a_file(name: str, tmp_path: Path) -> None:
    soundfile.write(tmp_path / name, voice(), SAMPLE_RATE_HZ, format="WAV")
    assert kinds_of([tmp_path / name]) == {name: ""}
    assert len(read_waveform(str(tmp_path / name))) == SAMPLE_RATE_HZ


def test_a_rate_that_no_recording_has_is_damage(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", voice(), 1)
    assert kinds_of([tmp_path / "a.wav"]) == {"a.wav": "unreadable"}


def corrupt(whole: bytes, generator: np.random.Generator) -> bytes:
    """Flip bits, cut, blank, insert, overwrite the header, or write the file twice."""
    content, place = bytearray(whole), int(generator.integers(len(whole)))
    match int(generator.integers(6)):
        case 0:
            for _ in range(generator.integers(1, 20)):
                content[generator.integers(len(content))] ^= 1 << int(generator.integers(8))
        case 1:
            del content[max(1, place) :]
        case 2:
            stop = min(len(content), place + int(generator.integers(1, 2000)))
            content[place:stop] = bytes(stop - place)
        case 3:
            content = content[:place] + generator.bytes(int(generator.integers(1, 500))) + content[place:]
        case 4:
            for _ in range(generator.integers(1, 6)):
                content[generator.integers(min(100, len(content)))] = int(generator.integers(256))
        case _:
            content = content + content
    return bytes(content)


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_accepted_can_be_read_whole_and_in_parts(name: str, tmp_path: Path) -> None:
    """However a file is damaged: its preflight says so, or it reads as the preflight says, wherever it is cut."""
    soundfile.write(tmp_path / name, voice(1.0), SAMPLE_RATE_HZ, **FORMATS[name])
    whole, generator = (tmp_path / name).read_bytes(), np.random.default_rng(len(name))
    paths = [tmp_path / f"{number}-{name}" for number in range(40)]
    for path in paths:
        path.write_bytes(corrupt(whole, generator))
    table = survey("CORRUPTED", [str(path) for path in paths], is_deep=True).table
    accepted = table[table["problem"].isna()]
    assert len(accepted) < len(table)
    for path, seconds in zip(accepted["path"], accepted["seconds"], strict=True):
        samples = read_waveform(path)
        assert abs(len(samples) - seconds * SAMPLE_RATE_HZ) < 2
        assert np.isfinite(np.square(samples)).all()
        for position in (0.0, 0.4, 1 - 1e-9):
            read_waveform(path, Crop(max(0.03, 0.3 * seconds), position))


CLASSES = ("angry", "happy", "neutral", "sad")
COUNTS = {"train": 200, "development": 8, "test1": 8}
EXPERIMENT = """
[base_config]
corpus = "C"
upstream_model = "wavlm-tiny-random"
learning_rate = 1e-3
epoch = 1
min_epochs = 1
batch_size = 50
tracking = "none"
[[experiments]]
name = "NAME"
"""


class Desk:
    """A corpus of 200 training recordings, and the program."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "audio").mkdir()
        rows = []
        for seed, (split, count) in enumerate(COUNTS.items()):
            soundfile.write(folder / f"{split}.wav", voice(0.2, seed=seed), SAMPLE_RATE_HZ)
            for number in range(count):
                file = f"{split}-{number:03d}.wav"
                shutil.copyfile(folder / f"{split}.wav", folder / "audio" / file)
                rows.append({"file": file, "split": split, "emotion": CLASSES[number % 4], "speaker": split})
        pd.DataFrame(rows).to_csv(folder / "labels.csv", index=False)
        (folder / "config.toml").write_text(
            "[C]\nFORMAT = 'csv'\nPATH_TO_LABEL = 'labels.csv'\nPATH_TO_AUDIO = 'audio'\n", encoding="utf-8"
        )

    def damage(self, file: str, fault: str) -> None:
        path = self.folder / "audio" / file
        path.write_bytes(FAULTS[fault][0](path.read_bytes()))

    def run(self, name: str, *options: str) -> int:
        experiments = self.folder / "experiments.toml"
        experiments.write_text(EXPERIMENT.replace("NAME", name))
        files = ["--config", str(self.folder / "config.toml"), "--experiments", str(experiments)]
        return program.main([*files, "--output", str(self.folder / "runs"), "--device", "cpu", *options])


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_one_in_a_hundred_is_left_out_and_listed(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.damage("train-000.wav", "its first half")
    desk.damage("train-007.wav", "text")
    assert desk.run("two") == 0
    told = capsys.readouterr().out
    assert "WARNING: two: 2 of 200 training recordings are unusable and left out (at most 1% may be): " in told
    run = desk.folder / "runs" / "two" / "seed-42"
    skipped = pd.read_csv(run / "skipped.csv")
    assert skipped[["file", "kind"]].values.tolist() == [
        ["train-000.wav", "truncated"],
        ["train-007.wav", "unreadable"],
    ]
    log = (run / "train.log").read_text()
    assert "198 training utterances" in log
    assert "2 of 200 training recordings are unusable" in log
    assert "Unusable training recordings that were left out: 2 " in (run / "report.html").read_text()
    assert desk.run("two") == 0
    assert "finished before" in capsys.readouterr().out


def test_more_than_one_in_a_hundred_is_an_error(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        desk.damage(f"train-00{number}.wav", "no byte")
    assert desk.run("three") == 1
    told = " ".join(capsys.readouterr().out.split())
    assert "ERROR: three seed 42: C: 3 of 200 recordings of train are unusable, and at most 1% of a" in told
    assert "train-000.wav holds no byte" in told
    assert "prepare_data.py audit C --deep" in told
    assert "Traceback" not in told
    assert not (desk.folder / "runs" / "three" / "seed-42" / "checkpoints").exists()


@pytest.mark.parametrize(("split", "options"), [("development", ()), ("test1", ("--test",))])
def test_one_in_development_or_test_is_an_error(
    split: str, options: tuple[str, ...], desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.damage(f"{split}-003.wav", "zeros")
    assert desk.run("one") == (0 if options else 1)
    assert desk.run("one", *options) == 1
    told = " ".join(capsys.readouterr().out.split())
    assert f"C: 1 of 8 recordings of {split} are unusable, and all are needed: " in told
    assert desk.run("one", "--check") == 2
    assert f"recordings of {split} are unusable" in capsys.readouterr().err


def test_a_half_done_run_does_not_go_on_without_other_recordings(
    desk: Desk, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.damage("train-000.wav", "its first half")
    checks = iter(range(4))

    def end_after_some(_: Interruption) -> None:
        if next(checks, None) is None:
            raise Interrupted("SIGTERM")

    with monkeypatch.context() as patch:
        patch.setattr(Interruption, "check", end_after_some)
        assert desk.run("half") == 75
    desk.damage("train-001.wav", "its first half")
    assert desk.run("half") == 1
    assert "has changed since: left_out_recordings 1 (" in capsys.readouterr().out
    desk.damage("train-001.wav", "zeros")  # not the same file as before
    shutil.copyfile(desk.folder / "train.wav", desk.folder / "audio" / "train-001.wav")
    assert desk.run("half") == 0


def test_a_class_that_is_left_out_is_told_with_its_recordings(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    labels = pd.read_csv(desk.folder / "labels.csv")
    is_other = (labels["split"] == "train") & (labels["emotion"] == "sad") & (labels["file"] != "train-003.wav")
    labels.loc[is_other, "emotion"] = "angry"
    labels.to_csv(desk.folder / "labels.csv", index=False)
    desk.damage("train-003.wav", "text")
    assert desk.run("one") == 1
    told = " ".join(capsys.readouterr().out.split())
    assert "sad has no training example in C" in told
    assert "unusable recordings: train-003.wav cannot be decoded" in told


def test_what_may_pass_is_never_left_out(desk: Desk) -> None:
    table = pd.DataFrame({"corpus": "C", "split": "train", "file": [f"{n}.wav" for n in range(200)]})
    table["path"] = [str(desk.folder / "audio" / f"train-{n:03d}.wav") for n in range(200)]
    assert len(leave_out_unusable(table).usable) == 200
    table = table.astype({"path": object})
    table.loc[5, "path"] = str(desk.folder / "audio" / ("b" * 300 + ".wav"))
    with pytest.raises(DataError, match=r"1 of 200 recordings .* they may be usable later"):
        leave_out_unusable(table)
    with pytest.raises(DataError, match=r"all are needed"):
        require_all(table)
