from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from experiment_runner.data.preparation import PreparedExperiment
from tests.support.label_tables import base_rows, changed, prepare_corpus
from utils import ConfigurationError


def said_of(experiment: PreparedExperiment, word: str) -> list[str]:
    return [note for note in experiment.data.notes if word in note]


@pytest.mark.parametrize(
    "names", [("Angry", "Happy"), ("ANGRY", "happy\u200b"), ("ａｎｇｒｙ", "happy"), (" angry", "Happy ")]
)
def test_classes_are_matched_whatever_their_form(names: tuple[str, str], tmp_path: Path) -> None:
    rows = changed("emotion", lambda row: row["emotion"].capitalize())
    (experiment,) = prepare_corpus(tmp_path, rows, f'classes = ["{names[0]}", "{names[1]}"]')
    assert experiment.config.classes == experiment.data.classes == ("angry", "happy")
    assert len(experiment.data.train) == 6
    for note in said_of(experiment, "classes: "):
        assert note.endswith(('is MINE\'s "angry"', 'is MINE\'s "happy"'))
    assert len(said_of(experiment, "classes: ")) >= 1


def test_a_name_as_the_corpus_has_it_is_no_news(tmp_path: Path) -> None:
    (experiment,) = prepare_corpus(tmp_path, base_rows(), 'classes = ["angry", "happy"]')
    assert said_of(experiment, "First: classes") == []


def test_class_groups_are_matched_too(tmp_path: Path) -> None:
    groups = 'class_groups = { head = ["ANGRY", "Wütend"], mid = ["Neutral"], tail = ["sad"] }'
    rows = changed("emotion", lambda row: row["emotion"].replace("happy", unicodedata.normalize("NFD", "wütend")))
    (experiment,) = prepare_corpus(tmp_path, rows, groups)
    assert experiment.config.class_groups is not None
    assert experiment.config.class_groups.head == ("angry", "wütend")
    listed = 'classes = ["angry", "wütend", "neutral", "Sad"], ' + groups
    assert prepare_corpus(tmp_path, rows, listed)[0].config.classes == ("angry", "wütend", "neutral", "sad")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ('"Angry", "angry"', 'classes: "Angry" and "angry" are one class, "angry"; remove one'),
        ('"angry", "Furious"', 'classes: no row of MINE is labelled "Furious"; known: angry, happy, neutral, sad'),
        ('"angry", "none"', 'classes: no row of MINE is labelled "none"'),
    ],
)
def test_what_cannot_be_matched_is_refused(names: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        prepare_corpus(tmp_path, base_rows(), f"classes = [{names}]")
    assert expected in str(caught.value)


@pytest.mark.parametrize("word", ["None", "unknown", "No Agreement", "-"])
def test_a_listed_word_for_nothing_is_a_class_for_that_experiment_alone(word: str, tmp_path: Path) -> None:
    rows = changed("emotion", lambda row: word if row["emotion"] == "neutral" else row["emotion"])
    updates = (f'classes = ["angry", "{word}"]', "", f'classes = ["{word.upper()}", "sad"]')
    listing, other, upper = prepare_corpus(tmp_path, rows, *updates)
    assert listing.data.classes == ("angry", word.lower())
    assert listing.data.class_counts.tolist() == [3, 3]
    assert upper.data.classes == (word.lower(), "sad")
    assert other.data.classes == ("angry", "sad", "happy")
    assert other.data.left_out == {"development": 2, "test1": 1, "train": 3}
    assert said_of(listing, "read as missing") == []
    assert said_of(other, "read as missing") == [f'MINE: emotion: "{word}" 6 read as missing']
    (alone,) = prepare_corpus(tmp_path, rows, "")
    assert other.data.fingerprint() == alone.data.fingerprint(), "a run is what its own configuration says"


def test_a_listed_word_is_a_class_of_other_corpora_too(tmp_path: Path) -> None:
    rows = changed("emotion", lambda row: "none" if row["emotion"] == "neutral" else row["emotion"])
    folder = tmp_path / "other"
    folder.mkdir()
    labels = ["None", "None", "None", "sad", "nan"]
    lines = [f"{number}.wav,test1,{label}" for number, label in enumerate(labels)]
    (folder / "table.csv").write_text("\n".join(["file,split,emotion", *lines]))
    section = f"[OTHER]\nFORMAT = \"csv\"\nPATH_TO_LABEL = '{folder}/table.csv'\nPATH_TO_AUDIO = '{folder}'\n"
    update = 'classes = ["none", "sad"], test_corpora = ["OTHER"]'
    (experiment,) = prepare_corpus(tmp_path, rows, update, section=section)
    (_, foreign) = experiment.data.tests
    assert (foreign.classes, len(foreign.table)) == (("none", "sad"), 4)
    assert said_of(experiment, "read as missing") == ['OTHER: emotion: "nan" 1 read as missing']
