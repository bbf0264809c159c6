from __future__ import annotations

import pytest

from utils.data.labels.columns import CANONICAL_CLASSES
from utils.data.labels.near_names import MOST_CLASSES, are_near, find_near, near_names

NEAR = [
    ("anger", "angry"), ("angry", "angray"), ("angry", "'angry'"), ("happy", "happiness"), ("sad", "sadness"),
    ("fear", "fearful"), ("disgust", "disgusted"), ("surprise", "surprised"), ("neutral", "neutrality"),
    ("calm", "calmness"), ("ang", "angry"), ("suprise", "surprise"), ("nuetral", "neutral"), ("bored", "boredom"),
    ("frustrated", "frustration"), ("excited", "excitement"), ("colère", "colere"), ("sad,tired", "sad tired"),
    ("very_sad", "very sadness"), ("\u0430ngry", "angry"), ("arrabbiato", "arrabbiata"), ("angry.", "angry"),
    ("anxious", "anxiety"), ("no emotion", "noemotion"), ("neu", "neutral"), ("exc", "excited"), ("fru", "frustrated"),
    ("surprise", "suprised"), ("surprised", "suprise"), ("happiness", "hapiness"), ("disgust", "disguted"),
]  # fmt: skip
FAR = [
    ("sad", "bad"), ("sad", "mad"), ("sadness", "madness"), ("contempt", "content"), ("happy", "unhappy"),
    ("pleased", "displeased"), ("hopeful", "hopeless"), ("hope", "hopeless"), ("relief", "belief"),
    ("class 1", "class 2"), ("class1", "class2"), ("high arousal", "low arousal"), ("hot anger", "cold anger"),
    ("very happy", "very sad"), ("emotion a", "emotion b"), ("admiration", "adoration"), ("positive", "negative"),
    (":)", ":("), ("arousal+", "arousal-"), ("生气", "高兴"), ("anger / rage", "anger"), ("calm", "clam"), ("A", "B"),
    ("angry", "hungry"), ("fear", "tear"), ("happy", "joy"), ("angry", "mad"), ("hate", "hats"),
]  # fmt: skip
SETS = [
    "angry sad happy amused neutral frustrated depressed surprise concerned disgust disappointed excited confused "
    "annoyed fear contempt other",
    "neutral calm happy sad angry fearful disgust surprised",
    "ang hap exc sad fru neu sur fea dis oth",
    "admiration amusement anger annoyance approval caring confusion curiosity desire disappointment disapproval "
    "disgust embarrassment excitement fear gratitude grief joy love nervousness optimism pride realization relief "
    "remorse sadness surprise neutral",
    "joyful surprised emphatic helpless touchy angry motherese bored reprimanding rest other",
    "ärger langeweile ekel angst freude trauer neutral wut",
    "гнев радость грусть страх отвращение удивление",
]


@pytest.mark.parametrize(("one", "other"), NEAR)
def test_names_that_may_mean_one_class_are_near(one: str, other: str) -> None:
    assert are_near(one, other)
    assert are_near(other, one)


@pytest.mark.parametrize(("one", "other"), FAR)
def test_names_that_only_look_alike_are_not(one: str, other: str) -> None:
    assert not are_near(one, other)
    assert not are_near(other, one)


@pytest.mark.parametrize("names", [" ".join(CANONICAL_CLASSES), *SETS])
def test_the_class_sets_of_known_corpora_raise_no_alarm(names: str) -> None:
    assert near_names(names.split()) == []


def test_free_text_is_not_compared() -> None:
    assert near_names(["angry", "anger"]) == [("angry", "anger")]
    assert near_names(["angry", "anger", *map(str, range(MOST_CLASSES))]) == []


@pytest.mark.parametrize(
    ("name", "others", "near"),
    [
        ("neutral", "neu", "neu"), ("excited", "exc", "exc"), ("fru", "frustrated", "frustrated"),
        ("surprise", "suprised", "suprised"), ("happy", "joy happiness", "happiness"), ("Happy", "joyful", "joyful"),
        ("mad", "anger", "anger"), ("fearful", "scared", "scared"), ("dis", "disappointed disgust", "disgust"),
        ("happy", "unhappy", None), ("angry", "hungry", None), ("fear", "tear", None), ("sad", "mad bad", None),
        ("neutral", "calm", None), ("contempt", "content", None), ("joy", "", None),
    ],
)  # fmt: skip
def test_a_class_is_found_under_another_name(name: str, others: str, near: str | None) -> None:
    assert find_near(name, others.split()) == near
