"""Evaluation on what was trained on: refused by training, `--check` and `--test`, each by what it may look at."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

import main as program
from experiment_runner.data.preparation import prepare
from tests.support.synthetic_podcast import SyntheticPodcast
from tests.support.voices import voice
from utils.config.loading import load_plan

EXPERIMENTS = """
[base_config]
corpus = "{corpus}"
upstream_model = "wavlm-tiny-random"
epoch = 1
min_epochs = 1
batch_size = 4
tracking = "none"
test_corpora = {tested}
[[experiments]]
name = "one"
"""
COLUMNS = "file,split,speaker,emotion\n"
ACTIONS: tuple[list[str], ...] = (["--check"], [], ["--test"])


def write_voice(path: Path, seed: int) -> None:
    samples = (32_767 * voice(0.2, seed=seed)).astype(np.int16)  # floats would be rounded differently by FLAC and WAV
    soundfile.write(path, samples, 16_000)


def write_mine(folder: Path) -> list[str]:
    """Write MINE: four recordings to train on, of three classes, and two for development and test each."""
    (folder / "wav").mkdir(parents=True)
    splits = ["train"] * 4 + ["development"] * 2 + ["test1"] * 2
    emotions = ["sad", "happy", "angry", "sad", "sad", "happy", "sad", "happy"]
    rows = [
        f"{number}.wav,{split},{split[:2]},{emotion}\n"
        for number, (split, emotion) in enumerate(zip(splits, emotions, strict=True))
    ]
    for number in range(len(rows)):
        write_voice(folder / "wav" / f"{number}.wav", number)
    (folder / "mine.csv").write_text(COLUMNS + "".join(rows))
    (folder / "config.toml").write_text(section("MINE", "mine.csv", "wav"))
    return write_experiments(folder)


def section(name: str, labels: str, audio: str, form: str = "csv", more: str = "") -> str:
    return f"[{name}]\nFORMAT = '{form}'\nPATH_TO_LABEL = '{labels}'\nPATH_TO_AUDIO = '{audio}'\n{more}\n"


def write_experiments(folder: Path, *tested: str, corpus: str = "MINE") -> list[str]:
    listed = folder / "experiments.toml"
    listed.write_text(EXPERIMENTS.format(corpus=corpus, tested=json.dumps(list(tested))))
    places = ["--config", str(folder / "config.toml"), "--experiments", str(listed)]
    return [*places, "--output", str(folder / "runs"), "--device", "cpu"]


def add_other(folder: Path, files: Sequence[str], audio: str, emotions: Sequence[str] = ("sad", "happy")) -> list[str]:
    """Write OTHER, whose test split names these files, and evaluate on it too."""
    rows = [f"{file},test1,tr,{emotions[number % len(emotions)]}\n" for number, file in enumerate(files)]
    (folder / "other.csv").write_text(COLUMNS + "".join(rows))
    corpora = section("MINE", "mine.csv", "wav") + section("OTHER", "other.csv", audio)
    (folder / "config.toml").write_text(corpora)
    return write_experiments(folder, "OTHER")


def by_themselves(folder: Path) -> list[str]:
    return add_other(folder, ["0.wav", "1.wav"], "wav")


def by_a_folder_above(folder: Path) -> list[str]:
    return add_other(folder, ["wav/0.wav", "wav/1.wav"], ".")


def by_a_linked_folder(folder: Path) -> list[str]:
    (folder / "linked").symlink_to(folder / "wav")
    return add_other(folder, ["2.wav", "3.wav"], "linked")


def by_linked_files(folder: Path) -> list[str]:
    (folder / "other").mkdir()
    for name in "01":
        (folder / "other" / f"copy{name}.wav").symlink_to(folder / "wav" / f"{name}.wav")
    return add_other(folder, ["copy0.wav", "copy1.wav"], "other")


def by_hard_links(folder: Path) -> list[str]:
    (folder / "other").mkdir()
    for name in "45":  # of development
        os.link(folder / "wav" / f"{name}.wav", folder / "other" / f"copy{name}.wav")
    return add_other(folder, ["copy4.wav", "copy5.wav"], "other")


@pytest.mark.parametrize("leak", [by_themselves, by_a_folder_above, by_a_linked_folder, by_linked_files, by_hard_links])
def test_files_of_training_are_no_test_corpus(
    leak: Callable[[Path], list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_mine(tmp_path)
    arguments = leak(tmp_path)
    for action in ACTIONS:
        assert program.main([*arguments, *action]) == 2
        said = capsys.readouterr().err
        assert "one: test_corpora: OTHER: 2 of 2 recordings of test1 are files in train or development of MINE" in said
        assert "remove their rows from OTHER, or correct its paths" in said
        assert said.count("recordings of test1") == 1, "the samples of a file that is told are no news"
    assert not (tmp_path / "runs").exists()


def test_a_file_under_two_names_of_one_corpus_is_refused_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = write_mine(tmp_path)
    for name, twin in (("4", "0"), ("6", "1")):
        (tmp_path / "wav" / f"{name}.wav").unlink()
        (tmp_path / "wav" / f"{name}.wav").symlink_to(f"{twin}.wav")
    for action in ACTIONS:
        assert program.main([*arguments, *action]) == 2
        shown, said = capsys.readouterr()
        assert ("Runs, once all problems are corrected" in " ".join(shown.split())) == (action == ["--check"])
        assert "development are other names for files in train: 4.wav (as 0.wav in train)" in said
        assert "test1 are other names for files in train or development: 6.wav (as 1.wav in train)" in said
        assert "samples" not in said
    shutil.copy(tmp_path / "wav" / "2.wav", tmp_path / "wav" / "5.wav")
    assert program.main([*arguments, "--check"]) == 2
    said = capsys.readouterr().err
    assert "1 of 2 recordings of development are other names for files in train: 4.wav (as 0.wav in train);" in said
    assert (
        "1 of 2 recordings of development contain the same samples as recordings in train: 5.wav (as 2.wav in" in said
    )


def refusals(folder: Path, corpora: str, corpus: str = "P") -> str:
    """Return what a training is refused for by labels and paths; empty where it is not."""
    (folder / "config.toml").write_text(corpora)
    write_experiments(folder, "Q", corpus=corpus)
    return "\n".join(prepare(load_plan(folder / "config.toml", folder / "experiments.toml", None)).problems)


def write_release(folder: Path, podcast: SyntheticPodcast, rows: pd.DataFrame, more: str = "") -> str:
    """Write sections for a release and another one, Q, that has these rows and files of its own."""
    audio = folder / "Q"
    audio.mkdir()
    for file in rows["FileName"]:
        (audio / file).write_bytes(b"nobody opens it")
    rows.to_csv(folder / "labels_consensus.csv", index=False)
    first = section("P", str(podcast.labels), str(podcast.audio), "msp-podcast")
    return first + section("Q", str(folder), str(audio), "msp-podcast", more)


def test_a_release_must_not_test_what_another_one_trains_by_name(podcast: SyntheticPodcast, tmp_path: Path) -> None:
    trained = podcast.rows[podcast.rows["Split_Set"] == "Train"][:12]
    moved = trained.assign(Split_Set="Test1", SpkrID="Unknown")
    said = refusals(tmp_path, write_release(tmp_path, podcast, moved))
    first = moved["FileName"].iloc[0]
    assert (
        "one: test_corpora: Q: 12 of 12 recordings of test1 have the same names as recordings in train or dev" in said
    )
    assert f"{first} (as {first} in train)" in said
    assert "speaker" not in said


def test_a_release_must_not_test_a_speaker_whom_another_one_trains(podcast: SyntheticPodcast, tmp_path: Path) -> None:
    tested = podcast.rows[podcast.rows["Split_Set"] == "Test1"]
    renamed = tested.assign(FileName=[f"MSP-PODCAST_9{file[13:]}" for file in tested["FileName"]])
    speakers = renamed["SpkrID"].replace({"21": "1", "22": "11"})
    corpora = write_release(tmp_path, podcast, renamed.assign(SpkrID=speakers))
    said = refusals(tmp_path, corpora)
    assert "Q: 2 speakers are both in test1 and in train or development of P, which is the same corpus: 1, 11" in said
    assert 'allow_speaker_overlap = ["1", …] in the section of Q' in said
    one = refusals(tmp_path, corpora + 'allow_speaker_overlap = ["1"]\n')
    assert "Q: 1 speaker is both" in one
    assert refusals(tmp_path, corpora + 'allow_speaker_overlap = ["1", "11"]\n') == ""
    assert refusals(tmp_path, corpora + "allow_speaker_overlap = true\n") == ""


def test_the_same_release_again_is_a_test_corpus_by_its_test_splits(podcast: SyntheticPodcast, tmp_path: Path) -> None:
    assert refusals(tmp_path, write_release(tmp_path, podcast, podcast.rows)) == ""


def test_names_of_two_corpora_say_nothing(tmp_path: Path) -> None:
    """Speaker "tr" and file `0.wav` of two tables are other people and recordings."""
    write_mine(tmp_path)
    (tmp_path / "other").mkdir()
    for name in "01":
        (tmp_path / "other" / f"{name}.wav").write_bytes(b"nobody opens it")
    add_other(tmp_path, ["0.wav", "1.wav"], "other")
    corpora = (tmp_path / "config.toml").read_text()
    assert refusals(tmp_path, corpora.replace("[OTHER]", "[Q]"), "MINE") == ""


def test_two_sections_of_one_published_corpus(tmp_path: Path) -> None:
    """Copies of the files in another folder, split in another way."""
    for folder, ending in (("P", "wav"), ("Q", "flac")):
        (tmp_path / folder).mkdir()
        for speaker in ("03", "08", "09", "10"):
            for code in "WFN":
                (tmp_path / folder / f"{speaker}a01{code}a.{ending}").write_bytes(b"nobody opens it")
    split = "split_speakers = {{ development = ['{}'], test1 = ['{}'] }}"
    form = "[{0}]\nFORMAT = 'emodb'\nPATH_TO_AUDIO = '{0}'\n{1}\n"
    first = form.format("P", split.format("08", "09"))
    assert refusals(tmp_path, first + form.format("Q", split.format("10", "09"))) == ""
    said = refusals(tmp_path, first + form.format("Q", split.format("09", "03")))
    assert "Q: 3 of 3 recordings of test1 have the same names as recordings in train or development of P: 03a01" in said


def copies(folder: Path) -> None:
    for number in (4, 5):
        shutil.copy(folder / "wav" / f"{number - 4}.wav", folder / "wav" / f"{number}.wav")


def stereo_copies(folder: Path) -> None:
    for number in (4, 5):
        samples, rate = soundfile.read(folder / "wav" / f"{number - 4}.wav", dtype="int16")
        soundfile.write(folder / "wav" / f"{number}.wav", np.stack([samples, samples], axis=1), rate)


def flac_copies(folder: Path) -> None:
    labels = (folder / "mine.csv").read_text()
    for number in (4, 5):
        samples, rate = soundfile.read(folder / "wav" / f"{number - 4}.wav", dtype="int16")
        soundfile.write(folder / "wav" / f"{number}.flac", samples, rate)
        labels = labels.replace(f"{number}.wav", f"{number}.flac")
    (folder / "mine.csv").write_text(labels)


@pytest.mark.parametrize("leak", [copies, stereo_copies, flac_copies])
def test_development_must_not_hold_the_samples_of_training(
    leak: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = write_mine(tmp_path)
    leak(tmp_path)
    assert program.main([*arguments, "--check"]) == 2
    said = capsys.readouterr().err
    assert "one: MINE: 2 of 2 recordings of development contain the same samples as recordings in train: 4." in said
    assert program.main(arguments) == 1
    assert "contain the same samples as recordings in train: 4." in " ".join(capsys.readouterr().out.split())
    assert not (tmp_path / "runs" / "one" / "seed-42" / "checkpoints").exists()


def test_silence_is_in_no_two_splits(tmp_path: Path) -> None:
    arguments = write_mine(tmp_path)
    for number in (0, 4, 6):
        soundfile.write(tmp_path / "wav" / f"{number}.wav", np.zeros(3_200), 16_000)
    assert program.main([*arguments, "--check"]) == 0


@pytest.mark.slow
def test_samples_of_test_recordings_are_compared_by_check_and_test_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training keeps them closed; `test_corpora` may be added after it, and what is known may be gone."""
    arguments = write_mine(tmp_path)
    assert program.main(arguments) == 0
    (tmp_path / "other").mkdir()
    for number in range(4):
        samples, rate = soundfile.read(tmp_path / "wav" / f"{number}.wav", dtype="int16")
        soundfile.write(tmp_path / "other" / f"x{number}.flac", samples // (1 + (number < 2)), rate)
    add_other(tmp_path, [f"x{number}.flac" for number in range(4)], "other")
    said = (
        "OTHER: 2 of 4 recordings of test1 contain the same samples as recordings in train or development of MINE: x2"
    )
    assert program.main([*arguments, "--check"]) == 2
    assert said in capsys.readouterr().err
    assert program.main(arguments) == 0
    assert program.main([*arguments, "--test"]) == 1
    assert said in " ".join(capsys.readouterr().out.split())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert program.main([*arguments, "--test"]) == 1
    run = tmp_path / "runs" / "one" / "seed-42"
    assert not list(run.glob("predictions/*test1*"))

    add_other(tmp_path, ["x0.flac", "x1.flac"], "other")
    (tmp_path / "wav" / "3.wav").rename(tmp_path / "wav" / "away.wav")
    capsys.readouterr()
    assert program.main([*arguments, "--test"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "one: 1 of 6 recordings of train and development cannot be read" in told
    assert "OTHER-test1†" in told
    assert "†: over fewer classes than were trained" in told
    assert "OTHER-test1 lacks angry" in told
    metrics = json.loads((run / "evaluation" / "OTHER-test1.json").read_text())
    assert (metrics["classes"], metrics["untested_classes"]) == (["sad", "happy"], ["angry"])
    assert "untested_classes" not in json.loads((run / "evaluation" / "test1.json").read_text())


def test_the_own_test_split_is_compared_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = write_mine(tmp_path)
    shutil.copy(tmp_path / "wav" / "5.wav", tmp_path / "wav" / "7.wav")
    assert program.main([*arguments, "--check"]) == 2
    said = capsys.readouterr().err
    assert "one: MINE: 1 of 2 recordings of test1 contain the same samples as recordings in train or dev" in said
    assert "7.wav (as 5.wav in development); keep one row for each recording in MINE" in said


def test_the_plan_says_which_classes_are_shared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_mine(tmp_path)
    (tmp_path / "other").mkdir()
    files = [f"{number}.wav" for number in range(5)]
    for number, file in enumerate(files):
        write_voice(tmp_path / "other" / file, 100 + number)
    arguments = add_other(tmp_path, files, "other", ("sad", "happiness", "angry", "bored"))
    assert program.main([*arguments, "--check"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "2 of the 3 classes of MINE are in OTHER: angry, sad; it lacks happy; test rows with other classes" in said
    assert "bored 1, happiness 1" in said
    assert 'one: test_corpora: OTHER: "happiness" is probably "happy" of MINE; give both one name' in said
    add_other(tmp_path, files, "other", ("sad", "happiness"))
    assert program.main([*arguments, "--check"]) == 2
    said = capsys.readouterr().err
    assert 'OTHER shares 1 class with MINE: "happiness" is probably "happy" of MINE' in said
    assert said.rstrip().endswith("if so; else remove it")
