"""Learning from raters' votes, and splits whose labels are kept back, as a person runs them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import entropy  # type: ignore[import-untyped]

import main as program
from tests.support.experiment_files import BASE, write_files
from tests.support.synthetic_podcast import SyntheticPodcast
from utils.data.synthetic.demo_corpus import DemoSize, write_demo_corpus

TINY = DemoSize(train=44, development=14, test1=14, test2=14, test3=8, at_least=1)
LISTED = """
[[experiments]]
name = "hard"
[[experiments]]
name = "soft"
config_update = { loss_type = "KLDivergence", label_source = "primary_votes" }
[[experiments]]
name = "both"
config_update = { task = "multitask", loss_type = "SoftCrossEntropy", label_source = "primary_and_secondary_votes", vote_smoothing = 0.1, min_raters = 6, accumulation_steps = 2 }
"""  # noqa: E501
CODES = set("ASHUFDCN")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The demo corpus, and the runs of three experiments on it, trained for an epoch and tested."""
    root = tmp_path_factory.mktemp("votes")
    corpora = write_demo_corpus(root / "corpus", TINY, say=lambda _: None)
    (root / "experiments.toml").write_text(
        BASE.replace("epoch = 2\nmin_epochs = 2", "epoch = 1\nmin_epochs = 1").replace('"P"', '"DEMO"') + LISTED
    )
    arguments = ["--config", str(corpora), "--experiments", str(root / "experiments.toml"), "--device", "cpu"]
    arguments += ["--output", str(root / "runs")]
    assert program.main(arguments) == 0
    assert program.main([*arguments, "--test"]) == 0
    return corpora.parent, root / "runs"


def labels_of(corpus: Path) -> pd.DataFrame:
    return pd.read_csv(corpus / "Labels" / "labels_consensus.csv").set_index("FileName")


def ratings_of(corpus: Path) -> pd.DataFrame:
    ratings = pd.read_csv(corpus / "Labels" / "labels_detailed.csv")
    return ratings.assign(word=ratings["EmoClass_Major"].str.split("-").str[0].str.lower())


def test_rows_without_agreement_are_learnt_from_and_evaluated_on(runs: tuple[Path, Path]) -> None:
    """Every model is compared to the votes; only those that learn them train and select on such rows."""
    corpus, output = runs
    labels, rated = labels_of(corpus), ratings_of(corpus)
    known = set(rated.loc[rated["word"] != "other", "FileName"])
    for split, names in (("test1", ("hard", "soft")), ("development", ("soft",))):
        rows = labels[labels["Split_Set"].str.lower() == split]
        for name in names:
            predicted = set(pd.read_csv(output / name / "seed-42" / "predictions" / f"{split}.csv")["file"])
            assert predicted == known & set(rows.index)
            assert set(rows.loc[list(predicted), "EmoClass"]) >= {"X", "N"}
    trained = labels[labels["Split_Set"] == "Train"]
    counts = {"hard": trained["EmoClass"].isin(list(CODES)).sum(), "soft": len(known & set(trained.index))}
    assert counts["hard"] < counts["soft"]
    for name, count in counts.items():
        log = (output / name / "seed-42" / "train.log").read_text()
        assert f"{count} training utterances" in log


def test_the_divergence_is_recomputable_from_ratings_and_predictions(runs: tuple[Path, Path]) -> None:
    corpus, output = runs
    rated = ratings_of(corpus)
    predictions = pd.read_csv(output / "soft" / "seed-42" / "predictions" / "test1.csv").set_index("file")
    classes = [name.removeprefix("prob_") for name in predictions.columns if name.startswith("prob_")]
    divergences = []
    for file, words in rated[rated["FileName"].isin(predictions.index)].groupby("FileName")["word"]:
        counts = np.array([(words == name).sum() for name in classes])
        shares = predictions.loc[str(file), [f"share_{name}" for name in classes]].to_numpy(np.float64)
        assert shares == pytest.approx(counts / counts.sum())
        predicted = predictions.loc[str(file), [f"prob_{name}" for name in classes]].to_numpy(np.float64)
        divergences.append(entropy(shares, predicted))
    metrics = json.loads((output / "soft" / "seed-42" / "evaluation" / "test1.json").read_text())
    assert metrics["rater_divergence"] == pytest.approx(np.mean(divergences), abs=1e-9)
    hard = json.loads((output / "hard" / "seed-42" / "evaluation" / "test1.json").read_text())
    assert hard["rater_divergence"] > 0, "told for every model of a corpus with ratings"


def test_hidden_splits_give_submissions_and_no_figures(runs: tuple[Path, Path]) -> None:
    corpus, output = runs
    hidden = sorted(path.name for path in (corpus / "Audios").glob("MSP-PODCAST_test3_*"))
    run = output / "both" / "seed-42"
    categorical = pd.read_csv(run / "submissions" / "test3-categorical.csv")
    assert list(categorical) == ["FileName", "Prediction"]
    assert categorical["FileName"].tolist() == hidden
    assert set(categorical["Prediction"]) <= CODES
    attributes = pd.read_csv(run / "submissions" / "test3-attributes.csv")
    assert list(attributes) == ["FileName", "EmoAct", "EmoVal", "EmoDom"]
    predictions = pd.read_csv(run / "predictions" / "test3.csv")
    assert attributes["EmoVal"].tolist() == predictions["pred_valence"].tolist()
    assert attributes[["EmoAct", "EmoVal", "EmoDom"]].to_numpy().min() >= 1
    assert not (run / "evaluation" / "test3.json").exists()
    assert [p.name for p in (output / "soft" / "seed-42" / "submissions").iterdir()] == ["test3-categorical.csv"]


def test_votes_are_needed_to_learn_from_them(
    podcast: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = LISTED.split("[[experiments]]")
    assert program.main(write_files(tmp_path, podcast, f"[[experiments]]{listed[2]}")) == 2
    assert 'soft: P has no rater votes, but label_source is "primary_votes"' in capsys.readouterr().err


def test_votes_of_too_few_raters_are_no_training(runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    corpus, output = runs
    listed = output.parent / "few.toml"
    keys = 'loss_type = "KLDivergence", label_source = "primary_votes", min_raters = 100'
    listed.write_text(f'[base_config]\ncorpus = "DEMO"\n[[experiments]]\nname = "few"\nconfig_update = {{ {keys} }}\n')
    assert program.main(["--config", str(corpus / "config.toml"), "--experiments", str(listed), "--check"]) == 2
    assert "no train row of DEMO has votes of 100 raters or more" in capsys.readouterr().err
