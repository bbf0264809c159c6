from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from dataset_module.ser_dataset import Labels, SERDataset
from experiment_runner.results.prediction_table import read_predictions, tabulate_predictions, write_predictions
from experiment_runner.results.split_metrics import metrics_from_predictions
from net.ser import Outputs
from utils.data.labels.columns import GENDERS
from utils.dataset.collation import collate
from utils.dataset.normalisation import Normalisation
from utils.dataset.sampling import EVALUATION

LABELS = Labels(("angry", "sad"), ("arousal", "valence"), (1.0, 7.0))


@pytest.fixture
def table(tmp_path: Path) -> pd.DataFrame:
    ramp = np.arange(16_000) / 20_000
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, ramp, 16_000, subtype="FLOAT")
    return pd.DataFrame(
        {
            "corpus": "C",
            "file": ["a.wav", "b.wav"],
            "path": [str(tmp_path / "a.wav"), str(tmp_path / "b.wav")],
            "emotion": ["sad", "other"],
            "arousal": [1.0, 7.0],
            "valence": [2.5, np.nan],
            "gender": ["male", np.nan],
        }
    )


def test_targets_are_on_the_training_scale_and_missing_ones_masked(table: pd.DataFrame) -> None:
    dataset = SERDataset(table, LABELS, Normalisation("none"), 12.0, seed=0)
    targets = collate([dataset[EVALUATION, 0], dataset[EVALUATION, 1]]).targets
    assert targets.emotion_mask.tolist() == [True, False]
    assert targets.emotion[0] == 1
    assert targets.attributes[:, 0].tolist() == [0.0, 1.0]
    assert targets.attributes[0, 1] == 0.25
    assert targets.attribute_mask.tolist() == [[True, True], [True, False]]
    assert not targets.auxiliary, "no gender is trained"


def test_an_unknown_gender_is_masked(table: pd.DataFrame) -> None:
    dataset = SERDataset(table, replace(LABELS, auxiliary={"gender": GENDERS}), Normalisation("none"), 12.0, seed=0)
    targets = collate([dataset[EVALUATION, 0], dataset[EVALUATION, 1]]).targets
    assert targets.auxiliary["gender"].tolist() == [GENDERS.index("male"), -1]


def test_a_head_reads_its_column_and_nothing_of_a_corpus_that_lacks_it(table: pd.DataFrame, tmp_path: Path) -> None:
    labels = replace(LABELS, auxiliary={"age": ("20", "30")})
    outputs = Outputs(
        torch.zeros(2, 0), torch.zeros(2, 2), torch.zeros(2, 2), {"age": torch.tensor([[1.0, 0], [0, 1]])}
    )
    for own, known in ((table.assign(age=["20", "40"]), [0, -1]), (table, [-1, -1])):
        dataset = SERDataset(own, labels, Normalisation("none"), 12.0, seed=0)
        targets = collate([dataset[EVALUATION, 0], dataset[EVALUATION, 1]]).targets
        assert targets.auxiliary["age"].tolist() == known
        predictions = tabulate_predictions(own, outputs, labels)
        write_predictions(tmp_path / "test1.csv", predictions)
        pd.testing.assert_frame_equal(read_predictions(tmp_path / "test1.csv"), predictions, check_dtype=False)
        assert predictions["age_prediction"].tolist() == ["20", "30"]
        is_known = known[0] == 0
        assert ("age" in predictions) == is_known
        assert metrics_from_predictions(predictions, {}).get("age_accuracy") == (1.0 if is_known else None)


def test_training_crops_by_seed_epoch_and_utterance_and_evaluation_never(table: pd.DataFrame) -> None:
    dataset = SERDataset(table, LABELS, Normalisation("none"), 0.25, seed=1)
    other_seed = SERDataset(table, LABELS, Normalisation("none"), 0.25, seed=2)
    assert len(dataset[EVALUATION, 0].samples) == 16_000
    crops = [dataset[1, 0], dataset[2, 0], dataset[1, 1], other_seed[1, 0]]
    assert {len(crop.samples) for crop in crops} == {4_000}
    assert len({float(crop.samples[0]) for crop in crops}) == 4
    assert np.array_equal(dataset[1, 0].samples, crops[0].samples)


