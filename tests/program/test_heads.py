"""A model type of the user's own, with a further head, on real recordings from training to the published model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from safetensors.torch import load_file
from sklearn.metrics import accuracy_score

import main as program
import predict as predict_program
from experiment_runner.publishing.model_card import make_card
from tests.support.examples import EXAMPLES
from tests.support.user_code import Write
from utils.io.files import read_toml

EMOTIONS = {"W": "angry", "F": "happy", "N": "neutral", "T": "sad"}
SPEAKERS = {"03": "train", "08": "train", "09": "train", "10": "development", "11": "development", "14": "test1"}
WOMEN, YOUNG = ("08", "09", "14"), ("09", "11")
"""From the documentation of EMO-DB: speakers 09 and 11 are younger than 30."""
PER_SPEAKER = 6
EXPERIMENT = """
[base_config]
corpus = "EMO-DB"
upstream_model = "wavlm-tiny-random"
batch_size = 8
epoch = 2
learning_rate = 1e-3
max_seconds = 1.0
tracking = "none"

[[experiments]]
name = "own"
"""
EXAMPLE = EXAMPLES["A model type"]
Arguments = list[str]


def emodb_rows(emodb_folder: Path) -> pd.DataFrame:
    """Return the labels of a few utterances by six speakers; their ages are known for all but one utterance."""
    files = [file.name for speaker in SPEAKERS for file in sorted(emodb_folder.glob(f"{speaker}*"))[::5][:PER_SPEAKER]]
    rows = pd.DataFrame({"file": files, "speaker": [file[:2] for file in files]})
    rows["split"] = rows["speaker"].map(SPEAKERS)
    rows["emotion"] = [EMOTIONS[file[5]] for file in files]
    rows["gender"] = np.where(rows["speaker"].isin(WOMEN), "f", "m")
    rows["Age Group"] = np.where(rows["speaker"].isin(YOUNG), "under 30", "30 or older")
    rows.loc[rows.index[0], "Age Group"] = "n/a"
    rows.loc[rows.index[1], "Age Group"] = "30 or Older"
    return rows


@pytest.fixture
def arguments(emodb_folder: Path, tmp_path: Path, write_module: Write) -> Arguments:
    """Return the command line of an experiment with the example of docs/extending.md."""
    write_module(EXAMPLE.module, EXAMPLE.text)
    emodb_rows(emodb_folder).to_csv(tmp_path / "table.csv", index=False)
    corpora, listed = tmp_path / "config.toml", tmp_path / "experiments.toml"
    corpora.write_text(
        f"[EMO-DB]\nFORMAT = 'csv'\nPATH_TO_LABEL = 'table.csv'\nPATH_TO_AUDIO = '{emodb_folder}'\n"
        "further_columns = ['age_group']\ncolumns = { age_group = 'Age Group' }\n"
    )
    listed.write_text(EXPERIMENT + EXAMPLE.keys)
    return [
        *("--config", str(corpora), "--experiments", str(listed), "--output", str(tmp_path / "runs")),
        *("--device", "cpu"),
    ]


@pytest.mark.slow
def test_a_further_head_stands_wherever_gender_does(
    arguments: Arguments, emodb_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main(arguments) == 0
    trained = " ".join(capsys.readouterr().out.split())
    assert "age group head: weight 0.5; 1 training utterances of unknown age group" in trained
    assert 'age_group: "30 or Older" 1 read as "30 or older"' in trained
    assert 'age_group: "n/a" 1 read as missing' in trained
    run = tmp_path / "runs" / "own" / "seed-42"
    epoch = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    assert epoch["development_loss"] == epoch["development_emotion_loss"], "no auxiliary loss stops a training"
    assert {"train_age_group_loss", "development_age_group_loss", "development_age_group_accuracy"} <= set(epoch)
    assert f"age group accuracy {epoch['development_age_group_accuracy']:.4f}" in trained
    best = run / "checkpoints" / "best"
    assert load_file(best / "model.safetensors")["age_group_head.5.weight"].shape[0] == 2
    config = json.loads((best / "config.json").read_text())
    assert config["heads"] == {"age_group": ["30 or older", "under 30"]}
    assert config["genders"] == ["female", "male"]
    assert list(read_toml(run / "experiment.toml")["resolved"]["user_code"]) == [EXAMPLE.name]

    assert program.main([*arguments, "--test"]) == 0
    predictions = pd.read_csv(run / "predictions" / "test1.csv")
    assert list(predictions)[-4:] == ["gender", "gender_prediction", "age_group", "age_group_prediction"]
    metrics = json.loads((run / "evaluation" / "test1.json").read_text())
    expected = accuracy_score(predictions["age_group"], predictions["age_group_prediction"])
    assert metrics["age_group_accuracy"] == pytest.approx(expected)
    tables = capsys.readouterr().out.rpartition("Test\n")[2].split("Test by gender")
    page = (run / "report.html").read_text().split("<h2>Genders</h2>")
    card = make_card(run, "user/own").text.split("### Genders")
    assert ["group" in table for table in tables] == [True, False], "titles are broken into their words"
    for everyone, women_and_men in (page, card):
        assert "age group accuracy" in everyone
        assert "age group" not in women_and_men.partition("## Data")[0].partition("<h2>")[0]
    assert "It also tells the gender and the age group, which it was taught as auxiliary tasks." in card[0]
    assert "| age\\_group | 30 or older, under 30 | probabilities" in card[0]
    assert "0.5 × cross-entropy of age group" in card[-1]

    _check_predicted(run, emodb_folder, predictions, tmp_path, capsys)


def _check_predicted(
    run: Path, recordings: Path, evaluated: pd.DataFrame, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Check what `predict.py` and the exported model say of the recordings; neither needs the user's code."""
    command = ["--model", str(run), "--device", "cpu"]
    paths = [str(recordings / name) for name in evaluated["file"]]
    assert predict_program.main([*command, *paths, "--output", str(folder / "out.csv")]) == 0
    assert list(pd.read_csv(folder / "out.csv")["age_group_prediction"]) == list(evaluated["age_group_prediction"])
    capsys.readouterr()
    assert predict_program.main([*command, paths[0]]) == 0
    assert {"gender", "age group"} <= set(map(str.strip, capsys.readouterr().out.replace("│", "┃").split("┃")))
    onnxruntime = pytest.importorskip("onnxruntime")
    assert predict_program.main([*command, "--export", str(folder / "own.onnx")]) == 0
    session = onnxruntime.InferenceSession(folder / "own.onnx", providers=["CPUExecutionProvider"])
    classes = json.loads(session.get_modelmeta().custom_metadata_map["heads"])["age_group"]
    samples, _ = soundfile.read(paths[0], dtype="float32")
    (found,) = session.run(["age_group"], {"waveforms": samples[None]})
    assert classes[int(found.argmax())] == evaluated["age_group_prediction"][0]


