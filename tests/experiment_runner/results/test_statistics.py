"""Statistics: their order in the files, and the user's own beside them."""

from __future__ import annotations

import math
from collections.abc import Callable

import pandas as pd
import pytest

from experiment_runner.results.split_metrics import metrics_from_predictions
from experiment_runner.results.statistics import (
    STATISTICS,
    TITLES,
    Statistic,
    in_epoch_line,
    load_user_statistics,
    titles_in,
    with_stored,
)
from tests.support.user_code import Write
from utils.config.schema import ExperimentConfig
from utils.errors import DataError
from utils.io.user_code import import_user_code
from utils.registry import FunctionOf

GROUPS = {"head": ["a"], "mid": ["b"], "tail": []}
OF_CLASSES = ["macro_f1", "weighted_f1", "accuracy", "uar"]
OF_AROUSAL = ["labelled_arousal", "ccc_arousal", "pearson_arousal", "rmse_arousal", "mean_ccc", "mean_ccc_attributes"]
DECORATED = """
from experiment_runner.results.statistics import statistic

@statistic("G-mean", lambda split: split.has_votes)
def g_mean(split):
    return 0.5
"""

Load = Callable[..., dict[str, Statistic]]


def predictions() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "file": ["1.wav", "2.wav", "3.wav", "4.wav"],
            "label": ["a", "b", "a", "b"],
            "prediction": ["a", "b", "b", "b"],
            "prob_a": [0.8, 0.3, 0.4, 0.2],
            "prob_b": [0.2, 0.7, 0.6, 0.8],
            "share_a": [1.0, 0.0, 0.5, 0.25],
            "share_b": [0.0, 1.0, 0.5, 0.75],
            "arousal": [1.0, 2.0, 3.0, 4.0],
            "pred_arousal": [1.5, 2.0, 2.5, 3.0],
            "gender": ["female", "female", "male", "male"],
            "gender_prediction": ["female", "male", "male", "male"],
        }
    )


@pytest.fixture
def load_from(write_module: Write, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Return a function that loads the statistics that an experiment names, from the text of a module."""

    def load(text: str, *names: str) -> dict[str, Statistic]:
        monkeypatch.syspath_prepend(write_module("my_statistics", text).parent)
        places = tuple(f"my_statistics:{name}" for name in names)
        for place in places:
            import_user_code(place, FunctionOf(("split",)))
        return load_user_statistics(ExperimentConfig(name="own", corpus="P", upstream_model="U", statistics=places))

    return load


def test_the_order_of_keys_is_that_of_earlier_releases() -> None:
    """Which stored JSON files and metrics.jsonl must keep: no statistic moves what stands around it."""
    metrics = metrics_from_predictions(predictions(), GROUPS)
    of_rows = ["utterances", "labelled", *OF_CLASSES, "per_class", "absent_classes", "confusion_matrix"]
    after = ["groups", "rater_divergence", *OF_AROUSAL]
    assert list(metrics) == [*of_rows, *after, "chance", "remarks", "by_gender", "gender_accuracy"]
    assert list(metrics["by_gender"]["male"]) == [*of_rows, "classes", *after]


def test_without_labels_means_are_null_in_the_same_order() -> None:
    unlabelled = predictions()[["file", "label", "prediction", "prob_a", "prob_b"]].assign(label=None)
    metrics = metrics_from_predictions(unlabelled, GROUPS)
    assert metrics == {"utterances": 4, "labelled": 0, **dict.fromkeys(OF_CLASSES), "remarks": []}
    assert list(metrics) == ["utterances", "labelled", *OF_CLASSES, "remarks"]


def test_what_parts_of_a_split_lack_is_not_shown_for_them() -> None:
    metrics = metrics_from_predictions(predictions(), GROUPS)
    shown = dict(titles_in([metrics]))
    assert list(shown) == [key for key in STATISTICS if key not in ("ccc_valence", "ccc_dominance")]
    assert shown.keys() - dict(titles_in([metrics], of_parts=True)).keys() == {"gender_accuracy"}


def test_a_decorated_statistic_keeps_its_title_and_its_condition(load_from: Load) -> None:
    statistics = load_from(DECORATED, "g_mean")
    metrics = metrics_from_predictions(predictions(), GROUPS, statistics)
    assert metrics["g_mean"] == metrics["by_gender"]["male"]["g_mean"] == 0.5
    assert metrics[TITLES] == {"g_mean": "G-mean"}
    assert in_epoch_line(metrics)[-1] == ("G-mean", 0.5)
    assert "g_mean" not in STATISTICS, "what a user's module decorates is registered for its experiment alone"
    without_votes = predictions().drop(columns=["share_a", "share_b"])
    assert metrics_from_predictions(without_votes, GROUPS, statistics)["g_mean"] is None


@pytest.mark.parametrize("value", ["None", "float('nan')", "float('inf')"])
def test_a_statistic_that_is_not_defined_is_null(value: str, load_from: Load) -> None:
    metrics = metrics_from_predictions(
        predictions(), GROUPS, load_from(f"def own(split):\n    return {value}\n", "own")
    )
    assert metrics["own"] is None
    assert all(title != "own" for title, _ in in_epoch_line(metrics))


@pytest.mark.parametrize(
    ("returned", "kind"), [("'0.5'", "str"), ("True", "bool"), ("[0.5]", "list"), ("split.labelled", "DataFrame")]
)
def test_what_is_no_number_is_refused(returned: str, kind: str, load_from: Load) -> None:
    statistics = load_from(f"def own(split):\n    return {returned}\n", "own")
    with pytest.raises(DataError, match=f'"my_statistics:own" returned a value of type {kind}; return a float'):
        metrics_from_predictions(predictions(), GROUPS, statistics)


def test_a_statistic_cannot_change_what_is_stored(load_from: Load) -> None:
    text = "def own(split):\n    split.table['prediction'] = 'a'\n    split.over_classes.clear()\n    return 1\n"
    table = predictions()
    metrics = metrics_from_predictions(table, GROUPS, load_from(text, "own"))
    assert metrics["own"] == 1.0
    assert isinstance(metrics["own"], float)
    pd.testing.assert_frame_equal(table, predictions())
    expected = metrics_from_predictions(predictions(), GROUPS)
    assert {key: metrics[key] for key in expected if key != "by_gender"} == {
        key: value for key, value in expected.items() if key != "by_gender"
    }


@pytest.mark.parametrize("name", ["uar", "gender_accuracy", "per_class", "statistics", "loss", "gender_loss", "rmse_x"])
def test_names_of_other_metrics_are_refused(name: str, load_from: Load) -> None:
    with pytest.raises(DataError, match=f'"{name}" is the name of another metric; rename the function'):
        load_from(f"def {name}(split):\n    return 1.0\n", name)


def test_stored_statistics_are_shown_without_their_code(load_from: Load) -> None:
    stored = metrics_from_predictions(predictions(), GROUPS, load_from(DECORATED, "g_mean"))
    computed = metrics_from_predictions(predictions(), GROUPS)
    read = with_stored(computed, stored)
    assert read == stored
    assert titles_in([read])[-1] == ("g_mean", "G-mean")
    assert with_stored(computed, {TITLES: {"uar": "mine"}, "uar": -1.0})["uar"] == computed["uar"]
    assert with_stored(computed, [1]) == computed
    assert not math.isnan(read["uar"])