def test_predictions_are_on_the_corpus_scale_clipped_and_in_class_order(table: pd.DataFrame) -> None:
    outputs = Outputs(
        torch.zeros(2, 0),
        emotion=torch.tensor([[2.0, 0.0], [0.0, 1.0]]),
        attributes=torch.tensor([[0.25, -0.1], [1.0, 1.2]]),
    )
    predictions = tabulate_predictions(table, outputs, LABELS)
    assert list(predictions) == [
        "file", "label", "prediction", "prob_angry", "prob_sad", "arousal", "pred_arousal", "valence", "pred_valence",
        "gender",
    ]  # fmt: skip
    assert predictions["prediction"].tolist() == ["angry", "sad"]
    assert predictions["prob_angry"][0] == pytest.approx(1 / (1 + np.exp(-2)))
    assert predictions["label"].isna().tolist() == [False, True]
    assert predictions["pred_arousal"].tolist() == [2.5, 7.0]
    assert predictions["pred_valence"].tolist() == [1.0, 7.0]
    assert metrics_from_predictions(predictions, {})["rmse_arousal"] == pytest.approx(np.sqrt(1.5**2 / 2))


def test_figures_by_gender_are_those_of_its_rows_over_the_classes_that_it_has() -> None:
    """The truth is written down by hand; scikit-learn computes each figure from the rows of one gender."""
    predictions = pd.DataFrame(
        {
            "file": list("abcdef"),
            "label": ["angry", "sad", "sad", np.nan, "angry", "angry"],
            "prediction": ["angry", "angry", "sad", "sad", "angry", "sad"],
            "prob_angry": 0.5, "prob_sad": 0.5,
            "valence": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], "pred_valence": [1.0, 2.5, 3.0, 4.5, 5.0, 5.0],
            "gender": ["female", "female", "female", "male", "male", np.nan],
            "gender_prediction": ["female", "male", "female", "male", "female", "female"],
        }
    )  # fmt: skip
    metrics = metrics_from_predictions(predictions, {"head": ["sad"]})
    assert metrics["gender_accuracy"] == pytest.approx(3 / 5), "the row without a gender does not count"
    female, male = metrics["by_gender"]["female"], metrics["by_gender"]["male"]
    assert (female["utterances"], male["utterances"]) == (3, 2)
    assert (female["labelled"], male["labelled"]) == (3, 1)
    assert female["macro_f1"] == pytest.approx(2 / 3)
    assert male["macro_f1"] == pytest.approx(1), "no man is sad, and sad does not count"
    assert male["classes"] == ["angry"]
    assert male["rmse_valence"] == pytest.approx(np.sqrt(0.5**2 / 2))
    assert female["groups"]["head"]["macro_f1"] == pytest.approx(2 / 3)
    assert "by_gender" not in metrics_from_predictions(predictions.drop(columns="gender"), {})


def test_another_corpus_chooses_among_the_shared_classes_on_its_own_scale(table: pd.DataFrame) -> None:
    labels = Labels(("angry", "happy", "sad"), ("arousal",), (0.0, 1.0))
    outputs = Outputs(
        torch.zeros(2, 0),
        emotion=torch.tensor([[1.0, 9.0, 0.0], [0.0, 9.0, 1.0]]),
        attributes=torch.tensor([[0.5], [0.75]]),
    )
    predictions = tabulate_predictions(table, outputs, labels, ("angry", "sad"))
    assert predictions["prediction"].tolist() == ["angry", "sad"]
    assert "prob_happy" not in predictions
    assert predictions[["prob_angry", "prob_sad"]].sum(axis=1).tolist() == pytest.approx([1, 1])
    assert predictions["pred_arousal"].tolist() == [0.5, 0.75]