Change = Callable[[pd.DataFrame], pd.DataFrame]


@pytest.mark.parametrize(
    ("change", "section", "sentence"),
    [
        (
            lambda rows: rows,
            "",
            'own: EMO-DB has no column "age_group", which model_type = "my_heads:WITH_AGE" needs; read it with '
            'further_columns = ["age_group"] in [EMO-DB], or use "UpstreamFinetune"',
        ),
        (
            lambda rows: rows.assign(age_group="young"),
            "further_columns = ['age_group']\n",
            'own: the training rows of EMO-DB have only one age group, "young"; add labels, or use "UpstreamFinetune"',
        ),
        (
            lambda rows: rows.assign(age_group="unknown"),
            "further_columns = ['age_group']\n",
            'own: the training rows of EMO-DB have no age group; add labels, or use "UpstreamFinetune"',
        ),
        (
            lambda rows: rows.assign(age_group=rows["Age Group"], gender="f"),
            "further_columns = ['age_group']\n",
            'own: no training row of EMO-DB is male; model_type = "my_heads:WITH_AGE" needs both',
        ),
    ],
)
def test_a_head_that_cannot_learn_is_refused_before_training(
    change: Change,
    section: str,
    sentence: str,
    arguments: Arguments,
    emodb_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change(emodb_rows(emodb_folder)).to_csv(tmp_path / "table.csv", index=False)
    corpora = tmp_path / "config.toml"
    corpora.write_text(corpora.read_text().partition("further_columns")[0] + section)
    assert program.main(arguments) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "runs").exists()
