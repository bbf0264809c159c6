from __future__ import annotations

import doctest
import warnings

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score, recall_score

import utils.metrics
from utils.metrics import (
    Numbers,
    categorical_metrics,
    concordance,
    dimensional_metrics,
    group_metrics,
    is_constant,
    krippendorff_alpha,
    pearson,
    split_head_mid_tail,
)

CLASSES = ["angry", "sad", "happy", "neutral"]


def test_docstring_examples() -> None:
    assert doctest.testmod(utils.metrics).failed == 0


@pytest.mark.parametrize("seed", range(5))
def test_categorical_figures_agree_with_a_count_by_hand_and_scikit_learn(seed: int) -> None:
    generator = np.random.default_rng(seed)
    truth, prediction = generator.choice(CLASSES, 60), generator.choice(CLASSES, 60)
    metrics = categorical_metrics(list(truth), list(prediction), CLASSES)
    f1 = []
    for name in CLASSES:
        hits = sum(t == name and p == name for t, p in zip(truth, prediction, strict=True))
        f1.append(2 * hits / ((truth == name).sum() + (prediction == name).sum()))
        assert metrics["per_class"][name]["support"] == (truth == name).sum()
    assert metrics["macro_f1"] == pytest.approx(np.mean(f1), abs=1e-12)
    assert metrics["weighted_f1"] == pytest.approx(f1_score(truth, prediction, average="weighted"), abs=1e-12)
    assert metrics["accuracy"] == pytest.approx(np.mean(truth == prediction), abs=1e-12)
    assert metrics["uar"] == pytest.approx(balanced_accuracy_score(truth, prediction), abs=1e-12)
    assert np.sum(metrics["confusion_matrix"]) == 60
    assert metrics["confusion_matrix"][1][2] == sum((truth == "sad") & (prediction == "happy"))


def test_an_absent_class_counts_as_zero() -> None:
    metrics = categorical_metrics(list("00113"), list("00103"), list("0123"))
    assert metrics["macro_f1"] == pytest.approx(0.6166666, abs=1e-6)
    assert metrics["absent_classes"] == ["2"]


def test_no_utterance_and_unknown_classes_are_refused() -> None:
    for truth, prediction in (([], []), (["angry"], ["bored"])):
        with pytest.raises(ValueError, match="at least one utterance"):
            categorical_metrics(truth, prediction, CLASSES)


def test_head_mid_and_tail() -> None:
    groups = split_head_mid_tail({"neutral": 500, "happy": 250, "sad": 200, "fear": 10, "edge": 40})
    assert groups == {"head": ["neutral", "happy", "sad"], "mid": ["edge"], "tail": ["fear"]}
    truth, prediction = ["a", "a", "b", "b", "c"], ["a", "b", "b", "b", "c"]
    metrics = categorical_metrics(truth, prediction, ["a", "b", "c"])
    grouped = group_metrics(metrics["per_class"], {"head": ["a", "b"], "mid": [], "tail": ["c"]})
    assert grouped["head"]["macro_f1"] == pytest.approx(f1_score(truth, prediction, labels=["a", "b"], average="macro"))
    assert grouped["head"]["recall"] == pytest.approx(
        recall_score(truth, prediction, labels=["a", "b"], average="macro")
    )
    assert grouped["mid"] == {"classes": [], "macro_f1": None, "recall": None}


