"""Figures that say less than they seem: one class, constant attributes, classes and genders that lack something."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, recall_score

import main as program
from experiment_runner.results.collapse import chance, remarks
from experiment_runner.results.split_metrics import metrics_from_predictions
from tests.support.tiny_corpus import CLASSES, tiny_rows, write_tiny_corpus

ONE = '[[experiments]]\nname = "one"\n'


def predicted(labels: str, predictions: str) -> pd.DataFrame:
    """Return a table of predictions over the classes a to d; `-` is no label."""
    table = pd.DataFrame({"label": [None if name == "-" else name for name in labels], "prediction": list(predictions)})
    return table.assign(**{f"prob_{name}": 0.25 for name in "abcd"})


def rated(truth: list[float], prediction: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"arousal": truth, "pred_arousal": prediction})


def test_chance_is_always_predicting_the_most_frequent_class() -> None:
    truth = list("aabbbbcd")
    found = chance(predicted("aabbbbcd", "aabbbbcd"))
    assert found["class"] == "b"
    always = ["b"] * len(truth)
    assert found["macro_f1"] == pytest.approx(f1_score(truth, always, average="macro", zero_division=0))
    assert found["uar"] == pytest.approx(recall_score(truth, always, average="macro", zero_division=0))
    assert found["accuracy"] == 0.5


CLASS_REMARKS = {
    "one class predicted": ("abcd", "aaaa", ['the model predicts "a" for every one of 4 labelled', "gives 0.100"]),
    "the most frequent one": ("aabcd", "aaaaa", ['always predicting "a"']),
    "unlabelled rows do not count": ("ab-cd", "ccbcc", ['"c" for every one of 4 labelled']),
    "a class is missing": ("aabbc", "aabbd", ['no utterance is labelled "d", which counts as 0', "exceed 0.750"]),
    "two are missing": ("aabb", "abab", ['labelled "c" or "d", which count as 0', "exceed 0.500"]),
    "all is one class": ("aaaa", "abca", ['labelled "b" or "c" or "d"', "exceed 0.250"]),
    "all is well": ("abcd", "bbcd", []),
    "nothing is labelled": ("----", "aaaa", []),
}


@pytest.mark.parametrize("case", CLASS_REMARKS)
def test_remarks_on_classes(case: str) -> None:
    labels, predictions, expected = CLASS_REMARKS[case]
    found = remarks(predicted(labels, predictions))
    assert len(found) == bool(expected)
    assert all(part in found[0] for part in expected)


ATTRIBUTE_REMARKS = {
    "constant prediction": (
        [1.0, 2.0, 3.0],
        [3.3, 3.3, 3.3],
        "the predicted arousal is 3.3 for 3 utterances: CCC is 0",
    ),
    "hardly varying": ([1.0, 2.0, 7.0], [3.50, 3.52, 3.56], "the predicted arousal hardly varies (3.5 to 3.56) over 3"),
    "constant truth": ([3.0, 3.0, 3.0], [1.0, 2.0, 3.0], "arousal is 3 in each of 3 labelled utterances: CCC is 0.000"),
    "both constant": ([3.3, 3.3, 3.3], [3.3, 3.3, 3.3], "CCC is not defined, and mean CCC leaves it out"),
    "one row": ([1.0, np.nan, np.nan], [1.0, 2.0, 3.0], "arousal is known for one utterance, and CCC needs two"),
    "no row": ([np.nan] * 3, [1.0, 2.0, 3.0], "arousal is known for no utterance"),
    "all is well": ([1.0, 2.0, 3.0], [1.5, 2.0, 2.5], None),
}


@pytest.mark.parametrize("case", ATTRIBUTE_REMARKS)
def test_remarks_on_attributes(case: str) -> None:
    truth, prediction, expected = ATTRIBUTE_REMARKS[case]
    found = remarks(rated(truth, prediction))
    assert len(found) == (expected is not None)
    assert expected is None or expected in found[0]


@pytest.mark.parametrize("task", ["categorical", "multitask"])
def test_a_corpus_of_one_class_is_refused(task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = write_tiny_corpus(tmp_path, tiny_rows().assign(emotion="sad"), ONE, task=task)
    for action in ([], ["--check"]):
        assert program.main([*arguments, *action]) == 2
        assert 'every labelled row of TINY in use is "sad", and a model of one class' in capsys.readouterr().err


def test_one_class_beside_rows_without_any_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tiny_rows()
    rows["emotion"] = rows["emotion"].where(rows["emotion"] == "happy")
    arguments = write_tiny_corpus(tmp_path, rows, ONE, loss_type="Focal")
    assert program.main([*arguments, "--check"]) == 2
    assert 'in use is "happy"' in capsys.readouterr().err


def test_attributes_are_trained_whatever_the_classes_are(tmp_path: Path) -> None:
    keys = {"task": "dimensional", "loss_type": "CCCLoss"}
    arguments = write_tiny_corpus(tmp_path, tiny_rows().assign(emotion="sad"), ONE, **keys)
    assert program.main([*arguments, "--check"]) == 0


def without(rows: pd.DataFrame, split: str, gender: str | None = None) -> pd.DataFrame:
    """Return the rows without the sad ones of a split, or of one gender in it."""
    is_sad = (rows["split"] == split) & (rows["emotion"] == "sad")
    return rows[~(is_sad & (gender is None or rows["gender"] == gender))]


def test_missing_classes_are_said_after_training_and_after_test(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = without(without(tiny_rows(2), "development"), "test1")
    rows.loc[rows["split"] == "test1", "arousal"] = 3.0
    rows.loc[rows.index[-1], "emotion"] = None
    arguments = write_tiny_corpus(tmp_path, rows, ONE, task="multitask", loss_type="CrossEntropy")
    assert program.main(arguments) == 0
    trained = " ".join(capsys.readouterr().out.split())
    assert 'WARNING: one seed 42: development, epoch 1: no utterance is labelled "sad", which counts as 0' in trained
    assert program.main([*arguments, "--test"]) == 0
    tested = " ".join(capsys.readouterr().out.split())
    assert 'WARNING: one seed 42: test1: no utterance is labelled "sad"' in tested
    assert "WARNING: one seed 42: test1: arousal is 3 in each of 6 labelled utterances" in tested
    assert "classes 5, attributes 6" in tested.split("Test")[-2], "the rows of each kind, not those of the file"
    run = tmp_path / "runs" / "one" / "seed-42"
    metrics = json.loads((run / "evaluation" / "test1.json").read_text())
    assert (metrics["utterances"], metrics["labelled"], metrics["labelled_arousal"]) == (6, 5, 6)
    report = (run / "report.html").read_text()
    assert all(remark.split('"')[0] in report for remark in metrics["remarks"])


def test_by_gender_only_the_classes_of_the_gender_count() -> None:
    predictions = predicted("abcdab-", "abddaab").assign(gender=["female"] * 4 + ["male"] * 3)
    metrics = metrics_from_predictions(predictions, {"head": ["a", "c"]})
    male = metrics["by_gender"]["male"]
    assert male["classes"] == ["a", "b"]
    truth, prediction = ["a", "b"], ["a", "a"]
    assert male["macro_f1"] == pytest.approx(f1_score(truth, prediction, labels=["a", "b"], average="macro"))
    assert male["uar"] == pytest.approx(0.5)
    assert (male["labelled"], male["utterances"]) == (2, 3)
    assert male["groups"]["head"]["classes"] == ["a"]
    assert set(male["per_class"]) == set("abcd"), "the keys stay"
    assert metrics["by_gender"]["female"]["classes"] == list("abcd")
    whole = f1_score(list("abcdab"), list("abddaa"), average="macro")
    assert metrics["macro_f1"] == pytest.approx(whole), "over the whole class list, as before"


def test_console_report_and_card_say_the_same_by_gender(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from experiment_runner.publishing.model_card import make_card

    rows = pd.concat([tiny_rows(), tiny_rows().query("split == 'test1'").assign(gender="male", speaker="07")])
    rows["file"] = [f"{number}.wav" for number in range(len(rows))]
    arguments = write_tiny_corpus(tmp_path, without(rows.reset_index(drop=True), "test1", "male"), ONE)
    assert program.main(arguments) == 0
    assert program.main([*arguments, "--test"]) == 0
    said = "male: macro-F1 and UAR over angry (1), happy (1), neutral (1); no sad"
    run = tmp_path / "runs" / "one" / "seed-42"
    metrics = json.loads((run / "evaluation" / "test1.json").read_text())["by_gender"]
    shown = capsys.readouterr().out
    pages = {
        "console": " ".join(shown.split("Test by gender")[1].split()),
        "report": (run / "report.html").read_text(),
        "card": make_card(run, "somebody/model").text.replace("\\", ""),
    }
    for name, page in pages.items():
        assert said in page, name
        assert "3 of 4" in page, name
        assert f"{metrics['male']['macro_f1']:.3f}" in page, name
    assert list(CLASSES[:3]) == metrics["male"]["classes"]
