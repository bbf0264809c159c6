"""The program as a person runs it, on the CPU."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from sklearn.metrics import f1_score

import main as program
from experiment_runner.results.split_metrics import metrics_from_predictions
from tests.conftest import ROOT
from tests.support.experiment_files import BASE, write_files
from tests.support.forked import commands
from tests.support.synthetic_podcast import SyntheticPodcast
from utils.hub.upstreams import load_upstream

TASKS = """
[[experiments]]
name = "categorical"
config_update = { loss_type = "BalancedSoftmax" }
[[experiments]]
name = "dimensional"
config_update = { task = "dimensional", loss_type = "CCCLoss", accumulation_steps = 2, batch_size = 4 }
[[experiments]]
name = "multitask"
config_update = { task = "multitask", upstream_model = "wavlm-tiny-group-random", freeze = "cnn", layer_weighting = true, normalize = "corpus", num_workers = 2 }
"""  # noqa: E501


@pytest.mark.slow
def test_a_podcast_folder_trains_and_evaluates_every_task(
    podcast: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = write_files(tmp_path, podcast, TASKS)
    assert program.main(arguments) == 0
    trained = capsys.readouterr().out
    assert "wavlm-tiny-random has RANDOM weights" in trained
    assert "other" not in trained.split("training classes:")[1].splitlines()[0]
    assert "left out because they have no label in use: development 4, test1 4, test2 4, train 4" in trained
    assert program.main([*arguments, "--test"]) == 0
    for task in ("categorical", "dimensional", "multitask"):
        run = tmp_path / "runs" / task / "seed-42"
        assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
        assert (run / "checkpoints" / "best" / "model.safetensors").is_file()
        for split in ("test1", "test2"):
            check_split(run, split, task, podcast)


def check_split(run: Path, split: str, task: str, podcast: SyntheticPodcast) -> None:
    """Every figure is recomputable from the predictions, and the predictions cover the split."""
    predictions = pd.read_csv(run / "predictions" / f"{split}.csv")
    metrics = json.loads((run / "evaluation" / f"{split}.json").read_text())
    rows = podcast.rows[podcast.rows["Split_Set"].str.lower() == split].set_index("FileName")
    labelled = rows[~rows["EmoClass"].isin(["O", "X"])]
    assert sorted(predictions["file"]) == sorted(labelled.index if task == "categorical" else rows.index)
    if task != "dimensional":
        known = predictions[predictions["label"].notna()]
        assert len(known) == len(labelled)
        classes = [name.removeprefix("prob_") for name in predictions.columns if name.startswith("prob_")]
        expected = f1_score(known["label"], known["prediction"], labels=classes, average="macro", zero_division=0)
        assert metrics["macro_f1"] == pytest.approx(expected, abs=1e-9)
        assert (predictions[[f"prob_{name}" for name in classes]].sum(axis=1) - 1).abs().max() < 1e-9
    if task != "categorical":
        assert predictions["pred_arousal"].between(1, 7).all()
        assert (predictions.set_index("file")["dominance"] == rows["EmoDom"].loc[predictions["file"]]).all()
    again = metrics_from_predictions(predictions, {})
    for name, value in again.items():
        if isinstance(value, float):
            found = float("nan") if metrics[name] is None else metrics[name]
            assert found == pytest.approx(value, abs=1e-9, nan_ok=True), name


ONE = '[[experiments]]\nname = "one"\nconfig_update = { epoch = 1, min_epochs = 1, seeds = [1, 2] }\n'


@pytest.mark.slow
def test_finished_runs_are_skipped_changed_ones_refused_and_retrained_on_request(
    podcast: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = write_files(tmp_path, podcast, ONE)
    run = tmp_path / "runs" / "one" / "seed-1"
    assert program.main([*arguments, "--test"]) == 1, "nothing is trained yet"
    assert "contains no finished training; train it first: `" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()

    assert program.main(arguments) == 0
    assert "mean of 2" in capsys.readouterr().out
    first = (run / "result.json").read_bytes()
    weights = (run / "checkpoints" / "best" / "model.safetensors").read_bytes()
    assert program.main(arguments) == 0
    assert "finished before" in capsys.readouterr().out
    assert (run / "result.json").read_bytes() == first

    harmless = ONE.replace("epoch = 1", "epoch = 1, eval_batch_seconds = 3")
    assert program.main([*write_files(tmp_path, podcast, harmless), "--test"]) == 0
    capsys.readouterr()

    changed = write_files(tmp_path, podcast, ONE.replace("epoch = 1", "epoch = 1, learning_rate = 2e-3", 1))
    for command in (changed, [*changed, "--test"]):
        assert program.main(command) == 1
        assert "learning_rate 0.001 -> 0.002" in capsys.readouterr().out
    assert program.main([*changed, "--retrain"]) == 0
    assert (run / "result.json").read_bytes() != first
    assert not run.with_name("seed-1.replaced").exists()

    assert program.main([*write_files(tmp_path, podcast, ONE), "--retrain"]) == 0
    again = (run / "checkpoints" / "best" / "model.safetensors").read_bytes()
    assert again == weights, "the same seed gives the same weights on the CPU, bit for bit"


def test_an_unfinished_run_starts_over_and_loses_nothing_before(podcast: SyntheticPodcast, tmp_path: Path) -> None:
    arguments = write_files(tmp_path, podcast, ONE)
    assert program.main(arguments) == 0
    run = tmp_path / "runs" / "one" / "seed-1"
    (run / "result.json").unlink()
    assert program.main(arguments) == 0
    assert (run / "result.json").is_file()
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 1


def test_one_failing_experiment_leaves_the_others_alone(
    podcast: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failing = '[[experiments]]\nname = "diverges"\nconfig_update = { learning_rate = 1e30, max_grad_norm = 1e30 }\n'
    assert program.main(write_files(tmp_path, podcast, failing + ONE)) == 1
    console = capsys.readouterr().out
    assert "diverges seed 42" in console
    assert "finite" in console
    assert (tmp_path / "runs" / "one" / "seed-2" / "result.json").is_file()
    assert not (tmp_path / "runs" / "diverges" / "seed-42" / "result.json").exists()


def test_test_recordings_stay_closed_during_training(podcast: SyntheticPodcast, tmp_path: Path) -> None:
    """With the test recordings gone, training runs and --test fails."""
    audio = tmp_path / "audio"
    audio.mkdir()
    for name in podcast.rows.loc[~podcast.rows["Split_Set"].str.startswith("Test"), "FileName"]:
        os.symlink(podcast.audio / name, audio / name)
    closed = SyntheticPodcast(podcast.labels, audio, podcast.rows)
    arguments = write_files(tmp_path, closed, ONE)
    assert program.main(arguments) == 0
    assert program.main([*arguments, "--test"]) == 1


def test_check_shows_the_plan_and_the_recordings_without_torch(podcast: SyntheticPodcast, tmp_path: Path) -> None:
    arguments = write_files(tmp_path, podcast, TASKS)
    code = "import sys, main; status = main.main(sys.argv[1:]); assert 'torch' not in sys.modules; sys.exit(status)"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments[:6], "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "all is well" in done.stdout
    assert "angry 3, sad 3" in done.stdout
    assert not (tmp_path / "runs").exists()


def test_check_names_missing_recordings(
    podcast: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    arguments = write_files(tmp_path, SyntheticPodcast(podcast.labels, tmp_path / "empty", podcast.rows), ONE)
    assert program.main([*arguments, "--check"]) == 2
    assert "24 of 24 recordings of train are unusable, and at most 1% of a training split" in capsys.readouterr().err


def test_without_cuda_one_sentence_names_the_cpu(podcast: SyntheticPodcast, tmp_path: Path) -> None:
    arguments = write_files(tmp_path, podcast, ONE)[:6]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = commands.run(["main.py", *arguments], ROOT, environment)
    assert done.returncode == 2
    assert done.stdout == ""
    sentence = "no CUDA GPU is available on this machine; run with --device cpu to use the CPU instead ("
    assert done.stderr.startswith(sentence)
    assert len(done.stderr.splitlines()) == 1


def test_problems_of_all_corpora_and_experiments_are_told_at_once(
    podcast: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiments = ONE + '[[experiments]]\nname = "two"\nconfig_update = { upstream_model = "wavlm-huge" }\n'
    experiments += '[[experiments]]\nname = "three"\nconfig_update = { classes = ["angry", "happi"] }\n'
    experiments += '[[experiments]]\nname = "four"\nconfig_update = { corpus = "Q" }\n'
    arguments = write_files(tmp_path, podcast, experiments)
    with Path(arguments[1]).open("a") as file:
        file.write("[Q]\nFORMAT = 'emodb'\nPATH_TO_AUDIO = '/nowhere'\n")
    assert program.main(arguments) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 3
    assert any("Q: PATH_TO_AUDIO: there is no folder /nowhere" in line for line in told)
    assert any('no row of P is labelled "happi"; did you mean "happy"?' in line for line in told)
    assert any("wavlm-huge" in line for line in told)


def test_a_class_without_training_examples_is_named(
    podcast: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = podcast.rows[~((podcast.rows["Split_Set"] == "Train") & (podcast.rows["EmoClass"] == "F"))]
    rows.to_csv(tmp_path / "labels_consensus.csv", index=False)
    arguments = write_files(tmp_path, SyntheticPodcast(tmp_path, podcast.audio, rows), ONE)
    assert program.main(arguments) == 2
    assert "one: fear has no training example in P" in capsys.readouterr().err


def test_patience_is_deprecated_aloud(
    podcast: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main([*write_files(tmp_path, podcast, ONE, BASE + "patience = 2\n"), "--check"]) == 0
    assert "WARNING: one: patience is deprecated" in capsys.readouterr().out


def test_evaluation_needs_the_checkpoint_and_not_the_upstream(podcast: SyntheticPodcast, tmp_path: Path) -> None:
    load_upstream("wavlm-tiny-random", {}).encoder.save_pretrained(tmp_path / "upstream")
    (tmp_path / "upstream" / "preprocessor_config.json").write_text('{"do_normalize": true}')
    changes = f'config_update = {{ upstream_model = "{tmp_path / "upstream"}", epoch = 1, min_epochs = 1 }}\n'
    arguments = write_files(tmp_path, podcast, '[[experiments]]\nname = "local"\n' + changes)
    assert program.main(arguments) == 0
    shutil.rmtree(tmp_path / "upstream")
    assert program.main([*arguments, "--test"]) == 0
    assert (tmp_path / "runs" / "local" / "seed-42" / "evaluation" / "test2.json").is_file()


def test_a_run_names_the_revision_of_its_upstream(podcast: SyntheticPodcast, tmp_path: Path) -> None:
    upstream = tmp_path / "upstream"
    load_upstream("wavlm-tiny-random", {}).encoder.save_pretrained(upstream)
    changes = f'config_update = {{ upstream_model = "{upstream}", normalize = "none", epoch = 1, min_epochs = 1 }}\n'
    arguments = write_files(tmp_path, podcast, '[[experiments]]\nname = "local"\n' + changes)
    source = {"id": "microsoft/wavlm-base-plus", "revision": "0123"}
    for document in (source, {}):
        (upstream / "source.json").write_text(json.dumps(document))
        assert program.main([*arguments, "--retrain"]) == 0
        best = tmp_path / "runs" / "local" / "seed-42" / "checkpoints" / "best"
        found = json.loads((best / "provenance.json").read_text())
        assert [found["upstream_id"], found["upstream_revision"]] == [document.get("id"), document.get("revision")]


def test_class_groups_of_a_base_config_leave_dimensional_experiments_alone(
    podcast: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    groups = 'class_groups = { head = ["neutral", "happy", "angry", "sad"], mid = ["surprise", "fear"], tail = [] }\n'
    task = '[[experiments]]\nname = "d"\nconfig_update = { task = "dimensional", loss_type = "CCCLoss" }\n'
    assert program.main([*write_files(tmp_path, podcast, task, BASE + groups), "--check"]) == 0
    assert program.main([*write_files(tmp_path, podcast, ONE, BASE + groups), "--check"]) == 2
    assert "class_groups: head, mid and tail together must contain each of" in capsys.readouterr().err


def test_a_run_on_other_data_is_refused(
    podcast: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main(write_files(tmp_path, podcast, ONE)) == 0
    rows = podcast.rows.assign(Split_Set=podcast.rows["Split_Set"].replace({"Test2": "Train", "Train": "Test2"}))
    rows = rows.assign(SpkrID="Unknown")
    rows.to_csv(tmp_path / "labels_consensus.csv", index=False)
    swapped = write_files(tmp_path, SyntheticPodcast(tmp_path, podcast.audio, rows), ONE)
    for command in (swapped, [*swapped, "--test"]):
        assert program.main(command) == 1
        assert "training or development data" in capsys.readouterr().out


def test_an_interrupted_retraining_loses_nothing(podcast: SyntheticPodcast, tmp_path: Path) -> None:
    arguments = write_files(tmp_path, podcast, ONE)
    assert program.main(arguments) == 0
    run = tmp_path / "runs" / "one" / "seed-1"
    before = (run / "result.json").read_bytes()
    run.rename(run.with_name("seed-1.replaced"))  # as a killed --retrain leaves it
    run.mkdir()
    (run / "metrics.jsonl").write_text("{}")
    assert program.main([*arguments, "--test"]) == 1
    assert (run / "metrics.jsonl").is_file(), "evaluation touches no training, which may still be running"
    assert program.main(arguments) == 0
    assert (run / "result.json").read_bytes() == before
    assert not run.with_name("seed-1.replaced").exists()


def test_a_corpus_without_test_splits_is_not_evaluated_in_silence(
    podcast: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    podcast.rows[~podcast.rows["Split_Set"].str.startswith("Test")].to_csv(tmp_path / "labels_consensus.csv")
    arguments = write_files(tmp_path, SyntheticPodcast(tmp_path, podcast.audio, podcast.rows), ONE)
    assert program.main(arguments) == 0
    assert program.main([*arguments, "--test"]) == 1
    assert "has no test split with labels in use" in capsys.readouterr().out


def test_fp16_on_the_cpu_is_a_mistake_of_the_configuration(
    podcast: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main(write_files(tmp_path, podcast, ONE, BASE + 'amp = "fp16"\n')) == 2
    assert 'one: amp = "fp16" needs a GPU' in capsys.readouterr().err


REAL = """
[base_config]
corpus = "EMO-DB"
upstream_model = "wavlm-tiny-random"
freeze = "none"
epoch = 1
max_seconds = 1.0
test_corpora = ["RAVDESS"]
[[experiments]]
name = "one"
[[experiments]]
name = "other"
config_update = { corpus = "RAVDESS", test_corpora = ["EMO-DB"] }
"""


@pytest.mark.slow
def test_real_corpora_are_trained_on_and_evaluated_on_each_other(
    emodb_folder: Path, ravdess_folder: Path, tmp_path: Path
) -> None:
    corpora, experiments = tmp_path / "config.toml", tmp_path / "experiments.toml"
    corpora.write_text(
        f"[EMO-DB]\nFORMAT = 'emodb'\nPATH_TO_AUDIO = '{emodb_folder}'\n"
        f"[RAVDESS]\nFORMAT = 'ravdess'\nPATH_TO_AUDIO = '{ravdess_folder}'\n"
    )
    experiments.write_text(REAL)
    arguments = ["--config", str(corpora), "--experiments", str(experiments), "--output", str(tmp_path / "runs")]
    assert program.main([*arguments, "--device", "cpu"]) == 0
    assert program.main([*arguments, "--device", "cpu", "--test"]) == 0
    shared = ["angry", "sad", "happy", "neutral"]
    for name, split in (("one", "RAVDESS-test1"), ("other", "EMO-DB-test1")):
        run = tmp_path / "runs" / name / "seed-42"
        predictions = pd.read_csv(run / "predictions" / f"{split}.csv")
        metrics = json.loads((run / "evaluation" / f"{split}.json").read_text())
        assert [c.removeprefix("prob_") for c in predictions.columns if c.startswith("prob_")] == shared
        assert set(predictions["label"]) == set(shared)
        expected = f1_score(predictions["label"], predictions["prediction"], average="macro", labels=shared)
        assert metrics["macro_f1"] == pytest.approx(expected, abs=1e-9)
