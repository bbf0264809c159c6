"""`--check` and training say the same of broken set-ups: what `--check` calls well is not refused afterwards."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

import main as program
from tests.support.voices import voice

OF_TEST_RECORDINGS = re.compile(r"of \d+ recordings of test1 (are unusable|contain the same samples)")
"""What `--check` alone says: training keeps test recordings closed."""
SPEAKERS = {"a": "train", "b": "train", "c": "train", "d": "development", "e": "test1"}
CLASSES = ("angry", "happy", "sad")
SECTION = "[MINE]\nFORMAT = 'csv'\nPATH_TO_LABEL = 'table.csv'\nPATH_TO_AUDIO = 'wav'\n"
BASE = """[base_config]
corpus = "MINE"
upstream_model = "wavlm-tiny-random"
epoch = 1
batch_size = 4
tracking = "none"
"""
LISTED = "\n[[experiments]]\nname = 'First'\n"


class Setup:
    """A small corpus with its two files, which a test breaks in one place."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.wav = folder, folder / "wav"
        self.wav.mkdir()
        rows = []
        for seed, (speaker, split) in enumerate(SPEAKERS.items()):
            for place, emotion in enumerate(CLASSES):
                file = f"{speaker}-{emotion}.wav"
                soundfile.write(self.wav / file, voice(0.3, seed=10 * seed + place), 16_000)
                gender = "female" if seed % 2 else "male"
                rows.append((file, split, speaker, gender, emotion, 1.0 + seed, 2.0 + place, 7.0 - seed))
        columns = ["file", "split", "speaker", "gender", "emotion", "arousal", "valence", "dominance"]
        self.table = pd.DataFrame(rows, columns=columns).astype(object)
        self.section, self.base, self.listed = SECTION, BASE, LISTED
        self.output = folder / "runs"

    def set(self, file: str, column: str, value: float | str) -> None:
        self.table.loc[self.table["file"] == file, column] = value

    def arguments(self) -> list[str]:
        self.table.to_csv(self.folder / "table.csv", index=False)
        (self.folder / "config.toml").write_text(self.section)
        (self.folder / "experiments.toml").write_text(self.base + self.listed)
        files = ["--config", str(self.folder / "config.toml"), "--experiments", str(self.folder / "experiments.toml")]
        return [*files, "--output", str(self.output), "--device", "cpu"]


def unknown_key(s: Setup) -> None:
    s.base += "batchsize = 4\n"


def broken_toml(s: Setup) -> None:
    s.base += 'learning_rate = "1e-5\n'


def unknown_corpus(s: Setup) -> None:
    s.base = s.base.replace('"MINE"', '"MINES"')


def no_table(s: Setup) -> None:
    s.section = s.section.replace("table.csv", "tables.csv")


def no_audio(s: Setup) -> None:
    s.section = s.section.replace("'wav'", "'wave'")


def column_of_another_name(s: Setup) -> None:
    s.table = s.table.rename(columns={"emotion": "label", "speaker": "spk"})


def wrong_words(s: Setup) -> None:
    s.set("a-sad.wav", "gender", "femail")
    s.set("b-sad.wav", "split", "practice")


def wrong_numbers(s: Setup) -> None:
    s.base += 'task = "multitask"\n'
    s.set("a-sad.wav", "arousal", "high")
    s.set("b-sad.wav", "valence", "3..5")


def off_scale(s: Setup) -> None:
    s.set("a-sad.wav", "arousal", 9.0)


def repeated_row(s: Setup) -> None:
    s.table = pd.concat([s.table, s.table.iloc[:1]])


def leaking_speaker(s: Setup) -> None:
    s.set("d-sad.wav", "speaker", "a")


def no_development(s: Setup) -> None:
    s.table = s.table[s.table["split"] != "development"]


def one_class(s: Setup) -> None:
    s.table["emotion"] = "sad"


