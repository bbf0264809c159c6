from __future__ import annotations

import doctest
from typing import Any

import pytest

import experiment_runner.results.row_counts
from experiment_runner.reporting.tables import Outcome, show_evaluation, show_training
from experiment_runner.results.row_counts import count_labelled, show_attributes, show_labelled
from experiment_runner.runtime.console import Console
from tests.support.tiny_corpus import tiny_rows


def test_docstring_examples() -> None:
    assert doctest.testmod(experiment_runner.results.row_counts).failed == 0


def test_rows_are_counted_by_label() -> None:
    rows = tiny_rows()
    rows.loc[:3, "emotion"] = None
    rows.loc[:1, "valence"] = None
    assert count_labelled(rows, ["angry", "sad"], ["valence"]) == {"labelled": 10, "labelled_valence": 22}
    assert show_labelled(count_labelled(rows, ["angry", "sad"], [])) == "10"


def test_figures_of_an_earlier_release_show_their_rows() -> None:
    assert show_labelled({"utterances": 24, "ccc_arousal": 0.5, "mean_ccc": 0.5}) == "24"
    assert show_attributes({"utterances": 24, "mean_ccc": 0.5}) == ""


def metrics(ccc: float, attributes: list[str]) -> dict[str, Any]:
    labelled = dict.fromkeys(("labelled_arousal", "labelled_valence", "labelled_dominance"), 20)
    return {"utterances": 24, **labelled, "mean_ccc": ccc, "mean_ccc_attributes": attributes}


def test_a_mean_says_over_how_many_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    whole, part, none = metrics(0.4, ["arousal", "valence", "dominance"]), metrics(0.2, ["valence", "dominance"]), {}
    none = metrics(float("nan"), [])
    found = [Outcome("x", seed, {"test1": split}, "evaluated") for seed, split in enumerate((whole, part, none))]
    show_evaluation([*found, Outcome("x", 3, {}, "failed")], Console(), "")
    shown = capsys.readouterr().out
    assert "0.200 (2 of 3)" in shown, "two of three attributes"
    assert "0.300 ± 0.141 (2 of 3)" in shown, "two of three seeds"
    assert "mean of 3 of 4" in shown, "one failed"
    assert " 20 " in shown
    assert " 24 " not in shown


def test_a_mean_over_finite_figures_of_all_seeds_says_no_more(capsys: pytest.CaptureFixture[str]) -> None:
    result = {"epochs": 1, "best_epoch": 1, "stop": "epochs", "development": {"development_mean_ccc": 0.5}}
    show_training([Outcome("x", seed, result, "trained", "17") for seed in (1, 2)], Console(), "")
    shown = capsys.readouterr().out
    assert "mean of 2 " in shown
    assert "0.500 ± 0.000 " in shown
    assert " 17 " in shown
