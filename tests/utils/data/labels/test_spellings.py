from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import ROOT
from tests.support.label_tables import Rows, base_rows, changed, relabelled, write_corpus
from tests.support.synthetic_podcast import SyntheticPodcast
from utils.config.corpus import CorpusConfig
from utils.config.loading import load_corpora
from utils.data.csv_table import numbers
from utils.data.labels.columns import CANONICAL_CLASSES, TEXT, as_utterance_table
from utils.data.labels.corpus import Corpus
from utils.data.labels.spellings import WORDS_FOR_NOTHING, is_nothing, name_classes, nothing_notes, settle_cells
from utils.data.loader import load_corpus
from utils.errors import DataError

NOTHING = (
    "", "nan", "NaN", "None", "N/A", "NA", "n.a.", "n / a", "<NA>", "#N/A", "null", "NULL", "nil", "-", "--", "–", "?",
    "...", "no agreement", "No_Agreement", "no-consensus",
    "not rated", "Disagreement", "unsure", "unknown", "Unknown", "UNDEFINED", "not available",
    "(missing)", "'nan'", "nan\u200b", "-nan", "1.#QNAN", "*", "N\\A", "ｎａｎ", "xxx", "\u00a0", "unlabeled",
)  # fmt: skip
SOMETHING = (
    "angry", "neutral", "other", "none of these", "nana", "Nan Smith", "anna", "no", ":)", ":-(", "😠", "0", "-1",
    "生气", "no emotion", "a", "x", "empty", "+", "nothing special", "mixed",
)  # fmt: skip


def texts(*cells: object) -> pd.Series:
    return pd.Series(pd.array(cells, dtype=TEXT), name="arousal")


def load(folder: Path, rows: Rows, section: str = "") -> Corpus:
    return load_corpus("MINE", load_corpora(write_corpus(folder, rows, section))["MINE"])


@pytest.mark.parametrize("word", NOTHING)
def test_words_for_nothing_are_known(word: str) -> None:
    assert is_nothing(texts(word, "angry", np.nan)).tolist() == [True, False, False]


@pytest.mark.parametrize("word", SOMETHING)
def test_other_words_are_left_alone(word: str) -> None:
    assert not is_nothing(texts(word)).any()


def test_the_documented_words_are_those_that_are_read() -> None:
    text = (ROOT / "docs" / "labels.md").read_text(encoding="utf-8")
    words = text.partition("<!-- words -->")[2].partition("\n\n")[0].split("`")[1::2]
    assert {re.sub(r"[ ./]", "", word) for word in words} == WORDS_FOR_NOTHING - {""}


def test_words_keep_the_rows_that_they_stand_in() -> None:
    column = pd.Series(["a", "nan", None], index=[7, 3, 5])
    assert is_nothing(column).to_dict() == {7: False, 3: True, 5: False}


@pytest.mark.parametrize("word", ["nan", "None", "N/A", "-", "No Agreement", "unknown"])
def test_a_word_for_nothing_is_no_class(word: str, tmp_path: Path) -> None:
    corpus = load(tmp_path, relabelled("emotion", [word]))
    assert corpus.classes == ("angry", "sad", "happy", "neutral")
    assert corpus.table["emotion"].isna().tolist() == [True] + [False] * 23
    assert list(corpus.cells.notes()) == [f'emotion: "{word}" 1 read as missing']


def test_words_are_counted_and_at_most_five_are_shown(tmp_path: Path) -> None:
    corpus = load(tmp_path, relabelled("emotion", ["nan", "N/A", "N/A", "null", "-", "?", "no agreement", "none"]))
    assert list(corpus.cells.notes()) == [
        'emotion: "N/A" 2, "-" 1, "?" 1, "nan" 1, "no agreement" 1, and 2 more read as missing'
    ]


