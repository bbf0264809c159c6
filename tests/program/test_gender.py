"""`model_type = "UpstreamGender"` as a person runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import soundfile
from safetensors.torch import load_file
from sklearn.metrics import accuracy_score, f1_score

import main as program
from experiment_runner.publishing.model_card import make_card
from tests.support.experiment_files import write_files
from tests.support.synthetic_podcast import SyntheticPodcast
from tests.support.tiny_corpus import tiny_rows, write_tiny_corpus
from tests.support.voices import voice

GENDER = """
[[experiments]]
name = "gender"
model_type = "UpstreamGender"
config_update = { task = "multitask", gender_loss_weight = 0.5, accumulation_steps = 2, batch_size = 8, epoch = 1, min_epochs = 1 }
"""  # noqa: E501


def test_gender_is_trained_beside_the_emotions_and_every_figure_told_by_gender(
    podcast: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = write_files(tmp_path, podcast, GENDER)
    assert program.main(arguments) == 0
    run = tmp_path / "runs" / "gender" / "seed-42"
    epoch = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    assert epoch["train_gender_loss"] == pytest.approx(0.5 * 0.69, rel=0.3), "half the entropy of a coin"
    assert {"development_gender_loss", "development_gender_accuracy"} <= set(epoch)
    assert load_file(run / "checkpoints/best/model.safetensors")["gender_head.5.weight"].shape == (2, 64)

    assert program.main([*arguments, "--test"]) == 0
    predictions = pd.read_csv(run / "predictions" / "test1.csv")
    metrics = json.loads((run / "evaluation" / "test1.json").read_text())
    expected = accuracy_score(predictions["gender"], predictions["gender_prediction"])
    assert metrics["gender_accuracy"] == pytest.approx(expected)
    for gender, rows in predictions.groupby("gender"):
        known = rows[rows["label"].notna()]
        present = sorted(set(known["label"]))
        expected = f1_score(known["label"], known["prediction"], labels=present, average="macro", zero_division=0)
        assert metrics["by_gender"][gender]["macro_f1"] == pytest.approx(expected)
        assert metrics["by_gender"][gender]["labelled"] == len(known)
        assert metrics["by_gender"][gender]["utterances"] == len(rows) > len(known)
        assert {"ccc_arousal", "mean_ccc"} <= set(metrics["by_gender"][gender])
    assert metrics["utterances"] == len(predictions)
    shown = capsys.readouterr().out
    assert f"{metrics['by_gender']['female']['macro_f1']:.3f}" in shown.split("Test by gender")[1]
    assert "UpstreamGender" in shown.split("WARNING")[0], "the plan says what is trained"


def test_the_gender_head_does_not_stop_the_emotions(podcast: SyntheticPodcast, tmp_path: Path) -> None:
    assert program.main(write_files(tmp_path, podcast, GENDER)) == 0
    (line,) = (tmp_path / "runs" / "gender" / "seed-42" / "metrics.jsonl").read_text().splitlines()
    epoch = json.loads(line)
    terms = {name: value for name, value in epoch.items() if name.startswith("development_") and "_loss" in name}
    emotions = [v for name, v in terms.items() if name not in ("development_loss", "development_gender_loss")]
    assert len(emotions) == 4
    assert epoch["development_loss"] == pytest.approx(sum(emotions))


def test_a_corpus_without_women_is_refused_by_name(
    podcast: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = tmp_path / "labels_consensus.csv"
    podcast.rows.assign(Gender=podcast.rows["Gender"].replace("Female", "Unknown")).to_csv(labels, index=False)
    arguments = write_files(tmp_path, SyntheticPodcast(labels, podcast.audio, podcast.rows), GENDER)
    assert program.main(arguments) == 2
    told = capsys.readouterr().err
    assert 'gender: no training row of P is female; model_type = "UpstreamGender" needs both' in told
    assert not (tmp_path / "runs").exists()


def test_a_corpus_with_fewer_classes_is_marked_wherever_its_figures_stand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tiny_rows()
    arguments = write_tiny_corpus(tmp_path, rows, '[[experiments]]\nname = "one"\n', test_corpora=["OTHER"])
    other = rows[(rows["split"] == "test1") & (rows["emotion"] != "sad")].assign(speaker="09")
    for number, file in enumerate(other["file"]):
        soundfile.write(tmp_path / "wav" / f"o-{file}", voice(0.4, seed=900 + number), 16_000)
    other.assign(file="o-" + other["file"]).to_csv(tmp_path / "other.csv", index=False)
    with (tmp_path / "config.toml").open("a") as file:
        file.write("[OTHER]\nFORMAT = 'csv'\nPATH_TO_LABEL = 'other.csv'\nPATH_TO_AUDIO = 'wav'\n")
    assert program.main(arguments) == 0
    capsys.readouterr()
    assert program.main([*arguments, "--test"]) == 0
    by_gender = capsys.readouterr().out.split("Test by gender")[1]
    note = "over fewer classes than were trained, which is easier; do not compare with the other rows: OTHER-test1"
    assert "OTHER-test1†" in by_gender
    assert note in " ".join(by_gender.split())
    run = tmp_path / "runs" / "one" / "seed-42"
    page = (run / "report.html").read_text()
    for part in (page.split("<h2>Genders</h2>")[0], page.split("<h2>Genders</h2>")[1]):
        assert ">OTHER-test1†<" in part
        assert f"{note} lacks sad." in part
        assert ">test1†<" not in part
    card = make_card(run, "somebody/one").text
    assert card.count("| OTHER-test1† |") == 1
    assert "### Genders, OTHER-test1†\n" in card
    assert card.count(f"{note} lacks sad.") == 2
