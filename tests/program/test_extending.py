"""Every example of docs/extending.md, taken out of the page and trained with."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

import main as program
from experiment_runner.publishing.model_card import make_card
from experiment_runner.publishing.publish import gather
from experiment_runner.storage.run_folder import RunError
from tests.conftest import ROOT
from tests.support.examples import EXAMPLES
from tests.support.experiment_files import BASE, write_files
from tests.support.forked import commands
from tests.support.synthetic_podcast import SyntheticPodcast
from tests.support.user_code import Write
from utils.io.files import read_toml

POOLING = "my_pooling:Statistics"
ONE = '[[experiments]]\nname = "own"\n'


SHAPE_RESULTS = [title for title in EXAMPLES if title not in ("A corpus", "A model type", "A statistic")]


def train(title: str, folder: Path, podcast: SyntheticPodcast, write_module: Write) -> list[str]:
    """Train with an example; return the command's arguments."""
    example = EXAMPLES[title]
    write_module(example.module, example.text, folder)
    arguments = write_files(folder, podcast, ONE, BASE + example.keys)
    assert program.main(arguments) == 0
    return arguments


@pytest.mark.parametrize("title", SHAPE_RESULTS)
def test_an_example_trains_and_is_remembered(
    title: str, podcast: SyntheticPodcast, tmp_path: Path, write_module: Write
) -> None:
    arguments, name = train(title, tmp_path, podcast, write_module), EXAMPLES[title].name
    assert program.main([*arguments, "--test"]) == 0
    run = tmp_path / "runs" / "own" / "seed-42"
    stored = read_toml(run / "experiment.toml")["resolved"]["user_code"]
    assert list(stored) == [name]
    assert json.loads((run / "checkpoints" / "best" / "provenance.json").read_text())["user_code"] == stored
    assert name in make_card(run, "user/own").text
    assert (run / "evaluation" / "test1.json").is_file()


def test_the_corpus_is_trained_on_and_evaluated(emodb_folder: Path, tmp_path: Path, write_module: Write) -> None:
    example = EXAMPLES["A corpus"]
    write_module(example.module, example.text)
    corpora, listed = tmp_path / "config.toml", tmp_path / "experiments.toml"
    corpora.write_text(f"[P]\nPATH_TO_AUDIO = '{emodb_folder}'\n{example.keys}")
    listed.write_text(BASE.replace("epoch = 2\nmin_epochs = 2", "epoch = 1\nmax_seconds = 1.0") + ONE)
    arguments = ["--config", str(corpora), "--experiments", str(listed), "--output", str(tmp_path / "runs")]
    assert program.main([*arguments, "--device", "cpu"]) == 0
    assert program.main([*arguments, "--device", "cpu", "--test"]) == 0
    run = tmp_path / "runs" / "own" / "seed-42"
    speakers = {name[:2] for name in pd.read_csv(run / "predictions" / "test1.csv")["file"]}
    assert speakers == {"15", "16"}