def untrained_class(s: Setup) -> None:
    s.set("d-sad.wav", "emotion", "calm")


def missing_development_recording(s: Setup) -> None:
    (s.wav / "d-sad.wav").unlink()


def truncated_development_recording(s: Setup) -> None:
    file = s.wav / "d-sad.wav"
    file.write_bytes(file.read_bytes()[:3000])


def unreadable_training_recordings(s: Setup) -> None:
    (s.wav / "a-sad.wav").write_text("no sound")
    (s.wav / "b-sad.wav").write_bytes(b"")


def channels_that_cancel(s: Setup) -> None:
    for file in s.table["file"]:
        samples = voice(0.3, seed=len(file))
        soundfile.write(s.wav / file, np.stack([samples, -samples], axis=1), 16_000)


def same_samples_in_development(s: Setup) -> None:
    shutil.copy(s.wav / "a-sad.wav", s.wav / "d-sad.wav")


def training_files_as_test_corpus(s: Setup) -> None:
    other = s.table[s.table["split"] == "train"].assign(split="test1")
    other.to_csv(s.folder / "other.csv", index=False)
    s.section += s.section.replace("MINE", "OTHER").replace("table.csv", "other.csv")
    s.base += 'test_corpora = ["OTHER"]\n'


def one_utterance_a_step(s: Setup) -> None:
    s.base = s.base.replace("batch_size = 4", "batch_size = 1")


def upstream_that_is_nowhere(s: Setup) -> None:
    s.base = s.base.replace("wavlm-tiny-random", "wavlm-base-plus")


def noise_that_is_nowhere(s: Setup) -> None:
    s.base += "augment_noise = 'noises'\naugment_noise_prob = 0.5\n"


def output_that_is_a_file(s: Setup) -> None:
    s.output.write_text("not a folder")


def finished_run_of_other_settings(s: Setup) -> None:
    assert program.main(s.arguments()) == 0
    s.base = s.base.replace("batch_size = 4", "batch_size = 3")


BROKEN: tuple[Callable[[Setup], None], ...] = (
    broken_toml,
    unknown_key,
    unknown_corpus,
    no_table,
    no_audio,
    column_of_another_name,
    wrong_words,
    wrong_numbers,
    off_scale,
    repeated_row,
    leaking_speaker,
    no_development,
    one_class,
    untrained_class,
    missing_development_recording,
    truncated_development_recording,
    unreadable_training_recordings,
    channels_that_cancel,
    same_samples_in_development,
    training_files_as_test_corpus,
    one_utterance_a_step,
    upstream_that_is_nowhere,
    noise_that_is_nowhere,
    output_that_is_a_file,
    finished_run_of_other_settings,
)


def problems(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, set[str]]:
    """Run the program; return its status and what it says is wrong, without whose run it is."""
    capsys.readouterr()
    status = program.main(arguments)
    said = capsys.readouterr()
    errors = [line.partition("ERROR: ")[2] for line in said.out.splitlines() if line.startswith("ERROR: ")]
    lines = [line for line in (*said.err.splitlines(), *errors) if not OF_TEST_RECORDINGS.search(line)]
    return status, {re.sub(r"^First( seed 42)?: ", "", line) for line in lines}


@pytest.mark.parametrize("break_it", BROKEN, ids=lambda break_it: break_it.__name__)
def test_what_training_refuses_the_check_has_said(
    break_it: Callable[[Setup], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    setup = Setup(tmp_path)
    break_it(setup)
    arguments = setup.arguments()
    check_status, checked = problems([*arguments, "--check"], capsys)
    status, trained = problems(arguments, capsys)
    assert (check_status, status) in {(2, 2), (2, 1)}, (checked, trained)
    assert checked == trained
    assert checked


def test_what_the_check_calls_well_is_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = Setup(tmp_path).arguments()
    assert problems([*arguments, "--check"], capsys) == (0, set())
    assert problems(arguments, capsys) == (0, set())