@pytest.mark.parametrize("word", ["nan", "None", "N/A", "?"])
def test_a_word_for_nothing_is_no_speaker(word: str, tmp_path: Path) -> None:
    """Else one "speaker" in two splits would be refused as a leak."""
    corpus = load(tmp_path, changed("speaker", lambda row: word if row["emotion"] == "sad" else row["speaker"]))
    assert corpus.table["speaker"].isna().sum() == 6
    assert list(corpus.cells.notes()) == [f'speaker: "{word}" 6 read as missing']


def test_without_splits_a_speaker_of_nothing_is_an_unknown_one(tmp_path: Path) -> None:
    rows = [{key: cell for key, cell in row.items() if key != "split"} for row in relabelled("speaker", ["n/a"])]
    with pytest.raises(DataError, match=r"03angry\.wav has no speaker \(1 such rows\)"):
        load(tmp_path, rows)


def test_a_word_for_nothing_is_no_number() -> None:
    values = numbers("C", Path("t.csv"), texts("NaN", "2.5", "n/a", "-", None, "no agreement", "1e1"))
    np.testing.assert_array_equal(values, [np.nan, 2.5, np.nan, np.nan, np.nan, np.nan, 10])


@pytest.mark.parametrize("text", ["inf", "-inf", "high", "1;5", "--1", "nan1"])
def test_other_texts_are_no_numbers_still(text: str) -> None:
    with pytest.raises(DataError, match="line 3: arousal is .*; give a number"):
        numbers("C", Path("t.csv"), texts("nan", text))


def test_missing_numbers_are_noted_by_column(tmp_path: Path) -> None:
    rows = [{**row, "arousal": "2", "valence": "3"} for row in base_rows()]
    rows[0]["arousal"], rows[1]["arousal"], rows[2]["valence"] = "NaN", "-", "None"
    corpus = load(tmp_path, rows)
    assert corpus.notes == ('arousal: "-" 1, "NaN" 1 read as missing', 'valence: "None" 1 read as missing')
    assert corpus.table["arousal"].isna().sum() == 2


def test_columns_that_a_table_lacks_are_passed_over() -> None:
    assert nothing_notes(pd.DataFrame({"gender": ["male", "nan"]}), ("gender", "arousal")) == (
        'gender: "nan" 1 read as missing',
    )


def test_the_release_reads_words_for_nothing_too(podcast: SyntheticPodcast, tmp_path: Path) -> None:
    """And what it knows as unknown stays as it is: unknown, and counted by split elsewhere."""
    rows = podcast.rows.astype(str)
    rows.loc[1, "Gender"], rows.loc[2, "EmoAct"], rows.loc[3, "SpkrID"] = "N/A", "NaN", "None"
    rows.to_csv(tmp_path / "labels_consensus.csv", index=False)
    config = CorpusConfig(PATH_TO_LABEL=tmp_path, PATH_TO_AUDIO=podcast.audio)
    for _ in ("read", "from the kept table"):
        corpus = load_corpus("P", config)
        assert corpus.table.loc[[1, 2, 3], ["gender", "arousal", "speaker"]].isna().to_numpy().diagonal().all()
        assert corpus.table["speaker"].isna().sum() == (podcast.rows["SpkrID"] == "Unknown").sum() + 1
        assert corpus.notes[1:] == ('Gender: "N/A" 1 read as missing', 'EmoAct: "NaN" 1 read as missing')
        assert list(corpus.cells.notes()) == ['speaker: "None" 1 read as missing']


def test_an_actor_without_a_sex_has_no_gender(tmp_path: Path) -> None:
    (tmp_path / "votes.csv").write_text("FileName,A,D,F,H,N,S\n1_a,3,0,0,0,0,0\n2_a,0,3,0,0,0,0\n3_a,0,0,0,3,0,0\n")
    (tmp_path / "VideoDemographics.csv").write_text("ActorID,Sex\n1,N/A\n2,Female\n3,\n")
    config = CorpusConfig(FORMAT="crema-d", PATH_TO_AUDIO=tmp_path, PATH_TO_LABEL=tmp_path)
    corpus = load_corpus("C", config)
    assert corpus.table["gender"].fillna("").tolist() == ["", "female", ""]
    assert 'Sex: "N/A" 1 read as missing' in corpus.notes
    (tmp_path / "VideoDemographics.csv").write_text("ActorID,Sex\n1,N/A\n2,Femal\n3,\n")
    with pytest.raises(DataError, match='line 3: Sex is "Femal"'):
        load_corpus("C", config)