@pytest.mark.slow
def test_a_statistic_of_the_users_stands_wherever_statistics_stand(
    emodb_folder: Path, tmp_path: Path, write_module: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    example = EXAMPLES["A statistic"]
    write_module(example.module, example.text)
    speech, corpora, listed = tmp_path / "speech", tmp_path / "config.toml", tmp_path / "experiments.toml"
    speech.mkdir()
    for path in sorted(emodb_folder.iterdir())[::3]:
        shutil.copy(path, speech)
    corpora.write_text(f"[P]\nFORMAT = 'emodb'\nPATH_TO_AUDIO = '{speech}'\n")
    listed.write_text(f"{BASE}max_seconds = 1.0\n{example.keys}{ONE}")
    arguments = ["--config", str(corpora), "--experiments", str(listed), "--output", str(tmp_path / "runs")]
    assert program.main([*arguments, "--device", "cpu"]) == 0
    assert "g mean 0." in next(line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch 1/2"))
    assert program.main([*arguments, "--device", "cpu", "--test"]) == 0
    tables = capsys.readouterr().out
    run = tmp_path / "runs" / "own" / "seed-42"
    metrics = json.loads((run / "evaluation" / "test1.json").read_text())
    recalls = [row["recall"] for row in metrics["per_class"].values()]
    assert metrics["g_mean"] == pytest.approx(math.prod(recalls) ** (1 / len(recalls)))
    assert metrics["statistics"] == {"g_mean": "g mean"}
    assert f"{metrics['g_mean']:.3f}" in tables
    assert "development_g_mean" in json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    assert "user_code" not in read_toml(run / "experiment.toml")["resolved"]
    for text in ((run / "report.html").read_text(), make_card(run, "user/own").text):
        assert text.count("g mean") >= 2, "in the table of splits and in that of genders"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "def g_mean(split):\n    return 1 / 0\n",
            '"my_statistic:g_mean" failed: ZeroDivisionError: division by zero; correct it',
        ),
        (
            "def g_mean(split):\n    return 'high'\n",
            '"my_statistic:g_mean" returned a value of type str; return a float',
        ),
        (
            "def macro_f1(split):\n    return 1.0\n",
            '"macro_f1" is the name of another metric; rename',
        ),
    ],
)
def test_a_statistic_that_cannot_be_used_is_one_sentence(
    text: str,
    sentence: str,
    podcast: SyntheticPodcast,
    tmp_path: Path,
    write_module: Write,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = text.partition("(")[0].removeprefix("def ")
    write_module("my_statistic", text)
    arguments = write_files(tmp_path, podcast, ONE, BASE + f'statistics = ["my_statistic:{name}"]\n')
    assert program.main(arguments) != 0
    printed = capsys.readouterr()
    assert sentence in " ".join((printed.out + printed.err).split())
    assert not any(line.startswith("epoch 1/") for line in printed.out.splitlines()), "an epoch would be lost"


@pytest.fixture(scope="module")
def pooled(podcast: SyntheticPodcast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run with a pooling of the user's, trained by a process of its own."""
    folder = tmp_path_factory.mktemp("pooled")
    example = EXAMPLES["A pooling"]
    (folder / f"{example.module}.py").write_text(example.text)
    arguments = write_files(folder, podcast, ONE, BASE + example.keys)
    done = commands.run(["main.py", *arguments], ROOT)
    assert done.returncode == 0, done.stderr
    return folder / "runs" / "own" / "seed-42"


def predict_with(run: Path, recording: Path, *options: str, path: Path) -> subprocess.CompletedProcess[str]:
    command = [ROOT / "predict.py", "--model", run, *options, recording]
    return commands.run(command, path, {**os.environ, "PYTHONPATH": str(path)})


@pytest.mark.slow
def test_a_model_needs_its_authors_code_on_the_path_and_trusted(
    pooled: Path, podcast: SyntheticPodcast, tmp_path: Path
) -> None:
    recording = next(podcast.audio.glob("*.wav"))
    beside = pooled.parents[2]
    untrusted = predict_with(pooled, recording, path=beside)
    assert untrusted.returncode == 2
    assert "trust it with --trust my_pooling" in untrusted.stderr
    absent = predict_with(pooled, recording, "--trust", "my_pooling", path=tmp_path)
    assert absent.returncode == 2
    assert "there is no module my_pooling on Python's path" in absent.stderr
    (tmp_path / "my_pooling.py").write_text(EXAMPLES["A pooling"].text.replace("1e-5", "1e-6"))
    other = predict_with(pooled, recording, "--trust", "my_pooling", path=tmp_path)
    assert other.returncode == 2
    assert "is not the code that the model was trained with" in other.stderr
    trusted = predict_with(pooled, recording, "--trust", "my_pooling", path=beside)
    assert trusted.returncode == 0, trusted.stderr
    assert recording.name in trusted.stdout


@pytest.mark.slow
def test_other_code_of_the_users_does_not_evaluate_a_model(pooled: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(pooled.parents[2], tmp_path / "copy")
    module = folder / "my_pooling.py"
    module.write_text(module.read_text().replace("1e-5", "1e-6"))
    listed = ["--config", str(folder / "config.toml"), "--experiments", str(folder / "experiments.toml")]
    done = commands.run(["main.py", *listed, "--output", folder / "runs", "--device", "cpu", "--test"], ROOT)
    assert done.returncode == 1
    printed = " ".join(done.stdout.split())
    assert f"your {POOLING}" in printed
    assert "is not the code that the model was trained with" in printed


def test_an_upload_contains_the_code_only_if_it_may(
    pooled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(pooled.parents[2]))
    with pytest.raises(RunError, match="upload it too with --with-code"):
        gather(pooled, tmp_path / "without", "user/own")
    target = tmp_path / "with"
    target.mkdir()
    gather(pooled, target, "user/own", with_code=True)
    assert (target / "code" / "my_pooling.py").read_text() == EXAMPLES["A pooling"].text
    card = (target / "README.md").read_text()
    assert "--trust my_pooling speech.wav" in card
    assert 'trusted=["my_pooling"]' in card.replace("'", '"')
    assert "class SpeechEmotionModel" not in card


@pytest.mark.slow
def test_the_onnx_export_names_the_code_that_it_lacks(pooled: Path, tmp_path: Path) -> None:
    command = [ROOT / "predict.py", "--model", pooled, "--trust", "my_pooling", "--export", tmp_path / "m.onnx"]
    done = commands.run(command, tmp_path, {**os.environ, "PYTHONPATH": str(pooled.parents[2])})
    assert done.returncode == 1
    assert f"needs its author's code, {POOLING}" in " ".join(done.stderr.split())
