"""What is said of classes that a test corpus shares with the training corpus, and of those that it lacks."""

from __future__ import annotations

import pandas as pd
import pytest

from experiment_runner.data.shared_classes import describe_shared, near_classes, suggest_names
from utils.data.labels.corpus import Corpus

FOUR = ("angry", "sad", "happy", "neutral")


@pytest.mark.parametrize(
    ("absent", "surplus", "near"),
    [
        (["happy"], ["happiness"], {"happy": "happiness"}),
        (["happy"], ["joy", "calm"], {"happy": "joy"}),
        (["anger", "sadness"], ["angry", "sad"], {"anger": "angry", "sadness": "sad"}),
        (["fear"], ["Fearful"], {"fear": "Fearful"}),
        (["surprise"], ["suprise"], {"surprise": "suprise"}),
        (["my_class"], ["my-class"], {"my_class": "my-class"}),
        (["neutral", "excited", "frustrated"], ["neu", "exc"], {"neutral": "neu", "excited": "exc"}),
        (["surprise"], ["suprised"], {"surprise": "suprised"}),
        (["neutral"], ["calm"], {}),
        (["sad"], ["bad"], {}),
        ([], ["joy"], {}),
    ],
)
def test_near_names(absent: list[str], surplus: list[str], near: dict[str, str]) -> None:
    assert near_classes(absent, surplus) == near


def corpus_of(**rows: str) -> Corpus:
    """Rows by split, as emotions with blanks between them."""
    table = pd.DataFrame([(split, emotion) for split, names in rows.items() for emotion in names.split()])
    table.columns = ["split", "emotion"]
    return Corpus("OTHER", table, tuple(sorted(set(table["emotion"]))), (1, 7))


def test_the_plan_counts_what_is_shared_lacking_and_left_out() -> None:
    other = corpus_of(train="calm calm", test1="angry sad neutral joy joy", test2="boredom")
    assert describe_shared("MINE", FOUR, other) == (
        "3 of the 4 classes of MINE are in OTHER: angry, sad, neutral; it lacks happy; test rows with other classes: "
        "boredom 1, joy 2"
    )
    assert suggest_names("MINE", FOUR, other) == (
        '"joy" is probably "happy" of MINE; give both one name in the labels of OTHER if so'
    )


def test_a_corpus_with_the_same_classes_lacks_none() -> None:
    other = corpus_of(test1="angry sad neutral happy")
    assert describe_shared("MINE", FOUR, other) == (
        "4 of the 4 classes of MINE are in OTHER: angry, sad, happy, neutral; none of its test rows has another class"
    )
    assert suggest_names("MINE", FOUR, other) == ""