def test_the_classes_of_a_reader_are_no_words_for_nothing() -> None:
    table = as_utterance_table("X", pd.DataFrame({"file": ["a", "b", "c"], "emotion": ["None", "sad", "nan"]}))
    settled, cells = settle_cells(table, CANONICAL_CLASSES, ("none", "sad"))
    assert settled["emotion"].fillna("").tolist() == ["none", "sad", ""]
    assert cells.nothing["emotion"].tolist() == ["nan"]


def test_a_table_that_says_what_it_means_is_left_alone() -> None:
    table = as_utterance_table("X", pd.DataFrame({"file": ["a", "b"], "emotion": ["sad", None], "speaker": ["3", "4"]}))
    settled, cells = settle_cells(table, CANONICAL_CLASSES, ())
    pd.testing.assert_frame_equal(settled, table)
    assert (dict(cells.nothing), dict(cells.spellings)) == ({}, {})


NFD = unicodedata.normalize("NFD", "wütend")


@pytest.mark.parametrize(
    ("labels", "name", "note"),
    [
        (["angry\u200b", "Angry", "angry"], "angry", 'emotion: "Angry" 1, "angry\\u200b" 1 read as "angry"'),
        ([NFD, "wütend", "WÜTEND"], "wütend", 'emotion: "WÜTEND" 1, "wu\\u0308tend" 1 read as "wütend"'),
        (["tired", "TIRED", "Tired"], "tired", 'emotion: "TIRED" 1, "Tired" 1 read as "tired"'),
        (["so  so", "so\u00a0so", "so so"], "so so", 'emotion: "so  so" 1, "so\\xa0so" 1 read as "so so"'),
        (["ｓａｄ", "sad", "sad"], "sad", 'emotion: "ｓａｄ" 1 read as "sad"'),
        (["\ufeffbored"] * 3, "bored", 'emotion: "\\ufeffbored" 3 read as "bored"'),
    ],
)
def test_the_spellings_of_a_class_are_merged_and_shown(labels: list[str], name: str, note: str, tmp_path: Path) -> None:
    corpus = load(tmp_path, relabelled("emotion", labels))
    assert set(corpus.table["emotion"][:3]) == {name}
    assert list(corpus.cells.notes()) == [note]


def test_a_table_in_capitals_is_no_news(tmp_path: Path) -> None:
    corpus = load(tmp_path, changed("emotion", lambda row: row["emotion"].capitalize()))
    assert corpus.classes == ("angry", "sad", "happy", "neutral")
    assert list(corpus.cells.notes()) == []


@pytest.mark.parametrize(
    "labels", [["anger", "angry"], ["'angry'", "angry"], ["sad,tired", "sad tired"], ["生气", "高兴"]]
)
def test_different_words_are_different_classes(labels: list[str], tmp_path: Path) -> None:
    corpus = load(tmp_path, relabelled("emotion", labels))
    assert corpus.table["emotion"][:2].tolist() == labels
    assert not corpus.cells.spellings


def test_the_most_frequent_spelling_names_a_class_that_is_not_canonical() -> None:
    assert set(name_classes({"groß": 2, "GROSS": 1}, ()).values()) == {"groß"}
    assert set(name_classes({"groß": 1, "GROSS": 2}, ()).values()) == {"gross"}
    assert set(name_classes({"Größ": 1, "x": 2}, ["GRÖSS"]).values()) == {"GRÖSS", "x"}