@pytest.mark.parametrize("seed", range(5))
def test_concordance_and_pearson_agree_with_audmetric(seed: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        audmetric = pytest.importorskip("audmetric")
    generator = np.random.default_rng(seed)
    truth = generator.normal(4, 1, 100)
    prediction = truth * 0.7 + generator.normal(1, 0.5, 100)
    assert concordance(truth, prediction) == pytest.approx(audmetric.concordance_cc(truth, prediction), abs=1e-9)
    assert pearson(truth, prediction) == pytest.approx(audmetric.pearson_cc(truth, prediction), abs=1e-9)


def test_concordance_at_its_edges() -> None:
    values, constant = np.array([1.0, 2.0, 3.0]), np.full(3, 2.0)
    assert concordance(values, values) == pytest.approx(1)
    assert concordance(values, constant) == 0
    assert np.isnan(concordance(constant, constant)), "not defined"
    assert np.isnan(concordance(values[:1], values[:1]))
    assert np.isnan(pearson(values, constant))


CONSTANTS = [3.3, 0.1, 1 / 3, 1e-9, 1e9, 5.700000000000001, -2.2, 0.0]


@pytest.mark.parametrize("value", CONSTANTS)
@pytest.mark.parametrize("rows", [2, 3, 7, 100, 1001])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constants_are_told_by_their_range(value: float, rows: int, dtype: type) -> None:
    """Whatever their mean is rounded to: of 3.3 it differs from 3.3."""
    constant: Numbers = np.full(rows, value, dtype)
    assert is_constant(constant)
    assert np.isnan(concordance(constant, constant)), "the same constant: not defined"
    assert concordance(constant, constant + 1 + abs(constant)) == 0, "another constant"
    varying: Numbers = np.linspace(1, 2, rows).astype(dtype)
    assert concordance(varying, constant) == concordance(constant, varying) == 0
    assert np.isnan(pearson(varying, constant))
    assert np.isnan(pearson(constant, varying))


@pytest.mark.parametrize("value", [3.3, 0.7, 1e5])
def test_one_number_computed_twice_is_a_constant(value: float) -> None:
    noise: Numbers = np.random.default_rng(0).integers(-1, 2, 50) * np.spacing(np.float64(value))
    assert is_constant(value + noise)
    assert np.isnan(concordance(np.full(50, value), value + noise))
    assert np.isnan(pearson(np.linspace(1, 2, 50), value + noise))


def test_what_varies_a_little_is_no_constant() -> None:
    values: Numbers = (3.3 + 1e-9 * np.arange(5)).astype(np.float64)
    assert not is_constant(values)
    assert concordance(values, values) == pytest.approx(1)
    assert pearson(values, values) == pytest.approx(1)
    assert not is_constant(np.zeros(0))


def test_a_mean_ccc_says_of_which_attributes_it_is() -> None:
    values, same = np.array([1.0, 2.0, 3.0]), np.full(3, 3.3)
    truth = {"arousal": values, "valence": same, "dominance": values}
    metrics = dimensional_metrics(truth, {"arousal": values, "valence": same, "dominance": same})
    assert np.isnan(metrics["ccc_valence"])
    assert metrics["mean_ccc"] == pytest.approx((1 + 0) / 2)
    assert metrics["mean_ccc_attributes"] == ["arousal", "dominance"]
    nothing = dimensional_metrics({"arousal": same}, {"arousal": same})
    assert np.isnan(nothing["mean_ccc"])
    assert nothing["mean_ccc_attributes"] == []
    assert dimensional_metrics({"arousal": np.array([np.nan, 1, 2])}, {"arousal": values})["labelled_arousal"] == 2


def test_missing_attributes_are_left_out() -> None:
    truth = {"arousal": np.array([1.0, np.nan, 3.0, 5.0]), "valence": np.array([2.0, 3.0, 4.0, 5.0])}
    prediction = {"arousal": np.array([1.5, 9.0, 3.0, 4.0]), "valence": np.array([2.0, 3.5, 4.0, 5.0])}
    metrics = dimensional_metrics(truth, prediction)
    assert metrics["rmse_arousal"] == pytest.approx(np.sqrt((0.25 + 0 + 1) / 3))
    assert metrics["ccc_arousal"] == concordance(truth["arousal"][[0, 2, 3]], prediction["arousal"][[0, 2, 3]])
    assert metrics["mean_ccc"] == pytest.approx((metrics["ccc_arousal"] + metrics["ccc_valence"]) / 2)


def test_krippendorffs_alpha_is_that_of_his_worked_example() -> None:
    """Krippendorff 2011, section C: 4 observers, 12 units, nominal, with missing data: 0.743."""
    missing = 0
    observers = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, missing, missing, missing],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, missing, 3],
        [missing, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, missing],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, missing],
    ]
    units = np.array(observers).T
    counts = np.stack([(units == label).sum(axis=1) for label in range(1, 6)], axis=1)
    assert krippendorff_alpha(counts) == pytest.approx(0.743, abs=5e-4)
    assert np.isnan(krippendorff_alpha(np.array([[3, 0], [4, 0]])))
    assert krippendorff_alpha(np.array([[3, 0], [0, 4]])) == 1.0
